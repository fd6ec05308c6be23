"""Images from a generator, pictures and animations: arrays that a notebook displays and that can be saved."""

import base64
import io
import math
import operator
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from minigrad.serialize import make_folder_of, write_whole

from .. import animations, pace, pictures
from ..data.channels import size_in_words
from ..errors import UserError, os_errors_as
from ..files.destination import check_ending, writing
from ..markup import tag
from ..recipe.preset import MAX_GRID_IMAGES
from . import checks

PathLike = str | os.PathLike[str]
PACE = 80  # milliseconds of an image in an animation
SMALL = 140  # pixels of a side up to which a notebook displays a picture enlarged
MAX_SHOWN = 400  # images of a grid that a notebook displays


class Picture:
    """A picture, which a notebook displays.

    Args:
        pixels: bytes (height, width, channels), from 1 to 4 channels: grey, grey and alpha, RGB or RGBA.
    """

    def __init__(self, pixels: NDArray[Any]) -> None:
        self._pixels = pixels

    def numpy(self) -> NDArray[Any]:
        """Return the pixels, uint8 (height, width, channels), as a copy."""
        return self._pixels.copy()

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, channels)."""
        return self._pixels.shape

    def enlarged(self, times: int) -> "Picture":
        """Return the picture with each pixel `times` as wide and as high, from 1 to 100."""
        times = checks.whole("times", times, 1, pictures.MAX_SCALE)
        return Picture(pictures.repeated(self._pixels, times))

    def save(self, path: PathLike) -> Path:
        """Write a PNG, JPEG or WebP file, by the ending of its name, whole or not at all; its folder is made.

        Returns the path. Raises UserError if it can't be written.
        """
        path = checks.path("path", path)
        check_ending("save", path, pictures.ENDINGS)
        with writing("save", path):
            pictures.save_picture(self._pixels, path)
        return path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._pixels, dtype, copy=copy)

    def __eq__(self, other: object) -> bool:
        return np.array_equal(self._pixels, other._pixels) if isinstance(other, Picture) else NotImplemented

    def __repr__(self) -> str:
        height, width, _ = self.shape
        return f"<Picture of {width} x {height} pixels>"

    def _repr_png_(self) -> bytes:
        return pictures.png(pictures.enlarged(self._pixels, SMALL))


class Images(Sequence[Picture]):
    """Images of one size, as a sequence of pictures; a notebook displays them in a grid.

        >>> import dcgan
        >>> images = dcgan.load("@quick").sample(6)
        >>> images.numpy().shape
        (6, 28, 28, 1)
        >>> images[2]
        <Picture of 28 x 28 pixels>
        >>> images[:4].grid(scale=1).shape
        (62, 62, 1)

    Args:
        pixels: bytes (n, height, width, channels).
        z: the noise that they were made of, float32 (n, *z_shape).
    """

    def __init__(self, pixels: NDArray[Any], z: NDArray[Any]) -> None:
        self._pixels, self._z = pixels, z

    def numpy(self) -> NDArray[Any]:
        """Return the pixels, uint8 (n, height, width, channels), 0 is black and 255 white, as a copy."""
        return self._pixels.copy()

    @property
    def z(self) -> NDArray[Any]:
        """The noise that the images were made of, float32 (n, *z_shape), as a copy."""
        return self._z.copy()

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width, channels)."""
        return self._pixels.shape

    def grid(self, rows: int | None = None, columns: int | None = None, scale: int | None = None) -> Picture:
        """Return the images in rows and columns, row by row, 2 dark pixels apart.

        Args:
            rows, columns: by default a grid near a square; where one is given, as many of the other as are
                needed.
            scale: how many times as wide and as high each pixel is drawn; by default what suits a screen.

        Raises UserError if there are more images than places.
        """
        if not len(self):
            raise UserError("a grid of no images: expected one or more")
        rows = None if rows is None else checks.whole("rows", rows, 1, MAX_GRID_IMAGES)
        columns = None if columns is None else checks.whole("columns", columns, 1, MAX_GRID_IMAGES)
        rows, columns = grid_of(len(self), rows, columns)
        if not len(self) <= rows * columns <= MAX_GRID_IMAGES:
            raise UserError(f"{len(self)} images do not fit into a grid of {rows}x{columns}")
        size = pictures.grid_size(rows, columns, (self.shape[1], self.shape[2]))
        most = pictures.MAX_SCALE
        times = times_of(rows, columns, size) if scale is None else checks.whole("scale", scale, 1, most)
        return Picture(pictures.repeated(pictures.grid(self._pixels, rows, columns), times))

    def animation(self, seconds: float | None = None) -> "Animation":
        """Return the images one after another, as an animation.

        Args:
            seconds: its length, to 10 ms; by default 80 ms an image, and two seconds for the last one.

        Raises UserError if so many images can't be shown in the time.
        """
        if not len(self):
            raise UserError("an animation of no images: expected one or more")
        if seconds is not None:
            seconds = checks.number("seconds", seconds)
            check_seconds(len(self), seconds)
        shown = [pictures.enlarged(image, animations.MAX_WIDTH) for image in self._pixels]
        durations = pace.steady(len(shown), PACE) if seconds is None else pace.lasting(len(shown), seconds)
        return Animation(shown, durations)

    def save_each(self, folder: PathLike, scale: int = 1) -> Path:
        """Write each image as a PNG file, and z.npy, into a new folder. Returns its path.

        Raises UserError if the folder holds something already, or it can't be written.
        """
        folder, scale = checks.path("folder", folder), checks.whole("scale", scale, 1, pictures.MAX_SCALE)
        check_new(folder, "save_each")
        with os_errors_as(f"save_each {folder}"):
            write_each(self._pixels, self._z, folder, scale)
        return folder

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> "Images": ...
    def __getitem__(self, index: int | slice) -> "Picture | Images":
        if isinstance(index, slice):
            return Images(self._pixels[index], self._z[index])
        return Picture(self._pixels[operator.index(index)])

    def __len__(self) -> int:
        return len(self._pixels)

    def __iter__(self) -> Iterator[Picture]:
        return map(Picture, self._pixels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._pixels, dtype, copy=copy)

    def __repr__(self) -> str:
        _, height, _, channels = self.shape
        return f"<{len(self)} images of {size_in_words(height, channels)}>"

    def _repr_png_(self) -> bytes | None:
        if not len(self):
            return None
        return self[:MAX_SHOWN].grid()._repr_png_()


