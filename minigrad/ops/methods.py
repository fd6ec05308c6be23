"""The one place where functions become methods of Tensor (tensor.py imports none of them)."""

from collections.abc import Callable
from typing import Any

from ..backpropagate import backward
from ..tensor import Tensor
from . import arithmetic, conversion, elementwise, matmul, reduce, shape
from .comparison import COMPARISONS
from .in_place import ASSIGNMENTS


def _swapped(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The same function with its operands the other way round, for `2 - x` and the like."""
    return lambda x, other: function(other, x)


METHODS: dict[str, Callable[..., Any]] = {
    "backward": backward,
    "__add__": arithmetic.add,
    "__radd__": arithmetic.add,
    "__sub__": arithmetic.subtract,
    "__rsub__": _swapped(arithmetic.subtract),
    "__mul__": arithmetic.multiply,
    "__rmul__": arithmetic.multiply,
    "__truediv__": arithmetic.divide,
    "__rtruediv__": _swapped(arithmetic.divide),
    "__pow__": elementwise.power,
    "__rpow__": _swapped(elementwise.power),
    "__neg__": arithmetic.negate,
    "__abs__": elementwise.absolute,
    "__matmul__": matmul.matmul,
    "__rmatmul__": _swapped(matmul.matmul),
    "__getitem__": shape.get_item,
    "exp": elementwise.exp,
    "log": elementwise.log,
    "sqrt": elementwise.sqrt,
    "abs": elementwise.absolute,
    "clip": elementwise.clip,
    "sum": reduce.sum_,
    "mean": reduce.mean,
    "var": reduce.var,
    "max": reduce.max_,
    "reshape": shape.reshape,
    "transpose": shape.transpose,
    "to": conversion.to,
    **COMPARISONS,
    **ASSIGNMENTS,
}

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)
