"""The product of two matrices: by a C kernel (`kernels/product.c`), or by NumPy."""

import numpy as np

from ..arrays import Array
from .calls import KernelCalls
from .native import FLOATS, address
from .parallel import MAX_SLICE_BYTES, TARGET_SLICES, cut

SCRATCH = 1 << 17  # numbers for each thread; more than `product` asks for with any vectors
FEW = 16  # columns: a tile of the kernel would be filled to a part
# To cut a product, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8


class CompiledProducts(KernelCalls):
    """The matrix product of `CPUBackend`."""

    def matmul(self, a: Array, b: Array) -> Array:
        if self.kernels is None or not _fit(a, b):
            return self._matmul_by_numpy(a, b)
        m, n = len(a), b.shape[1]
        c = self.arena.empty((m, n), a.dtype)
        if n < FEW and n < m:  # then the rows are the columns
            self._multiply(b.T, a.T, c.T)
        else:
            self._multiply(a, b, c)
        return c

    def _multiply(self, a: Array, b: Array, c: Array) -> None:
        """Write the product of (M, K) and (K, N) to (M, N)."""
        members = self.pool.threads
        scratch = self.scratch.get("product", (members * SCRATCH,), a.dtype)
        (m, k), n = a.shape, b.shape[1]
        self._kernel("product", a.dtype)(
            *_matrix(a), *_matrix(b), *_matrix(c), m, k, n, address(scratch), members
        )

    def _matmul_by_numpy(self, a: Array, b: Array) -> Array:
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


def _product_slices(count: int, operations_each: int) -> list[slice]:
    """Return slices of a product's longer side, at most TARGET_SLICES: thin ones run at half the speed."""
    most = TARGET_SLICES * MAX_SLICE_BYTES // max(count, 1)
    return cut(count, min(operations_each // OPERATIONS_PER_BYTE, most))


def _fit(a: Array, b: Array) -> bool:
    """Whether the kernel takes two arrays: aligned matrices of one floating dtype that fit, not empty."""
    return (
        a.ndim == b.ndim == 2
        and a.shape[1] == b.shape[0]
        and a.size > 0
        and b.size > 0
        and a.dtype == b.dtype
        and a.dtype in FLOATS
        and a.flags.aligned
        and b.flags.aligned
    )


def _matrix(x: Array) -> tuple[int, int, int]:
    """Return the address of a matrix, and its strides in numbers."""
    down, across = x.strides
    return address(x), down // x.itemsize, across // x.itemsize
