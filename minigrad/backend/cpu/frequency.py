"""Convolution in the frequency domain, for kernels that are large beside their images.

A convolution becomes, frequency by frequency, a plain product of the image's and the kernel's transforms.
Three things make that pay for small images on a CPU:

- The circle may be small. A circular convolution of period P adds up pixels that lie P apart. This does no
  harm as long as nothing wraps around onto a pixel that is kept. A 5x5 kernel on 7x7 pixels, padded by 2,
  needs P = 9, not 11.
- The transform to P^2 frequencies is a product with a small matrix of constants (81 x 49 there), for all
  channels at once. Of a pair of opposite frequencies, which are conjugates, one is kept: odd P has 1 real
  frequency and (P^2 - 1) / 2 complex ones.
- A product of complex numbers takes three real ones (Gauss): for x = a + ib and w = c + id,

      k1 = a (d - c),  k2 = b (c + d),  k3 = (a + b) c,  x w = (k3 - k2) + i (k1 + k3).

  So a complex frequency has three rows: a, b and a + b of an image, and (d - c), (c + d) and c of a kernel.
  For P = 9 that makes 1 + 3 * 40 = 121 multiplications, where the plain form has 7^2 5^2 = 1225.

Every frequency depends on every pixel. So if a pixel is infinite or NaN, the whole result of its image is
NaN, in all channels; in the plain form only the outputs that read it are. And rounding errors are relative
to the image's largest pixel: beside one of 1e30 the others are lost. Other images of the batch are not
affected.

Written out, y = A ((B x) . (G w)) with matrices of constants: B transforms the image, G the kernel, and A
transforms back (transforms.py). The point stands for a product of matrices for each frequency: (N, C) by
(C, O). The other two products of a convolution use the same three matrices, transposed. With a stride s,
pixels that are s apart form a phase, and so do taps (see plans.py). Each phase has a transform of its own,
and its channels count as further channels.

Sources: Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs" (2014); of the
form with three matrices, Winograd, "Arithmetic complexity of computations" (1980), chapter 3.
"""

import functools
import math
import operator
from typing import Any

import numpy as np

from ..arrays import channels_last
from ..epilogue import NO_EPILOGUE, Epilogue
from ..geometry import ConvGeometry
from .native import address
from .transforms import Transform, count_rows, period, transform
from .workspace import Workspace

Array = np.ndarray[Any, Any]

# The saving must outweigh the time in which transforms are written and read again (measured).
ADVANTAGE = 1.8
MOST_ROWS = 2048  # of a matrix, which has as many columns as there are pixels
LANES = 16  # numbers of channels must be multiples of it: the float32 numbers of the widest vectors
APART = 3 * LANES  # unused numbers between two frequencies: else they often lie a power of two apart


