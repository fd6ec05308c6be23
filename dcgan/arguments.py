"""Options that several commands share: how each is written, what it means, and its help."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import presets, recipe_files
from .data import scale
from .data.scale import Range
from .device import canonical
from .recipe import memory
from .recipe.preset import Preset
from .run.trained import WEIGHTS
from .sampling import STATISTICS

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add RUN, a run's directory or a checkpoint file."""
    parser.add_argument("run", type=Path, help="a run's directory, or a checkpoint file")


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Add --plugin FILE.py, which may be repeated; `Parser` loads them."""
    parser.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.py",
        help="run a Python file that registers losses, step rules, layer kinds or devices; may be repeated",
    )


def add_recipe(parser: argparse.ArgumentParser, required: bool = False) -> None:
    """Add --preset, perhaps as a required option, and --set, which `chosen_preset` reads; and --plugin."""
    parser.add_argument(
        "--preset",
        metavar="RECIPE",
        required=required,
        help=f"the recipe: {', '.join(presets.PRESETS)}; a .toml or .json file, such as dcgan list --show "
        f"writes; a run's config.json; or FILE.py:NAME{'' if required else ' (default: flux)'}",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace any field of the recipe; may be repeated",
    )
    add_plugin(parser)


def chosen_preset(arguments: argparse.Namespace, further: Mapping[str, Any] | None = None) -> Preset:
    """Return the recipe of --preset with what --set replaces, and then `further`.

    Raises UserError as `recipe_files.find` and `Preset.replaced` do.
    """
    overrides = {**presets.replacements(arguments.set), **(further or {})}
    named = presets.FLUX.name if arguments.preset is None else arguments.preset
    return recipe_files.find(named).replaced(overrides)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device NAME, and --gpu for the GPU."""
    parser.add_argument(
        "--device",
        type=canonical,
        default="cpu",
        metavar="NAME",
        help="where to compute: cpu, gpu, or a device of a plugin (default: %(default)s)",
    )
    parser.add_argument("--gpu", dest="device", action="store_const", const="gpu", help="--device gpu")


def add_weights(parser: argparse.ArgumentParser, of_what: str = "") -> None:
    """Add --weights, as `dcgan.run.trained.load_generator` takes them; `of_what` opens the help."""
    parser.add_argument(
        "--weights",
        choices=WEIGHTS,
        help=f"{of_what}of the last step, averaged over the last steps, or those of the best evaluation on "
        "the way (default: the recipe's, averaged where it averages)",
    )


def add_statistics(parser: argparse.ArgumentParser) -> None:
    """Add --statistics, as `dcgan.sampling.choose_statistics` takes them."""
    parser.add_argument(
        "--statistics",
        choices=STATISTICS,
        help="what BatchNorm uses: those of the images drawn together, the running ones of training, or ones "
        "measured anew on 10,000 z (default: the recipe's; recalibrated for one image alone)",
    )


def add_generator(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of every command that draws with a trained generator."""
    add_run(parser)
    add_plugin(parser)
    add_weights(parser)
    add_statistics(parser)
    add_max_memory(parser)


def add_max_memory(parser: argparse.ArgumentParser) -> None:
    """Add --max-memory SIZE, in bytes as `max_memory`."""
    parser.add_argument(
        "--max-memory",
        type=size,
        default=memory.DEFAULT,
        metavar="SIZE",
        help="refuse what would take more memory than this, such as 500M or 8G (default: 4G)",
    )


def add_range(parser: argparse.ArgumentParser) -> None:
    """Add --range LOW,HIGH."""
    # argparse takes "-1,1" for an option: before Python 3.14, only plain numbers may be negative.
    parser._negative_number_matcher = re.compile(r"-\.?\d")
    parser.add_argument(
        "--range",
        type=value_range,
        metavar="LOW,HIGH",
        help="the numbers of --data that are black and white, such as 0,1 or 0,4095 (default: by their type, "
        "if that tells)",
    )


# -- types, which raise argparse.ArgumentTypeError for other texts ------------------------------------


def positive(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    """An integer of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def size(text: str) -> int:
    """Return the bytes that "4G", "1.5G", "500M", "2048K" or "1000000" says; a K is 1024.

    Raises argparse.ArgumentTypeError for other texts, and for 0.
    """
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([KMGT]?)", text.strip().upper())
    count = int(float(match[1]) * UNITS[match[2]]) if match else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected a size such as 500M or 4G, got {text!r:.40}")
    return count


def value_range(text: str) -> Range:
    """Return "LOW,HIGH" as (low, high).

    Raise argparse.ArgumentTypeError unless both are finite numbers and LOW < HIGH.
    """
    try:
        return scale.checked([float(number) for number in text.split(",")])
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"expected LOW,HIGH, two finite numbers, the lower first, such as 0,1 or 0,4095, got {text!r}"
        ) from error
