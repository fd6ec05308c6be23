"""The work of a launch, in bytes and operations, by its arguments."""

from collections.abc import Iterable
from typing import Any

import cupy as xp
import numpy as np

from ...arrays import Array
from ...launches import Work
from . import load


def of_kernel(kernel: str, types: str, grid: tuple[int, ...], args: tuple[Any, ...]) -> Work:
    """Return the work of a kernel of our own: each array goes through memory once, see `load.FLOP`."""
    few, like = load.READS_FEW.get(kernel, (-1, -1))
    counts: list[tuple[int, int]] = []  # elements and bytes
    for place, arg in enumerate(args):
        if isinstance(arg, xp.ndarray):
            size = args[like].size if place == few else arg.size
            counts.append((size, size * arg.itemsize * _passes(kernel, place)))
        elif isinstance(arg, np.void) and "size" in (arg.dtype.names or ()):
            counts += _of_table(kernel, types, arg)
    return _summed(kernel + types, grid, counts, load.FLOP[kernel])


def of_cupy(kernel: str, arrays: Iterable[Array], flop: int) -> Work:
    """Return the work of one of CuPy's kernels, whose grid CuPy chooses."""
    return _summed(f"CuPy {kernel}", (), [(array.size, array.nbytes) for array in arrays], flop)


def of_product(a: Array, b: Array, y: Array) -> Work:
    """Return the work of y = a @ b, for (..., n, k) and (..., k, m)."""
    (n, k), m = a.shape[-2:], b.shape[-1]
    name = f"cuBLAS {n}x{k} @ {k}x{m}"
    return Work(name, (), a.nbytes + b.nbytes + y.nbytes, 2 * y.size * k)


def _passes(kernel: str, argument: int | str) -> int:
    """Return how often an argument goes through memory: twice where it is read and written."""
    return 2 if argument in load.IN_PLACE.get(kernel, ()) else 1


def _of_table(kernel: str, types: str, table: Any) -> list[tuple[int, int]]:
    """Return elements and bytes of arrays whose addresses and sizes are a structure: by columns of it."""
    size = int(table["size"].sum())
    itemsize = {name: np.dtype(dtype).itemsize for dtype, name in load.FLOATS.items()}[types.strip("<>")]
    columns = [name for name in table.dtype.names if table[name].dtype == np.uint64]
    return [(size, size * itemsize * _passes(kernel, name)) for name in columns]


def _summed(kernel: str, grid: tuple[int, ...], counts: list[tuple[int, int]], flop: int) -> Work:
    """Return the work with the bytes of all arrays, and `flop` for each element of the largest."""
    sizes, bytes_ = zip(*counts, strict=True)
    return Work(kernel, grid, sum(bytes_), flop * max(sizes))