@functools.lru_cache(maxsize=1024)
def pays(geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
    """Whether this form has ADVANTAGE times fewer multiply-adds than the plain form.

    It is not used for kernels with both a stride and a dilation, for kernels smaller than their stride, which
    some pixels never meet, and for channels that do not fill vectors.
    """
    if geometry.dilation != (1, 1) and geometry.stride != (1, 1):
        return False
    if geometry.positions > MOST_ROWS or any(map(operator.lt, geometry.kernel_size, geometry.stride)):
        return False
    if channels % LANES or out_channels % LANES:
        return False
    rows = count_rows(period(geometry, 0), period(geometry, 1))
    inner = geometry.stride[0] * geometry.stride[1] * channels
    images = n * (math.prod(geometry.input_size) * channels + geometry.positions * out_channels)
    cost = rows * (n * inner * out_channels + images + geometry.taps * channels * out_channels)
    plain = n * geometry.positions * geometry.taps * channels * out_channels
    return ADVANTAGE * cost < plain and rows <= MOST_ROWS


class FrequencyForm:
    """The three products of a convolution, frequency by frequency, by kernels/frequency.c.

    Transforms of images lie in memory as (rows, N, channels), the rows APART numbers further from each other.

    Args:
        workspace: with kernels.
    """

    description = "in the frequency domain, in C (backend/cpu/frequency.py)"

    def __init__(self, workspace: Workspace) -> None:
        assert workspace.kernels is not None
        self._kernels, self._empty = workspace.kernels, workspace.arena.empty

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """Whether it needs so many fewer multiplications; see the function `pays`."""
        return pays(geometry, n, channels, out_channels)

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue
    ) -> Array:
        t = transform(geometry, x.dtype.char)
        return self._convolved(self._of_images(x, t), len(x), weight, bias, geometry, epilogue, t)

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue
    ) -> Array:
        t = transform(geometry, dy.dtype.char)
        return self._laid(self._of_results(dy, t), len(dy), weight, bias, geometry, epilogue, t)

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        t = transform(geometry, x.dtype.char)
        return self._weights(self._of_images(x, t), self._of_results(dy, t), x, dy, geometry, t)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        t = transform(geometry, x.dtype.char)
        image = self._of_images(x, t)
        found = self._convolved(image, len(x), weight, None, geometry, NO_EPILOGUE, t)
        return found, self._weights(image, self._of_results(y, t), x, y, geometry, t)

    def gradients(self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry) -> tuple[Array, Array]:
        t = transform(geometry, x.dtype.char)
        result = self._of_results(dy, t)
        dx = self._laid(result, len(x), weight, None, geometry, NO_EPILOGUE, t)
        return dx, self._weights(self._of_images(x, t), result, x, dy, geometry, t)

    # -- there -----------------------------------------------------------------------------------

    def _of_images(self, x: Array, t: Transform) -> Array:
        """B x, of (N, C, H, W): (rows, N, phases * C)."""
        n, c = x.shape[:2]
        pixels = self._pixels(x)  # (N, H, W, C)
        made = self._rows_apart(t, n * len(t.images) * c, x.dtype)
        to, each = _apart(made), len(t.images) * c
        for phase, b in enumerate(t.images):
            self._mix(
                b.values,
                pixels,
                b.places * c,
                made[:, phase * c :],
                to,
                c,
                (1, n),
                (0, pixels[0].size),
                (0, each),
            )
        return made

    def _of_results(self, y: Array, t: Transform) -> Array:
        """The transpose of A, of (N, O, oh, ow): (rows, N, O)."""
        n, o = y.shape[:2]
        pixels = self._pixels(y)  # (N, oh, ow, O)
        made = self._rows_apart(t, n * o, y.dtype)
        self._mix(
            t.back.values,
            pixels,
            t.back.places * o,
            made,
            _apart(made),
            o,
            (1, n),
            (0, pixels[0].size),
            (0, o),
        )
        return made

    def _of_weight(self, weight: Array, t: Transform, by_inner: bool) -> tuple[Array, int]:
        """G w, in the order of the kernel `pack`, and the vectors of a block of columns.

        Columns are O, and rows phases * C; or the other way round `by_inner`.
        """
        (o, c), taps, dtype = weight.shape[:2], weight.shape[2] * weight.shape[3], weight.dtype
        weight = np.ascontiguousarray(weight)
        columns, inner = (c, o) if by_inner else (o, c)
        lanes = self._kernels.vector_bytes // dtype.itemsize
        vectors = 2 if columns % (2 * lanes) == 0 else 1
        wide = vectors * lanes
        blocks = columns // wide
        packed, every = self._empty((blocks, taps, inner, wide), dtype), np.arange(taps)
        sides = (o, c * taps, c, taps) if by_inner else (c, taps, o, c * taps)
        plan = np.array((0, 0, taps, 0, inner, 0))  # one with all taps (plans.py)
        places = address(weight), address(packed), address(plan), 1, address(every)
        self._kernels.pack[dtype](*places, *sides, wide, 0)
        phases = len(t.kernels)
        made = self._rows_apart(t, phases * c * o, dtype)
        to = _apart(made)
        for phase, g in enumerate(t.kernels):
            # (columns or phases * columns in blocks, inner or phases * inner, wide)
            start, block = (phase * c * o, inner) if by_inner else (phase * inner * wide, phases * inner)
            self._mix(
                g.values, packed, g.places * inner * wide, made[:, start:], to, wide,
                (blocks, inner), (taps * inner * wide, wide), (block * wide, wide),
            )  # fmt: skip
        return made, vectors

    # -- the products, and back ------------------------------------------------------------------

    def _products(self, image: Array, n: int, weight: Array, t: Transform, by_inner: bool) -> Array:
        """(rows, N, inner) by (rows, inner, columns): (rows, N, columns)."""
        kernel, vectors = self._of_weight(weight, t, by_inner)
        o, inner = len(weight), len(t.kernels) * weight.shape[1]
        inner, columns = (o, inner) if by_inner else (inner, o)
        made = self._rows_apart(t, n * columns, image.dtype)
        along = (_apart_by(a) for a in (image, kernel, made))
        self._kernels.frequency_products[image.dtype](
            address(image), address(kernel), address(made), t.rows, n, inner, columns, vectors, *along
        )
        return made

    def _convolved(
        self, image: Array, n: int, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue, t: Transform,
    ) -> Array:  # fmt: skip
        """`convolve`, from the transform of x on."""
        made, o = self._products(image, n, weight, t, by_inner=False), len(weight)
        y = self._empty((n, *geometry.output_size, o), image.dtype)
        to, each = t.back.places * o, geometry.positions * o
        self._mix(
            t.back.turned, made, _apart(made), y, to, o, (1, n), (0, o), (0, each), bias, epilogue.slope
        )
        return y

    def _laid(
        self, result: Array, n: int, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue, t: Transform,
    ) -> Array:  # fmt: skip
        """`input_gradient`, from the transform of dy on."""
        made, c = self._products(result, n, weight, t, by_inner=True), weight.shape[1]
        dx = self._empty((n, *geometry.input_size, c), result.dtype)
        inner, each = len(t.images) * c, dx[0].size
        for phase, b in enumerate(t.images):
            self._mix(
                b.turned, made[:, phase * c :], _apart(made), dx, b.places * c, c,
                (1, n), (0, inner), (0, each), bias, epilogue.slope,
            )  # fmt: skip
        return dx

    def _weights(
        self, image: Array, result: Array, x: Array, dy: Array, geometry: ConvGeometry, t: Transform
    ) -> Array:
        """`weight_gradient`, from the transforms of x and dy on."""
        (n, c), o, dtype = x.shape[:2], dy.shape[1], x.dtype
        inner, taps = len(t.images) * c, geometry.taps
        vectors = 2 if o * dtype.itemsize % (2 * self._kernels.vector_bytes) == 0 else 1
        made = self._rows_apart(t, inner * o, dtype)  # (rows, phases * C, O)
        row = np.arange(n) * inner
        along = (_apart_by(a) for a in (image, result, made))
        self._kernels.frequency_weights[dtype](
            *map(address, (image, result, made, row)), t.rows, n, inner, o, vectors, *along
        )
        by_tap = self._empty((taps, c, o), dtype)
        for phase, g in enumerate(t.kernels):
            self._mix(
                g.turned, made[:, phase * c * o :], _apart(made), by_tap, g.places * c * o, o,
                (1, c), (0, o), (0, o),
            )  # fmt: skip
        weight = self._empty((o, c, *geometry.kernel_size), dtype)
        self._kernels.weight_sum[dtype](address(by_tap), address(weight), 1, taps, c, o, o)
        return weight

    def _mix(
        self, matrix: Array, given: Array, places: Array, out: Array, to: Array, width: int,
        items: tuple[int, int], given_steps: tuple[int, int], out_steps: tuple[int, int],
        bias: Array | None = None, slope: float = 1.0,
    ) -> None:  # fmt: skip
        """Call the kernel `mix`; `places` and `to` are where the rows of an item begin."""
        bias = None if bias is None else np.ascontiguousarray(bias)
        self._kernels.mix[matrix.dtype](
            address(matrix), *matrix.shape, address(given), address(places), address(out), address(to), width,
            *items, *given_steps, *out_steps, 0 if bias is None else address(bias), slope,
        )  # fmt: skip

    def _pixels(self, x: Array) -> Array:
        """(N, C, H, W) as (N, H, W, C) in C order; no copy where it lies in memory so."""
        if not x.flags.c_contiguous:
            return np.ascontiguousarray(channels_last(x))
        n, c, h, w = x.shape
        pixels = self._empty((n, h, w, c), x.dtype)
        self._kernels.swap[x.dtype](address(x), address(pixels), n, c, h * w)
        return pixels

    def _rows_apart(self, t: Transform, count: int, dtype: Any) -> Array:
        """Return memory for so many numbers of each frequency: (rows, count and some more)."""
        return self._empty((t.rows, count + APART), dtype)


def _apart_by(made: Array) -> int:
    """Return the distance of two rows in numbers."""
    return made.strides[0] // made.itemsize


def _apart(made: Array) -> Array:
    """Return where each row begins."""
    return np.arange(len(made)) * _apart_by(made)
