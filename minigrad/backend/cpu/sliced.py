"""NumPy's forms of activations, dropout, sums, BatchNorm and Adam: those of base.py, on slices, by threads.

Results are written to memory that is used again. A slice's intermediate results stay in the processor's
cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..base import Backend
from ..epilogue import NO_EPILOGUE, Epilogue
from ..optimizers import AdamUpdate, Factors
from ..philox import DRAWS_PER_BLOCK, Counter, Key
from .arena import owns_memory
from .parallel import cut, steps
from .samples import sample
from .workspace import Workspace

MAX_DRAWS = 1 << 18  # of one call; with far fewer, threads would wait for the GIL longer than they work
MAX_UPDATED = 1 << 14  # numbers of a parameter at a time: NumPy caches memory of that size


class SlicedBackend(Backend):
    """NumPy's forms. `pool` has the threads, `arena` memory for results, `scratch` a thread's own memory."""

    xp = np

    def __init__(self, workspace: Workspace) -> None:
        self.pool, self.scratch, self.arena = workspace.pool, workspace.scratch, workspace.arena

    # -- memory --------------------------------------------------------------------------------

    def owns_memory(self, array: Array) -> bool:
        return owns_memory(array)

    def sample(self, array: Array) -> bytes:
        return sample(array)

    def _empty_like(self, x: Array) -> Array:
        """Return a new array like x, in its memory order if that is C order or has the channels innermost."""
        if x.flags.c_contiguous:
            return self.arena.empty(x.shape, x.dtype)
        if x.ndim == 4 and channels_last(x).flags.c_contiguous:
            return channels_first(self.arena.empty(channels_last(x).shape, x.dtype))
        return np.empty_like(x)

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        if not is_innermost(x) or shape[:1] != x.shape[:1]:
            return x.reshape(shape)
        y = self.arena.empty(shape, x.dtype)  # in C order, which no view of x can have

        def work(s: slice) -> None:
            y[s].reshape(x[s].shape)[...] = x[s]

        self.pool.run(work, cut(len(x), x[:1].nbytes))
        return y

    # -- sums ----------------------------------------------------------------------------------

    def _sums(self, work: Callable[[slice], Sequence[Array]], slices: Sequence[slice]) -> list[Array]:
        """Return the sums of the arrays that `work` gives for each slice, in the order of the slices."""
        found: dict[int, Sequence[Array]] = {}

        def keep(s: slice) -> None:
            found[s.start] = work(s)

        self.pool.run_products(keep, slices)
        return [
            sum(parts[1:], start=parts[0]) for parts in zip(*(found[s.start] for s in slices), strict=True)
        ]

    def _doubles(self, rows: Array) -> Array:
        """Return scratch memory in the shape of rows, in float64."""
        return self.scratch.get("doubles", rows.shape, np.float64)

    def _sum_rows(self, rows: Array) -> Array:
        """Return the sum over the rows of (M, C): (C,) in float64. To be called within `_sums` only."""
        if rows.dtype != np.float64:
            doubles = self._doubles(rows)
            np.copyto(doubles, rows)
            rows = doubles
        return np.matmul(np.ones(len(rows)), rows)  # with few channels, `np.sum` takes ten times as long

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        if x.dtype != np.float32 or x.ndim != 4 or axes != (0, 2, 3) or keepdims:
            return super().sum(x, axes, keepdims)
        rows = rows_of(x)  # (N * H * W, C)
        (total,) = self._sums(lambda s: [self._sum_rows(rows[s])], _slices_of(rows))
        return total.astype(x.dtype)

    # -- element by element --------------------------------------------------------------------

    def _each_slice(self, work: Callable[..., None], *arrays: Array) -> Array:
        """Return a new array like the last of `arrays`, filled by work(out, *arrays) slice by slice.

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
        """Apply `leaky_relu` to a slice, in place."""
        if slope == 1:
            return
        if slope == 0:
            np.maximum(part, 0, out=part)
            return
        scaled = np.multiply(part, slope, out=self.scratch.get("activation", part.shape, part.dtype))
        np.maximum(part, scaled, out=part)

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        return self._each_slice(lambda out, dy, y: _deactivate(dy, y, slope, out), dy, y)

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
        return in_shape(keep, shape)

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
        """Apply dropout to the elements s of y (numbers,), in place, and fill their part of the mask."""
        for few in steps(s, MAX_DRAWS):
            kept, part = keep[few], y[few]
            kept[...] = self._kept(few.start, few.stop, p, key, counter)
            part *= 1 / (1 - p)
            np.multiply(_bits(part), kept, out=_bits(part))

    def _kept(self, start: int, stop: int, p: float, key: Key, counter: Counter) -> Array:
        """Return the part of `dropout_mask` for the elements start, ..., stop - 1."""
        block, skipped = divmod(start, DRAWS_PER_BLOCK)
        place = (counter[0] + block, counter[1], counter[2], counter[3])
        return Backend.dropout_mask(self, (stop - block * DRAWS_PER_BLOCK,), p, key, place)[skipped:]

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        def work(out: Array, mask: Array, x: Array) -> None:
            np.multiply(x, scale, out=out)
            np.multiply(_bits(out), mask, out=_bits(out))

        return self._each_slice(work, mask, x)

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        rows = rows_of(x)  # (M, C)
        slices = _slices_of(rows)
        (total,) = self._sums(lambda s: [self._sum_rows(rows[s])], slices)
        mean = total / len(rows)
        near = mean.astype(x.dtype)  # the mean in x's dtype; the difference is corrected below

        def squares(s: slice) -> Sequence[Array]:
            centred = np.subtract(rows[s], near, out=self._doubles(rows[s]))
            return [self._sum_rows(np.square(centred, out=centred))]

        (total,) = self._sums(squares, slices)
        return mean, np.maximum(total / len(rows) - (mean - near) ** 2, 0)

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
        rows = rows_of(x)  # (M, C)
        y = self.arena.empty(rows.shape, rows.dtype)
        near, scale, shift = self.normalize_constants(mean, variance, eps, weight, bias, x.dtype)

        def work(s: slice) -> None:
            part = np.subtract(rows[s], near, out=y[s])
            part *= scale
            part += shift
            self._activate(part, epilogue.slope)

        self.pool.run(work, _slices_of(rows))
        return in_shape(y, x.shape)

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
        rows, grads, near = rows_of(x), rows_of(dy), mean.astype(x.dtype)  # (M, C), (M, C), (C,)
        dx = self.arena.empty(rows.shape, rows.dtype)
        # With an activation, dx first holds the gradient behind it.
        result, given = (rows_of(y), dx) if epilogue.has_activation else (None, grads)
        slices = _slices_of(rows)

        def sums(s: slice) -> Sequence[Array]:
            if result is not None:
                _deactivate(grads[s], result[s], epilogue.slope, given[s])
            product = np.subtract(rows[s], near, out=self._doubles(rows[s]))
            product *= given[s]
            return self._sum_rows(product), self._sum_rows(given[s])

        product, dbias = self._sums(sums, slices)  # (C,)
        coefficients = self.normalize_coefficients(len(rows), mean - near, inv_std, weight, product, dbias)
        dweight, tilt, shift, scale = (v.astype(x.dtype) for v in coefficients)

        def apply(s: slice) -> None:
            part = np.subtract(rows[s], near, out=self.scratch.get("rows", rows[s].shape, rows.dtype))
            part *= tilt
            part += shift
            np.subtract(given[s], part, out=part)
            np.multiply(part, scale, out=dx[s])

        self.pool.run(apply, slices)
        return in_shape(dx, x.shape), dweight, dbias.astype(x.dtype)

    # -- optimisers ------------------------------------------------------------------------------

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        parts = []
        for arrays, (rate, correction) in zip(updates, factors(), strict=True):
            numbers = {"rate": rate, "correction": correction, **constants}
            flat = _flat_views(*arrays)
            if flat is None:
                self.adam_update(*arrays, **numbers)
                continue
            slices = cut(flat[0].size, len(flat) * flat[0].itemsize)
            parts += [([a[s] for a in flat], numbers) for s in slices]

        def work(places: slice) -> None:
            for arrays, numbers in parts[places]:
                for few in steps(slice(0, len(arrays[0])), MAX_UPDATED):
                    self.adam_update(*(a[few] for a in arrays), **numbers)

        # All parameters' slices in one call, so that threads wait for each other only once.
        self.pool.run(work, [slice(i, i + 1) for i in range(len(parts))])


