"""The common part of the calls of C kernels (`kernels/*.c`): which arrays a kernel takes, and in which order.

A kernel takes arrays of one dtype, float32 or float64, in the same memory order and without gaps: C order, or
images with their channels innermost. For other arrays, and without kernels, NumPy's forms are used
(sliced.py).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from .native import FLOATS, address
from .sliced import SlicedBackend
from .workspace import Workspace

# The memory order of an array. Kernels take the last two.
NEITHER, C_ORDER, INNERMOST = range(3)
# Rows are cut into at most so many chunks, of at least so many rows, as in kernels/rows.h.
MAX_CHUNKS, MIN_CHUNK = 64, 64
FLOAT64 = np.dtype(np.float64)


class KernelCalls(SlicedBackend):
    """`SlicedBackend` with the kernels of a workspace, or without."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(workspace)
        self.kernels = workspace.kernels

    def _order(self, first: Array, *others: Array) -> int:
        """Return the common memory order of arrays; NEITHER if no kernel takes them together."""
        if self.kernels is None or not first.size or first.dtype not in FLOATS:
            return NEITHER
        order = order_of(first)
        for other in others:
            if other.dtype != first.dtype or other.shape != first.shape or order_of(other) != order:
                return NEITHER
        return order

    def _empty(self, shape: tuple[int, ...], dtype: Any, order: int) -> Array:
        """Return a new array in a memory order."""
        if order == C_ORDER:
            return self.arena.empty(shape, dtype)
        n, c, h, w = shape
        return channels_first(self.arena.empty((n, h, w, c), dtype))

    def _sums_of_chunks(self, rows: int, sums: int) -> Array:
        """Return memory for so many sums of each chunk of rows."""
        chunks = min(MAX_CHUNKS, -(-rows // MIN_CHUNK))
        return self.scratch.get("sums", (chunks * sums,), FLOAT64)

    def _rows(self, x: Array) -> Array | None:
        """Return x in the memory order of rows (M, C), copied if necessary; None if no kernel takes it."""
        order = self._order(x)
        if x.ndim not in (2, 4) or not order:
            return None
        if x.ndim == 2 or order == INNERMOST or x.shape[1] == 1:
            return x
        n, c, h, w = x.shape
        y = self._empty(x.shape, x.dtype, INNERMOST)
        self._kernel("swap", x.dtype)(address(x), address(y), n, c, h * w)
        return y

    def _gradient(self, dy: Array, y: Array) -> tuple[Array, int]:
        """Return dy in the memory order of a result y, copied if necessary, and the order; or NEITHER.

        They differ behind a flattening: the gradient is in C order, while y has its channels innermost.
        """
        order = self._order(dy, y)
        fits = dy.shape == y.shape and dy.dtype == y.dtype
        if order or not fits or self._order(dy) != C_ORDER or self._order(y) != INNERMOST:
            return dy, order
        return self._rows(dy), INNERMOST

    def _kernel(self, name: str, dtype: Any) -> Callable[..., None]:
        """Return a kernel for arrays of a dtype."""
        kernel: Callable[..., None] = getattr(self.kernels, name)[dtype]
        return kernel


def order_of(x: Array) -> int:
    """Return the memory order of an array. It is NEITHER for scalars, subclasses and unaligned arrays too."""
    if type(x) is not np.ndarray or not (flags := x.flags).aligned:
        return NEITHER
    if flags.c_contiguous:
        return C_ORDER
    return INNERMOST if x.ndim == 4 and channels_last(x).flags.c_contiguous else NEITHER
