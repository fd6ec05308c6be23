"""`python -m dcgan.sample RUN --out FILE.png`: new images from a trained generator."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import minigrad as mg
from minigrad import nn

from . import checkpoint, models, noise, pictures
from .checkpoint import Checkpoint
from .errors import UserError, run_command, tell
from .preset import MOST_IMAGES
from .sampling import generate


def load_generator(loaded: Checkpoint, weights: str | None = None) -> nn.Module:
    """The trained generator of a checkpoint, on the CPU.

    Args:
        weights: "last", those of the last step, or "ema", their running average; by default the
            average where the recipe keeps one.

    Raises UserError where the checkpoint has no such weights, or ones that do not fit the recipe.
    """
    weights = weights or ("ema" if loaded.preset.ema_decay else "last")
    state = loaded.under("generator_ema" if weights == "ema" else "generator")
    if not state:
        raise UserError(
            f"--weights {weights}: this checkpoint has none; its recipe is {loaded.preset.name!r}"
        )
    generator, _ = models.build(loaded.preset)
    try:
        generator.load_state_dict(state)
    except ValueError as error:
        raise UserError(f"the checkpoint does not fit its recipe: {error}") from error
    return generator


def parse_grid(text: str) -> tuple[int, int]:
    """ "8x8" as (rows, columns)."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= rows * columns <= MOST_IMAGES:
        raise argparse.ArgumentTypeError(
            f"expected ROWSxCOLUMNS, such as 4x10, of at most {MOST_IMAGES} images, got {text!r}"
        )
    return rows, columns


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.sample", description="Draw new images from a trained generator."
    )
    parser.add_argument("run", type=Path, help="a run's directory, or a checkpoint file")
    parser.add_argument("--out", type=Path, required=True, help="the PNG file to write")
    parser.add_argument(
        "--grid", type=parse_grid, default=(8, 8), metavar="ROWSxCOLUMNS", help="default: 8x8"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: %(default)s)")
    parser.add_argument(
        "--weights", choices=("last", "ema"), help="of the last step, or averaged (default: the recipe's)"
    )
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.seed < 2**63:
        raise UserError(f"--seed {arguments.seed}: expected an integer of at least 0, below 2^63")
    if arguments.out.suffix.lower() != ".png":
        raise UserError(f"--out {arguments.out}: expected a name that ends in .png")
    loaded = checkpoint.load(arguments.run)
    generator = load_generator(loaded, arguments.weights)
    rows, columns = arguments.grid
    z = noise.draw(loaded.preset, rows * columns, mg.Generator(arguments.seed))
    images = generate(generator, z, loaded.preset.statistics)
    try:
        pictures.save_png(
            pictures.enlarged(pictures.grid(pictures.to_bytes(images), rows, columns)), arguments.out
        )
    except OSError as error:
        raise UserError(f"--out {arguments.out}: {error.strerror or error}") from error
    tell(
        f"{arguments.out}: {rows}x{columns} images, {loaded.preset.name} after step {loaded.position['step']}"
    )
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan.sample")
