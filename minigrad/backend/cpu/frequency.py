"""Convolution in the frequency domain, for kernels that are large beside their images.

A convolution becomes, frequency by frequency, a plain product of the image's and the kernel's transforms.
Here are the matrices of these transforms; what is done with them is in bilinear.py. Three things make that
pay for small images on a CPU:

- The circle may be small. A circular convolution of `period` P mixes what lies P apart; it is enough that
  nothing wraps around onto a pixel that is kept. A 5x5 kernel on 7x7 pixels, padded by 2, needs P = 9,
  not 11.
- The transform of P^2 numbers is a product by a small matrix (81 x 49 there), which BLAS does at full speed,
  for all channels at once. Of a pair of opposite frequencies, which are conjugates, one is kept: odd P has
  1 real frequency and (P^2 - 1) / 2 complex ones.
- A product of complex numbers takes three of real ones (Gauss): for x = a + ib and w = c + id,

      k1 = a (d - c),  k2 = b (c + d),  k3 = (a + b) c,  x w = (k3 - k2) + i (k1 + k3).

  So there are three rows for each of them: a, b and a + b of an image, and what these are multiplied by of a
  kernel. For P = 9 that makes 1 + 3 * 40 = 121 multiplications, where the plain form has 7^2 5^2 = 1225.

Every frequency depends on every pixel. So one that is infinite or NaN makes the whole of its image, in
all channels of the result, NaN; the plain form does so only to the outputs that read it.
And the rounding everywhere is that of the image's largest pixel: beside one of 1e30 the others are lost. The
other images of the batch are not touched.

Source of the idea: Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs" (2014).
"""

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import kept
from ..epilogue import Epilogue
from ..geometry import ConvGeometry
from ..kept import Memo
from . import bilinear
from .bilinear import BilinearForm, Transform
from .forms import Plain
from .workspace import Workspace

Array = np.ndarray[Any, Any]

# What is saved must outweigh that the rows have to be written and read again. A kernel's transform that is
# too large to be kept is made anew for each use: then a number of it costs as much as so many multiply-adds
# (both measured).
ADVANTAGE = 1.1
ADVANTAGE_OVER_KERNELS = 2.0  # over the direct form in C, which runs at a higher speed
ANEW = 64
MOST_ROWS = 2048  # of a matrix, which has as many columns as there are pixels


@dataclass(frozen=True)
class Line:
    """One axis of one phase of the stride: pixels a stride apart, and the taps that meet them.

    Attributes:
        places: of its pixels; y's pixel q reads the places q, q + 1, ..., or a dilation apart.
        taps: the kernel's, at the places 0, 1, ..., or a dilation apart.
    """

    places: Array
    taps: Array


