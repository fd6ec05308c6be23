"""Animations out: GIF and MP4 files, written whole or not at all."""

import io
import itertools
import math
import re
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minigrad.serialize import write_whole

from . import pace
from .data.channels import MODES
from .errors import UserError
from .files import plainfile
from .pictures import enlarged, opaque, times_within
from .recipe import memory

ENDINGS = (".gif", ".mp4")
MAX_WIDTH = 320  # pixels: small frames are enlarged up to it, but files grow with the area
GIF_BYTES = 1_900_000  # of 25 frames, and in proportion of more
FRAME = re.compile(r"[0-9]{8,12}\.png")  # a frame's name: its step
MAX_FRAME_PIXELS = 2**24
MAX_GIF_FRAMES = 60  # an MP4 file, which keeps only what changes, has all frames
ENCODER = 16 * 2**20  # bytes of an encoder of animations


def save_animation(
    frames: Sequence[NDArray[Any]], path: Path, durations: Sequence[int] | None = None
) -> None:
    """Pictures (H, W, C) of one size as a GIF or an MP4 file, by its name.

    Args:
        durations: for how many milliseconds each is shown, multiples of 10; None for `pace.comfortable`.
    """
    encoded = _mp4 if path.suffix.lower() == ".mp4" else gif
    write_whole(path, encoded(frames, durations or pace.comfortable(len(frames))))


class Animated(NamedTuple):
    """The frames that an animation shows, of how many there were, and the seconds that it lasts."""

    shown: int
    of: int
    seconds: float

    def __str__(self) -> str:
        frames = f"{self.shown} of {self.of} frames" if self.shown < self.of else f"{self.shown} frames"
        return f"{frames}, {self.seconds:g} s"


def animate(
    frames: Path,
    out: Path,
    seconds: float | None = None,
    max_memory: int = memory.DEFAULT,
    last: int | None = None,
) -> Animated:
    """Write the frames of a run, in the order of their steps, as a GIF or MP4.

    Of more than a GIF should hold, or than can be shown in the time, some are left out, evenly; the first
    and the last one never. Those after the step `last` are left out, too.

    Args:
        seconds: how long it lasts, to 10 ms, from `pace.MIN_SECONDS` on; None for about 8 seconds at a pace
            that is good to look at (`pace.comfortable`).

    Raises UserError where there is none, one can't be read, the directory or one of them is a symbolic link,
    or they take more than `max_memory` bytes.
    """
    if frames.is_symlink():
        raise UserError(f"{frames} is a symbolic link, which is not followed: expected the frames themselves")
    files = frame_files(frames, last)
    if not files:
        raise UserError(f"no frames in {frames}: expected the directory of a run that was trained")
    count, most = len(files), MAX_GIF_FRAMES if out.suffix.lower() == ".gif" else len(files)
    if seconds is not None:
        most = min(most, pace.most_frames(seconds))
    files = [files[place] for place in pace.spread(count, most)]
    shown: list[NDArray[Any]] = []
    for file in files:
        shown.append(frame := _frame(file))
        if frame.shape != shown[0].shape:
            raise UserError(f"{file} is {frame.shape}: expected {shown[0].shape}, as of {files[0]}")
        if len(shown) == 1:
            needed = memory_of_animation(len(files), frame.shape, out.suffix)
            memory.check(f"animating the {len(files)} frames of {frames}", needed, max_memory)
    few = len(shown)
    durations = pace.comfortable(few) if seconds is None else pace.lasting(few, seconds)
    save_animation([enlarged(frame, MAX_WIDTH) for frame in shown], out, durations)
    return Animated(few, count, sum(durations) / 1000)


def frame_files(folder: Path, last: int | None = None) -> list[Path]:
    """The frames of a run, up to the step `last`, in their order. Files of other names are left out."""
    frames = [path for path in plainfile.entries(folder) if FRAME.fullmatch(path.name)]
    steps = {path: int(path.stem) for path in frames}
    return sorted((path for path in frames if last is None or steps[path] <= last), key=steps.__getitem__)


