"""The CPU's backend: products and convolutions on slices of the batch, and the parts in files of their own.

The arithmetic is that of base.py, slice by slice. What differs is where results go: into arrays
made once, and into scratch memory that stays in the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..epilogue import NO_EPILOGUE, Epilogue
from ..geometry import ConvGeometry
from ..kept import Memo
from . import frequency, phases
from .batch_norm import CompiledBatchNorm
from .bilinear import BilinearForm, Transform
from .elementwise import CompiledElementwise
from .losses import CompiledLosses
from .native import Kernels
from .optimizers import CompiledOptimizers
from .parallel import MAX_SLICE_BYTES, MIN_SLICE_BYTES, TARGET_SLICES, cut, even
from .taps import TapOrder

# Where a product is cut, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8
MIN_INNER_LOOP = 16  # numbers that are worth an inner loop of NumPy's
# A weight gradient is summed over this many slices at most, each with a partial sum of its own.
MAX_PARTIAL_SUMS = 8


class CPUBackend(CompiledElementwise, CompiledBatchNorm, CompiledLosses, CompiledOptimizers):
    """Arrays of NumPy; `pool` holds the threads.

    Args:
        kernels: as `native.kernels` gives them; None for NumPy's forms.
    """

    device = "cpu"

    def __init__(self, kernels: Kernels | None = None) -> None:
        super().__init__(kernels)
        self.taps = TapOrder(self.pool, self.scratch, self.arena.empty)
        self.bilinear = BilinearForm(self.pool, self.scratch, self.arena.empty)
        self.phases = phases.PhaseForm(self.pool, self.scratch, self.arena.empty, self.taps)

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
