"""The gradient back through what an operation applies to its own result."""

from ..backend.arrays import Array
from ..backend.epilogue import Epilogue
from ..tensor import Tensor
from .activation import LeakyReluGradient
from .dropout import LeakyDropoutGradient, MaskScale
from .operation import Operation


class HasEpilogue:
    """A base class beside `Operation` of the operations that have an epilogue.

    Attributes:
        epilogue: a field of the operation.
        mask: of the dropout in it, from the forward; None without one.
    """

    epilogue: Epilogue
    mask: Array | None = None
    keep_output: bool

    def __post_init__(self) -> None:
        self.keep_output = self.epilogue.has_activation

    def back_through_epilogue(self, dy: Tensor) -> Tensor:
        """Return the gradient of what the epilogue was applied to, from that of the result."""
        assert isinstance(self, Operation)
        epilogue, mask = self.epilogue, self.mask
        if not epilogue.has_activation:
            return dy if mask is None else MaskScale(mask, epilogue.scale)(dy)
        if mask is None:
            return LeakyReluGradient(epilogue.slope, self._output, self.result_version)(dy)
        return LeakyDropoutGradient(epilogue.slope, self._output, mask, epilogue.scale, self.result_version)(
            dy
        )
