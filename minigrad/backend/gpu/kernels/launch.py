"""Launch kernels, and bring arguments into the form in which they are read.

A kernel gets addresses and believes them: it checks nothing. So the caller brings its arrays into the memory
order that the kernel reads, of one dtype, and wraps every number in the type that the kernel declares.
"""

import functools
from typing import Any

import cupy as xp
import numpy as np

from ... import launches
from ...arrays import Array, channels_first, channels_last
from . import load, work

TILE = 32  # rows and columns of a matrix that a block of `transpose` moves at once
NARROW = 8  # rows or columns
MOST_BLOCKS = 65_535  # of a grid along its second and third axes


def launch(file: str, kernel: str, types: str, threads: int, args: tuple[Any, ...]) -> None:
    """Run a kernel of a file with at least `threads` threads; nothing for 0 threads."""
    if threads:
        launch_blocks(file, kernel, types, (-(-threads // load.BLOCK),), (load.BLOCK,), args)


def launch_blocks(
    file: str, kernel: str, types: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]
) -> None:
    """Run a kernel of a file on a grid of blocks. Every kernel of our own is launched here."""
    load.function(file, kernel, types)(grid, block, args)
    if launches.listeners:
        launches.notify(work.of_kernel(kernel, types, grid, args))


def by_cupy(kernel: str, result: Array, *inputs: Array, flop: int = 0) -> Array:
    """Return a result of one of CuPy's own kernels, whose launch is recorded here.

    Args:
        kernel: what it did, such as "copy".
        inputs: the arrays that it read.
        flop: its operations an element of the largest array.
    """
    if launches.listeners:
        launches.notify(work.of_cupy(kernel, (*inputs, result), flop))
    return result


def reshaped(x: Array, shape: tuple[int, ...]) -> Array:
    """Return x in another shape; a copy only if it must be."""
    y = x.view()
    try:
        y.shape = shape
    except AttributeError:  # CuPy's, where no view shows it so
        y = contiguous(x)
        y.shape = shape  # not a view of the copy, which would not own its memory
    return y


def contiguous(x: Array, dtype: Any = None) -> Array:
    """Return x contiguous, of `dtype` if one is given; a copy only if it must be."""
    if x.ndim == 4 and not x.flags.c_contiguous and (dtype is None or dtype == x.dtype):
        matrices = _matrices(x)
        if matrices is not None:
            return _transposed(x, *matrices)
    result = xp.ascontiguousarray(x, dtype)
    return x if result is x else by_cupy("copy", result, x)


def _matrices(x: Array) -> tuple[int, int, int] | None:
    """Return the (N, A, B) that lie in memory where x (N, ...) in its own order is (N, B, A).

    None where images are not what lies there, for narrow matrices, which CuPy copies as well, and where the
    grid would be too large.
    """
    n, *rest = x.shape
    if str(x.dtype) not in load.FLOATS:
        return None
    if channels_last(x).flags.c_contiguous:
        a, b = rest[1] * rest[2], rest[0]
    elif channels_first(x).flags.c_contiguous:
        a, b = rest[2], rest[0] * rest[1]
    else:
        return None
    fits = min(a, b) >= NARROW and a <= TILE * MOST_BLOCKS
    return (n, a, b) if fits else None


def _transposed(x: Array, n: int, a: int, b: int) -> Array:
    """Return x contiguous, whose memory is n matrices (a, b), as n matrices (b, a)."""
    result = xp.empty(x.shape, x.dtype)
    grid = -(-b // TILE), -(-a // TILE), min(n, MOST_BLOCKS)
    args = (x, result, np.int64(n), np.int64(a), np.int64(b))
    launch_blocks("transpose", "transpose", types_of(x.dtype), grid, (TILE, 8), args)
    return result


@functools.cache
def types_of(dtype: Any, second: Any = None) -> str:
    """The template arguments: a dtype, and a second one or how many elements a thread takes.

    Raises TypeError for a dtype that no kernel is made for.
    """
    if str(dtype) not in load.FLOATS:
        raise TypeError(f"expected float32 or float64, got {dtype}")
    if second is None:
        return f"<{load.FLOATS[str(dtype)]}>"
    return f"<{load.FLOATS[str(dtype)]}, {load.FLOATS.get(str(second), second)}>"


def fitted(x: Array, like: Array) -> Array:
    """x stretched to the shape of `like`, in its dtype but for a mask; ValueError where it does not fit."""
    dtype = x.dtype if x.dtype == "bool" else like.dtype
    stretched = xp.broadcast_to(x, like.shape)
    return stretched if x.dtype == dtype else by_cupy("cast", stretched.astype(dtype), x)


def channels_innermost(x: Array) -> Array:
    """Return x contiguous; images with the channels innermost, (N, H, W, C)."""
    return contiguous(channels_last(x) if x.ndim == 4 else x)


def in_shape_of(x: Array, result: Array) -> Array:
    """Return a result like `channels_innermost(x)`, or like that in rows, in the shape of x; no copy."""
    if x.ndim != 4:
        return result.reshape(x.shape)  # of x without axes it has one element
    n, c, h, w = x.shape
    return channels_first(result.reshape(n, h, w, c))  # (N, C, H, W)


def vector(x: Array, size: int, dtype: Any) -> Array:
    """x (size,) as a kernel reads it: contiguous, of `dtype`. Raises ValueError for another shape."""
    if x.shape != (size,):
        raise ValueError(f"expected an array of shape ({size},), got {x.shape}")
    return contiguous(x, dtype)


def pack(dtype: Any, channels: int, *arrays: Array) -> int:
    """Return the channels that one thread takes: 16 bytes of them, where they and the addresses allow it."""
    width = 16 // dtype.itemsize
    fits = channels % width == 0 and all(array.data.ptr % 16 == 0 for array in arrays)
    return width if fits else 1
