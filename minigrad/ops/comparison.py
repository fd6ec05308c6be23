"""The comparisons: boolean tensors, element by element, without a gradient."""

import operator
from collections.abc import Callable
from typing import Any

from ..backend.arrays import refuse_masked
from ..backend.ieee import ieee
from ..tensor import Tensor
from .operation import as_tensor, require_tensor


def comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Tensor]:
    """Return a function of the operator module as one that takes a tensor and an operand."""

    @ieee()
    def compared(a: Tensor, b: Any) -> Tensor:
        require_tensor(compare.__name__, a)
        refuse_masked(b, compare.__name__)
        try:
            b = as_tensor(b, a, compare.__name__)
        except TypeError:
            return NotImplemented  # so that `x == None` is False, and `x < None` Python's own error
        if isinstance(b, Tensor) and b.backend is not a.backend:
            raise ValueError(f"{compare.__name__}: tensors on {a.device!r} and {b.device!r}")
        result = compare(a.data, b.data if isinstance(b, Tensor) else b)
        return Tensor(a.backend.asarray(result), backend=a.backend)

    return compared


COMPARISONS: dict[str, Callable[..., Any]] = {
    f"__{compare.__name__}__": comparison(compare)
    for compare in (operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge)
}
