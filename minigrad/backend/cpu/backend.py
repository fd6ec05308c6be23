"""The NumPy backend: the reference forms, run on slices of the batch by a pool of threads.

The arithmetic is that of base.py, slice by slice. What differs is where results go: into arrays
made once, and into scratch memory that stays in the cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..base import Backend
from ..epilogue import NO_EPILOGUE, Epilogue
from ..kept import sample
from ..optimizers import AdamUpdate, Factors
from ..philox import DRAWS_PER_BLOCK, Counter, Key
from .arena import owns_memory
from .convolution import CPUConvolution
from .native import kernels
from .parallel import (
    MAX_SLICE_BYTES,
    TARGET_SLICES,
    cut,
    steps,
)
from .runs import Channels
from .workspace import Workspace

# Where a product is cut, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8
MAX_DRAWS = 1 << 18  # of one call: far fewer would wait for Python's lock for longer than they take
MIN_INNER_LOOP = 16  # numbers that are worth an inner loop of NumPy's
SUMMED_ROWS = 256  # that are added in float32, before float64 goes on
ONES = np.ones((1, SUMMED_ROWS), np.float32)
PRODUCT_THRESHOLD = 1 << 14  # numbers; fewer are converted to float64 as fast as a product adds them
# A weight gradient is summed over this many slices at most, each with a partial sum of its own.
MAX_PARTIAL_SUMS = 8


class CPUBackend(CPUConvolution):
    """Arrays of NumPy; `pool` holds the threads.

    Args:
        workspace: threads, memory and C kernels; a new one, with kernels if they can be had, by default.
    """

    device = "cpu"
    xp = np

    def __init__(self, workspace: Workspace | None = None) -> None:
        self.workspace = workspace or Workspace(kernels())
        super().__init__(self.workspace)
        self.pool, self.scratch, self.arena = (
            self.workspace.pool,
            self.workspace.scratch,
            self.workspace.arena,
        )
        if self.workspace.kernels is not None:
            self.workspace.kernels.set_members(self.pool.threads)

    # -- memory --------------------------------------------------------------------------------

    def owns_memory(self, array: Array) -> bool:
        return owns_memory(array)

    def sample(self, array: Array) -> bytes:
        return sample(array)

    def _empty_like(self, x: Array) -> Array:
        """A new array of x's shape and dtype, and of its memory order where it is one of the usual two."""
        if x.ndim == 4 and channels_last(x).flags.c_contiguous:
            return channels_first(self.arena.empty(channels_last(x).shape, x.dtype))
        return self.arena.empty(x.shape, x.dtype) if x.flags.c_contiguous else np.empty_like(x)

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        innermost = x.ndim == 4 and not x.flags.c_contiguous and channels_last(x).flags.c_contiguous
        if not innermost or shape[:1] != x.shape[:1]:
            return x.reshape(shape)
        y = self.arena.empty(shape, x.dtype)  # the channels have to go outwards: no view can do that

        def work(s: slice) -> None:
            y[s].reshape(x[s].shape)[...] = x[s]

        self.pool.run(work, cut(len(x), x[:1].nbytes))
        return y

    # -- sums ----------------------------------------------------------------------------------

    def _sum_rows(self, rows: Array) -> Array:
        """The sum over the rows of (M, C), (C,) in float64.

        Of float32, SUMMED_ROWS rows at a time are added by a product with ones, and those sums in float64:
        ten times as fast as converting every number, and hardly less exact. Inside of `run_products` only.
        """
        if rows.dtype != np.float32 or not rows.flags.c_contiguous:
            return rows.sum(axis=0, dtype=np.float64)
        whole = len(rows) // SUMMED_ROWS * SUMMED_ROWS
        blocks, rest = rows[:whole].reshape(whole // SUMMED_ROWS, SUMMED_ROWS, rows.shape[1]), rows[whole:]
        total = np.matmul(ONES, blocks).sum(axis=(0, 1), dtype=np.float64)  # (blocks, 1, C)
        if rest.size < PRODUCT_THRESHOLD:
            return total + rest.sum(axis=0, dtype=np.float64)
        return total + np.matmul(ONES[0, : len(rest)], rest)

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if x.dtype != np.float32 or x.ndim != 4 or axes != (0, 2, 3) or keepdims:
            return super().sum(x, axes, keepdims)
        rows = _rows(x)  # (N * H * W, C)
        slices = _slices_of(rows)
        places = {s.start: i for i, s in enumerate(slices)}
        partial = np.empty((len(slices), rows.shape[1]))

        def work(s: slice) -> None:
            partial[places[s.start]] = self._sum_rows(rows[s])

        self.pool.run_products(work, slices)
        total = partial.sum(axis=0)
        if not np.isfinite(total).all():  # a sum of SUMMED_ROWS rows may overflow where the whole does not
            return super().sum(x, axes)
        return total.astype(x.dtype)

    # -- products ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array) -> Array:
        if a.ndim != 2 or b.ndim != 2:
            with self.pool.single_threaded_blas:
                return np.matmul(a, b)
        (m, k), n = a.shape, b.shape[1]
        y = self.arena.empty((m, n), np.result_type(a, b))

        # BLAS is slow at a column times a row (`Dense` to a single feature, on the way back).
        multiply = np.multiply if k == 1 else np.matmul

        def rows(s: slice) -> None:
            multiply(a[s], b, out=y[s])

        def columns(s: slice) -> None:
            multiply(a, b[:, s], out=y[:, s])

        # Along the longer side, so that no slice reads the larger factor whole.
        if m >= n:
            self.pool.run_products(rows, _product_slices(m, k * n))
        else:
            self.pool.run_products(columns, _product_slices(n, m * k))
        return y

    # -- element by element --------------------------------------------------------------------

    def _each_slice(self, work: Callable[..., None], *arrays: Array) -> Array:
        """A new array like the last of `arrays`, filled by work(out, *arrays) slice by slice.

        If all arrays have the same memory order, `work` gets flat views of them, (numbers,), in that order.
        """
        out = self._empty_like(arrays[-1])
        if out.ndim == 0:
            work(out, *arrays)
            return out
        parts = _flat_views(out, *arrays) or [out, *arrays]

        def on_slice(s: slice) -> None:
            work(*(array[s] for array in parts))

        self.pool.run(on_slice, cut(len(parts[0]), out.nbytes // max(len(parts[0]), 1)))
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
        return self._each_slice(lambda out, dy, y: self._deactivate(dy, y, slope, out), dy, y)

    @staticmethod
    def _deactivate(dy: Array, y: Array, slope: float, out: Array) -> None:
        """`leaky_relu_backward` of a slice, without a branch: a masked product or copy would take 10 times as
        long. So each element is multiplied by 1 or by the slope.
        """
        if slope == 0:
            bits = _bits(out)
            np.copyto(bits, y > 0)
            np.multiply(bits, _bits(dy.astype(out.dtype, copy=False)), out=bits)
            return
        np.copyto(out, y > 0)
        np.maximum(out, slope, out=out)
        out *= dy

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
        keep = self.arena.empty((count,), np.bool_)

        def work(s: slice) -> None:
            for few in steps(
                slice(s.start * DRAWS_PER_BLOCK, min(s.stop * DRAWS_PER_BLOCK, count)), MAX_DRAWS
            ):
                keep[few] = self._kept(few.start, few.stop, p, key, counter)

        self.pool.run(work, cut(-(-count // DRAWS_PER_BLOCK), DRAWS_PER_BLOCK * 4))
        if len(shape) == 4:
            n, c, h, w = shape
            return channels_first(keep.reshape(n, h, w, c))  # (N, C, H, W)
        return keep.reshape(shape)

    def dropout(self, x: Array, p: float, key: Key, counter: Counter) -> tuple[Array, Array]:
        if x.ndim != 4 or not channels_last(x).flags.c_contiguous:
            return super().dropout(x, p, key, counter)
        pixels = channels_last(x)  # (N, H, W, C)
        y, keep = self.arena.empty(pixels.shape, x.dtype), self.arena.empty(pixels.shape, np.bool_)
        flat_x, flat_y, flat_keep = (a.reshape(-1) for a in (pixels, y, keep))

        def work(s: slice) -> None:
            flat_y[s] = flat_x[s]
            self._drop(flat_y, flat_keep, s, p, key, counter)

        self.pool.run(work, cut(x.size, x.itemsize + 1))
        return channels_first(y), channels_first(keep)

    def _drop(self, y: Array, keep: Array, s: slice, p: float, key: Key, counter: Counter) -> None:
        """`dropout` of the elements s of y (numbers,), in place, and of the mask; a few draws at a time."""
        for few in steps(s, MAX_DRAWS):
            kept, part = keep[few], y[few]
            kept[...] = self._kept(few.start, few.stop, p, key, counter)
            part *= 1 / (1 - p)
            np.multiply(_bits(part), kept, out=_bits(part))

    def _kept(self, start: int, stop: int, p: float, key: Key, counter: Counter) -> Array:
        """`dropout_mask` of the elements number start, ..., stop - 1."""
        block, skipped = divmod(start, DRAWS_PER_BLOCK)
        place = (counter[0] + block, counter[1], counter[2], counter[3])
        return super().dropout_mask((stop - block * DRAWS_PER_BLOCK,), p, key, place)[skipped:]

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        def work(out: Array, mask: Array, x: Array) -> None:
            np.multiply(x, scale, out=out)
            np.multiply(_bits(out), mask, out=_bits(out))

        return self._each_slice(work, mask, x)

    def leaky_dropout_backward(self, dy: Array, y: Array, mask: Array, slope: float, scale: float) -> Array:
        def work(out: Array, dy: Array, mask: Array, y: Array) -> None:
            if slope == 0:
                np.multiply(dy, scale, out=out)
                np.multiply(_bits(out), mask & (y > 0), out=_bits(out))
                return
            scaled = np.multiply(dy, scale, out=self._scratch_like(y))
            np.multiply(_bits(scaled), mask, out=_bits(scaled))
            self._deactivate(scaled, y, slope, out)

        return self._each_slice(work, dy, mask, y)

    def _scratch_like(self, x: Array) -> Array:
        """Scratch memory of x's shape and dtype, in x's memory order where it is one of the usual two."""
        if x.ndim == 4 and not x.flags.c_contiguous:
            return channels_first(self.scratch.get("like", channels_last(x).shape, x.dtype))
        return self.scratch.get("like", x.shape, x.dtype)

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
        first = Channels(rows[0])  # seen from there: what is far from 0 would not add up well in float32

        def work(s: slice) -> None:
            part = rows[s]
            centred = first.apply(np.subtract, part, self.scratch.get("rows", part.shape, part.dtype))
            mean = first.vector + self._sum_rows(centred) / len(part)
            near = mean.astype(part.dtype)  # what can be taken off in the dtype of the rows
            Channels(near).apply(np.subtract, part, centred)
            np.square(centred, out=centred)
            # sum (x - near)^2 = sum (x - mean)^2 + n (mean - near)^2
            spread = self._sum_rows(centred) - len(part) * (mean - near) ** 2
            means[places[s.start]], squares[places[s.start]] = mean, spread

        self.pool.run_products(work, slices)
        counts = np.array([[s.stop - s.start] for s in slices], np.float64)  # (slices, 1)
        mean = (counts * means).sum(axis=0) / len(rows)
        spread = (squares + counts * (means - mean) ** 2).sum(axis=0) / len(rows)
        if x.dtype == np.float32 and not np.isfinite(spread).all():
            return super().moments(x.astype(np.float64))  # the squares of what is over 1e19 overflow
        return mean, np.maximum(spread, 0)

    def normalize(
        self,
        x: Array,
        mean: Array,
        variance: Array,
        eps: float,
        weight: Array,
        bias: Array,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> Array:
        rows = _rows(x)  # (M, C)
        y = self.arena.empty(rows.shape, rows.dtype)
        constants = self.normalize_constants(mean, variance, eps, weight, bias, x.dtype)
        near, scale, shift = (Channels(c) for c in constants)

        def work(s: slice) -> None:
            part = near.apply(np.subtract, rows[s], y[s])
            scale.apply(np.multiply, part, part)
            shift.apply(np.add, part, part)
            self._activate(part, epilogue.slope)

        self.pool.run(work, _slices_of(rows))
        return _in_shape_of(x, y)

    def normalize_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        mean: Array,
        variance: Array,
        eps: float,
        weight: Array,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array, Array]:
        inv_std = 1 / np.sqrt(variance + eps)
        rows, grads, near = _rows(x), _rows(dy), Channels(mean.astype(x.dtype))  # (M, C), (M, C), (C,)
        dx = self.arena.empty(rows.shape, rows.dtype)
        # With an activation, dx holds dy taken back through it for a while.
        result, given = (_rows(y), dx) if epilogue.has_activation else (None, grads)
        slices = _slices_of(rows)
        places = {s.start: i for i, s in enumerate(slices)}
        products, dbiases = np.empty((2, len(slices), rows.shape[1]))  # each (slices, C)

        def sums(s: slice) -> None:
            part, grad = rows[s], given[s]
            if result is not None:
                self._deactivate(grads[s], result[s], epilogue.slope, grad)
            product = near.apply(np.subtract, part, self.scratch.get("rows", part.shape, part.dtype))
            product *= grad
            products[places[s.start]] = self._sum_rows(product)
            dbiases[places[s.start]] = self._sum_rows(grad)

        self.pool.run_products(sums, slices)
        product, dbias = products.sum(axis=0), dbiases.sum(axis=0)  # (C,)
        coefficients = self.normalize_coefficients(
            len(rows), mean - near.vector, inv_std, weight, product, dbias
        )
        dweight, *others = (v.astype(x.dtype) for v in coefficients)
        tilt, shift, scale = (Channels(v) for v in others)

        def apply(s: slice) -> None:
            part = near.apply(np.subtract, rows[s], self.scratch.get("rows", rows[s].shape, rows.dtype))
            tilt.apply(np.multiply, part, part)
            shift.apply(np.add, part, part)
            np.subtract(given[s], part, out=part)
            scale.apply(np.multiply, part, dx[s])

        self.pool.run(apply, slices)
        return _in_shape_of(x, dx), dweight, dbias.astype(x.dtype)

    # -- optimisers ------------------------------------------------------------------------------

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        parts = []
        for (parameter, gradient, first, second), (rate, correction) in zip(updates, factors(), strict=True):
            numbers = {"rate": rate, "correction": correction, **constants}
            if not all(a.flags.c_contiguous for a in (parameter, first, second)):
                self.adam_update(parameter, gradient, first, second, **numbers)
                continue
            flat = [a.reshape(-1) for a in (parameter, gradient, first, second)]
            # Some ten calls of NumPy's work on a slice: a short one would mostly wait for Python's lock.
            slices = cut(parameter.size, len(flat) * parameter.itemsize)
            parts += [([a[s] for a in flat], numbers) for s in slices]

        def work(places: slice) -> None:
            for arrays, numbers in parts[places]:
                self._adam(*arrays, **numbers)

        # The slices of all parameters at once, so that threads wait for each other only at the end.
        self.pool.run(work, [slice(i, i + 1) for i in range(len(parts))])

    def _adam(
        self,
        p: Array,
        g: Array,
        m: Array,
        v: Array,
        *,
        rate: float,
        correction: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """`adam_update` of a slice."""
        beta1, beta2 = betas
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


def _product_slices(count: int, operations_each: int) -> list[slice]:
    """Slices of a product's longer side, TARGET_SLICES at the most: thin ones would run at half the speed."""
    most = TARGET_SLICES * MAX_SLICE_BYTES // max(count, 1)
    return cut(count, min(operations_each // OPERATIONS_PER_BYTE, most))


def _bits(x: Array) -> Array:
    """Return a view of floats as integers of the same bits: times 0 they are 0, also infinity and NaN."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def _flat_views(*arrays: Array) -> list[Array] | None:
    """Return views (numbers,) in memory order; None unless all arrays have the same one of the usual two."""
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    if all(a.ndim == 4 and channels_last(a).flags.c_contiguous for a in arrays):
        return [channels_last(a).reshape(-1) for a in arrays]
    return None


def _rows(x: Array) -> Array:
    """(N, C) or (N, C, H, W) as (M, C), one row for each value of a channel; a copy if it must be."""
    if x.ndim == 4:
        x = Backend.position_rows(x)  # (N * H * W, C)
    return np.ascontiguousarray(x)


def _slices_of(rows: Array) -> list[slice]:
    """Slices of (M, C)."""
    return cut(len(rows), rows.shape[1] * rows.itemsize)


def _in_shape_of(x: Array, rows: Array) -> Array:
    """Return rows (M, C) in the shape of x; no copy."""
    if x.ndim == 2:
        return rows
    n, c, h, w = x.shape
    return channels_first(rows.reshape(n, h, w, c))  # (N, C, H, W)
