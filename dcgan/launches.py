"""`dcgan launches`: what a GPU is given to run in one step of a recipe.

Every launch of a kernel and every matrix product in their order, by layer, with bytes and operations.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from minigrad.serialize import write_whole

from . import device
from .arguments import add_recipe, chosen_preset, positive
from .console import output, run_command, tell
from .describe import launches
from .errors import UserError
from .files.destination import check_ending, writing
from .parser import Parser
from .recipe.plan import check_batches


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "launches",
        description="List what a GPU is given to run in one training step: kernels and matrix products in "
        "their order, by layer, each with its bytes and its operations.",
    )
    add_recipe(parser)
    parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
    parser.add_argument("--out", type=Path, help="write the list into this file, not to the terminal")
    parser.add_argument("--picture", type=Path, help="draw it, too, into this .png file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0.

    Raises UserError for files that can't be written, a batch of one that a BatchNorm can't take, and without
    a GPU.
    """
    arguments = parser().parse_args(argv)
    if arguments.picture is not None:
        check_ending("--picture", arguments.picture, [".png"])
    if arguments.picture is not None and _are_one(arguments.picture, arguments.out):
        raise UserError(f"--picture {arguments.picture}: --out names the same file; use another name")
    sizes = {"batch_size": arguments.batch_size} if arguments.batch_size else {}
    preset = chosen_preset(arguments, sizes)
    check_batches(preset, preset.batch_size)
    device.require(launches.DEVICE, "the launches of a step can be listed on a GPU only")
    with device.enough_memory(launches.DEVICE, preset.batch_size):
        found = launches.watch(preset)
    if arguments.picture is not None:
        with writing("--picture", arguments.picture):
            launches.save_picture(found, arguments.picture)
    if arguments.out is None:
        output(str(found))
        return 0
    with writing("--out", arguments.out):
        write_whole(arguments.out, f"{found}\n".encode())
    tell(f"{arguments.out}: {found.sums}")
    return 0


def _are_one(a: Path, b: Path | None) -> bool:
    return b is not None and os.path.realpath(a) == os.path.realpath(b)


if __name__ == "__main__":
    run_command(main, "dcgan launches")
