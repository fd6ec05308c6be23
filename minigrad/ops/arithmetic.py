"""Sums, differences, products and quotients element by element, with broadcasting.

dy is the gradient of the final result with respect to y, the operation's own result. Where an
input was broadcast, its gradient is summed back to its shape by the walk (backpropagate.py), so
no rule here has to.
"""

from collections.abc import Iterable
from typing import Any

from ..backend.arrays import Array
from ..tensor import Tensor
from .cases import Case, normal, positive
from .operation import MAKES_ONE, Operation, as_tensor, floating, require_tensor


class Add(Operation):
    """y = a + b: da = dy, db = dy."""

    def forward(self, a: Array, b: Array) -> Array:
        return self.backend.add(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, dy

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(add, normal((3, 4), (3, 4)), second_order=False)
        yield Case(add, normal((2, 3, 1), (4,)), label="broadcast", second_order=False)
        yield Case(lambda x: add(x, 2.5), normal((3,)), lambda x: x + 2.5, "number", second_order=False)
        yield Case(add, normal((), (2, 2)), label="no axes", second_order=False)


class Subtract(Operation):
    """y = a - b: da = dy, db = -dy."""

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, -dy if self.needs[1] else None

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(subtract, normal((3, 4), (4,)), second_order=False)
        yield Case(lambda x: 1.5 - x, normal((3,)), lambda x: 1.5 - x, "number", second_order=False)


class Multiply(Operation):
    """y = a b: da = dy b, db = dy a."""

    keep_inputs = True

    def forward(self, a: Array, b: Array) -> Array:
        return a * b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (dy * b if self.needs[0] else None, dy * a if self.needs[1] else None)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(multiply, normal((3, 4), (3, 4)))
        yield Case(multiply, normal((2, 1, 3), (4, 1)), label="broadcast")
        yield Case(lambda x: x * x, normal((5,)), lambda x: x**2, "twice the same")
        yield Case(lambda x: -3.0 * x, normal((3,)), lambda x: -3.0 * x, "number", second_order=False)


class Divide(Operation):
    """y = a / b: da = dy / b, db = -dy (a / b) / b. (A square of b could overflow, or vanish.)"""

    keep_inputs = True

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (dy / b if self.needs[0] else None, -(dy * (a / b) / b) if self.needs[1] else None)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(divide, positive((3, 4), (4,)))
        yield Case(lambda x: 2.0 / x, positive((3,)), lambda x: 2.0 / x, "number above")
        yield Case(lambda x: x / 4.0, normal((3,)), lambda x: x / 4.0, "number below", second_order=False)


class Negate(Operation):
    """y = -x: dx = -dy."""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (-dy,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(negate, normal((3, 2)), second_order=False)


def binary(operation: type[Operation], a: Any, b: Any) -> Tensor:
    """Apply an operation to two operands, at least one a tensor, with broadcasting.

    Integers beside a float become float32. Raises TypeError where neither is a tensor, and ValueError where
    the shapes do not broadcast.
    """
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        raise TypeError(
            f"{operation.name}: expected at least one tensor, got {a!r:.40} and {b!r:.40}: {MAKES_ONE}"
        )
    a, b = as_tensor(a, like, operation.name), as_tensor(b, like, operation.name)
    if operation is Divide or isinstance(a, float) or isinstance(b, float):
        a, b = floating(a), floating(b)
    try:
        return operation()(a, b)
    except ValueError as error:
        if "broadcast" not in str(error):
            raise
        raise ValueError(f"{operation.name}: shapes {a.shape} and {b.shape} do not broadcast") from None


def add(a: Any, b: Any) -> Tensor:
    """a + b."""
    return binary(Add, a, b)


def subtract(a: Any, b: Any) -> Tensor:
    """a - b."""
    return binary(Subtract, a, b)


def multiply(a: Any, b: Any) -> Tensor:
    """a * b."""
    return binary(Multiply, a, b)


def divide(a: Any, b: Any) -> Tensor:
    """a / b."""
    return binary(Divide, a, b)


def negate(x: Tensor) -> Tensor:
    """-x."""
    require_tensor("negate", x)
    return Negate()(x)
