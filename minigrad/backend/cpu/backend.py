"""The CPU backend: NumPy, and C kernels where there are any."""

import numpy as np

from ..arrays import Array
from .batch_norm import CompiledBatchNorm
from .convolution import CPUConvolution, forms
from .direct import DirectForm
from .elementwise import CompiledElementwise
from .losses import CompiledLosses
from .native import Kernels
from .optimizers import CompiledOptimizers
from .parallel import MAX_SLICE_BYTES, TARGET_SLICES, cut
from .workspace import Workspace

# To cut a product, so many multiply-adds count as one byte of intermediate results.
OPERATIONS_PER_BYTE = 8


class CPUBackend(CPUConvolution, CompiledElementwise, CompiledBatchNorm, CompiledLosses, CompiledOptimizers):
    """Arrays of NumPy; `pool` holds the threads.

    Args:
        kernels: those that `native.kernels` returns; None for NumPy's forms.
    """

    device = "cpu"

    def __init__(self, kernels: Kernels | None = None) -> None:
        workspace = Workspace.of(kernels)
        super().__init__(workspace)
        self._direct = None if kernels is None else DirectForm(workspace)
        self._forms = forms(workspace, self._direct)

    def matmul(self, a: Array, b: Array) -> Array:
        if self._direct is not None and self._direct.takes(a, b):
            return self._direct.matmul(a, b)
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
