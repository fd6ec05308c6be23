"""`python -m dcgan.launches`: what a GPU is given to run in one step of a recipe.

Every launch of a kernel and every matrix product in their order, by layer, with bytes and operations.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from minigrad.serialize import write_whole

from . import device, presets
from .arguments import positive
from .console import run_command, tell
from .describe import launches
from .errors import UserError
from .files.destination import check_ending, writing
from .recipe.plan import check_batches


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0.

    Raises UserError for files that can't be written, a batch of one that a BatchNorm can't take, and without
    a GPU.
    """
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.launches",
        description="List what a GPU is given to run in one training step: kernels and matrix products in "
        "their order, by layer, each with its bytes and its operations.",
    )
    names, default = list(presets.PRESETS), presets.FLUX.name
    parser.add_argument("--preset", choices=names, default=default, help="the recipe (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
    parser.add_argument("--out", type=Path, help="write the list into this file, not to the terminal")
    parser.add_argument("--picture", type=Path, help="draw it, too, into this .png file")
    arguments = parser.parse_args(argv)
    if arguments.picture is not None:
        check_ending("--picture", arguments.picture, [".png"])
    if arguments.picture is not None and _are_one(arguments.picture, arguments.out):
        raise UserError(f"--picture {arguments.picture}: --out names the same file; use another name")
    sizes = {"batch_size": arguments.batch_size} if arguments.batch_size else {}
    preset = presets.get(arguments.preset, **sizes)
    check_batches(preset, preset.batch_size)
    device.require(launches.DEVICE, "the launches of a step can be listed on a GPU only")
    with device.enough_memory(launches.DEVICE, preset.batch_size):
        found = launches.watch(preset)
    if arguments.picture is not None:
        with writing("--picture", arguments.picture):
            launches.save_picture(found, arguments.picture)
    if arguments.out is None:
        tell(str(found))
        return 0
    with writing("--out", arguments.out):
        write_whole(arguments.out, f"{found}\n".encode())
    tell(f"{arguments.out}: {found.sums}")
    return 0


def _are_one(a: Path, b: Path | None) -> bool:
    return b is not None and os.path.realpath(a) == os.path.realpath(b)


if __name__ == "__main__":
    run_command(main, "dcgan.launches")
