"""`dcgan interpolate RUN --out FILE`: the images between two, and sums and differences of noise."""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import animations, latent, pictures
from .api.generator import IN_A_STRIP, MAX_FRAMES
from .api.run import Run
from .arguments import add_generator
from .console import run_command, tell
from .data.channels import size_in_words
from .errors import UserError
from .files.destination import check_ending, writing
from .parser import Parser
from .recipe.preset import MAX_GRID_IMAGES, Preset

IN_AN_ANIMATION = 24  # images from one to the next; IN_A_STRIP in a picture
MAX_SUMMED = 100  # images that are summed


def parser() -> Parser:
    """Return the command line."""
    parser = Parser(
        "interpolate",
        description="Walk from one image to others on the sphere that noise lies on (--between), or add and "
        "subtract what images have in common (--mean A ... --minus B ... --plus C ...).",
        epilog="A Z is SEED or SEED/INDEX: 3/12 is the image number 12, from 0 and row by row, of "
        "dcgan.sample --seed 3.",
    )
    add_generator(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"a picture, {', '.join(pictures.ENDINGS)}; with --between also an animation, .gif or .mp4",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--between", nargs="+", metavar="Z", help="two or more, to be visited in turn")
    what.add_argument("--mean", nargs="+", metavar="Z", help="images that share something")
    parser.add_argument(
        "--minus", nargs="+", metavar="Z", help="images whose mean is taken off that of --mean"
    )
    parser.add_argument("--plus", nargs="+", metavar="Z", help="images whose mean is added")
    parser.add_argument(
        "--frames",
        type=int,
        help=f"images from one Z to the next (default: {IN_A_STRIP}, {IN_AN_ANIMATION} in an animation)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    arguments = parser().parse_args(argv)
    _check(arguments)
    run = Run(arguments.run, weights=arguments.weights, max_memory=arguments.max_memory)
    _check_memory(arguments, run)
    write = _write_way if arguments.between else _write_sum
    with writing("--out", arguments.out):
        written = write(arguments, run)
    size = size_in_words(run.preset.image_size, run.preset.channels)
    tell(f"{arguments.out}: {written} of {size}, {run.preset.name} after step {run.step}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    moving = animations.ENDINGS if arguments.between else ()
    check_ending("--out", arguments.out, (*pictures.ENDINGS, *moving))
    if arguments.between and len(arguments.between) < 2:
        raise UserError(f"--between {arguments.between[0]}: expected two or more, to go from one to the next")
    if arguments.between and (arguments.minus or arguments.plus):
        raise UserError("--minus and --plus go with --mean, not with --between")
    if arguments.mean and arguments.frames is not None:
        raise UserError("--frames goes with --between, not with --mean")
    if arguments.mean and not (arguments.minus or arguments.plus):
        raise UserError("--mean: expected --minus, --plus or both beside it")
    if max(len(names or ()) for names in (arguments.mean, arguments.minus, arguments.plus)) > MAX_SUMMED:
        raise UserError(f"--mean, --minus and --plus: expected at most {MAX_SUMMED} Z for each")
    if arguments.frames is not None and not 1 <= arguments.frames <= MAX_FRAMES:
        raise UserError(f"--frames {arguments.frames}: expected 1 to {MAX_FRAMES}")
    if len(arguments.between or ()) * (arguments.frames or IN_AN_ANIMATION) > MAX_GRID_IMAGES:
        raise UserError(f"--between and --frames: expected at most {MAX_GRID_IMAGES} images in all")


def _check_memory(arguments: argparse.Namespace, run: Run) -> None:
    """Raise UserError if the images, and the picture of them, take too much memory."""
    preset, out = run.preset, arguments.out
    count, shape = _count(arguments), (preset.image_size, preset.image_size, preset.channels)
    if arguments.mean:
        further = pictures.memory_of_figure(count, shape)
    elif _is_still(arguments):
        size = _size_of_strip(arguments, preset)
        pictures.check_still(out, size)
        further = pictures.memory_of_still(out, size)
    else:
        further = animations.memory_of_animation(count, shape, out.suffix)
    run.check_memory(f"drawing {count} images", count, _statistics(arguments, run), further)


def _count(arguments: argparse.Namespace) -> int:
    """Return how many images are drawn."""
    if arguments.between:
        return (len(arguments.between) - 1) * _frames(arguments) + 1
    groups = [names for names in (arguments.mean, arguments.minus, arguments.plus) if names]
    return sum(len(names) + 1 for names in groups) + 1  # each with its mean; the result


def _frames(arguments: argparse.Namespace) -> int:
    """Return how many images there are from one Z to the next."""
    return arguments.frames or (IN_A_STRIP if _is_still(arguments) else IN_AN_ANIMATION)


def _is_still(arguments: argparse.Namespace) -> bool:
    """Whether a picture is wanted, not an animation."""
    return arguments.out.suffix.lower() in pictures.ENDINGS


def _size_of_strip(arguments: argparse.Namespace, preset: Preset) -> tuple[int, int]:
    """Return the height and the width of the picture of a way."""
    side = preset.image_size
    size = pictures.grid_size(len(arguments.between) - 1, _frames(arguments) + 1, (side, side))
    times = pictures.times_within(pictures.MAX_STRIP_WIDTH, size)
    return size[0] * times, size[1] * times


def _write_way(arguments: argparse.Namespace, run: Run) -> str:
    """Write the images from one Z to the next, and return what was written, in words."""
    frames = _frames(arguments)
    made = run.interpolate(*arguments.between, frames=frames, statistics=arguments.statistics)
    if not _is_still(arguments):
        animation = made.animation()
        animations.save_animation(animation.frames, arguments.out, animation.durations)
        return f"{len(animation)} frames, {animation.seconds:g} s,"
    # A row for each stretch, from one Z to the next, both included.
    images = made.numpy()
    rows = [images[k * frames : (k + 1) * frames + 1] for k in range(len(arguments.between) - 1)]
    grid = pictures.grid(np.concatenate(rows), len(rows), frames + 1)
    pictures.save_picture(pictures.enlarged(grid, pictures.MAX_STRIP_WIDTH), arguments.out)
    return f"{len(images)} images"


def _write_sum(arguments: argparse.Namespace, run: Run) -> str:
    """Write each group in a row, its mean last; the result by itself in the last row.

    Returns what was written, in words.
    """
    signs = {"mean": 1.0, "minus": -1.0, "plus": 1.0}
    groups = {sign: getattr(arguments, sign) for sign in signs if getattr(arguments, sign)}
    members = {
        sign: [latent.by_seed(run.preset, name, arguments.max_memory) for name in names]
        for sign, names in groups.items()
    }
    means = {sign: np.mean(zs, axis=0, dtype=np.float32) for sign, zs in members.items()}
    result = sum(signs[sign] * mean for sign, mean in means.items())
    every = [z for sign, zs in members.items() for z in (*zs, means[sign])]
    z = np.stack([*every, result]).astype(np.float32)
    made = run.draw(z, _statistics(arguments, run))
    images = iter(made.numpy())
    rows = {
        f"{sign}\n{_in_lines(names)}": [next(images) for _ in range(len(names) + 1)]
        for sign, names in groups.items()
    }
    pictures.save_rows({**rows, "result": [next(images)]}, arguments.out)
    return f"{len(made)} images"


def _in_lines(names: Sequence[str]) -> str:
    """The names in a few short lines, the last ones left out where they are many."""
    return textwrap.fill(textwrap.shorten(" ".join(names), 80, placeholder=" ..."), 20)


def _statistics(arguments: argparse.Namespace, run: Run) -> str:
    """Return the statistics; unless asked otherwise, no image depends on those beside it."""
    return arguments.statistics or run.own_statistics


if __name__ == "__main__":
    run_command(main, "dcgan interpolate")
