"""Convolution in the frequency domain, for kernels that are large beside their images.

A convolution becomes, frequency by frequency, a plain product of the image's and the kernel's transforms.
Three things make that pay for small images on a CPU:

- The circle may be small. A circular convolution of `period` P mixes what lies P apart; it is enough that
  nothing wraps around onto a pixel that is kept. A 5x5 kernel on 7x7 pixels, padded by 2, needs P = 9,
  not 11.
- The transform of P^2 numbers is a product by a small matrix (81 x 49 there), which BLAS does at full speed,
  for all channels at once; and it is real: of a pair of opposite frequencies, which are conjugates, one is
  kept, as two real rows. Odd P has 1 real frequency and (P^2 - 1) / 2 complex ones.
- At each frequency the channels meet in one product, (N x C) by (C x O), of complex numbers. As a real one,
  (N x 2C) by (2C x 2O), it is 4 multiplications a frequency: 161 for P = 9, where the plain form has
  7^2 5^2 = 1225.

With `Fx`, `Fw` the matrices that transform image and kernel and `Gy` the one that goes back, to the pixels
that are kept alone,

    y = Gy (Fx x . Fw w).

That is linear in x and in w, so that the other two products of a convolution (ops/conv.py) are its
transposes, with the same three matrices transposed: nothing else need be derived, and no padding argued
about again.

Source of the idea: Mathieu, Henaff and LeCun, "Fast training of convolutional networks through FFTs" (2014).
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .geometry import ConvGeometry, extent
from .parallel import Pool, Scratch, cut

Array = np.ndarray[Any, Any]

# A transform's and a product's multiply-add cost the same; beside the arithmetic the frequencies have to be
# written and read again. So they must save this factor to be worth their memory.
ADVANTAGE = 2.0


@dataclass(frozen=True)
class Frequencies:
    """The transforms of a geometry, and how the rows of a transform are laid out.

    Attributes:
        image: Fx, (rows, H * W).
        kernel: Fw, (rows, kh * kw).
        back: Gy, (oh * ow, rows).
        real: how many of the first rows are frequencies that are real; after them come pairs of rows, the
            real part and the imaginary part of one frequency.
    """

    image: Array
    kernel: Array
    back: Array
    real: int

    @property
    def rows(self) -> int:
        """Rows of a transform: one for each number of the circle."""
        return len(self.image)

    @property
    def pairs(self) -> int:
        """Frequencies that are complex."""
        return (self.rows - self.real) // 2


def period(geometry: ConvGeometry, axis: int) -> int:
    """The smallest circle on which no product of pixel and tap wraps onto an output pixel that is kept.

    A product of pixel a and tap i belongs to output pixel q = a - i * dilation + before, from
    before - (extent - 1) to size - 1 + before. Kept are 0 to out - 1. What lies a period above 0 must be past
    the last q, and what lies a period below out - 1 before the first.
    """
    size, out = geometry.input_size[axis], geometry.output_size[axis]
    before, _ = geometry.padding[axis]
    reach = extent(geometry.kernel_size[axis], geometry.dilation[axis]) - 1
    return max(size + before, out - before + reach)


def pays(geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
    """Whether this form has so many fewer multiply-adds than the matrix product that it is worth it."""
    if geometry.stride != (1, 1):
        return False
    rows = period(geometry, 0) * period(geometry, 1)
    pixels = geometry.input_size[0] * geometry.input_size[1]
    plain = n * geometry.positions * geometry.taps * channels * out_channels
    products = 2 * rows * n * channels * out_channels
    transforms = rows * (
        n * (pixels * channels + geometry.positions * out_channels) + geometry.taps * channels * out_channels
    )
    return ADVANTAGE * (products + transforms) < plain


@functools.lru_cache(maxsize=64)
def frequencies(geometry: ConvGeometry, dtype: str) -> Frequencies:
    """The matrices of a geometry (of stride 1), made in float64."""
    height, width = period(geometry, 0), period(geometry, 1)
    u, v = _half(height, width)
    (top, _), (left, _) = geometry.padding
    (kh, kw), (dh, dw), (oh, ow) = geometry.kernel_size, geometry.dilation, geometry.output_size
    turns = u / height, v / width  # of a frequency, for each pixel down and to the right
    image = _angles(*turns, np.arange(geometry.input_size[0]), np.arange(geometry.input_size[1]))
    kernel = _angles(*turns, np.arange(kh) * dh, np.arange(kw) * dw)
    output = _angles(*turns, np.arange(oh) - top, np.arange(ow) - left)
    own = (2 * u % height == 0) & (2 * v % width == 0)  # opposite to themselves: real
    real = int(own.sum())
    # x^ = sum x e^(-i angle), and the kernel's conjugate, since y[q] = sum over q = a - i: a correlation.
    weight = np.where(own, 1, 2)[:, None] / (height * width)  # a pair stands for two frequencies
    return Frequencies(
        _rows(np.cos(image), -np.sin(image), real).astype(dtype),
        _rows(np.cos(kernel), np.sin(kernel), real).astype(dtype),
        np.ascontiguousarray(_rows(weight * np.cos(output), weight * -np.sin(output), real).T.astype(dtype)),
        real,
    )


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
    return 2 * np.pi * whole.reshape(len(turns_y), -1)  # (frequencies, len(y) * len(x))


def _rows(cosines: Array, sines: Array, real: int) -> Array:
    """The rows of the real frequencies, then those of each other one: cosine, sine."""
    pairs = np.stack([cosines[real:], sines[real:]], axis=1)  # (pairs, 2, places)
    return np.concatenate([cosines[:real], pairs.reshape(-1, cosines.shape[1])])  # (rows, places)


class FrequencyForm:
    """The three products of a convolution, each frequency's by itself.

    Args:
        pool: the threads; images are shared out in transforms, frequencies in products.
        scratch: a thread's own memory.
        empty: makes arrays, as numpy.empty.
    """

    def __init__(self, pool: Pool, scratch: Scratch, empty: Callable[[tuple[int, ...], Any], Array]) -> None:
        self.pool, self.scratch, self.empty = pool, scratch, empty

    def convolve(self, x: Array, weight: Array, geometry: ConvGeometry) -> Array:
        """`Backend.convolve` without a bias, channels innermost: (N, oh, ow, O)."""
        f = frequencies(geometry, str(x.dtype))
        return self._convolved(self.of_images(x, f.image), weight, geometry, f)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`convolve(x, weight)` and `weight_gradient(x, y)`, with one transform of x."""
        f = frequencies(geometry, str(x.dtype))
        image = self.of_images(x, f.image)
        return self._convolved(image, weight, geometry, f), self._weights(image, y, geometry, f)

    def _convolved(self, image: Array, weight: Array, geometry: ConvGeometry, f: Frequencies) -> Array:
        """`convolve`, from the transform of x on."""
        kernel = self.of_kernel(weight, f)
        made = self.empty((len(image), f.rows, len(weight)), image.dtype)

        def product(rows: slice, matrix: Array) -> None:
            np.matmul(_side_by_side(image, rows), matrix.T, out=_side_by_side(made, rows))

        self._each_frequency(product, kernel, f)
        return self._from_frequencies(made, f.back, geometry.output_size)

    def input_gradient(self, dy: Array, weight: Array, geometry: ConvGeometry) -> Array:
        """`Backend.convolve_input_gradient` without a bias, channels innermost: (N, H, W, C)."""
        f = frequencies(geometry, str(dy.dtype))
        result, kernel = self.of_images(dy, f.back.T), self.of_kernel(weight, f)
        made = self.empty((len(dy), f.rows, weight.shape[1]), dy.dtype)

        def product(rows: slice, matrix: Array) -> None:
            np.matmul(_side_by_side(result, rows), matrix, out=_side_by_side(made, rows))

        self._each_frequency(product, kernel, f)
        return self._from_frequencies(made, f.image.T, geometry.input_size)

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        """`Backend.convolve_weight_gradient`: (O, C, kh, kw)."""
        f = frequencies(geometry, str(x.dtype))
        return self._weights(self.of_images(x, f.image), dy, geometry, f)

    def _weights(self, image: Array, dy: Array, geometry: ConvGeometry, f: Frequencies) -> Array:
        """`weight_gradient`, from the transform of x on."""
        result = self.of_images(dy, f.back.T)
        o, c, dtype = result.shape[2], image.shape[2], image.dtype
        made = self.empty((f.rows, o, c), dtype)

        def work(s: slice) -> None:
            for rows in _blocks(f, s):
                two = rows.stop - rows.start  # 1 for a real frequency
                product = self.scratch.get("frequency", (two * o, two * c), dtype)
                np.matmul(_side_by_side(result, rows).T, _side_by_side(image, rows), out=product)
                if two == 1:
                    made[rows.start] = product
                    continue
                # What `_matrix` laid out four times, gathered again.
                np.add(product[:o, :c], product[o:, c:], out=made[rows.start])
                np.subtract(product[o:, :c], product[:o, c:], out=made[rows.start + 1])

        self.pool.run_products(work, self._shares(f, o, c, dtype.itemsize))
        dw = self.empty((o * c, geometry.taps), dtype)
        flat = made.reshape(f.rows, o * c)

        def back(s: slice) -> None:
            np.matmul(flat[:, s].T, f.kernel, out=dw[s])

        self.pool.run_products(back, cut(o * c, f.rows * dtype.itemsize))
        return dw.reshape(o, c, *geometry.kernel_size)

    def of_images(self, x: Array, matrix: Array) -> Array:
        """The transform of x (N, C, H, W) by a matrix (rows, H * W): (N, rows, C)."""
        n, c = x.shape[:2]
        made = self.empty((n, len(matrix), c), x.dtype)

        def work(s: slice) -> None:
            pixels = np.ascontiguousarray(x[s].transpose(0, 2, 3, 1))  # (n, H, W, C)
            np.matmul(matrix, pixels.reshape(len(pixels), -1, c), out=made[s])

        self.pool.run_products(work, cut(n, len(matrix) * c * x.itemsize))
        return made

    def of_kernel(self, weight: Array, f: Frequencies) -> Array:
        """The transform of a weight (O, C, kh, kw): (rows, O, C)."""
        o, c = weight.shape[:2]
        taps = weight.reshape(o * c, -1)  # (O * C, kh * kw)
        made = self.empty((f.rows, o * c), weight.dtype)

        def work(s: slice) -> None:
            np.matmul(f.kernel, taps[s].T, out=made[:, s])

        self.pool.run_products(work, cut(o * c, f.rows * weight.itemsize))
        return made.reshape(f.rows, o, c)

    def _each_frequency(self, product: Callable[[slice, Array], None], kernel: Array, f: Frequencies) -> None:
        """Call `product(rows, matrix)` for every frequency, the matrix (2O x 2C) for its two rows."""
        _, o, c = kernel.shape

        def work(s: slice) -> None:
            for rows in _blocks(f, s):
                product(rows, self._matrix(kernel[rows]))

        self.pool.run_products(work, self._shares(f, o, c, kernel.itemsize))

    def _matrix(self, kernel: Array) -> Array:
        """A frequency's kernel (1 or 2, O, C) as a real matrix: [[re, -im], [im, re]] of a complex one."""
        if len(kernel) == 1:
            return kernel[0]
        (re, im), (_, o, c) = kernel, kernel.shape
        matrix = self.scratch.get("frequency", (2 * o, 2 * c), kernel.dtype)
        matrix[:o, :c] = matrix[o:, c:] = re
        matrix[o:, :c] = im
        np.negative(im, out=matrix[:o, c:])
        return matrix

    def _shares(self, f: Frequencies, o: int, c: int, itemsize: int) -> list[slice]:
        """Slices of the frequencies, for the threads."""
        return cut(f.real + f.pairs, 4 * o * c * itemsize)

    def _from_frequencies(self, made: Array, matrix: Array, size: tuple[int, int]) -> Array:
        """The way back by a matrix (places, rows): (N, height, width, channels)."""
        n, _, channels = made.shape
        y = self.empty((n, len(matrix), channels), made.dtype)

        def work(s: slice) -> None:
            np.matmul(matrix, made[s], out=y[s])

        self.pool.run_products(work, cut(n, made.shape[1] * channels * made.itemsize))
        return y.reshape(n, *size, channels)


def _blocks(f: Frequencies, s: slice) -> Iterator[slice]:
    """The rows of each of the frequencies number s.start, ..., s.stop - 1."""
    for i in range(s.start, s.stop):
        start = i if i < f.real else f.real + 2 * (i - f.real)
        yield slice(start, start + (1 if i < f.real else 2))


def _side_by_side(transform: Array, rows: slice) -> Array:
    """The given rows of (N, rows, C) beside each other: a view (N, 1 or 2 times C)."""
    n, _, c = transform.shape
    return transform.reshape(n, -1)[:, rows.start * c : rows.stop * c]
