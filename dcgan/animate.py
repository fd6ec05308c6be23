"""`python -m dcgan.animate RUN`: the fixed grid of a run over time, as a GIF or MP4 file."""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from . import checkpoint, memory, pictures, plainfile
from .console import run_command, tell
from .data.channels import MODES
from .errors import UserError
from .rundir import frame_files

MOST_PIXELS = 2**24  # of one frame
MOST_IN_A_GIF = 60  # frames; an MP4 file, which keeps only what changes, has them all


def animate(
    frames: Path,
    out: Path,
    seconds: float = 8.0,
    max_memory: int = memory.DEFAULT,
    last: int | None = None,
) -> int:
    """Write the frames of a run, in the order of their steps, as a GIF or MP4; how many it has.

    Of more than a GIF should hold some are left out, evenly; the last one never. Those after the step `last`
    are left out, too.
    Raises UserError where there is none, one can't be read, the directory or one of them is a symbolic link,
    or they take more than `max_memory` bytes.
    """
    if frames.is_symlink():
        raise UserError(f"{frames} is a symbolic link, which is not followed: expected the frames themselves")
    files = frame_files(frames, last)
    if not files:
        raise UserError(f"no frames in {frames}: expected the directory of a run that was trained")
    if out.suffix.lower() == ".gif" and len(files) > MOST_IN_A_GIF:
        files = [files[i] for i in np.linspace(0, len(files) - 1, MOST_IN_A_GIF).round().astype(int)]
    shown: list[NDArray[Any]] = []
    for file in files:
        shown.append(frame := _frame(file))
        if frame.shape != shown[0].shape:
            raise UserError(f"{file} is {frame.shape}: expected {shown[0].shape}, as of {files[0]}")
        if len(shown) == 1:
            needed = memory.of_animation(len(files), frame.shape, out.suffix)
            memory.check(f"animating the {len(files)} frames of {frames}", needed, max_memory)
    pictures.save_animation(
        [pictures.enlarged(frame, pictures.MOST_ANIMATED) for frame in shown], out, seconds
    )
    return len(files)


def _frame(file: Path) -> NDArray[Any]:
    """One frame as bytes (H, W, C). Raises UserError where it is none, whatever the file is."""
    try:
        plainfile.check(file, file.parent)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: more than {MOST_PIXELS}")
            plain = image if image.mode in MODES.values() else image.convert("RGB")
            return np.atleast_3d(np.asarray(plain))
    except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
        raise UserError(f"{file} can't be read as an image: {error!s:.200}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.animate", description="Animate what a run's fixed grid showed over time."
    )
    parser.add_argument("run", type=Path, help="a run's directory, or its checkpoint file")
    parser.add_argument(
        "--out", type=Path, help="a .gif or .mp4 file (default: output.gif in the run's directory)"
    )
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="about how long it lasts (default: %(default)s)"
    )
    memory.add_argument(parser)
    arguments = parser.parse_args(argv)
    directory = checkpoint.directory_of(arguments.run)
    if not arguments.run.exists():
        raise UserError(f"{arguments.run}: expected a run's directory or its checkpoint file")
    if not 0 < arguments.seconds <= 3600:
        raise UserError(f"--seconds {arguments.seconds}: expected more than 0 and at most 3600")
    out = arguments.out or directory / "output.gif"
    if out.suffix.lower() not in (".gif", ".mp4"):
        raise UserError(f"--out {out}: expected a name that ends in .gif or .mp4")
    try:
        if arguments.out is None:
            plainfile.to_write(out)
        count = animate(directory / "frames", out, arguments.seconds, arguments.max_memory)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}") from error
    tell(f"{out}: {count} frames")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan.animate")
