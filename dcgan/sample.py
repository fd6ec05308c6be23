"""`dcgan sample RUN --out FILE`: new images from a trained generator."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from . import latent, pictures
from .api.images import check_new, grid_of, times_of, write_each
from .api.run import Run
from .arguments import add_generator, positive
from .console import run_command, tell
from .data.channels import size_in_words
from .errors import UserError, os_errors_as
from .files.destination import check_ending, writing
from .parser import Parser
from .pictures import MAX_SCALE
from .recipe.preset import MAX_GRID_IMAGES, Preset

GRID = (8, 8)


def parse_grid(text: str) -> tuple[int, int]:
    """ "8x8" as (rows, columns)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= rows * columns <= MAX_GRID_IMAGES:
        raise argparse.ArgumentTypeError(
            f"expected ROWSxCOLUMNS, such as 4x10, of at most {MAX_GRID_IMAGES} images, got {text!r}"
        )
    return rows, columns


def parser() -> Parser:
    """Return the command line."""
    parser = Parser("sample", description="Draw new images from a trained generator.")
    add_generator(parser)
    parser.add_argument(
        "--out", type=Path, help=f"write a picture of them in a grid: {', '.join(pictures.ENDINGS)}"
    )
    parser.add_argument(
        "--each", type=Path, metavar="DIR", help="write each image as a PNG file, and z.npy, into DIR"
    )
    parser.add_argument(
        "--count",
        type=positive,
        metavar="N",
        help="how many images (default: as many as the grid has places)",
    )
    parser.add_argument(
        "--grid",
        type=parse_grid,
        metavar="ROWSxCOLUMNS",
        help="default: 8x8; with --count or --z near a square",
    )
    parser.add_argument(
        "--scale",
        type=positive,
        metavar="K",
        help="draw each pixel K times as wide and as high (default: what suits a screen in the picture of "
        "--out, 1 in the files of --each)",
    )
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    chosen.add_argument("--z", type=Path, metavar="FILE.npy", help="the noise itself, such as --each left")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    run = Run(arguments.run, weights=arguments.weights, max_memory=arguments.max_memory)
    count, grid = _count(arguments, run)
    _check_memory(arguments, run, count, grid)
    images = run.sample(count, arguments.seed, z=arguments.z, statistics=arguments.statistics)
    preset = run.preset
    what = f"{len(images)} images of {size_in_words(preset.image_size, preset.channels)}"
    enlarged = f", {arguments.scale} times as large" if (arguments.scale or 1) > 1 else ""
    made = f"{preset.name} after step {run.step}"
    if arguments.each is not None:
        with os_errors_as(f"--each {arguments.each}"):
            write_each(images.numpy(), images.z, arguments.each, arguments.scale or 1)
        tell(f"{arguments.each}/: {what}{enlarged}, {made}")
    if arguments.out is not None:
        picture = images.grid(*grid, _times(arguments, grid, preset))
        with writing("--out", arguments.out):
            pictures.save_picture(picture.numpy(), arguments.out)
        tell(f"{arguments.out}: {what} in {grid[0]}x{grid[1]}{enlarged}, {made}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.out is None and arguments.each is None:
        raise UserError("expected --out FILE.png, --each DIR, or both: where to write")
    if arguments.count is not None and arguments.count > MAX_GRID_IMAGES:
        raise UserError(f"--count {arguments.count}: expected 1 to {MAX_GRID_IMAGES}")
    if arguments.count is not None and arguments.z is not None:
        raise UserError(
            f"--count {arguments.count}: --z {arguments.z} says how many images there are: leave --count out"
        )
    if arguments.scale is not None and arguments.scale > MAX_SCALE:
        raise UserError(f"--scale {arguments.scale}: expected 1 to {MAX_SCALE}")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: expected an integer of at least 0, below 2^63")
    if arguments.out is not None:
        check_ending("--out", arguments.out, pictures.ENDINGS)
    if arguments.each is not None:
        check_new(arguments.each, "--each")


def _count(arguments: argparse.Namespace, run: Run) -> tuple[int, tuple[int, int]]:
    """Return how many images are drawn, and the rows and columns of their grid.

    Raises UserError if they do not fit into the grid.
    """
    if arguments.z is not None:
        count = len(latent.from_file(run.preset, arguments.z, arguments.max_memory))
        what = f"--z {arguments.z}: {count} z"
    elif arguments.count is not None:
        count, what = arguments.count, f"--count {arguments.count}: so many images"
    else:
        rows, columns = arguments.grid or GRID
        return rows * columns, (rows, columns)
    rows, columns = arguments.grid or grid_of(count)
    if count > min(rows * columns, MAX_GRID_IMAGES):
        raise UserError(f"{what} do not fit into a grid of {rows}x{columns}")
    return count, (rows, columns)


def _times(arguments: argparse.Namespace, grid: tuple[int, int], preset: Preset) -> int:
    """Return how many times as large each pixel is in the picture of --out."""
    return int(arguments.scale or times_of(*grid, _size(grid, preset)))


def _size(grid: tuple[int, int], preset: Preset) -> tuple[int, int]:
    """Return the height and the width of a grid whose pixels are not enlarged."""
    return pictures.grid_size(*grid, (preset.image_size, preset.image_size))


def _check_memory(arguments: argparse.Namespace, run: Run, count: int, grid: tuple[int, int]) -> None:
    """Check the size of the picture, and the memory of the images and of what is written of them."""
    preset, further = run.preset, 0
    if arguments.each is not None:
        side = (arguments.scale or 1) * preset.image_size
        further = pictures.memory_of_still(Path("0.png"), (side, side))
    if arguments.out is not None:
        times, (height, width) = _times(arguments, grid, preset), _size(grid, preset)
        pictures.check_still(arguments.out, (height * times, width * times))
        further = max(further, pictures.memory_of_still(arguments.out, (height * times, width * times)))
    run.check_memory(f"drawing {count} images", count, arguments.statistics, further)


if __name__ == "__main__":
    run_command(main, "dcgan sample")
