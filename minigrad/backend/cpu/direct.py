"""The direct form of a convolution: C kernels that read the factors where they lie."""

import functools
import math

import numpy as np

from ..arrays import Array, channels_last
from ..epilogue import Epilogue
from ..geometry import ConvGeometry, Pair
from . import plans
from .forms import Alone, ColumnsForm
from .native import address, readable
from .plans import Plans
from .workspace import Workspace

PIECES = 8  # of a call, at least: for so many threads (a smaller batch by itself has fewer)
ROWS = 256  # of a piece, where there are so many: it reads the weight once
FEWEST_ROWS = 48  # of a piece: where there are fewer, its columns are cut instead
NEAR_BYTES = 1 << 19  # that a weight gradient reads again and again, or adds to: they stay in the cache
FEWEST_POSITIONS = 128  # that a tile of a weight gradient adds up before it adds the sum to others

COLUMNS = 4  # of a block, where they are taken one by one (kernels/convolution.c)


class DirectForm(Alone):
    """The three products of a convolution, by kernels/convolution.c.

    They take arrays of float32 or float64, all of one dtype. Infinities and NaN go where they go in the plain
    form; for that, the input gradient of a weight that is not finite is left to `ColumnsForm`.

    Args:
        workspace: with kernels.
    """

    description = "by a kernel in C that reads the image where it lies (backend/cpu/kernels/convolution.c)"

    def __init__(self, workspace: Workspace) -> None:
        assert workspace.kernels is not None
        self._kernels, self._space = workspace.kernels, workspace
        self._columns = ColumnsForm(workspace)

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """It takes all sizes of arrays that are not empty."""
        return min(n, channels, out_channels) > 0

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        o, c = weight.shape[:2]
        found = plans.of_convolution(geometry, c, o)
        packed = self._packed(weight, found, by_inner=False)
        return self._gather(x, packed, o, bias, epilogue.slope, found, geometry.output_size)

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        o, c = weight.shape[:2]
        found = plans.of_input_gradient(geometry, c, o)
        not_finite = None if found.canvas_size == geometry.output_size else np.zeros(1, np.int64)
        packed = self._packed(weight, found, by_inner=True, not_finite=not_finite)
        if not_finite is not None and not_finite[0]:  # infinity times the zeros around dy would be NaN
            return self._columns.input_gradient(dy, weight, bias, geometry, epilogue)
        return self._gather(dy, packed, c, bias, epilogue.slope, found, geometry.input_size)

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        c, o = x.shape[1], dy.shape[1]
        # Before the memory of the parts, which is free again soon: no gap is left.
        weight = self._space.arena.empty((o, c, *geometry.kernel_size), x.dtype)
        parts = self._weight_parts(x, dy, geometry)
        sizes = len(parts), geometry.taps, c, o, parts.shape[2]
        self._kernels.weight_sum[x.dtype](address(parts), address(weight), *sizes)
        return weight

    def _weight_parts(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        """Return the weight gradient in parts, which are to be added up: (parts, taps * C, columns).

        There are O columns, and others behind them up to whole tiles.
        """
        x, dy = readable(x), readable(dy)
        (n, c), o, dtype = x.shape[:2], dy.shape[1], x.dtype
        found = plans.of_convolution(geometry, c, o)
        vectors, wide = _tile(o, 0, self._kernels.vector_bytes // dtype.itemsize)
        pitch = -(-o // wide) * wide
        image_bytes = (math.prod(found.canvas_size) * c + geometry.positions * pitch) * dtype.itemsize
        each = min(n, max(NEAR_BYTES // image_bytes, -(-FEWEST_POSITIONS // geometry.positions)))
        made = geometry.taps * c * pitch * dtype.itemsize  # bytes
        parts, splits = min(PIECES, -(-n // each)), 1
        if made > NEAR_BYTES:
            parts, splits = 1, max(PIECES, -(-made // NEAR_BYTES))
        members = self._space.pool.threads
        laid_images = n if splits > 1 else members * each
        canvas = self._canvas(x, found, laid_images)
        laid = self._space.scratch.get("laid", (laid_images * geometry.positions, pitch), dtype)
        dw = self._space.arena.empty((parts, geometry.taps * c, pitch), dtype)
        self._kernels.weight_gradient[dtype](
            n, *_images(x), *found.corner, *found.canvas_size, *_images(dy), address(dw), address(laid),
            _address(canvas), address(found.rows), address(found.segments), len(found.segments),
            found.plans[0].length, vectors, parts, splits, each, members,
        )  # fmt: skip
        return dw

    def _gather(
        self, x: Array, packed: Array, columns: int, bias: Array | None, slope: float,
        found: Plans, size: Pair,
    ) -> Array:  # fmt: skip
        """Multiply the rows of the plans by a weight of so many columns, as `_packed` gives it."""
        x = readable(x)
        bias = None if bias is None else readable(np.ascontiguousarray(bias))
        n, dtype = len(x), x.dtype
        vectors, wide = _tile(columns, found.shortest, self._kernels.vector_bytes // dtype.itemsize)
        each, splits = _cut(n, found.most_rows, -(-columns // (wide if vectors else COLUMNS)))
        members = self._space.pool.threads
        canvas = self._canvas(x, found, members * each)
        y = self._space.arena.empty((n, *size, columns), dtype)
        self._kernels.gather[dtype](
            n, *_images(x), *found.corner, *found.canvas_size,
            address(packed), _address(bias), address(y), y[0].size, columns, vectors,
            address(found.table), len(found.plans), address(found.rows), address(found.out),
            address(found.segments), each, splits, _address(canvas), members, slope,
        )  # fmt: skip
        return y

    def _packed(self, weight: Array, found: Plans, by_inner: bool, not_finite: Array | None = None) -> Array:
        """Return the weight (O, C, kh, kw) in the order of the kernel, with columns C `by_inner`, or else O.

        not_finite[0] becomes 1 if a number is infinite or NaN.
        """
        (o, c), taps, dtype = weight.shape[:2], weight.shape[2] * weight.shape[3], weight.dtype
        weight = readable(np.ascontiguousarray(weight))
        columns = c if by_inner else o
        _, wide = _tile(columns, found.shortest, self._kernels.vector_bytes // dtype.itemsize)
        packed = self._space.scratch.get("packed", (found.depth * -(-columns // wide) * wide,), dtype)
        sides = (o, c * taps, c, taps) if by_inner else (c, taps, o, c * taps)
        self._kernels.pack[dtype](
            address(weight), address(packed), address(found.table), len(found.plans), address(found.taps),
            *sides, wide, _address(not_finite),
        )  # fmt: skip
        return packed

    def _canvas(self, x: Array, found: Plans, count: int) -> Array | None:
        """Return memory for the canvases of so many images; None where images are their own."""
        if found.canvas_size == x.shape[2:] and channels_last(x)[0].flags.c_contiguous:
            return None
        return self._space.scratch.get("canvas", (count, *found.canvas_size, x.shape[1]), x.dtype)


@functools.lru_cache(maxsize=1024)
def _tile(columns: int, length: int, lanes: int) -> tuple[int, int]:
    """Return the vectors of columns of a tile, 2 or 1, or 0 for columns one by one; and its columns.

    Args:
        columns: of the product: one by one where they are few.
        length: of a segment: then its numbers have to fill vectors.
        lanes: numbers of a vector.
    """
    if 2 * columns < lanes <= length:
        return 0, 1
    vectors = 2 if -(-columns // lanes) % 2 == 0 or columns > 4 * lanes else 1
    return vectors, vectors * lanes


@functools.lru_cache(maxsize=1024)
def _cut(n: int, rows: int, blocks: int) -> tuple[int, int]:
    """Return the images of a piece, and into how many pieces their blocks of columns are cut.

    Args:
        rows: of an image.
    """
    each = min(n, -(-ROWS // rows), max(-(-n // PIECES), -(-FEWEST_ROWS // rows)))
    return each, max(1, min(blocks, PIECES // -(-n // each)))


def _images(x: Array) -> tuple[int, ...]:
    """Return what a kernel gets of images (N, C, H, W): their address, strides in numbers, and H, W, C."""
    size, (_, c, h, w), (along_n, along_c, along_h, along_w) = x.itemsize, x.shape, x.strides
    return address(x), along_n // size, along_h // size, along_w // size, along_c // size, h, w, c


def _address(array: Array | None) -> int:
    return 0 if array is None else address(array)
