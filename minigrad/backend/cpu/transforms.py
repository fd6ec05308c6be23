"""The matrices of the frequency domain (frequency.py): transforms of images and of kernels, and back."""

import functools
from dataclasses import dataclass
from typing import Any

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


def count_rows(height: int, width: int) -> int:
    """Return the rows of a circle: one for each real frequency, three for each pair of complex ones."""
    real = (2 - height % 2) * (2 - width % 2)
    return real + 3 * ((height * width - real) // 2)


@dataclass(frozen=True)
class Matrix:
    """A matrix of constants, with the pixel or the tap that each column stands for.

    Attributes:
        values, turned: the matrix (rows, columns) and its transpose, both in C order.
        places: the number of each column's pixel in an image, or tap in a kernel, counted row by row; int64.
    """

    values: Array
    turned: Array
    places: Array

    @classmethod
    def of(cls, values: Array, places: Array, dtype: str) -> "Matrix":
        """Return the matrix of these values in a dtype such as "float32" or "f"."""
        turned = np.ascontiguousarray(values.T.astype(dtype))
        return cls(np.ascontiguousarray(values.astype(dtype)), turned, places.astype(np.int64))


@dataclass(frozen=True)
class Transform:
    """The matrices of a geometry.

    Attributes:
        images: B, for each phase of the stride, (rows, its pixels).
        kernels: G, for each phase, (rows, its taps).
        back: A turned, (rows, positions).
    """

    images: tuple[Matrix, ...]
    kernels: tuple[Matrix, ...]
    back: Matrix

    @property
    def rows(self) -> int:
        """The rows of all matrices: so many products of channels are computed."""
        return len(self.back.values)


@functools.lru_cache(maxsize=64)
def transform(geometry: ConvGeometry, dtype: str) -> Transform:
    """Return the matrices of a geometry, computed in float64, in a dtype such as "float32" or "f"."""
    height, width = period(geometry, 0), period(geometry, 1)
    u, v = _half(height, width)
    own = (2 * u % height == 0) & (2 * v % width == 0)  # opposite to themselves: real
    real = int(own.sum())
    turns = u / height, v / width  # of a frequency, for each place down and to the right
    images, kernels = [], []
    for down in lines(geometry, 0):
        for across in lines(geometry, 1):
            image = _angles(*turns, down.places, across.places)
            # x^ = sum x e^(-i angle), and the kernel's conjugate: y[q] is a sum over q = u - j.
            a, b = np.cos(image), -np.sin(image)
            pixels = np.add.outer(down.pixels * geometry.input_size[1], across.pixels).reshape(-1)
            images.append(Matrix.of(_rows(a, (a, b, a + b), real), pixels, dtype))
            steps = (
                np.arange(len(x.taps)) * d for x, d in zip((down, across), geometry.dilation, strict=True)
            )
            kernel = _angles(*turns, *steps)
            c, d = np.cos(kernel), np.sin(kernel)
            taps = np.add.outer(down.taps * geometry.kernel_size[1], across.taps).reshape(-1)
            kernels.append(Matrix.of(_rows(c, (d - c, c + d, c), real), taps, dtype))
    oh, ow = geometry.output_size
    output = _angles(*turns, np.arange(oh), np.arange(ow))
    weight = np.where(own, 1, 2)[:, None] / (height * width)  # a pair stands for two frequencies
    re, im = weight * np.cos(output), weight * -np.sin(output)  # what y gets of a product's two parts
    back = Matrix.of(_rows(re, (im, -re, re + im), real), np.arange(oh * ow), dtype)
    return Transform(tuple(images), tuple(kernels), back)


def _half(height: int, width: int) -> tuple[Array, Array]:
    """Return one frequency of each pair (u, v) and (-u, -v), first those that equal their opposite."""
    grid = [(u, v) for u in range(height) for v in range(width)]
    opposite = {(u, v): (-u % height, -v % width) for u, v in grid}
    kept = [f for f in grid if f == opposite[f]] + [f for f in grid if f < opposite[f]]
    u, v = np.array(kept).T
    return u, v


def _angles(turns_y: Array, turns_x: Array, y: Array, x: Array) -> Array:
    """Return 2 pi (u y / height + v x / width): (frequencies, places)."""
    whole = turns_y[:, None, None] * y[:, None] + turns_x[:, None, None] * x
    return 2 * np.pi * whole.reshape(len(turns_y), len(y) * len(x))  # (frequencies, places)


def _rows(alone: Array, triple: tuple[Array, Array, Array], real: int) -> Array:
    """Return a row of `alone` for each real frequency, then three rows of `triple` for each complex one."""
    threes = np.stack([rows[real:] for rows in triple], axis=1)  # (pairs, 3, places)
    flat = threes.reshape(3 * len(threes), alone.shape[1])  # (3 * pairs, places)
    return np.concatenate([alone[:real], flat])  # (rows, places)
