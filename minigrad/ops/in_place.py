"""`x += y` and its like, and `x[i] = y`: in place where nothing is recorded, else a new tensor.

Under `no_grad`, as when parameters are moved by hand,

    with no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad

changes the leaf itself. Its shape and dtype stay, and a graph that needs the old values notices the change.
"""

from collections.abc import Callable
from typing import Any

from ..backend.arrays import FLOAT_TYPES
from ..backend.ieee import ieee
from ..tensor import Tensor, is_grad_enabled
from .arithmetic import add, divide, multiply, subtract
from .elementwise import power
from .matmul import matmul
from .operation import as_tensor, require_tensor
from .shape import get_item


def augmented(function: Callable[[Any, Any], Tensor], sign: str) -> Callable[[Tensor, Any], Tensor]:
    """Return the augmented assignment of a function: that of `sign` "+=" for `add`."""

    def assign(x: Tensor, other: Any) -> Tensor:
        """Change a leaf in place under `no_grad`, as NumPy's operator does; else make a new one.

        A leaf is a tensor that no recorded operation made. If gradients are recorded, or x was computed from
        tensors that require one, `x += y` means `x = x + y`: so a loss is added up.

        In place means for all that share the memory: the caller of a function that does `x += 1` under
        `no_grad` sees x change, as with NumPy's arrays. Write `x = x + 1` for a new tensor in either mode.

        Raises RuntimeError for a parameter of a module where gradients are recorded (it would stay as it is),
        ValueError if the shape would change, elements share memory or the memory is read-only, and TypeError
        if the dtype would change.
        """
        require_tensor(sign, x)
        if is_grad_enabled() and x.learned:
            raise RuntimeError(
                f"{sign}: a parameter of shape {x.shape} would stay as it is, and a new tensor take its "
                "name: change it under no_grad(), or give the new tensor another name"
            )
        if is_grad_enabled() or x.node is not None:
            return function(x, other)
        result = function(x, other)
        if result.shape != x.shape:
            raise ValueError(
                f"{sign}: expected an operand that leaves the shape {x.shape} as it is, got one that makes "
                f"it {result.shape}"
            )
        if result.dtype != x.dtype:
            raise TypeError(
                f"{sign}: the result is {result.dtype}, and the tensor that it is to change in place "
                f"{x.dtype}: convert one with .to(dtype)"
            )
        check_writeable(sign, x)
        x.data[...] = result.data
        x.mark_changed()
        return x

    return assign


@ieee()
def set_item(x: Tensor, index: Any, value: Any) -> None:
    """Set x[index] = value, in place on a leaf under `no_grad`.

    `value` is a number, or a tensor or an array of x's dtype that broadcasts to x[index]. Raises RuntimeError
    where gradients are recorded, or were for x; and the errors of `augmented`.
    """
    require_tensor("x[i] = ...", x)
    if is_grad_enabled() or x.node is not None:
        raise RuntimeError(
            "x[i] = ...: no gradient goes through an assignment to elements. Make a new tensor, by where() "
            "or concatenate(), or change a leaf under no_grad()"
        )
    place = get_item(x, index)  # for its checks
    operand = as_tensor(value, x, "x[i] = ...")
    values = operand.data if isinstance(operand, Tensor) else operand
    fits = values.dtype == x.dtype if isinstance(operand, Tensor) else _holds(x, operand)
    if not fits:
        given = values.dtype if isinstance(operand, Tensor) else type(operand).__name__
        raise TypeError(f"x[i] = ...: {given} values for a {x.dtype} tensor: convert one with .to(dtype)")
    parts = index if isinstance(index, tuple) else (index,)
    check_writeable("x[i] = ...", x)
    try:
        x.data[tuple(p.data if isinstance(p, Tensor) else p for p in parts)] = values
    except ValueError:
        raise ValueError(
            f"x[i] = ...: values of shape {values.shape} do not fit a place of shape {place.shape}"
        ) from None
    x.mark_changed()


def _holds(x: Tensor, number: float) -> bool:
    """Return whether x's dtype can hold such a Python number: integers hold no floats."""
    return x.dtype in FLOAT_TYPES or not isinstance(number, float)


def check_writeable(sign: str, x: Tensor) -> None:
    """Raise ValueError, in the name of an operator or a function, where x's array can't be written into."""
    array = x.data
    repeated = any(step == 0 and n > 1 for step, n in zip(array.strides, array.shape, strict=True))
    writeable = getattr(getattr(array, "flags", None), "writeable", True)  # only NumPy's can be read-only
    if array.size and (repeated or not writeable):
        raise ValueError(
            f"{sign}: the tensor of shape {x.shape} can't be changed in place: its memory is read-only, or "
            "its elements share it (as broadcast_to leaves them). Make a copy with minigrad.tensor(x)"
        )


ASSIGNMENTS: dict[str, Callable[..., Any]] = {
    "__iadd__": augmented(add, "+="),
    "__isub__": augmented(subtract, "-="),
    "__imul__": augmented(multiply, "*="),
    "__itruediv__": augmented(divide, "/="),
    "__ipow__": augmented(power, "**="),
    "__imatmul__": augmented(matmul, "@="),
    "__setitem__": set_item,
}
