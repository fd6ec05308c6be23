"""Convolution in the frequency domain, for kernels that are large beside their images.

A convolution becomes, frequency by frequency, a plain product of the image's and the kernel's transforms.
Three things make that pay for small images on a CPU:

- The circle may be small. A circular convolution of period P adds up pixels that lie P apart. This does no
  harm as long as nothing wraps around onto a pixel that is kept. A 5x5 kernel on 7x7 pixels, padded by 2,
  needs P = 9, not 11.
- The transform to P^2 frequencies is a product with small matrices of constants, for all channels at once. Of
  a pair of opposite frequencies, which are conjugates, one is kept: odd P has 1 real frequency and
  (P^2 - 1) / 2 complex ones, P^2 numbers in all.
- A product of complex numbers takes three real ones (Gauss). For P = 9 that makes 1 + 3 * 40 = 121
  multiplications, where the plain form has 7^2 5^2 = 1225.

Every frequency depends on every pixel. So if a pixel is infinite or NaN, the whole result of its image is
NaN, in all channels; in the plain form only the outputs that read it are. And rounding errors are relative
to the image's largest pixel: beside one of 1e30 the others are lost. Other images of the batch are not
affected.

Written out, y = A ((B x) . (G w)) with matrices of constants: B transforms the image, G the kernel, and A
transforms back (transforms.py). The point stands for a product of matrices for each frequency: (N, C) by
(C, O). The other two products of a convolution use the same three matrices, transposed. With a stride s,
pixels that are s apart form a phase, and so do taps (see plans.py). Each phase has a transform of its own,
and its channels count as further channels.

A call goes frequency by frequency, not image by image: then the kernel's transform, which is as large as that
of 128 images, is read once. Between the stages there are P^2 numbers for each image and channel.

Sources: Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs" (2014); of the
form with three matrices, Winograd, "Arithmetic complexity of computations" (1980), chapter 3.
"""

import functools
import math
import operator
from typing import Any

import numpy as np

from ..epilogue import NO_EPILOGUE, Epilogue
from ..geometry import ConvGeometry, Pair
from .native import address, readable
from .transforms import Maps, Steps, Transform, count_products, period, transform
from .workspace import Workspace

Array = np.ndarray[Any, Any]

# The saving must outweigh the time in which transforms are written and read again (measured).
ADVANTAGE = 1.8
MOST_PRODUCTS = 2048  # of channels, and pixels
LANES = 16  # numbers of channels must be multiples of it: the float32 numbers of the widest vectors
SPARE = LANES  # as in kernels/frequency.c
APART = 3 * LANES  # unused numbers between two frequencies: else they often lie a power of two apart


