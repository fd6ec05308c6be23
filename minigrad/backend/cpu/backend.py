"""The CPU backend: NumPy, and C kernels where there are any."""

from .batch_norm import CompiledBatchNorm
from .convolution import CPUConvolution, forms
from .elementwise import CompiledElementwise
from .losses import CompiledLosses
from .native import Kernels
from .optimizers import CompiledOptimizers
from .products import CompiledProducts
from .workspace import Workspace


class CPUBackend(
    CPUConvolution,
    CompiledProducts,
    CompiledElementwise,
    CompiledBatchNorm,
    CompiledLosses,
    CompiledOptimizers,
):
    """Arrays of NumPy; `pool` holds the threads.

    Args:
        kernels: those that `native.kernels` returns; None for NumPy's forms.
    """

    device = "cpu"

    def __init__(self, kernels: Kernels | None = None) -> None:
        workspace = Workspace.of(kernels)
        super().__init__(workspace)
        self._forms = forms(workspace)
