"""The transforms of the frequency domain (frequency.py): of images and of kernels, and back.

A transform in two dimensions is one along each line of pixels, and then one along each column of the results.
Each is a product with a small matrix of cosines and sines. For 7x7 pixels and a period of 9 that makes 1512
multiplications for each channel; the matrix of the whole, 81 x 49, would make 3969.
"""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..geometry import ConvGeometry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Line:
    """One axis of a phase of the stride: pixels a stride apart, and the taps that meet them.

    Attributes:
        pixels: their numbers along the axis.
        places: where the pixels lie on the circle; y's pixel q reads the places q, q + 1, ..., or a dilation
            apart.
        taps: the numbers of the taps, which lie at the places 0, 1, ..., or a dilation apart.
    """

    pixels: Array
    places: Array
    taps: Array


@functools.lru_cache(maxsize=256)
def lines(geometry: ConvGeometry, axis: int) -> tuple[Line, ...]:
    """Return the phases of an axis, ordered by their first pixels. Without a stride there is one."""
    size, stride, (before, _) = geometry.input_size[axis], geometry.stride[axis], geometry.padding[axis]
    found = []
    for first in range(stride):
        r = (first + before) % stride
        pixels = np.arange(first, size, stride)
        taps = np.arange(r, geometry.kernel_size[axis], stride)
        found.append(Line(pixels, (pixels + before) // stride, taps))
    return tuple(found)


def period(geometry: ConvGeometry, axis: int) -> int:
    """Return the smallest period with which no product of pixel and tap wraps onto an output pixel.

    A product of the pixel at place u and the tap at place j belongs to output pixel q = u - j. Kept are 0 to
    out - 1. What lies a period above 0 must be past the last q, and what lies a period below out - 1 before
    the first.
    """
    out, needed = geometry.output_size[axis], 1
    for line in lines(geometry, axis):
        if len(line.places) and len(line.taps):
            reach = geometry.dilation[axis] * (len(line.taps) - 1)
            needed = max(needed, line.places[-1] + 1, out + reach - line.places[0])
    return int(needed)


def count_real(height: int, width: int) -> int:
    """Return how many frequencies of a circle are real: those that equal their opposite."""
    return (2 - height % 2) * (2 - width % 2)


def count_products(height: int, width: int) -> int:
    """Return the products of a circle: one for each real frequency, three for each pair of complex ones."""
    real = count_real(height, width)
    return real + 3 * ((height * width - real) // 2)


class Block(NamedTuple):
    """Numbers at some places that are combined to others: made = values @ given."""

    values: Array
    given: Array
    made: Array


@dataclass(frozen=True)
class Steps:
    """A linear map in two steps of blocks, as the kernel `transform` reads it (kernels/frequency.c).

    Attributes:
        factors: the matrices of the blocks, turned, one after another; equal ones only once.
        table: a line for each block: rows, columns, and where its factors, the places that it reads and those
            that it makes begin; int64.
        places: int64.
        first: the number of blocks of the first step.
        between: the number of places between the steps.
    """

    factors: Array
    table: Array
    places: Array
    first: int
    between: int

    @classmethod
    def of(
        cls, first: Sequence[Block], second: Sequence[Block], between: int, dtype: str, turned: bool = False
    ) -> "Steps":
        """Return the map of these blocks in a dtype such as "float32" or "f", or of `turned` blocks."""
        starts: dict[int, int] = {}  # of factors, by the matrix
        factors: list[Array] = []
        places: list[Array] = []
        lines, factor, place = [], 0, 0
        for matrix, given, made in (*first, *second):
            if id(matrix) not in starts:
                starts[id(matrix)] = factor
                factors.append((matrix if turned else matrix.T).reshape(-1))  # (depth * rows,)
                factor += matrix.size
            rows, depth = matrix.shape[::-1] if turned else matrix.shape
            lines.append((rows, depth, starts[id(matrix)], place, place + depth))
            places += [made, given] if turned else [given, made]
            place += depth + rows
        found = np.concatenate([*factors, np.zeros(1)]).astype(dtype)
        table, at = np.array(lines, np.int64), np.concatenate(places).astype(np.int64)
        return cls(found, table, at, len(first), between)


@dataclass(frozen=True)
class Maps:
    """A transform to frequencies, and its transpose.

    Attributes:
        there: from pixels or taps to the numbers of the frequencies.
        turned: the transpose, from these numbers to pixels or taps.
        places: of the pixels in an image or of the taps in a kernel, counted row by row; int64.
    """

    there: Steps
    turned: Steps
    places: Array


@dataclass(frozen=True)
class Transform:
    """The transforms of a geometry.

    Attributes:
        real: how many frequencies are real. They come first, with a number each.
        numbers: of all frequencies: `real`, and two for each complex one, its real and its imaginary part.
        images, kernels: B and G, for each phase of the stride.
        back: A, turned: from the pixels of y. A is `back.turned`.
    """

    real: int
    numbers: int
    images: tuple[Maps, ...]
    kernels: tuple[Maps, ...]
    back: Maps


@functools.lru_cache(maxsize=64)
def transform(geometry: ConvGeometry, dtype: str) -> Transform:
    """Return the transforms of a geometry, computed in float64, in a dtype such as "float32" or "f"."""
    size = period(geometry, 0), period(geometry, 1)
    images, kernels = [], []
    for down in lines(geometry, 0):
        for across in lines(geometry, 1):
            pixels = np.add.outer(down.pixels * geometry.input_size[1], across.pixels)
            # x^ = sum x e^(-i angle), and the kernel's conjugate: y[q] is a sum over q = u - j.
            images.append(_maps(size, pixels, down.places, across.places, -1, dtype))
            taps = np.add.outer(down.taps * geometry.kernel_size[1], across.taps)
            y, x = (
                np.arange(len(line.taps)) * d
                for line, d in zip((down, across), geometry.dilation, strict=True)
            )
            kernels.append(_maps(size, taps, y, x, 1, dtype))
    oh, ow = geometry.output_size
    grid = np.arange(oh * ow).reshape(oh, ow)
    # y is the sum of Re(y^ e^(i angle)); one complex frequency stands for two.
    weights = 1 / (size[0] * size[1]), 2 / (size[0] * size[1])
    back = _maps(size, grid, np.arange(oh), np.arange(ow), -1, dtype, weights)
    return Transform(count_real(*size), size[0] * size[1], tuple(images), tuple(kernels), back)


def _maps(
    size: tuple[int, int], places: Array, y: Array, x: Array, sign: int, dtype: str,
    weights: tuple[float, float] = (1, 1),
) -> Maps:  # fmt: skip
    """Return the sums of e^(sign i angle) over pixels, and their transpose.

    Args:
        size: the periods (height, width).
        places: of the pixels in the image, (len(y), len(x)).
        y, x: where they lie on the circle.
        weights: of real frequencies, and of complex ones.
    """
    height, width = size
    column = np.arange(len(y)) * width  # where a line's numbers between the steps begin
    along, down = _waves(width, x, sign), _waves(height, y, sign)
    first = [Block(along, places[i], start + np.arange(width)) for i, start in enumerate(column)]
    real, pairs = itertools.count(), itertools.count(count_real(height, width), 2)
    down *= np.array([weights[2 * ((row + 1) // 2) % height != 0] for row in range(height)])[:, None]
    # Of the numbers of a line the first, and the last if their number is even, are real.
    second = [
        Block(down, column + v, _numbers(height, real, pairs)) for v in ((0, width - 1)[: 2 - width % 2])
    ]
    turn = 2 * np.pi * np.outer(np.arange(height), y) / height
    c, s = np.cos(turn), sign * np.sin(turn)
    both = np.stack([np.hstack([c, -s]), np.hstack([s, c])], axis=1) * weights[1]  # (height, 2, 2 * len(y))
    both = both.reshape(2 * height, 2 * len(y))
    for v in range(1, (width + 1) // 2):
        given = np.concatenate([column + 2 * v - 1, column + 2 * v])
        made = np.concatenate([(n, n + 1) for n in itertools.islice(pairs, height)])
        second.append(Block(both, given, made))
    count = len(y) * width
    turned = Steps.of(second, first, count, dtype, turned=True)
    return Maps(Steps.of(first, second, count, dtype), turned, places.reshape(-1).astype(np.int64))


def _waves(period: int, places: Array, sign: int) -> Array:
    """Return cosines, and sines times the sign, of frequencies up to half of the period: (period, places).

    A frequency has two rows, but one if its sines are 0: the first and, if the period is even, the last.
    """
    rows = []
    for frequency in range(period // 2 + 1):
        angles = 2 * np.pi * frequency * places / period
        rows.append(np.cos(angles))
        if 2 * frequency % period:
            rows.append(sign * np.sin(angles))
    return np.array(rows)  # (period, places)


def _numbers(period: int, real: "itertools.count[int]", pairs: "itertools.count[int]") -> Array:
    """Return the next numbers of frequencies, in the order of the rows of `_waves`."""
    found = []
    for frequency in range(period // 2 + 1):
        if 2 * frequency % period:
            pair = next(pairs)
            found += [pair, pair + 1]
        else:
            found.append(next(real))
    return np.array(found)
