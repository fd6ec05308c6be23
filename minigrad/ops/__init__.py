"""The differentiable operations, by family; importing this attaches them to Tensor."""

from . import conv, elementwise, loss, matmul, methods, norm, reduce, shape, tell
from .operation import OPERATIONS, Case, Operation

__all__ = [
    "OPERATIONS",
    "Case",
    "Operation",
    "conv",
    "elementwise",
    "loss",
    "matmul",
    "methods",
    "norm",
    "reduce",
    "shape",
    "tell",
]