def is_innermost(x: Array) -> bool:
    """Whether x is (N, C, H, W) with the channels innermost in memory, and not in C order as well."""
    return x.ndim == 4 and not x.flags.c_contiguous and channels_last(x).flags.c_contiguous


def rows_of(x: Array) -> Array:
    """Return (N, C) or (N, C, H, W) as rows (M, C), copied if necessary."""
    if x.ndim == 4:
        x = Backend.position_rows(x)  # (N * H * W, C)
    return np.ascontiguousarray(x)


def in_shape(x: Array, shape: tuple[int, ...]) -> Array:
    """Return numbers in memory order as an array: of images (N, C, H, W) with channels innermost. No copy."""
    if len(shape) != 4:
        return x.reshape(shape)
    n, c, h, w = shape
    return channels_first(x.reshape(n, h, w, c))  # (N, C, H, W)


def _slices_of(rows: Array) -> list[slice]:
    """Return slices of rows (M, C)."""
    return cut(len(rows), rows.shape[1] * rows.itemsize)


def _deactivate(dy: Array, y: Array, slope: float, out: Array) -> None:
    """Do `leaky_relu_backward` of a slice: each element is multiplied by 1 or by the slope.

    A product or a copy with a mask would take 10 times as long.
    """
    if slope == 0:
        bits = _bits(out)
        np.copyto(bits, y > 0)
        np.multiply(bits, _bits(dy.astype(out.dtype, copy=False)), out=bits)
        return
    np.copyto(out, y > 0)
    np.maximum(out, slope, out=out)
    out *= dy


def _bits(x: Array) -> Array:
    """Return a view of floats as integers of the same bits. Times 0 they are 0, infinity and NaN too."""
    return x.view(np.int32 if x.dtype == np.float32 else np.int64)


def _flat_views(*arrays: Array) -> list[Array] | None:
    """Return views (numbers,) in memory order; None unless all are in C order, or all channels innermost."""
    if all(a.flags.c_contiguous for a in arrays):
        return [a.reshape(-1) for a in arrays]
    if all(a.ndim == 4 and channels_last(a).flags.c_contiguous for a in arrays):
        return [channels_last(a).reshape(-1) for a in arrays]
    return None
