"""The scale of images: the numbers that stand for black and for white, and images as bytes."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import idx

Range = tuple[float, float]  # the numbers that stand for black and for white
BYTES: Range = (0.0, 255.0)
UNIT: Range = (0.0, 1.0)
SIGNED: Range = (-1.0, 1.0)
OVERSHOOT = 0.05  # how far floats may lie outside of their scale: resampling overshoots at edges
MAX_BOUND = 1e300  # of the numbers of a range: their difference is finite, too
PART = 2**20  # numbers that are converted at a time


def checked(value: Any) -> Range:
    """Return `value` as a range if it is a list or tuple of two finite numbers (low, high), low < high.

    Raise ValueError otherwise. `value` may come from a file that somebody else wrote.
    """
    pair = isinstance(value, list | tuple) and len(value) == 2
    if not pair or not all(type(number) in (int, float) and abs(number) <= MAX_BOUND for number in value):
        raise ValueError(f"{value!r:.80}: expected two finite numbers, low and high")
    low, high = float(value[0]), float(value[1])
    if low >= high:
        raise ValueError(f"{low:.15g},{high:.15g}: expected the lower number first")
    return low, high


def to_bytes(images: NDArray[Any], value_range: Range | None = None) -> tuple[NDArray[Any], Range, str]:
    """Return images as bytes, the range that was used, and a description of it.

    Numbers are clipped to the range and scaled linearly, so that `low` becomes 0 and `high` 255.

    Args:
        images: (n, H, W, C), not empty, of booleans, integers or floats. A memory-mapped file is
            read in parts.
        value_range: (low, high). By default, (0, 255) for uint8 and for other integers from 0 to 255
            if their maximum is over 1; (0, 1) for booleans and for floats within [-0.05, 1.05]; (-1, 1)
            for other floats within [-1.05, 1.05].

    Raise ValueError for anything else, which includes uint8 with a maximum of 1, if there is no
    `value_range`; and for numbers that are not finite.
    """
    if images.dtype.kind not in "buif":
        raise ValueError(f"its numbers are {images.dtype}: expected bytes or floats")
    if images.dtype == np.uint8 and value_range in (None, BYTES):
        if value_range is None and _is_mask(images):
            raise _unknown_scale(images.dtype, 0, 1)
        return images, BYTES, _described(BYTES)
    if images.nbytes > idx.MAX_BYTES:
        raise ValueError(
            f"{images.nbytes} bytes of {images.dtype}: expected {idx.MAX_BYTES} at most; save it as uint8, 0 "
            "as black and 255 as white"
        )
    lowest, highest = _extremes(images)
    used = value_range or _scale_of(images.dtype, lowest, highest)
    scaled, outside = _scaled(images, used)
    about = _described(used) + _clipped(outside / images.size)
    if value_range is None and used == SIGNED and lowest > -0.5:
        about += f" (the lowest number is {lowest:g}: give --range 0,1 if 0 is black)"
    return scaled, used, about


def _scale_of(dtype: np.dtype[Any], lowest: float, highest: float) -> Range:
    """Return the range of numbers of a type by their extremes. Raise ValueError if it can't be known."""
    if dtype.kind == "b":
        return UNIT
    if dtype.kind == "f":
        for low, high in (UNIT, SIGNED):
            # The bounds are rounded as the numbers are: -0.05 in float32 is less than -0.05.
            least, most = dtype.type(low - OVERSHOOT), dtype.type(high + OVERSHOOT)
            if least <= lowest and highest <= most:
                return low, high
    elif lowest >= 0 and 1 < highest <= 255:
        return BYTES
    raise _unknown_scale(dtype, lowest, highest)


def _unknown_scale(dtype: np.dtype[Any], lowest: float, highest: float) -> ValueError:
    """Return an error that proposes a range: whole bits for integers, rounded extremes for floats."""
    whole_bits = isinstance(highest, int) and lowest >= 0
    top = 2 ** int(highest).bit_length() - 1 if whole_bits else round(highest)
    likely = f"{min(round(lowest), 0):.15g},{max(top, 1 if lowest >= 0 else 0):.15g}"
    return ValueError(
        f"its numbers go from {lowest:g} to {highest:g} ({dtype}), and their scale is unknown: say which "
        f"numbers are black and white with --range LOW,HIGH, such as --range {likely}"
    )


def _is_mask(images: NDArray[Any]) -> bool:
    """Return whether the maximum is 1. Reads no further than to the first part with a larger number."""
    maximum = 0
    for part in _parts(images.shape):
        maximum = max(maximum, int(images[part].max()))
        if maximum > 1:
            break
    return maximum == 1


def _extremes(images: NDArray[Any]) -> tuple[float, float]:
    """Return the smallest and the largest number. Raise ValueError if one is not finite."""
    plain = float if images.dtype.kind == "f" else int
    lows, highs = [], []
    for part in _parts(images.shape):
        with np.errstate(invalid="ignore"):
            lows.append(plain(images[part].min()))
            highs.append(plain(images[part].max()))
        if not math.isfinite(lows[-1]) or not math.isfinite(highs[-1]):
            raise ValueError("it holds numbers that are not finite")
    return min(lows), max(highs)


def _scaled(images: NDArray[Any], value_range: Range) -> tuple[NDArray[Any], int]:
    """Return images as bytes, and how many numbers lie outside of the range."""
    low, high = value_range
    scaled, outside = np.empty(images.shape, np.uint8), 0
    for part in _parts(images.shape):
        numbers = images[part].astype(np.float64)
        outside += int(np.count_nonzero((numbers < low) | (numbers > high)))
        np.clip(numbers, low, high, out=numbers)
        scaled[part] = np.rint((numbers - low) / (high - low) * 255)
    return scaled, outside


def _parts(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of images (n, H, W, C) of about PART numbers: some images, or rows of one."""
    n, height, width, channels = shape
    rows = max(1, PART // (width * channels))
    images = max(1, rows // height)
    for i in range(0, n, images):
        for row in range(0, height, rows):
            yield slice(i, i + images), slice(row, row + rows)


def _described(value_range: Range) -> str:
    low, high = value_range
    return f"{low:.15g} as black, {high:.15g} as white"


def _clipped(share: float) -> str:
    if share == 0:
        return ""
    return f", {'less than 0.01%' if share < 0.0001 else f'{share:.2%}'} of the numbers clipped"