@functools.lru_cache(maxsize=256)
def lines(geometry: ConvGeometry, axis: int) -> tuple[Line, ...]:
    """The phases of an axis, by the first of their pixels; a single one without a stride."""
    size, stride, (before, _) = geometry.input_size[axis], geometry.stride[axis], geometry.padding[axis]
    found = []
    for first in range(stride):
        r = (first + before) % stride
        pixels = np.arange(first, size, stride)
        taps = np.arange(r, geometry.kernel_size[axis], stride)
        found.append(Line((pixels + before) // stride, taps))
    return tuple(found)


def period(geometry: ConvGeometry, axis: int) -> int:
    """The smallest circle on which no product of pixel and tap wraps onto an output pixel that is kept.

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


@functools.lru_cache(maxsize=1024)
def pays(
    geometry: ConvGeometry, n: int, channels: int, out_channels: int, advantage: float = ADVANTAGE
) -> bool:
    """Whether this form has so many times fewer multiply-adds than the plain form that it is worth it.

    Kernels that have both a stride and a dilation are left to the plain form, and those under their stride,
    which some pixels never meet.
    """
    if geometry.dilation != (1, 1) and geometry.stride != (1, 1):
        return False
    if geometry.positions > MOST_ROWS or any(map(operator.lt, geometry.kernel_size, geometry.stride)):
        return False
    rows = _count_rows(period(geometry, 0), period(geometry, 1))
    phases = geometry.stride[0] * geometry.stride[1]
    plain = bilinear.plain_cost(n, channels, out_channels, geometry)
    cost = bilinear.cost(n, channels, out_channels, geometry, rows, phases)
    kernel = rows * phases * channels * out_channels  # numbers
    if kernel > kept.MOST_OF_ONE:
        cost += ANEW * kernel
    return advantage * cost < plain and rows <= MOST_ROWS


def _count_rows(height: int, width: int) -> int:
    """One for each frequency that is real, three for each pair of others."""
    real = (2 - height % 2) * (2 - width % 2)
    return real + 3 * ((height * width - real) // 2)


@functools.lru_cache(maxsize=64)
def transform(geometry: ConvGeometry, dtype: str) -> Transform:
    """The matrices of a geometry, made in float64 and given in `dtype`, such as "float32" or "f"."""
    height, width = period(geometry, 0), period(geometry, 1)
    u, v = _half(height, width)
    own = (2 * u % height == 0) & (2 * v % width == 0)  # opposite to themselves: real
    real = int(own.sum())
    turns = u / height, v / width  # of a frequency, for each place down and to the right
    size = tuple(-(-n // s) for n, s in zip(geometry.input_size, geometry.stride, strict=True))
    images, kernels = [], []
    for down in lines(geometry, 0):
        for across in lines(geometry, 1):
            image = _angles(*turns, down.places, across.places)
            # x^ = sum x e^(-i angle), and the kernel's conjugate: y[q] is a sum over q = u - j.
            a, b = np.cos(image), -np.sin(image)
            rows = _rows(a, (a, b, a + b), real)
            by_pixel = rows.reshape(len(rows), len(down.places), len(across.places))
            missing = [(0, most - there) for most, there in zip(size, by_pixel.shape[1:], strict=True)]
            padded = np.pad(by_pixel, [(0, 0), *missing])
            images.append(padded.reshape(len(rows), math.prod(size)))  # (rows, pixels)
            kernels.append(_kernel_rows(geometry, turns, down, across, real))
    oh, ow = geometry.output_size
    output = _angles(*turns, np.arange(oh), np.arange(ow))
    weight = np.where(own, 1, 2)[:, None] / (height * width)  # a pair stands for two frequencies
    re, im = weight * np.cos(output), weight * -np.sin(output)  # what y gets of a product's two parts
    kernel = np.stack(kernels, axis=1)  # (rows, phases, taps)
    return Transform(
        geometry.stride,
        (size[0], size[1]),
        np.ascontiguousarray(np.stack(images).astype(dtype)),
        np.ascontiguousarray(kernel.reshape(-1, geometry.taps).astype(dtype)),
        np.ascontiguousarray(_rows(re, (im, -re, re + im), real).T.astype(dtype)),
        geometry.transposed,
    )


def _kernel_rows(
    geometry: ConvGeometry, turns: tuple[Array, Array], down: Line, across: Line, real: int
) -> Array:
    """The rows of a phase's kernel, (rows, taps): zeros at the taps of other phases."""
    (kh, kw), (dh, dw) = geometry.kernel_size, geometry.dilation
    own = (down.taps[:, None] * kw + across.taps).reshape(-1)  # numbers of its taps, row by row
    angles = _angles(*turns, np.arange(len(down.taps)) * dh, np.arange(len(across.taps)) * dw)
    c, d = np.zeros((2, len(angles), kh * kw))
    c[:, own], d[:, own] = np.cos(angles), np.sin(angles)
    return _rows(c, (d - c, c + d, c), real)


def _half(height: int, width: int) -> tuple[Array, Array]:
    """One of each two opposite frequencies (u, v) and (-u, -v); those that are both come first."""
    grid = [(u, v) for u in range(height) for v in range(width)]
    opposite = {(u, v): (-u % height, -v % width) for u, v in grid}
    kept = [f for f in grid if f == opposite[f]] + [f for f in grid if f < opposite[f]]
    u, v = np.array(kept).T
    return u, v


def _angles(turns_y: Array, turns_x: Array, y: Array, x: Array) -> Array:
    """2 pi (u y / height + v x / width): (frequencies, places)."""
    whole = turns_y[:, None, None] * y[:, None] + turns_x[:, None, None] * x
    return 2 * np.pi * whole.reshape(len(turns_y), len(y) * len(x))  # (frequencies, places)


def _rows(alone: Array, triple: tuple[Array, Array, Array], real: int) -> Array:
    """The first rows of `alone`, of the real frequencies; then the three of each other one."""
    threes = np.stack([rows[real:] for rows in triple], axis=1)  # (pairs, 3, places)
    flat = threes.reshape(3 * len(threes), alone.shape[1])  # (3 * pairs, places)
    return np.concatenate([alone[:real], flat])  # (rows, places)


class FrequencyForm:
    """The three products of a convolution, frequency by frequency.

    Args:
        workspace: threads and memory.
    """

    description = "in the frequency domain (backend/cpu/frequency.py)"

    def __init__(self, workspace: Workspace) -> None:
        self._advantage = ADVANTAGE if workspace.kernels is None else ADVANTAGE_OVER_KERNELS
        self._bilinear, self._plain = BilinearForm(workspace), Plain()

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """Whether there is so much less to multiply."""
        return pays(geometry, n, channels, out_channels, self._advantage)

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
        memo: Memo | None,
    ) -> Array:  # fmt: skip
        t = transform(geometry, x.dtype.char)
        return self._bilinear.convolve(x, weight, geometry, t, self._finish(bias, epilogue), memo)

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
        memo: Memo | None,
    ) -> Array:  # fmt: skip
        t = transform(geometry, dy.dtype.char)
        return self._bilinear.input_gradient(dy, weight, geometry, t, self._finish(bias, epilogue), memo)

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry, memo: Memo | None) -> Array:
        return self._bilinear.weight_gradient(x, dy, geometry, transform(geometry, x.dtype.char), memo)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry, memo: Memo | None
    ) -> tuple[Array, Array]:
        t = transform(geometry, x.dtype.char)
        return self._bilinear.convolve_and_weight_gradient(x, weight, y, geometry, t, memo)

    def gradients(
        self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry, memo: Memo | None
    ) -> tuple[Array, Array]:
        return self._bilinear.gradients(x, weight, dy, geometry, transform(geometry, x.dtype.char), memo)

    def _finish(self, bias: Array | None, epilogue: Epilogue) -> Callable[[Array, slice], None] | None:
        """What is done with the images s of a result while they are in the cache."""
        if bias is None and not epilogue.has_activation:
            return None

        def finish(y: Array, s: slice) -> None:
            part = y[s]
            if bias is not None:
                part += bias
            if epilogue.has_activation:
                part[...] = self._plain.apply_epilogue(part, epilogue)[0]

        return finish
