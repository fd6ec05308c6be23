"""`dcgan`, or `python -m dcgan`: one program for all commands.

A command's module is imported when it is called, so that `dcgan --help` answers at once.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from .errors import UserError, did_you_mean

# By the name that is typed: the module, and what the command does.
COMMANDS = {
    "train": ("dcgan.train", "train a recipe, and keep pictures, metrics and checkpoints"),
    "list": ("dcgan.list", "list the recipes; write one as a file to start from"),
    "sample": ("dcgan.sample", "draw new images"),
    "interpolate": ("dcgan.interpolate", "draw the way from one image to others; add and subtract images"),
    "animate": ("dcgan.animate", "animate how the images of a run changed during training"),
    "evaluate": ("dcgan.evaluate", "measure how good a run's images are"),
    "report": ("dcgan.report.__main__", "put all that a run has left on one HTML page"),
    "export": ("dcgan.export", "write a generator by itself: as ONNX, or as a checkpoint"),
    "import-weights": ("dcgan.import_weights", "take over the weights of a PyTorch model"),
    "bench": ("dcgan.bench", "time the training steps of recipes, beside PyTorch's"),
    "launches": ("dcgan.launches", "list what a GPU is given to run in one training step"),
}
SHELLS = ("bash", "zsh", "tcsh")


def main(argv: Sequence[str]) -> int:
    """Run a command, or describe all; returns the exit code.

    Raises UserError for a command that there is not, and all that commands raise.
    """
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    if argv and not argv[0].startswith("-"):
        return _run(argv[0], argv[1:])
    parser = _parser()
    arguments, further = parser.parse_known_args(argv)
    if further:
        near = did_you_mean(further[0], ("--help", "--version", "--print-completion", *COMMANDS))
        raise UserError(
            f"unknown option {further[0]!r:.60}{near or '; options of a command stand behind it'}"
        )
    if arguments.print_completion:
        from .completion import script

        print(script(arguments.print_completion, COMMANDS))
    elif arguments.version:
        import minigrad

        print(f"dcgan {minigrad.__version__}")
    else:
        parser.print_help()
    return 0


def _run(name: str, argv: Sequence[str]) -> int:
    if name not in COMMANDS:
        near = did_you_mean(name, COMMANDS) or f": expected one of {', '.join(COMMANDS)}"
        raise UserError(f"there is no command {name!r:.100}{near}")
    code: int = import_module(COMMANDS[name][0]).main(argv)
    return code


class _Program(argparse.ArgumentParser):
    """A parser whose errors are of one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    commands = "\n".join(f"  {name:<{width}}{what}" for name, (_, what) in COMMANDS.items())
    parser = _Program(
        prog="dcgan",
        usage="dcgan COMMAND [OPTION ...]",
        description=f"Train DCGANs, and work with what was trained.\n\ncommands:\n{commands}",
        epilog="dcgan COMMAND --help describes a command. To begin with: dcgan train --preset quick",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version, and end")
    parser.add_argument(
        "--print-completion",
        choices=SHELLS,
        metavar="SHELL",
        help=f"print a script that completes commands and options in {', '.join(SHELLS)}, and end",
    )
    return parser


def command() -> NoReturn:
    """Run the program by the command line of the process, and exit."""
    argv = sys.argv[1:]
    if not argv or argv[0].startswith("-"):
        try:
            sys.exit(main(argv))
        except UserError as error:
            print(f"dcgan: {error}", file=sys.stderr)
            sys.exit(2)
    try:
        from .console import run_command
    except KeyboardInterrupt:
        sys.exit(130)
    run_command(lambda _: main(argv), f"dcgan {argv[0]}" if argv[0] in COMMANDS else "dcgan")
    raise AssertionError("run_command exits")


if __name__ == "__main__":
    command()
