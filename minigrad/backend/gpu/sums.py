"""Sums and averages on a GPU.

CuPy gives a block of threads 32 columns, however many rows there are to add up: two blocks for the gradient
of a bias of 64 channels, on a GPU that can run hundreds. So a kernel of our own takes the sums of columns,
and of whole arrays. CuPy takes the others.
"""

import math

import cupy as xp
import numpy as np

from ..arrays import Array, channels_last
from ..base import Backend
from .kernels import load
from .kernels.launch import by_cupy, launch_blocks, types_of

COLUMNS = 32  # of a block at the most: what a warp reads at once
ROWS = 8  # that a thread adds up at the least, before a column is cut into chunks
BLOCKS = 528  # of a launch at the most, if columns are cut: four for each multiprocessor of an H100

_TYPES = {"reduce_type": "double", "map_expr": "(double)x", "reduce_expr": "a + b", "identity": "0"}
_sum = xp.ReductionKernel("T x", "T y", post_map_expr="y = (T)a", name="minigrad_sum", **_TYPES)
_mean = xp.ReductionKernel(
    "T x",
    "T y",
    post_map_expr="y = (T)a / (T)(_in_ind.size() / _out_ind.size())",
    name="minigrad_mean",
    **_TYPES,
)


class GPUSums(Backend):
    """The sums of `GPUBackend`."""

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        rows = _rows(x, axes)
        if rows is not None:
            return _sums(rows, _shape(x, axes, keepdims))
        if x.dtype != "float32":
            y = x.sum(axis=axes, keepdims=keepdims)
        else:
            y = _sum(x, axis=axes, keepdims=keepdims)
        return by_cupy("sum", y, x, flop=1)

    def mean(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        rows = _rows(x, axes)
        if rows is not None:
            return _sums(rows, _shape(x, axes, keepdims), len(rows))
        return by_cupy("mean", _mean(x, axis=axes, keepdims=keepdims), x, flop=1)


def _rows(x: Array, axes: tuple[int, ...]) -> Array | None:
    """Return x as rows (M, C) whose columns are to be summed; no copy.

    None for other dtypes than float32 and float64, for an empty array, and where the axes that are kept do
    not lie innermost and in their order.
    """
    if not x.size or str(x.dtype) not in load.FLOATS:
        return None
    kept = [axis for axis in range(x.ndim) if axis not in axes]
    columns = math.prod(x.shape[axis] for axis in kept)
    if x.flags.c_contiguous and kept == list(range(len(axes), x.ndim)):
        return x.reshape(-1, columns)  # (M, C)
    if x.ndim == 4 and kept in ([], [1]) and channels_last(x).flags.c_contiguous:
        return channels_last(x).reshape(-1, columns)  # (M, C)
    return None


def _shape(x: Array, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """Return the shape of a sum of x along axes."""
    if keepdims:
        return tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    return tuple(size for axis, size in enumerate(x.shape) if axis not in axes)


def _sums(rows: Array, shape: tuple[int, ...], count: int = 1) -> Array:
    """Return the sum of each column of rows (M, C), over `count`, in a shape of C elements."""
    m, c = rows.shape
    width = min(COLUMNS, 1 << (c - 1).bit_length())  # of a block
    chunks = min(m * width // (load.BLOCK * ROWS), BLOCKS // -(-c // width))
    result = xp.empty(shape, rows.dtype)  # not a view, since a gradient is kept if it owns its memory
    if chunks > 1:
        chunk = -(-m // chunks)
        sums = xp.empty((-(-m // chunk), c), np.float64)
        _column_sums(rows, sums, 1, chunk, width)
        rows = sums
    _column_sums(rows, result, count, len(rows), width)
    return result


def _column_sums(rows: Array, sums: Array, count: int, chunk: int, width: int) -> None:
    """Sum the columns of each chunk of rows (M, C) into `sums`, (chunks, C): `width` columns a block."""
    m, c = rows.shape
    launch_blocks(
        "sums",
        "column_sums",
        types_of(rows.dtype, sums.dtype),
        (-(-c // width), -(-m // chunk)),
        (width, load.BLOCK // width),
        (rows, sums, sums.dtype.type(count), np.int64(m), np.int64(c), np.int64(chunk)),
    )
