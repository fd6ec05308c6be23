"""The differentiable operations, by family; importing this attaches them to Tensor."""

from . import conv, elementwise, gradient_hook, loss, matmul, methods, norm, reduce, shape
from .operation import OPERATIONS, Case, Operation

__all__ = [
    "OPERATIONS",
    "Case",
    "Operation",
    "conv",
    "elementwise",
    "gradient_hook",
    "loss",
    "matmul",
    "methods",
    "norm",
    "reduce",
    "shape",
]