def _frame(file: Path) -> NDArray[Any]:
    """One frame as bytes (H, W, C). Raises UserError where it is none, whatever the file is."""
    try:
        plainfile.check(file, file.parent)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MAX_FRAME_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: more than {MAX_FRAME_PIXELS}")
            plain = image if image.mode in MODES.values() else image.convert("RGB")
            return np.atleast_3d(np.asarray(plain))
    except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
        raise UserError(f"{file} can't be read as an image: {error!s:.200}") from error


def memory_of_animation(frames: int, shape: tuple[int, int, int], ending: str) -> int:
    """Return the bytes of an animation of frames (H, W, C): as they are, enlarged, and encoded."""
    height, width, channels = shape
    times = times_within(MAX_WIDTH, (height, width))
    encoded = 9 if ending.lower() == ".mp4" else 3  # bytes of a pixel: RGB three times, or a palette's
    return frames * height * width * (channels + times**2 * (channels + encoded)) + ENCODER


def gif(frames: Sequence[NDArray[Any]], durations: Sequence[int]) -> bytes:
    """Return the content of a GIF file, shrunk until it is no more than people like to load.

    The arguments are those of `save_animation`.
    """
    most = GIF_BYTES * max(1.0, len(frames) / 25)
    height, width = frames[0].shape[:2]

    def encoded(some: Sequence[NDArray[Any]], shrink: float) -> bytes:
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        return _encoded_gif([_palette(frame, size) for frame in some], durations[: len(some)])

    # A few frames tell, in less time, where all would be far too much.
    few = frames[:: math.ceil(len(frames) / 5)]
    expected = len(encoded(few, 1.0)) * len(frames) / len(few)
    shrink = 1.0 if expected < 2 * most else 0.95 * math.sqrt(most / expected)
    while len(content := encoded(frames, shrink)) > most:
        shrink *= 0.95 * math.sqrt(most / len(content))  # the bytes go with the area
    return content


def _palette(frame: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """A frame as a GIF holds it. Colours: the 256 best for each frame, undithered, since noise does not
    compress. Greys: 64 of them, 0 and 255 included, which nobody tells from 256 and which take a third off
    the file.
    """
    image = opaque(frame)
    if image.size != size:
        image = image.resize(size, Image.Resampling.LANCZOS)
    if image.mode == "L":
        return image.point([value & 252 | value >> 6 for value in range(256)])
    return image.quantize(256, dither=Image.Dither.NONE)


def _encoded_gif(pictures: list[Image.Image], durations: Sequence[int]) -> bytes:
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=pictures[1:],
        loop=0,
        optimize=True,
        duration=list(durations),
    )
    return buffer.getvalue()


def _mp4(frames: Sequence[NDArray[Any]], durations: Sequence[int]) -> bytes:
    """Return the content of an H.264 file, in which each frame is shown for its time in milliseconds.

    Odd sides are cut by a pixel: most players want them even. One thread encodes: the pictures depend on
    the number of threads, and the file holds it.

    A file says when each frame begins, and that the last one takes one tick. So the last one is there twice,
    once more for the last tick of its time. No frame is encoded out of its order (a B-frame): of those the
    last one's time would be another's.
    """
    import av  # takes half a second

    height, width = (side - side % 2 for side in frames[0].shape[:2])
    tick = Fraction(pace.TICK, 1000)  # seconds
    ends = [end // pace.TICK for end in itertools.accumulate(durations)]
    starts = [0, *ends[:-1], ends[-1] - 1]
    content = io.BytesIO()

    def reopen(*_: Any) -> io.BytesIO:
        """Give what is written so far to be read: "faststart" moves the index ahead of it."""
        return io.BytesIO(content.getvalue())

    with av.open(content, "w", "mp4", options={"movflags": "faststart"}, io_open=reopen) as file:
        stream = file.add_stream("libx264", 1 / tick)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count, stream.codec_context.max_b_frames = 1, 0
        for frame, start in zip([*frames, frames[-1]], starts, strict=True):
            pixels = np.ascontiguousarray(np.asarray(opaque(frame).convert("RGB"))[:height, :width])
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            picture.pts, picture.time_base = start, tick
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))
    return content.getvalue()
