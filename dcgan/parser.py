"""The command line of a command: its options, and errors that name the option that was meant."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from . import console, plugins, presets
from .errors import MAX_NEAR, did_you_mean
from .recipe.preset import MEANT as MEANT_FIELDS
from .recipe.preset import SETTABLE

# Options that other programs have, and the names that they have here.
MEANT = {
    "-o": "--out",
    "--output": "--out",
    "--out-dir": "--out",
    "--outdir": "--out",
    "--save-dir": "--out",
    "-d": "--data",
    "--dataset": "--data",
    "--dataroot": "--data",
    "--data-dir": "--data",
    "--images": "--data",
    "--folder": "--data",
    "-p": "--preset",
    "--recipe": "--preset",
    "--config": "--preset",
    "--model": "--preset",
    "-b": "--batch-size",
    "--batch": "--batch-size",
    "-e": "--epochs",
    "--step": "--steps",
    "--max-steps": "--steps",
    "--iterations": "--steps",
    "--continue": "--resume",
    "--pretrained": "--init-from",
    "--cuda": "--gpu",
    "-n": "--count",
    "--num": "--count",
    "--n": "--count",
    "--num-images": "--count",
    "--save-every": "--checkpoint-every",
    "--preset": "--show",
    "--samples": "--count",
    "--fps": "--seconds",
    "--duration": "--seconds",
}
RATES = ["lr_generator", "lr_discriminator"]  # a learning rate is that of both
OF_RUNS = ("--run", "--checkpoint", "--model", "--ckpt", "--resume")
OPTION = re.compile(r"-(?!\.?\d)[^\s]")  # the start of an option, and not of a negative number


class Parser(argparse.ArgumentParser):
    """The command line of `dcgan COMMAND`.

    Options are spelled in full. A wrong command line ends the program with exit code 2 and one sentence.

    Args:
        command: as it is typed.
        description: of what it does.
        epilog: under the list of options.
    """

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(f"dcgan {command}", description=description, epilog=epilog, allow_abbrev=False)
        self.add_argument(
            "-q", "--quiet", action="store_true", help="print warnings, errors and results, and no messages"
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Return the arguments; --quiet is set by then, and plugins are loaded.

        Raises UserError for a plugin that can't be loaded, and SystemExit for a wrong command line.
        """
        arguments = super().parse_args(args, namespace)
        console.be_quiet(arguments.quiet)
        for path in getattr(arguments, "plugin", ()):
            plugins.load(path)
        return arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Do as argparse does, but end the program at an option or a word that the command does not take."""
        given = list(sys.argv[1:] if args is None else args)
        self._refuse_unknown_options(given)
        arguments, further = super().parse_known_args(given, namespace)
        if further:
            self.error(f"unexpected argument {further[0]!r:.100}{self._option_for(further[0])}")
        return arguments, further

    def error(self, message: str) -> NoReturn:
        """End the program with exit code 2 and the message."""
        console.warn(f"{self.prog}: {message}")
        raise SystemExit(2)

    def _refuse_unknown_options(self, given: Sequence[str]) -> None:
        for place, text in enumerate(given):
            if text == "--":
                return
            name, _, value = text.partition("=")
            if not OPTION.match(text) or name in self._option_string_actions or " " in text:
                continue
            value = value or next(iter(given[place + 1 : place + 2]), "")
            self.error(f"unknown option {name:.100}{self._advice(name, value)}")

    def _advice(self, name: str, value: str) -> str:
        """Return what to write in the place of a wrong option; where to look, if nothing is near."""
        own = [text for text in self._option_string_actions if text.startswith("--")]
        if name.replace("_", "-") in own:
            return f": did you mean {name.replace('_', '-')}?"
        if MEANT.get(name) in own:
            return f": did you mean {MEANT[name]}?"
        if name in OF_RUNS and any(action.dest == "run" for action in self._actions):
            return f": the run is given without an option: {self.prog} RUN"
        field = name.lstrip("-").replace("-", "_")
        if "--set" in own and (fields := _fields_like(field)):
            shown = value if value and not OPTION.match(value) else "VALUE"
            both = " and " if fields == RATES else " or "
            return f": did you mean {both.join(f'--set {each}={shown}' for each in fields[:MAX_NEAR])}?"
        return did_you_mean(name, own) or f"; {self.prog} --help lists the options"

    def _option_for(self, word: str) -> str:
        if "--preset" in self._option_string_actions and word in presets.PRESETS:
            return f": did you mean --preset {word}?"
        if "--show" in self._option_string_actions and word in presets.PRESETS:
            return f": did you mean --show {word}?"
        return f"; {self.prog} --help shows what is expected"


def _fields_like(name: str) -> list[str]:
    """Return the fields of a recipe that have this name, or of whose names it is the first part."""
    name = MEANT_FIELDS.get(name, name)
    return [field for field in SETTABLE if field == name or field.startswith(f"{name}_")]
