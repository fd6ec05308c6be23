"""The one place where functions become methods of Tensor (tensor.py imports none of them)."""

import operator
from collections.abc import Callable
from typing import Any

from ..backpropagate import backward
from ..tensor import Tensor
from . import elementwise, matmul, reduce, shape
from .in_place import ASSIGNMENTS


def _swapped(function: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """The same function with its operands the other way round, for `2 - x` and the like."""
    return lambda x, other: function(other, x)


METHODS: dict[str, Callable[..., Any]] = {
    "backward": backward,
    "__add__": elementwise.add,
    "__radd__": elementwise.add,
    "__sub__": elementwise.subtract,
    "__rsub__": _swapped(elementwise.subtract),
    "__mul__": elementwise.multiply,
    "__rmul__": elementwise.multiply,
    "__truediv__": elementwise.divide,
    "__rtruediv__": _swapped(elementwise.divide),
    "__pow__": elementwise.power,
    "__rpow__": _swapped(elementwise.power),
    "__neg__": elementwise.negate,
    "__abs__": elementwise.absolute,
    "__matmul__": matmul.matmul,
    "__rmatmul__": _swapped(matmul.matmul),
    "__getitem__": shape.get_item,
    "__eq__": elementwise.comparison(operator.eq),
    "__ne__": elementwise.comparison(operator.ne),
    "__lt__": elementwise.comparison(operator.lt),
    "__le__": elementwise.comparison(operator.le),
    "__gt__": elementwise.comparison(operator.gt),
    "__ge__": elementwise.comparison(operator.ge),
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
    "to": shape.to,
    **ASSIGNMENTS,
}

for _name, _function in METHODS.items():
    setattr(Tensor, _name, _function)
