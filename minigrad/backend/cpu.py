"""The NumPy backend: the reference forms, run on slices of the batch by a pool of threads.

The arithmetic is that of base.py, slice by slice. What differs is where results go: into arrays
made once, and into scratch memory that stays in the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .base import Backend, channels_first, channels_last
from .geometry import ConvGeometry
from .parallel import Pool, Scratch, available_threads, cut
from .philox import Counter, Key

Array = np.ndarray[Any, Any]

# Where a product is cut, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8
# A weight gradient is summed over this many slices at most, each with a partial sum of its own.
MOST_PARTIAL_SUMS = 8


class CPUBackend(Backend):
    """Arrays of NumPy; `pool` holds the threads."""

    device = "cpu"
    xp = np

    def __init__(self) -> None:
        self.pool = Pool(available_threads())
        self.scratch = Scratch()

    # -- products ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array) -> Array:
        if a.ndim != 2 or b.ndim != 2:
            with self.pool.single_threaded_blas():
                return np.matmul(a, b)
        (m, k), n = a.shape, b.shape[1]
        y = np.empty((m, n), np.result_type(a, b))

        def rows(s: slice) -> None:
            np.matmul(a[s], b, out=y[s])

        def columns(s: slice) -> None:
            np.matmul(a, b[:, s], out=y[:, s])

        # Along the longer side, so that no slice reads the larger factor whole.
        if m >= n:
            self.pool.run_products(rows, cut(m, k * n // OPERATIONS_PER_BYTE))
        else:
            self.pool.run_products(columns, cut(n, m * k // OPERATIONS_PER_BYTE))
        return y

    # -- element by element --------------------------------------------------------------------

    def _each_slice(self, work: Callable[..., None], *arrays: Array) -> Array:
        """A new array like the last of `arrays`, filled by work(out, *arrays) slice by slice."""
        out = np.empty_like(arrays[-1])
        if out.ndim == 0:
            work(out, *arrays)
            return out

        def on_slice(s: slice) -> None:
            work(out[s], *(array[s] for array in arrays))

        self.pool.run(on_slice, cut(len(out), out.nbytes // max(len(out), 1)))
        return out

    def leaky_relu(self, x: Array, slope: float) -> Array:
        def work(out: Array, x: Array) -> None:
            np.maximum(x, np.multiply(x, slope, out=out) if slope else 0, out=out)

        return self._each_slice(work, x)

    def _activate(self, part: Array, slope: float) -> None:
        """`leaky_relu` of a slice, in place."""
        if slope == 1:
            return
        if slope == 0:
            np.maximum(part, 0, out=part)
            return
        scaled = np.multiply(part, slope, out=self.scratch.get("activation", part.shape, part.dtype))
        np.maximum(part, scaled, out=part)

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        def work(out: Array, dy: Array, y: Array) -> None:
            # 1 or slope for each element, without a branch: a masked copy takes 15 times longer.
            np.maximum(y > 0, slope, out=out, dtype=out.dtype)
            np.multiply(out, dy, out=out)

        return self._each_slice(work, dy, y)

    def tanh(self, x: Array) -> Array:
        return self._each_slice(lambda out, x: np.tanh(x, out=out), x)

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        def work(out: Array, dy: Array, y: Array) -> None:
            np.multiply(y, y, out=out)
            np.subtract(1, out, out=out)
            np.multiply(out, dy, out=out)

        return self._each_slice(work, dy, y)

    # -- dropout -----------------------------------------------------------------------------

    def dropout_mask(self, shape: tuple[int, ...], p: float, key: Key, counter: Counter) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        keep = np.empty(count, np.bool_)
        block = 8  # one count of Philox4x64 makes four words of 64 bits, eight draws

        def work(s: slice) -> None:
            start, stop = s.start * block, min(s.stop * block, count)
            base = super(CPUBackend, self).dropout_mask
            keep[start:stop] = base(
                (stop - start,), p, key, (counter[0] + s.start, counter[1], counter[2], counter[3])
            )

        self.pool.run(work, cut(-(-count // block), block * 8))
        if len(shape) == 4:
            n, c, h, w = shape
            return channels_first(keep.reshape(n, h, w, c))  # (N, C, H, W)
        return keep.reshape(shape)

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        def work(out: Array, mask: Array, x: Array) -> None:
            np.multiply(x, scale, out=out)
            np.multiply(out, mask, out=out)

        return self._each_slice(work, mask, x)

    # -- convolution ---------------------------------------------------------------------------

    def _columns(self, x: Array, geometry: ConvGeometry) -> Array:
        """im2col in this thread's scratch memory: valid until its next call."""
        shape = (x.shape[0] * geometry.positions, geometry.taps * x.shape[1])
        patches = self.patches(self._canvas(x, geometry), geometry)  # (N, oh, ow, kh, kw, C)
        if patches.flags.c_contiguous:
            return patches.reshape(shape)
        columns = self.scratch.get("columns", shape, x.dtype)
        np.copyto(columns.reshape(patches.shape), patches)
        return columns

    def _canvas(self, x: Array, geometry: ConvGeometry) -> Array:
        """`canvas` without a copy where nothing is padded and the channels lie innermost."""
        pixels = channels_last(x)
        if geometry.canvas_size == geometry.input_size and pixels.flags.c_contiguous:
            return pixels
        (top, _), (left, _) = geometry.padding
        height, width = geometry.input_size
        canvas = self.scratch.get("canvas", (len(x), *geometry.canvas_size, x.shape[1]), x.dtype)
        canvas[...] = 0
        canvas[:, top : top + height, left : left + width] = pixels
        return canvas

    def _slices(self, n: int, channels: int, geometry: ConvGeometry, itemsize: int) -> list[slice]:
        """Slices of a batch of n whose columns have about the size that `cut` aims at."""
        return cut(n, geometry.positions * geometry.taps * channels * itemsize)

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, slope: float = 1.0
    ) -> Array:
        kernel = self.kernel_matrix(weight)  # (kh * kw * C, O)
        y = np.empty((len(x), *geometry.output_size, len(weight)), x.dtype)  # (N, oh, ow, O)

        def work(s: slice) -> None:
            rows = y[s].reshape((s.stop - s.start) * geometry.positions, len(weight))  # a view
            np.matmul(self._columns(x[s], geometry), kernel, out=rows)
            if bias is not None:
                rows += bias
            self._activate(rows, slope)

        self.pool.run_products(work, self._slices(len(x), x.shape[1], geometry, x.itemsize))
        return channels_first(y)

    def convolve_input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, slope: float = 1.0
    ) -> Array:
        n, c = len(dy), weight.shape[1]
        kernel = self.kernel_matrix(weight)  # (kh * kw * C, O)
        dx = np.empty((n, *geometry.input_size, c), dy.dtype)  # (N, H, W, C)

        def work(s: slice) -> None:
            rows = self.position_rows(dy[s])  # (n * oh * ow, O)
            columns = self.scratch.get("columns", (len(rows), len(kernel)), dy.dtype)
            np.matmul(rows, kernel.T, out=columns)
            part = channels_last(self.col2im(columns, len(dx[s]), geometry))  # (n, H, W, C)
            if bias is None:
                dx[s] = part
            else:
                np.add(part, bias, out=dx[s])
            self._activate(dx[s], slope)

        self.pool.run_products(work, self._slices(n, c, geometry, dy.itemsize))
        return channels_first(dx)

    def convolve_weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        n, c, o = len(x), x.shape[1], dy.shape[1]
        slices = self._slices(n, c, geometry, x.itemsize)
        if len(slices) > MOST_PARTIAL_SUMS:
            group = len(slices) // MOST_PARTIAL_SUMS  # both are powers of two
            slices = [
                slice(slices[i].start, slices[i + group - 1].stop) for i in range(0, len(slices), group)
            ]
        partial = np.empty((len(slices), geometry.taps * c, o), x.dtype)
        places = {s.start: i for i, s in enumerate(slices)}

        def work(s: slice) -> None:
            rows = self.position_rows(dy[s])  # (n * oh * ow, O)
            np.matmul(self._columns(x[s], geometry).T, rows, out=partial[places[s.start]])

        self.pool.run_products(work, slices)
        dw = partial.sum(axis=0).reshape(*geometry.kernel_size, c, o)  # (kh, kw, C, O)
        return np.ascontiguousarray(dw.transpose(3, 2, 0, 1))  # (O, C, kh, kw)

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Each slice's mean and squared deviations, merged in float64.

        Source of the merging: Chan, Golub and LeVeque, "Updating formulae and a pairwise
        algorithm for computing sample variances" (1979).
        """
        rows = _rows(x)  # (M, C)
        slices = _slices_of(rows)
        places = {s.start: i for i, s in enumerate(slices)}
        means, squares = np.empty((2, len(slices), rows.shape[1]))  # each (slices, C)

        def work(s: slice) -> None:
            part = rows[s]
            mean = part.sum(axis=0, dtype=np.float64) / len(part)
            near = mean.astype(part.dtype)  # what can be taken off in the dtype of the rows
            centred = np.subtract(part, near, out=self.scratch.get("rows", part.shape, part.dtype))
            np.square(centred, out=centred)
            # sum (x - near)^2 = sum (x - mean)^2 + n (mean - near)^2
            spread = centred.sum(axis=0, dtype=np.float64) - len(part) * (mean - near) ** 2
            means[places[s.start]], squares[places[s.start]] = mean, spread

        self.pool.run(work, slices)
        counts = np.array([[s.stop - s.start] for s in slices], np.float64)  # (slices, 1)
        mean = (counts * means).sum(axis=0) / len(rows)
        spread = (squares + counts * (means - mean) ** 2).sum(axis=0) / len(rows)
        return mean, np.maximum(spread, 0)

    def normalize(
        self, x: Array, mean: Array, variance: Array, eps: float, weight: Array, bias: Array,
        slope: float = 1.0,
    ) -> Array:  # fmt: skip
        rows = _rows(x)  # (M, C)
        y = np.empty_like(rows)
        near, scale, shift = self.normalize_constants(mean, variance, eps, weight, bias, x.dtype)

        def work(s: slice) -> None:
            part = np.subtract(rows[s], near, out=y[s])
            part *= scale
            part += shift
            self._activate(part, slope)

        self.pool.run(work, _slices_of(rows))
        return _like(y, x)

    def normalize_backward(
        self, dy: Array, x: Array, y: Array, mean: Array, variance: Array, eps: float, weight: Array,
        slope: float = 1.0,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        if slope != 1:
            dy = self.leaky_relu_backward(dy, y, slope)
        inv_std = 1 / np.sqrt(variance + eps)
        rows, grads, near = _rows(x), _rows(dy), mean.astype(x.dtype)  # (M, C), (M, C), (C,)
        slices = _slices_of(rows)
        places = {s.start: i for i, s in enumerate(slices)}
        products, dbiases = np.empty((2, len(slices), rows.shape[1]))  # each (slices, C)

        def sums(s: slice) -> None:
            part, grad = rows[s], grads[s]
            product = np.subtract(part, near, out=self.scratch.get("rows", part.shape, part.dtype))
            product *= grad
            products[places[s.start]] = product.sum(axis=0, dtype=np.float64)
            dbiases[places[s.start]] = grad.sum(axis=0, dtype=np.float64)

        self.pool.run(sums, slices)
        product, dbias = products.sum(axis=0), dbiases.sum(axis=0)  # (C,)
        coefficients = self.normalize_coefficients(len(rows), mean - near, inv_std, weight, product, dbias)
        dweight, tilt, shift, scale = (v.astype(x.dtype) for v in coefficients)
        dx = np.empty_like(rows)

        def apply(s: slice) -> None:
            part = np.subtract(rows[s], near, out=dx[s])
            part *= tilt
            np.subtract(grads[s], part, out=part)
            part -= shift
            part *= scale

        self.pool.run(apply, slices)
        return _like(dx, x), dweight, dbias.astype(x.dtype)

    # -- optimisers ------------------------------------------------------------------------------

    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first: Array,
        second: Array,
        *,
        step: int,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        if not (parameter.flags.c_contiguous and first.flags.c_contiguous):
            super().adam_update(
                parameter, gradient, first, second,
                step=step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
            )  # fmt: skip
            return
        beta1, beta2 = betas
        rate, correction = lr / (1 - beta1**step), 1 - beta2**step
        flat = [array.reshape(-1) for array in (parameter, gradient, first, second)]

        def work(s: slice) -> None:
            p, g, m, v = (array[s] for array in flat)
            t = self.scratch.get("adam", p.shape, p.dtype)
            if weight_decay:
                g = g + weight_decay * p
            np.multiply(g, 1 - beta1, out=t)
            m *= beta1
            m += t
            np.square(g, out=t)
            t *= 1 - beta2
            v *= beta2
            v += t
            np.divide(v, correction, out=t)
            np.sqrt(t, out=t)
            t += eps
            np.divide(m, t, out=t)
            t *= rate
            p -= t

        self.pool.run(work, cut(parameter.size, 16 * parameter.itemsize))


def _rows(x: Array) -> Array:
    """(N, C) or (N, C, H, W) as (M, C), one row for each value of a channel; a copy if it must be."""
    if x.ndim == 4:
        x = Backend.position_rows(x)  # (N * H * W, C)
    return np.ascontiguousarray(x)


def _slices_of(rows: Array) -> list[slice]:
    """Slices of (M, C)."""
    return cut(len(rows), rows.shape[1] * rows.itemsize)


def _like(rows: Array, x: Array) -> Array:
    """Rows (M, C) in the shape of x; no copy."""
    if x.ndim == 2:
        return rows
    n, c, h, w = x.shape
    return channels_first(rows.reshape(n, h, w, c))  # (N, C, H, W)
