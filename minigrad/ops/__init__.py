"""The differentiable operations, by family; importing this attaches them to Tensor."""

# The gradient check lists the operations in the order in which they are defined.
# isort: off
from . import (
    arithmetic,
    elementwise,
    activation,
    dropout,
    conv,
    shape,
    conversion,
    reduce,
    loss,
    matmul,
    norm,
    gradient_hook,
    methods,
)

# isort: on
from .cases import Case
from .operation import OPERATIONS, Operation

__all__ = [
    "OPERATIONS",
    "Case",
    "Operation",
    "activation",
    "arithmetic",
    "conv",
    "conversion",
    "dropout",
    "elementwise",
    "gradient_hook",
    "loss",
    "matmul",
    "methods",
    "norm",
    "reduce",
    "shape",
]
