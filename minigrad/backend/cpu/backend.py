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
from ..geometry import ConvGeometry
from ..kept import Memo, sample
from ..optimizers import AdamUpdate, Factors
from ..philox import DRAWS_PER_BLOCK, Counter, Key
from . import frequency, phases
from .arena import Arena, owns_memory
from .bilinear import BilinearForm, Transform
from .parallel import (
    MAX_SLICE_BYTES,
    MIN_SLICE_BYTES,
    TARGET_SLICES,
    Pool,
    Scratch,
    available_threads,
    cut,
    even,
    steps,
)
from .runs import Channels
from .taps import TapOrder

# Where a product is cut, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8
MAX_DRAWS = 1 << 18  # of one call: far fewer would wait for Python's lock for longer than they take
MIN_INNER_LOOP = 16  # numbers that are worth an inner loop of NumPy's
SUMMED_ROWS = 256  # that are added in float32, before float64 goes on
ONES = np.ones((1, SUMMED_ROWS), np.float32)
PRODUCT_THRESHOLD = 1 << 14  # numbers; fewer are converted to float64 as fast as a product adds them
# A weight gradient is summed over this many slices at most, each with a partial sum of its own.
MAX_PARTIAL_SUMS = 8


class CPUBackend(Backend):
    """Arrays of NumPy; `pool` holds the threads."""

    device = "cpu"
    xp = np

    def __init__(self) -> None:
        self.pool = Pool(available_threads())
        self.scratch = Scratch()
        self.arena = Arena()
        self.taps = TapOrder(self.pool, self.scratch, self.arena.empty)
        self.bilinear = BilinearForm(self.pool, self.scratch, self.arena.empty)
        self.phases = phases.PhaseForm(self.pool, self.scratch, self.arena.empty, self.taps)

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

    # -- convolution ---------------------------------------------------------------------------

    def kernel_matrix(self, weight: Array) -> Array:
        return self.taps.matrix(weight)

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
        canvas[:, :top] = canvas[:, top + height :] = 0
        canvas[:, top : top + height, :left] = canvas[:, top : top + height, left + width :] = 0
        canvas[:, top : top + height, left : left + width] = pixels
        return canvas

    def _laid_in_pixels(self, rows: Array, kernel: Array, n: int, geometry: ConvGeometry) -> Array:
        """Return x's share (n, H, W, C) of rows of dy (n * oh * ow, O) by a kernel (kh * kw * C, O)."""
        columns = self.scratch.get("columns", (len(rows), len(kernel)), rows.dtype)
        return self._overlapped(np.matmul(rows, kernel.T, out=columns), n, geometry)

    def _laid_in_planes(self, rows: Array, kernel: Array, n: int, geometry: ConvGeometry) -> Array:
        """The same for few channels: whole planes of a tap and a channel are added, in runs along a line of
        positions, not in those of the channels.
        """
        (kh, kw), (sh, sw), (dh, dw) = geometry.kernel_size, geometry.stride, geometry.dilation
        (oh, ow), (top, _), (left, _) = geometry.output_size, *geometry.padding
        height, width = geometry.input_size
        c = len(kernel) // geometry.taps
        columns = self.scratch.get("columns", (len(kernel), len(rows)), rows.dtype)
        np.matmul(kernel, rows.T, out=columns)
        planes = columns.reshape(kh, kw, c, n, oh, ow)
        canvas = self.scratch.get("canvas", (c, n, *geometry.canvas_size), rows.dtype)
        canvas[...] = 0
        for i in range(kh):
            down = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            for j in range(kw):
                right = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
                canvas[:, :, down, right] += planes[i, j]
        return canvas[:, :, top : top + height, left : left + width].transpose(1, 2, 3, 0)

    def _overlapped(self, columns: Array, n: int, geometry: ConvGeometry) -> Array:
        """`col2im` with channels innermost, (n, H, W, C), in this thread's scratch memory.

        With a stride s that divides the kernel, s x s neighbouring taps of a position lie side by side on the
        canvas, those of the next position beside them: they are added together, in longer runs.
        """
        (oh, ow), (kh, kw) = geometry.output_size, geometry.kernel_size
        (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
        (top, _), (left, _) = geometry.padding
        height, width = geometry.input_size
        c = columns.shape[1] // geometry.taps
        canvas = self.scratch.get("canvas", (n, *geometry.canvas_size, c), columns.dtype)
        canvas[...] = 0
        down, right = (sh if kh % sh == 0 and dh == 1 else 1), (sw if kw % sw == 0 and dw == 1 else 1)
        taps = columns.reshape(n, oh, ow, kh // down, down, kw // right, right * c)
        along_n, along_y, along_x, along_c = canvas.strides
        for i in range(kh // down):
            for j in range(kw // right):
                place = np.lib.stride_tricks.as_strided(
                    canvas[:, i * down * dh :, j * right * dw :],
                    (n, oh, down, ow, right * c),
                    (along_n, sh * along_y, along_y, sw * along_x, along_c),
                )
                place += taps[:, :, :, i, :, j].transpose(0, 1, 3, 2, 4)
        return canvas[:, top : top + height, left : left + width]

    def convolve(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
        memo: Memo | None = None,
    ) -> tuple[Array, Array | None]:
        if epilogue.dropout is None:

            def finish(y: Array, s: slice) -> None:
                self._finish(y[s], bias, epilogue)

            return channels_first(self._convolved(x, weight, geometry, finish, memo)), None

        dropout = epilogue.dropout
        keep = self.arena.empty((len(x), *geometry.output_size, len(weight)), np.bool_)  # (N, oh, ow, O)
        each = geometry.positions * len(weight)  # numbers of an image

        def finish_and_drop(y: Array, s: slice) -> None:
            self._finish(y[s], bias, epilogue)
            numbers = slice(s.start * each, s.stop * each)
            self._drop(y.reshape(-1), keep.reshape(-1), numbers, *dropout)

        y = self._convolved(x, weight, geometry, finish_and_drop, memo)  # (N, oh, ow, O)
        return channels_first(y), channels_first(keep)

    def _convolved(
        self,
        x: Array,
        weight: Array,
        geometry: ConvGeometry,
        finish: Callable[[Array, slice], None],
        memo: Memo | None = None,
    ) -> Array:
        """The convolution, channels innermost: (N, oh, ow, O).

        `finish(y, s)` changes the images s of y in place, while they are in the cache.
        """
        transform = _transform(geometry, len(x), x.shape[1], len(weight), x.dtype)
        if transform is not None:
            return self.bilinear.convolve(x, weight, geometry, transform, finish, memo)
        if _makes_few_planes(geometry, x.shape[1], len(weight)):
            return self._laid(x, _turned(weight), geometry.mirrored(), finish)
        kernel = self.kernel_matrix(weight)  # (kh * kw * C, O)
        y = self.arena.empty((len(x), *geometry.output_size, len(weight)), x.dtype)

        def work(s: slice) -> None:
            rows = y[s].reshape((s.stop - s.start) * geometry.positions, len(weight))  # a view
            np.matmul(self._columns(x[s], geometry), kernel, out=rows)
            finish(y, s)

        self.pool.run_products(work, cut(len(x), _bytes_each(x.shape[1], len(weight), geometry, x.itemsize)))
        return y

    def _finish(self, part: Array, bias: Array | None, epilogue: Epilogue) -> None:
        """Add a bias to a slice with the channels innermost, and apply an activation, in place."""
        if bias is not None:
            part += bias
        self._activate(part, epilogue.slope)

    def convolve_input_gradient(
        self,
        dy: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
        memo: Memo | None = None,
    ) -> Array:
        n, c = len(dy), weight.shape[1]

        def finish(dx: Array, s: slice) -> None:
            self._finish(dx[s], bias, epilogue)

        transform = _transform(geometry, n, c, len(weight), dy.dtype)
        if transform is not None:
            return channels_first(self.bilinear.input_gradient(dy, weight, geometry, transform, finish, memo))
        if _is_narrow(geometry, c, len(weight)):
            return self.convolve(dy, _turned(weight), bias, geometry.mirrored(), epilogue)[0]

        def finish_rows(rows: Array) -> None:
            self._finish(rows, bias, epilogue)

        if phases.pays(geometry, c, len(weight)):
            return channels_first(self.phases.input_gradient(dy, weight, geometry, finish_rows))
        return channels_first(self._laid(dy, weight, geometry, finish))

    def _laid(
        self,
        dy: Array,
        weight: Array,
        geometry: ConvGeometry,
        finish: Callable[[Array, slice], None],
    ) -> Array:
        """Add up what the taps of each position of dy lay on x, channels innermost: (N, H, W, C)."""
        n, c = len(dy), weight.shape[1]
        kernel = self.kernel_matrix(weight)  # (kh * kw * C, O)
        if geometry.input_size == geometry.canvas_size == geometry.kernel_size:  # each tap has its own pixel
            flat = self.matmul(self.position_rows(dy), kernel.T)  # (N, kh * kw * C)
            dx = flat.reshape(n, *geometry.input_size, c)  # (N, H, W, C)
            self.pool.run(lambda s: finish(dx, s), cut(n, dx[:1].nbytes))
            return dx
        dx = self.arena.empty((n, *geometry.input_size, c), dy.dtype)  # (N, H, W, C)
        few = c < MIN_INNER_LOOP
        lay = self._laid_in_planes if few else self._laid_in_pixels

        def work(s: slice) -> None:
            rows = self.position_rows(dy[s])  # (n * oh * ow, O)
            dx[s] = lay(rows, kernel, len(dx[s]), geometry)  # (n, H, W, C)
            finish(dx, s)

        each = _bytes_each(c, len(weight), geometry, dy.itemsize)
        if few:  # planes are added in many short calls: so in larger slices, counted without the rows of dy
            each = 2 * _bytes_each(c, 0, geometry, dy.itemsize)
        self.pool.run_products(work, cut(n, each))
        return dx

    def convolve_and_weight_gradient(
        self,
        x: Array,
        weight: Array,
        y: Array,
        geometry: ConvGeometry,
        memo: Memo | None = None,
    ) -> tuple[Array, Array]:
        n, c, o = len(x), x.shape[1], len(weight)
        transform = _transform(geometry, n, c, o, x.dtype)
        if transform is not None:
            found, dw = self.bilinear.convolve_and_weight_gradient(x, weight, y, geometry, transform, memo)
            return channels_first(found), dw
        kernel = self.kernel_matrix(weight)  # (kh * kw * C, O)
        convolved = self.arena.empty((n, *geometry.output_size, o), x.dtype)  # (N, oh, ow, O)

        def work(s: slice, columns: Array) -> None:
            rows = convolved[s].reshape(len(columns), o)  # a view
            np.matmul(columns, kernel, out=rows)

        return channels_first(convolved), self._sum_of_products(x, y, geometry, work)

    def convolve_gradients(
        self,
        x: Array,
        weight: Array,
        dy: Array,
        geometry: ConvGeometry,
        memo: Memo | None = None,
    ) -> tuple[Array, Array]:
        transform = _transform(geometry, len(x), x.shape[1], len(weight), x.dtype)
        if transform is None:
            return super().convolve_gradients(x, weight, dy, geometry)
        dx, dw = self.bilinear.gradients(x, weight, dy, geometry, transform, memo)
        return channels_first(dx), dw

    def convolve_weight_gradient(
        self, x: Array, dy: Array, geometry: ConvGeometry, memo: Memo | None = None
    ) -> Array:
        n, c, o = len(x), x.shape[1], dy.shape[1]
        transform = _transform(geometry, n, c, o, x.dtype)
        if transform is not None:
            return self.bilinear.weight_gradient(x, dy, geometry, transform, memo)
        if _is_narrow(geometry, c, o):
            return _turned(self.convolve_weight_gradient(dy, x, geometry.mirrored()))
        return self._sum_of_products(x, dy, geometry)

    def _sum_of_products(
        self,
        x: Array,
        dy: Array,
        geometry: ConvGeometry,
        also: Callable[[slice, Array], None] = lambda s, columns: None,
    ) -> Array:
        """The weight gradient, slice by slice; `also(slice, columns)` gets each slice's columns of x."""
        c, o = x.shape[1], dy.shape[1]
        slices = self._summed_slices(len(x), c, o, geometry, x.itemsize)
        group = max(1, len(slices) // MAX_PARTIAL_SUMS)  # both are powers of two
        groups = [slice(i, i + group) for i in range(0, len(slices), group)]
        partial = self.arena.empty((len(groups), geometry.taps * c, o), x.dtype)

        def work(g: slice) -> None:
            total = partial[g.start // group]
            for s in slices[g]:
                rows, columns = self.position_rows(dy[s]), self._columns(x[s], geometry)
                also(s, columns)
                if s is slices[g.start]:
                    np.matmul(columns.T, rows, out=total)
                else:
                    total += np.matmul(columns.T, rows, out=self.scratch.get("partial", total.shape, x.dtype))

        self.pool.run_products(work, groups)
        return self.taps.summed(partial, (o, c, *geometry.kernel_size))

    @staticmethod
    def _summed_slices(n: int, c: int, o: int, geometry: ConvGeometry, itemsize: int) -> list[slice]:
        """Slices of a batch for a weight gradient: each one's columns outweigh its sum, which is as large as
        the weight, and they are two at the least.
        """
        each, weight = _bytes_each(c, o, geometry, itemsize), geometry.taps * c * o * itemsize
        if n * each < 2 * MIN_SLICE_BYTES:
            return cut(n, each)
        wanted = max(2, n * each // max(MAX_SLICE_BYTES, 2 * weight))
        return even(n, wanted)

    def convolution_form(
        self, product: str, geometry: ConvGeometry, n: int, channels: int, out_channels: int
    ) -> str:
        if frequency.pays(geometry, n, channels, out_channels):
            return "in the frequency domain (backend/cpu/frequency.py)"
        if product == "convolve" and _makes_few_planes(geometry, channels, out_channels):
            return "by laying the image on the few channels of the result, tap by tap (backend/cpu)"
        single = product in ("convolve_input_gradient", "convolve_weight_gradient")
        if single and _is_narrow(geometry, channels, out_channels):
            return "by the columns of the result, which are narrower (backend/cpu)"
        if product == "convolve_input_gradient" and phases.pays(geometry, channels, out_channels):
            return "by the phases of its stride (backend/cpu/phases.py)"
        return "by columns and matrix products, slice by slice of the batch (backend/cpu)"

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


def _transform(
    geometry: ConvGeometry, n: int, channels: int, out_channels: int, dtype: np.dtype[Any]
) -> Transform | None:
    """The transform between which the products of these sizes are fewest; None for the plain forms."""
    if not frequency.pays(geometry, n, channels, out_channels):
        return None
    return frequency.transform(geometry, dtype.char)


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


def _bytes_each(channels: int, out_channels: int, geometry: ConvGeometry, itemsize: int) -> int:
    """Bytes of an image's columns and of its rows of y, which a product holds side by side."""
    return geometry.positions * (geometry.taps * channels + out_channels) * itemsize


def _is_narrow(geometry: ConvGeometry, channels: int, out_channels: int) -> bool:
    """Whether a gradient's columns are narrower seen from the result (see ConvGeometry.mirrored).

    Columns have all channels of a tap side by side; where the result has few, it is the image's that make
    them wide. The product is as large either way, but for the pixels of the image, which are the positions
    then. (Forward, with `_makes_few_planes`, it takes more: what is saved goes into adding up planes.)
    """
    pixels = geometry.input_size[0] * geometry.input_size[1]
    narrower = 2 * pixels * out_channels <= geometry.positions * channels
    return narrower and geometry.taps > 1 and geometry.can_be_mirrored


def _makes_few_planes(geometry: ConvGeometry, channels: int, out_channels: int) -> bool:
    """Whether a convolution is better seen from its result, as if the image were laid on it tap by tap.

    Then a product has a column for each tap of each channel of the result, where it had one for each tap of
    each channel of the image; and few planes have to be added up.
    """
    pixels = geometry.input_size[0] * geometry.input_size[1]
    few = out_channels < MIN_INNER_LOOP and 4 * out_channels <= channels and pixels <= 2 * geometry.positions
    return few and geometry.taps > 1 and geometry.can_be_mirrored


def _turned(weight: Array) -> Array:
    """(O, C, kh, kw) as the weight (C, O, kh, kw) of the mirrored geometry, turned by 180 degrees."""
    return np.ascontiguousarray(weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1])


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