@functools.lru_cache(maxsize=1024)
def pays(geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
    """Whether this form has ADVANTAGE times fewer multiply-adds than the plain form.

    It is not used for kernels with both a stride and a dilation, for kernels smaller than their stride, which
    some pixels never meet, and for channels that do not fill vectors.
    """
    if geometry.dilation != (1, 1) and geometry.stride != (1, 1):
        return False
    if geometry.positions > MOST_PRODUCTS or any(map(operator.lt, geometry.kernel_size, geometry.stride)):
        return False
    if channels % LANES or out_channels % LANES:
        return False
    products = count_products(period(geometry, 0), period(geometry, 1))
    inner = geometry.stride[0] * geometry.stride[1] * channels
    images = n * (math.prod(geometry.input_size) * channels + geometry.positions * out_channels)
    cost = products * (n * inner * out_channels + images + geometry.taps * channels * out_channels)
    plain = n * geometry.positions * geometry.taps * channels * out_channels
    return ADVANTAGE * cost < plain and products <= MOST_PRODUCTS


class FrequencyForm:
    """The three products of a convolution, frequency by frequency, by kernels/frequency.c.

    Transforms of images lie in memory as (numbers, N, channels), the numbers APART further from each other.

    Args:
        workspace: with kernels.
    """

    description = "in the frequency domain, in C (backend/cpu/frequency.py)"

    def __init__(self, workspace: Workspace) -> None:
        assert workspace.kernels is not None
        self._kernels, self._space, self._empty = workspace.kernels, workspace, workspace.arena.empty

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
        """B x, of (N, C, H, W): (numbers, N, phases * C)."""
        return self._there(x, t.images, t)

    def _of_results(self, y: Array, t: Transform) -> Array:
        """The transpose of A, of (N, O, oh, ow): (numbers, N, O)."""
        return self._there(y, (t.back,), t)

    def _there(self, x: Array, maps: tuple[Maps, ...], t: Transform) -> Array:
        pixels = self._space.pixels(x)  # (N, H, W, C)
        n, c = x.shape[:2]
        inner = len(maps) * c
        made = self._apart(t, n * inner, x.dtype)
        for phase, m in enumerate(maps):
            self._map(m.there, pixels, (pixels[0].size, c), made[:, phase * c :], (inner, _step(made)), c, n)
        return made

    def _of_weight(self, weight: Array, t: Transform, by_inner: bool) -> tuple[Array, int]:
        """G w: (numbers, blocks of columns, inner, columns of a block), and the vectors of a block.

        Columns are O, and inner are phases * C; or the other way round `by_inner`.
        """
        (o, c), taps, dtype = weight.shape[:2], weight.shape[2] * weight.shape[3], weight.dtype
        weight = readable(np.ascontiguousarray(weight))
        # (inner, from one to the next, columns, from one to the next)
        sides = (o, c * taps, c, taps) if by_inner else (c, taps, o, c * taps)
        vectors = self._vectors(sides[2], dtype)
        wide = vectors * self._kernels.vector_bytes // dtype.itemsize
        phases = len(t.kernels)
        made = self._apart(t, phases * c * o, dtype)
        start, block = (c * o, o * wide) if by_inner else (c * wide, phases * c * wide)
        for phase, m in enumerate(t.kernels):
            near = self._scratch((m.there.between + taps) * (LANES * wide + SPARE), dtype)
            self._kernels.transform_weight[dtype](
                *_tables(m.there), address(weight), address(m.places), len(m.places), *sides, wide,
                address(made[:, phase * start :]), block, _step(made), *_shares(near),
                m.there.between,
            )  # fmt: skip
        return made, vectors

    # -- the products, and back ------------------------------------------------------------------

    def _products(self, image: Array, n: int, weight: Array, t: Transform, by_inner: bool) -> Array:
        """(numbers, N, inner) by (numbers, inner, columns): (numbers, N, columns)."""
        kernel, vectors = self._of_weight(weight, t, by_inner)
        o, inner = len(weight), len(t.kernels) * weight.shape[1]
        inner, columns = (o, inner) if by_inner else (inner, o)
        made = self._apart(t, n * columns, image.dtype)
        arrays = image, kernel, made
        near = self._scratch((n + 2 * columns) * inner, image.dtype)
        self._kernels.frequency_products[image.dtype](
            *map(address, arrays), t.real, t.numbers, n, inner, columns, vectors, *map(_step, arrays),
            by_inner, *_shares(near),
        )  # fmt: skip
        return made

    def _convolved(
        self, image: Array, n: int, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue, t: Transform,
    ) -> Array:  # fmt: skip
        """`convolve`, from the transform of x on."""
        made = self._products(image, n, weight, t, by_inner=False)
        return self._back(made, (t.back,), n, len(weight), geometry.output_size, bias, epilogue)

    def _laid(
        self, result: Array, n: int, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue, t: Transform,
    ) -> Array:  # fmt: skip
        """`input_gradient`, from the transform of dy on."""
        made = self._products(result, n, weight, t, by_inner=True)
        return self._back(made, t.images, n, weight.shape[1], geometry.input_size, bias, epilogue)

    def _back(
        self, made: Array, maps: tuple[Maps, ...], n: int, c: int, size: Pair, bias: Array | None,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        """Return the images (N, *size, C) of transforms (numbers, N, phases * C)."""
        x = self._empty((n, *size, c), made.dtype)
        inner, steps = len(maps) * c, (x[0].size, c)
        for phase, m in enumerate(maps):
            given = made[:, phase * c :]
            self._map(m.turned, given, (inner, _step(made)), x, steps, c, n, bias, epilogue.slope)
        return x

    def _weights(
        self, image: Array, result: Array, x: Array, dy: Array, geometry: ConvGeometry, t: Transform
    ) -> Array:
        """`weight_gradient`, from the transforms of x and dy on."""
        (n, c), o, dtype = x.shape[:2], dy.shape[1], x.dtype
        inner, taps = len(t.images) * c, geometry.taps
        made = self._apart(t, inner * o, dtype)  # (numbers, phases * C, O)
        arrays, near = (image, result, made), self._scratch(n * (inner + o), dtype)
        self._kernels.frequency_weights[dtype](
            *map(address, arrays), t.real, t.numbers, n, inner, o, self._vectors(o, dtype),
            *map(_step, arrays), *_shares(near),
        )  # fmt: skip
        by_tap = self._empty((taps, c, o), dtype)
        for phase, m in enumerate(t.kernels):
            self._map(m.turned, made[:, phase * c * o :], (o, _step(made)), by_tap, (o, c * o), o, c)
        weight = self._empty((o, c, *geometry.kernel_size), dtype)
        self._kernels.weight_sum[dtype](address(by_tap), address(weight), 1, taps, c, o, o)
        return weight

    def _map(
        self, steps: Steps, given: Array, given_steps: Pair, out: Array, out_steps: Pair, width: int,
        items: int, bias: Array | None = None, slope: float = 1.0,
    ) -> None:  # fmt: skip
        """Call the kernel `transform`. Steps are from an item to the next, and from a place to the next."""
        bias = None if bias is None else readable(np.ascontiguousarray(bias))
        near = self._scratch(steps.between * (width + SPARE), given.dtype)
        self._kernels.transform[given.dtype](
            *_tables(steps), address(given), *given_steps, address(out), *out_steps, width, items,
            *_shares(near),
            0 if bias is None else address(bias), slope,
        )  # fmt: skip

    def _vectors(self, columns: int, dtype: Any) -> int:
        """Return the vectors of a block of columns."""
        return 2 if columns * dtype.itemsize % (2 * self._kernels.vector_bytes) == 0 else 1

    def _scratch(self, each: int, dtype: Any) -> Array:
        """Return memory for so many numbers for each thread: (threads, numbers)."""
        return self._space.scratch.get("frequencies", (self._space.pool.threads, each), dtype)

    def _apart(self, t: Transform, count: int, dtype: Any) -> Array:
        """Return memory for so many numbers of each frequency: (numbers, count and some more)."""
        return self._empty((t.numbers, count + APART), dtype)


def _step(made: Array) -> int:
    """Return the distance of two rows in numbers."""
    return made.strides[0] // made.itemsize


def _shares(scratch: Array) -> tuple[int, int, int]:
    """Return what kernels get of the memory of threads: its address, the numbers of each, the threads."""
    return address(scratch), scratch.shape[1], scratch.shape[0]


def _tables(steps: Steps) -> tuple[int, ...]:
    """Return what kernels get of a map."""
    arrays = steps.factors, steps.table, steps.places
    return *map(address, arrays), steps.first, len(steps.table)
