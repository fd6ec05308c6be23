"""`dcgan sample RUN --out FILE`: new images from a trained generator."""

import argparse
import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad.serialize import make_folder_of, write_whole

from . import latent, pictures
from .arguments import add_generator, positive
from .console import run_command, tell
from .data.channels import size_in_words
from .errors import UserError, os_errors_as
from .files.destination import check_ending, writing
from .parser import Parser
from .recipe.preset import MAX_GRID_IMAGES, Preset
from .run.checkpoint import Checkpoint
from .run.trained import check_memory, load_generator, load_run
from .sampling import choose_statistics, generate

GRID = (8, 8)
MAX_SCALE = 100  # times, of --scale


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
    loaded = load_run(arguments.run, arguments.weights, arguments.max_memory)
    preset = loaded.preset
    z, grid = _noise(arguments, loaded)
    generator = load_generator(loaded, arguments.weights)
    statistics = choose_statistics(generator, preset, arguments.statistics, len(z))
    images = pictures.to_bytes(generate(generator, z, statistics))
    what = f"{len(images)} images of {size_in_words(preset.image_size, preset.channels)}"
    enlarged = f", {arguments.scale} times as large" if (arguments.scale or 1) > 1 else ""
    made = f"{preset.name} after step {loaded.position['step']}"
    if arguments.each is not None:
        with os_errors_as(f"--each {arguments.each}"):
            _write_each(images, z, arguments.each, arguments.scale or 1)
        tell(f"{arguments.each}/: {what}{enlarged}, {made}")
    if arguments.out is not None:
        times = _times(arguments, grid, preset)
        with writing("--out", arguments.out):
            pictures.save_picture(pictures.repeated(pictures.grid(images, *grid), times), arguments.out)
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
    each = arguments.each
    if each is not None and each.exists() and (not each.is_dir() or any(each.iterdir())):
        raise UserError(f"--each {each}: it exists already; name a new directory")


def _noise(arguments: argparse.Namespace, loaded: Checkpoint) -> tuple[NDArray[Any], tuple[int, int]]:
    """z (n, *z_shape), and the rows and columns of a grid of it.

    Raises UserError if the images do not fit into the grid, or they and the picture take too much memory.
    """
    preset = loaded.preset
    if arguments.z is not None:
        z = latent.from_file(preset, arguments.z, arguments.max_memory)
        grid = _grid_of(len(z), arguments.grid, f"--z {arguments.z}: {len(z)} z")
        _check_memory(arguments, loaded, len(z), grid)
        return z, grid
    grid = arguments.grid or GRID
    if arguments.count is not None:
        grid = _grid_of(arguments.count, arguments.grid, f"--count {arguments.count}: so many images")
    count = arguments.count or grid[0] * grid[1]
    _check_memory(arguments, loaded, count, grid)
    return latent.draw_array(preset, count, mg.Generator(arguments.seed)), grid


def _grid_of(count: int, grid: tuple[int, int] | None, what: str) -> tuple[int, int]:
    """Return the rows and columns for `count` images: the given ones, or those of a grid near a square.

    Raises UserError, about `what`, if there are more images than places.
    """
    columns = math.ceil(math.sqrt(count))
    rows, columns = grid or (math.ceil(count / columns), columns)
    if count > min(rows * columns, MAX_GRID_IMAGES):
        raise UserError(f"{what} do not fit into a grid of {rows}x{columns}")
    return rows, columns


def _times(arguments: argparse.Namespace, grid: tuple[int, int], preset: Preset) -> int:
    """Return how many times as large each pixel is in the picture of --out."""
    if arguments.scale is not None:
        return int(arguments.scale)
    rows, columns = grid
    most = pictures.MAX_STRIP_WIDTH if columns > 1.5 * rows else pictures.MAX_GRID_WIDTH
    return pictures.times_within(most, _size(grid, preset))


def _size(grid: tuple[int, int], preset: Preset) -> tuple[int, int]:
    """Return the height and the width of a grid whose pixels are not enlarged."""
    return pictures.grid_size(*grid, (preset.image_size, preset.image_size))


def _check_memory(
    arguments: argparse.Namespace, loaded: Checkpoint, count: int, grid: tuple[int, int]
) -> None:
    """Check the size of the picture, and the memory of the images and of what is written of them."""
    preset, further = loaded.preset, 0
    if arguments.each is not None:
        side = (arguments.scale or 1) * preset.image_size
        further = pictures.memory_of_still(Path("0.png"), (side, side))
    if arguments.out is not None:
        times, (height, width) = _times(arguments, grid, preset), _size(grid, preset)
        pictures.check_still(arguments.out, (height * times, width * times))
        further = max(further, pictures.memory_of_still(arguments.out, (height * times, width * times)))
    what = f"drawing {count} images"
    check_memory(what, loaded, arguments.statistics, count, arguments.max_memory, further)


def _write_each(images: NDArray[Any], z: NDArray[Any], directory: Path, times: int) -> None:
    make_folder_of(directory / "z.npy")
    digits = len(str(len(images) - 1))
    for i, image in enumerate(images):
        pictures.save_png(pictures.repeated(image, times), directory / f"{i:0{digits}}.png")
    buffer = io.BytesIO()
    np.save(buffer, z, allow_pickle=False)
    write_whole(directory / "z.npy", buffer.getvalue())


if __name__ == "__main__":
    run_command(main, "dcgan sample")
