"""Functions element by element: powers, exponentials and logarithms, absolute values, bounds and choices."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..backend.arrays import Array
from ..tensor import Tensor
from .arithmetic import binary
from .cases import Case, normal, positive
from .operation import (
    MAKES_ONE,
    Operation,
    as_constant,
    as_tensor,
    floating,
    require_float,
    require_tensor,
    snapshot,
)


class Power(Operation):
    """y = a^b: da = dy b a^(b - 1), db = dy a^b log(a).

    da is 0 where b is 0, and db where a is 0 and b is not negative, whatever the other factors are there;
    these are PyTorch's choices. Where a is negative, db is NaN. On the CPU a^0.5 is NumPy's square
    root, which is NaN at -inf, as in PyTorch; on the GPU it is infinite there.
    """

    keep_inputs = True

    def forward(self, a: Array, b: Array) -> Array:
        return a**b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (
            self._base_gradient(dy, a, b) if self.needs[0] else None,
            self._exponent_gradient(dy, a, b) if self.needs[1] else None,
        )

    def _base_gradient(self, dy: Tensor, a: Tensor, b: Any) -> Tensor:
        """Return dy b a^(b - 1), and 0 where b is 0."""
        if not isinstance(b, Tensor):
            return dy * (b * a ** (b - 1)) if b else self._dropped(True, dy, 0.0)
        # 0 times infinity would be NaN. Elsewhere the product stays, since it depends on b.
        smallest = self.xp.finfo(a.dtype).tiny
        finite = (self.xp.abs(a.data) >= smallest) & self.xp.isfinite(dy.data)
        dropped = (b.data == 0) & self.xp.logical_not(finite)
        dy, a = self._dropped(dropped, dy, 0.0), self._dropped(dropped, a, 1.0)
        return dy * (b * a ** (b - 1))

    def _exponent_gradient(self, dy: Tensor, a: Any, b: Tensor) -> Tensor:
        """Return dy a^b log(a), and 0 where a is 0 and b is not negative."""
        if not isinstance(a, Tensor):
            if a > 0:
                return dy * (a**b * math.log(a))
            a = Tensor(self.xp.full(b.shape, a, b.dtype), backend=self.backend)
        dropped = (a.data == 0) & (b.data >= 0)
        dy, a = self._dropped(dropped, dy, 0.0), self._dropped(dropped, a, 1.0)
        return dy * (a**b * a.log())

    def _dropped(self, condition: Any, x: Tensor, value: float) -> Tensor:
        """Return x with a constant where the condition holds."""
        return Where(self.xp.asarray(condition))(value, x)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(power, positive((3, 4), (4,)))
        yield Case(lambda x: x**3, normal((2, 3)), lambda x: x * x * x, "whole exponent")
        yield Case(lambda x: x**-0.5, positive((3,)), lambda x: x**-0.5, "root below")
        yield Case(lambda x: 2.0**x, normal((3,)), lambda x: 2.0**x, "number below")


class Exp(Operation):
    """y = exp(x): dx = dy y."""

    keep_output = True

    def forward(self, x: Array) -> Array:
        return self.xp.exp(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * self.output,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(exp, normal((3, 4)))


class Log(Operation):
    """y = log(x): dx = dy / x, below 0 too, where y is NaN; as in PyTorch."""

    keep_inputs = True

    def forward(self, x: Array) -> Array:
        return self.xp.log(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy / self.inputs[0],)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(log, positive((3, 4)))


class Sqrt(Operation):
    """y = sqrt(x): dx = dy / (2 y). That is infinite at 0, and of dy's opposite sign at -0, as in PyTorch."""

    keep_output = True

    def forward(self, x: Array) -> Array:
        return self.xp.sqrt(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * 0.5 / self.output,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(sqrt, positive((3, 4)))


class Abs(Operation):
    """y = |x|: dx = dy sign(x), and 0 at 0, whatever dy is. At NaN dx is NaN (PyTorch gives 0)."""

    keep_inputs = True

    def forward(self, x: Array) -> Array:
        return self.xp.abs(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = self.inputs[0].data
        sign = Tensor(self.xp.sign(x), backend=self.backend)
        return (Where(self.xp.asarray(x == 0))(0.0, dy) * sign,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(absolute, normal((3, 4)), second_order=False)


@dataclass(eq=False)
class Clip(Operation):
    """y = min(max(x, low), high): dx = dy where low <= x <= high, 0 elsewhere.

    At a bound itself dx is dy (PyTorch 2.14 gives 0). NaN stays NaN, and its dx is 0.
    """

    low: float | None
    high: float | None
    keep_inputs = True

    def forward(self, x: Array) -> Array:
        return self.xp.clip(x, self.low, self.high)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = self.inputs[0].data
        inside = self.xp.ones(x.shape, bool)
        if self.low is not None:
            inside &= x >= self.low
        if self.high is not None:
            inside &= x <= self.high
        return (Where(inside)(dy, 0.0),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: clip(x, -0.5, 0.5), normal((3, 4)), lambda x: x.clip(-0.5, 0.5), second_order=False
        )
        yield Case(
            lambda x: clip(x, low=0.1), normal((5,)), lambda x: x.clip(0.1), "below only", second_order=False
        )


class Maximum(Operation):
    """y = max(a, b): dy goes to the larger; where they are equal, half to each.

    NaN counts as the larger, so that the result is NaN, and gets all of dy; where both are NaN, half goes to
    each. (PyTorch gives all of dy to both wherever one is NaN.)
    """

    keep_inputs = True

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.maximum(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = (t.data if isinstance(t, Tensor) else t for t in self.inputs)
        to_a = self.xp.asarray(self.xp.logical_or(a > b, (a != a) & (b == b)))
        to_b = self.xp.asarray(self.xp.logical_or(b > a, (b != b) & (a == a)))
        return (
            Where(to_a)(dy, Where(to_b)(0.0, dy * 0.5)) if self.needs[0] else None,
            Where(to_b)(dy, Where(to_a)(0.0, dy * 0.5)) if self.needs[1] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(maximum, normal((3, 4), (4,)), second_order=False)
        yield Case(
            lambda x: maximum(x, 0.2), normal((5,)), lambda x: x.clip(0.2), "number", second_order=False
        )


@dataclass(eq=False)
class Where(Operation):
    """y = a where the condition holds, b elsewhere; the condition has no gradient."""

    condition: Array

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.where(self.condition, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (
            Where(self.condition)(dy, 0.0) if self.needs[0] else None,
            Where(self.condition)(0.0, dy) if self.needs[1] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda a, b: where([[True, False, True]], a, b),
            normal((2, 3), (3,)),
            lambda a, b: b + (a - b) * [[1.0, 0.0, 1.0]],
            second_order=False,
        )


def power(a: Any, b: Any) -> Tensor:
    """a ** b; the gradient with respect to the exponent needs a > 0, or a = 0 and b >= 0, where it is 0.

    Raises ValueError for integers to the power of a negative integer, which has no integer results.
    """
    if isinstance(a, Tensor) and a.dtype.kind in "iub" and isinstance(b, int) and b < 0:
        raise ValueError(f"power: {a.dtype} to the power of {b} is no integer: use a float, as in x ** {b}.0")
    return binary(Power, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b; where they are equal, each gets half of the gradient.

    NaN counts as the larger.
    """
    return binary(Maximum, a, b)


def exp(x: Tensor) -> Tensor:
    """e ** x."""
    require_float("exp", x)
    return Exp()(x)


def log(x: Tensor) -> Tensor:
    """The natural logarithm; -inf at 0."""
    require_float("log", x)
    return Log()(x)


def sqrt(x: Tensor) -> Tensor:
    """The square root; its gradient at 0 is infinite."""
    require_float("sqrt", x)
    return Sqrt()(x)


def absolute(x: Tensor) -> Tensor:
    """|x|; its gradient at 0 is 0."""
    require_tensor("abs", x)
    return Abs()(x)


def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """x held between two numbers, low and high (None: no bound); the gradient is 0 outside.

    NaN stays NaN, and its gradient is 0. Integers clipped by a float become float32.
    """
    require_tensor("clip", x)
    if low is None and high is None:
        raise ValueError("clip: expected low, high or both")
    low, high = (None if v is None else as_tensor(v, x, "clip") for v in (low, high))
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        raise TypeError("clip: expected numbers as bounds; for a bound of each element's own use maximum")
    if isinstance(low, float) or isinstance(high, float):
        x = floating(x)
    return Clip(low, high)(x)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where the condition holds, b elsewhere, with broadcasting.

    The gradient of an element that is not taken is 0. An operation before it whose derivative is infinite
    there, such as sqrt at 0, makes NaN of that 0 (as in PyTorch).

    Args:
        condition: a boolean or a list of them, or a boolean tensor or array on the same device.
        a, b: tensors or numbers, at least one a tensor; integers beside a float become float32.
    """
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        raise TypeError(f"where: expected a tensor in a or b, got {a!r:.40} and {b!r:.40}: {MAKES_ONE}")
    mask = as_constant(condition, like, "where")
    if mask.dtype != bool:
        raise TypeError(f"where: expected a boolean condition, got {mask.dtype}")
    a, b = as_tensor(a, like, "where"), as_tensor(b, like, "where")
    if isinstance(a, float) or isinstance(b, float):
        a, b = floating(a), floating(b)
    return Where(snapshot(mask, a, b))(a, b)