class Animation:
    """Pictures one after another, which a notebook plays.

    Args:
        frames: bytes (height, width, channels) each, all of one size.
        durations: of each frame, in milliseconds.
    """

    def __init__(self, frames: Sequence[NDArray[Any]], durations: Sequence[int]) -> None:
        self.frames, self.durations = list(frames), list(durations)

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def seconds(self) -> float:
        """The length."""
        return sum(self.durations) / 1000

    def save(self, path: PathLike) -> Path:
        """Write a GIF or MP4 file, by the ending of its name, whole or not at all; its folder is made.

        Returns the path. Raises UserError if it can't be written.
        """
        path = checks.path("path", path)
        check_ending("save", path, animations.ENDINGS)
        with writing("save", path):
            animations.save_animation(self.frames, path, self.durations)
        return path

    def __repr__(self) -> str:
        return f"<Animation of {len(self)} frames, {self.seconds:g} s>"

    def _repr_html_(self) -> str:
        content = base64.b64encode(animations.gif(self.frames, self.durations)).decode()
        return tag("img", src=f"data:image/gif;base64,{content}", alt=repr(self))


def grid_of(count: int, rows: int | None = None, columns: int | None = None) -> tuple[int, int]:
    """Return the rows and columns for `count` images: the given ones, or those of a grid near a square."""
    if columns is None:
        columns = math.ceil(math.sqrt(count)) if rows is None else math.ceil(count / max(rows, 1))
    if rows is None:
        rows = math.ceil(count / max(columns, 1))
    return rows, columns


def times_of(rows: int, columns: int, size: tuple[int, int]) -> int:
    """Return how many times as large the pixels of a grid of `size` (height, width) suit a screen."""
    most = pictures.MAX_STRIP_WIDTH if columns > 1.5 * rows else pictures.MAX_GRID_WIDTH
    return pictures.times_within(most, size)


def check_seconds(count: int, seconds: float) -> None:
    """Raise UserError if `count` images can't be shown one after another in `seconds`."""
    if not pace.MIN_SECONDS <= seconds <= pace.MAX_SECONDS:
        raise UserError(f"seconds={seconds}: expected {pace.MIN_SECONDS:g} to {pace.MAX_SECONDS:g}")
    if count > pace.most_frames(seconds):
        raise UserError(f"seconds={seconds}: {count} images are too many for it, at 20 ms each")


def check_new(folder: Path, option: str) -> None:
    """Raise UserError if a folder for new files holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{option} {folder}: it exists already; name a new directory")


def write_each(images: NDArray[Any], z: NDArray[Any], folder: Path, times: int) -> None:
    """Write each image (n, H, W, C) as a PNG file, its pixels `times` as large, and z.npy. Raises OSError."""
    make_folder_of(folder / "z.npy")
    digits = len(str(len(images) - 1))
    for i, image in enumerate(images):
        pictures.save_png(pictures.repeated(image, times), folder / f"{i:0{digits}}.png")
    buffer = io.BytesIO()
    np.save(buffer, z, allow_pickle=False)
    write_whole(folder / "z.npy", buffer.getvalue())
