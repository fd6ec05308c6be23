"""`dcgan sample RUN --out FILE.png`: new images from a trained generator."""

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
from minigrad.serialize import write_whole

from . import latent, pictures
from .arguments import add_generator
from .console import run_command, tell
from .errors import UserError, os_errors_as
from .parser import Parser
from .recipe.preset import MAX_GRID_IMAGES
from .run.checkpoint import Checkpoint
from .run.trained import check_memory, load_generator, load_run
from .sampling import choose_statistics, generate

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
    parser.add_argument("--out", type=Path, help="the PNG file to write, a grid")
    parser.add_argument(
        "--each", type=Path, metavar="DIR", help="write each image, in its own size, and z.npy into DIR"
    )
    parser.add_argument("--grid", type=parse_grid, metavar="ROWSxCOLUMNS", help="default: 8x8")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    chosen.add_argument("--z", type=Path, metavar="FILE.npy", help="the noise itself, such as --each left")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    loaded = load_run(arguments.run, arguments.weights, arguments.max_memory)
    z, (rows, columns) = _noise(arguments, loaded)
    generator = load_generator(loaded, arguments.weights)
    statistics = choose_statistics(generator, loaded.preset, arguments.statistics, len(z))
    images = pictures.to_bytes(generate(generator, mg.tensor(z), statistics))
    made = f"{loaded.preset.name} after step {loaded.position['step']}"
    named = [f"--{n} {v}" for n, v in (("out", arguments.out), ("each", arguments.each)) if v is not None]
    with os_errors_as(" or ".join(named)):
        if arguments.each is not None:
            _write_each(images, z, arguments.each)
            tell(f"{arguments.each}/: {len(images)} images, {made}")
        if arguments.out is not None:
            most = pictures.MAX_STRIP_WIDTH if columns > 1.5 * rows else pictures.MAX_GRID_WIDTH
            pictures.save_png(pictures.enlarged(pictures.grid(images, rows, columns), most), arguments.out)
            tell(f"{arguments.out}: {rows}x{columns} images, {made}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if arguments.out is None and arguments.each is None:
        raise UserError("expected --out FILE.png, --each DIR, or both: where to write")
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: expected an integer of at least 0, below 2^63")
    if arguments.out is not None and arguments.out.suffix.lower() != ".png":
        raise UserError(f"--out {arguments.out}: expected a name that ends in .png")
    each = arguments.each
    if each is not None and each.exists() and (not each.is_dir() or any(each.iterdir())):
        raise UserError(f"--each {each}: it exists already; name a new directory")


def _noise(arguments: argparse.Namespace, loaded: Checkpoint) -> tuple[NDArray[Any], tuple[int, int]]:
    """z (n, *z_shape), and the rows and columns of a grid of it.

    Raises UserError if its images take too much memory.
    """
    preset = loaded.preset
    if arguments.z is None:
        rows, columns = arguments.grid or GRID
        _check_memory(arguments, loaded, rows * columns)
        return latent.draw(preset, rows * columns, mg.Generator(arguments.seed)).numpy(), (rows, columns)
    z = latent.from_file(preset, arguments.z, arguments.max_memory)
    _check_memory(arguments, loaded, len(z))
    columns = math.ceil(math.sqrt(len(z)))
    rows, columns = arguments.grid or (math.ceil(len(z) / columns), columns)
    if len(z) > min(rows * columns, MAX_GRID_IMAGES):
        raise UserError(f"--z {arguments.z}: {len(z)} z do not fit into a grid of {rows}x{columns}")
    return z, (rows, columns)


def _check_memory(arguments: argparse.Namespace, loaded: Checkpoint, count: int) -> None:
    check_memory(f"drawing {count} images", loaded, arguments.statistics, count, arguments.max_memory)


def _write_each(images: NDArray[Any], z: NDArray[Any], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    digits = len(str(len(images) - 1))
    for i, image in enumerate(images):
        pictures.save_png(image, directory / f"{i:0{digits}}.png")
    buffer = io.BytesIO()
    np.save(buffer, z, allow_pickle=False)
    write_whole(directory / "z.npy", buffer.getvalue())


if __name__ == "__main__":
    run_command(main, "dcgan sample")
