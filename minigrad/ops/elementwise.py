"""Operations element by element, with broadcasting.

dy is the gradient of the final result with respect to y, the operation's own result. Where an
input was broadcast, its gradient is summed back to its shape by the walk (backpropagate.py), so
no rule here has to.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .. import naive
from ..backend.arrays import FLOAT_TYPES, Array, refuse_masked
from ..backend.ieee import ieee
from ..backend.philox import Counter, Key
from ..tensor import Tensor, is_grad_enabled
from .operation import (
    MAKES_ONE,
    Case,
    Operation,
    ResultVersion,
    as_constant,
    as_tensor,
    check_unchanged,
    require_float,
    require_tensor,
    snapshot,
)

Rng = Any


def normal(*shapes: tuple[int, ...]) -> Any:
    """Inputs of these shapes from N(0, 1)."""
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Any:
    """Inputs of these shapes from U(0.5, 2)."""
    return lambda rng: tuple(rng.uniform(0.5, 2.0, size=shape) for shape in shapes)


class Add(Operation):
    """y = a + b: da = dy, db = dy."""

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(add, normal((3, 4), (3, 4)), second_order=False)
        yield Case(add, normal((2, 3, 1), (4,)), label="broadcast", second_order=False)
        yield Case(lambda x: add(x, 2.5), normal((3,)), lambda x: x + 2.5, "number", second_order=False)
        yield Case(add, normal((), (2, 2)), label="no axes", second_order=False)

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, dy


class Subtract(Operation):
    """y = a - b: da = dy, db = -dy."""

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(subtract, normal((3, 4), (4,)), second_order=False)
        yield Case(lambda x: 1.5 - x, normal((3,)), lambda x: 1.5 - x, "number", second_order=False)

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, -dy if self.needs[1] else None


class Multiply(Operation):
    """y = a b: da = dy b, db = dy a."""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(multiply, normal((3, 4), (3, 4)))
        yield Case(multiply, normal((2, 1, 3), (4, 1)), label="broadcast")
        yield Case(lambda x: x * x, normal((5,)), lambda x: x**2, "twice the same")
        yield Case(lambda x: -3.0 * x, normal((3,)), lambda x: -3.0 * x, "number", second_order=False)

    def forward(self, a: Array, b: Array) -> Array:
        return a * b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (dy * b if self.needs[0] else None, dy * a if self.needs[1] else None)


class Divide(Operation):
    """y = a / b: da = dy / b, db = -dy (a / b) / b. (A square of b could overflow, or vanish.)"""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(divide, positive((3, 4), (4,)))
        yield Case(lambda x: 2.0 / x, positive((3,)), lambda x: 2.0 / x, "number above")
        yield Case(lambda x: x / 4.0, normal((3,)), lambda x: x / 4.0, "number below", second_order=False)

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (dy / b if self.needs[0] else None, -(dy * (a / b) / b) if self.needs[1] else None)


class Negate(Operation):
    """y = -x: dx = -dy."""

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(negate, normal((3, 2)), second_order=False)

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (-dy,)


class Power(Operation):
    """y = a^b: da = dy b a^(b - 1), db = dy a^b log(a).

    da is 0 where b is 0, and db where a is 0 and b is not negative, whatever the other factors are there;
    these are PyTorch's choices. Where a is negative, db is NaN. On the CPU a^0.5 is NumPy's square
    root, which is NaN at -inf, as in PyTorch; on the GPU it is infinite there.
    """

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(power, positive((3, 4), (4,)))
        yield Case(lambda x: x**3, normal((2, 3)), lambda x: x * x * x, "whole exponent")
        yield Case(lambda x: x**-0.5, positive((3,)), lambda x: x**-0.5, "root below")
        yield Case(lambda x: 2.0**x, normal((3,)), lambda x: 2.0**x, "number below")

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


class Exp(Operation):
    """y = exp(x): dx = dy y."""

    keep_output = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(exp, normal((3, 4)))

    def forward(self, x: Array) -> Array:
        return self.xp.exp(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * self.output,)


class Log(Operation):
    """y = log(x): dx = dy / x, below 0 too, where y is NaN; as in PyTorch."""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(log, positive((3, 4)))

    def forward(self, x: Array) -> Array:
        return self.xp.log(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy / self.inputs[0],)


class Sqrt(Operation):
    """y = sqrt(x): dx = dy / (2 y). That is infinite at 0, and of dy's opposite sign at -0, as in PyTorch."""

    keep_output = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(sqrt, positive((3, 4)))

    def forward(self, x: Array) -> Array:
        return self.xp.sqrt(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * 0.5 / self.output,)


class Abs(Operation):
    """y = |x|: dx = dy sign(x), and 0 at 0, whatever dy is. At NaN dx is NaN (PyTorch gives 0)."""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(absolute, normal((3, 4)), second_order=False)

    def forward(self, x: Array) -> Array:
        return self.xp.abs(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = self.inputs[0].data
        sign = Tensor(self.xp.sign(x), backend=self.backend)
        return (Where(self.xp.asarray(x == 0))(0.0, dy) * sign,)


@dataclass(eq=False)
class Clip(Operation):
    """y = min(max(x, low), high): dx = dy where low <= x <= high, 0 elsewhere.

    At a bound itself dx is dy (PyTorch 2.14 gives 0). NaN stays NaN, and its dx is 0.
    """

    low: float | None
    high: float | None
    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: clip(x, -0.5, 0.5), normal((3, 4)), lambda x: x.clip(-0.5, 0.5), second_order=False
        )
        yield Case(
            lambda x: clip(x, low=0.1), normal((5,)), lambda x: x.clip(0.1), "below only", second_order=False
        )

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


class Maximum(Operation):
    """y = max(a, b): dy goes to the larger; where they are equal, half to each.

    NaN counts as the larger, so that the result is NaN, and gets all of dy; where both are NaN, half goes to
    each. (PyTorch gives all of dy to both wherever one is NaN.)
    """

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(maximum, normal((3, 4), (4,)), second_order=False)
        yield Case(
            lambda x: maximum(x, 0.2), normal((5,)), lambda x: x.clip(0.2), "number", second_order=False
        )

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


@dataclass(eq=False)
class Where(Operation):
    """y = a where the condition holds, b elsewhere; the condition has no gradient."""

    condition: Array

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda a, b: where([[True, False, True]], a, b),
            normal((2, 3), (3,)),
            lambda a, b: b + (a - b) * [[1.0, 0.0, 1.0]],
            second_order=False,
        )

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.where(self.condition, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (
            Where(self.condition)(dy, 0.0) if self.needs[0] else None,
            Where(self.condition)(0.0, dy) if self.needs[1] else None,
        )


class Tanh(Operation):
    """y = tanh(x): dx = dy (1 - y^2), which is 0 where y rounds to 1: from |x| = 9.1 on in float32."""

    keep_output = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(tanh, normal((3, 4)))

    def forward(self, x: Array) -> Array:
        return self.backend.tanh(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        y = self.output
        if is_grad_enabled():
            return (dy * (1 - y * y),)
        return (Tensor(self.backend.tanh_backward(dy.data, y.data), backend=self.backend),)


class Sigmoid(Operation):
    """y = 1 / (1 + exp(-x)): dx = dy y (1 - y), which is 0 where y rounds to 1: from x = 17 on in float32."""

    keep_output = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(sigmoid, normal((3, 4)))

    def forward(self, x: Array) -> Array:
        return self.backend.sigmoid(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        y = self.output
        return (dy * (y * (1 - y)),)


class Softplus(Operation):
    """y = log(1 + exp(x)): dx = dy sigmoid(x)."""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(softplus, normal((3, 4)))
        yield Case(softplus, lambda rng: (rng.normal(size=(6,)) * 20,), label="far from 0")

    def forward(self, x: Array) -> Array:
        return self.backend.softplus(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * sigmoid(self.inputs[0]),)


@dataclass(eq=False)
class LeakyRelu(Operation):
    """y = x where x > 0, slope * x elsewhere: dx = dy or slope * dy (slope * dy at 0).

    With a slope of 0 dx is exactly 0 there, even where dy is infinite. NaN stays NaN, and its
    dx is slope * dy. (PyTorch's ReLU, but not its leaky one, gives it dy.)

    Source: Maas, Hannun and Ng, "Rectifier nonlinearities improve neural network acoustic
    models" (2013). A slope of 0 is ReLU.
    """

    slope: float
    keep_output = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: leaky_relu(x, 0.2),
            normal((3, 4)),
            lambda x: x.clip(0) + 0.2 * x.clip(None, 0),
            second_order=False,
        )
        yield Case(relu, normal((2, 3, 4, 5)), lambda x: x.clip(0), "relu", second_order=False)

    def forward(self, x: Array) -> Array:
        return self.backend.leaky_relu(x, self.slope)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyReluGradient(self.slope, self._output, self.result_version)(dy),)


@dataclass(eq=False)
class LeakyReluGradient(Operation):
    """dx = dy where y > 0, slope * dy elsewhere: linear in dy, and its own transpose.

    An element that a slope of 0 drops is 0 whatever dy is.
    """

    slope: float
    y: Array
    version: ResultVersion | None = None  # of y, where it is the result of an operation

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(dy: Tensor) -> Tensor:
            y = dy.backend.asarray([[1.0, -2.0, 0.0], [3.0, -1.0, 2.0]], dy.dtype)
            return LeakyReluGradient(0.2, y)(dy)

        factors = [[1.0, 0.2, 0.2], [1.0, 0.2, 1.0]]
        yield Case(call, normal((2, 3)), lambda dy: dy * factors, second_order=False)

    def forward(self, dy: Array) -> Array:
        return self.backend.leaky_relu_backward(dy, self.y, self.slope)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyReluGradient(self.slope, self.y, self.version)(dy),)

    def check_alive(self) -> None:
        super().check_alive()
        check_unchanged(self.name, self.version)


@dataclass(eq=False)
class Dropout(Operation):
    """y = x / (1 - p) with probability 1 - p, 0 otherwise: dx = dy by the same mask.

    What is dropped is 0 even where x, or dy, is infinite or NaN. (PyTorch multiplies by 0, which gives NaN
    there.)

    Which elements are kept follows from the key and the counter alone (`Backend.dropout_mask`).
    """

    p: float
    key: Key
    counter: Counter

    @classmethod
    def cases(cls) -> Iterable[Case]:
        place = (5, 7), (0, 3, 0, 0)
        for shape, label in (((3, 5), "(N, C)"), ((2, 3, 2, 3), "(N, C, H, W)")):
            yield Case(
                lambda x: cls(0.4, *place)(x),
                normal(shape),
                lambda x: naive.dropout(x, 0.4, *place),
                label,
                second_order=False,
            )

    @property
    def place(self) -> tuple[float, Key, Counter]:
        """(p, key, counter), as the backend takes them."""
        return self.p, self.key, self.counter

    @property
    def scale(self) -> float:
        """What the kept elements are multiplied by."""
        return 1 / (1 - self.p)

    def forward(self, x: Array) -> Array:
        y, self._mask = self.backend.dropout(x, *self.place)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (MaskScale(self._mask, self.scale)(dy),)


@dataclass(eq=False)
class MaskScale(Operation):
    """y = x * scale where the mask is True, 0 elsewhere, whatever x is: linear, and its own transpose."""

    mask: Array
    scale: float

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(x: Tensor) -> Tensor:
            return MaskScale(x.backend.asarray([[True, False, True], [False, True, True]]), 1.25)(x)

        factors = [[1.25, 0.0, 1.25], [0.0, 1.25, 1.25]]
        yield Case(call, normal((2, 3)), lambda x: x * factors, second_order=False)

    def forward(self, x: Array) -> Array:
        return self.backend.mask_scale(x, self.mask, self.scale)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (MaskScale(self.mask, self.scale)(dy),)


@dataclass(eq=False)
class LeakyDropoutGradient(Operation):
    """dx = dy * scale where the mask is True, times slope where y is not above 0; 0 elsewhere.

    That is back through a dropout and the leaky ReLU before it: linear in dy, and its own transpose.
    """

    slope: float
    y: Array
    mask: Array
    scale: float
    version: ResultVersion | None = None  # of y, where it is the result of an operation

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(dy: Tensor) -> Tensor:
            y = dy.backend.asarray([[1.0, -2.0, 0.0], [3.0, -1.0, 0.0]], dy.dtype)
            mask = dy.backend.asarray([[True, True, False], [True, True, True]])
            return LeakyDropoutGradient(0.2, y, mask, 1.25)(dy)

        factors = [[1.25, 0.25, 0.0], [1.25, 0.25, 0.25]]
        yield Case(call, normal((2, 3)), lambda dy: dy * factors, second_order=False)

    def forward(self, dy: Array) -> Array:
        return self.backend.leaky_dropout_backward(dy, self.y, self.mask, self.slope, self.scale)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyDropoutGradient(self.slope, self.y, self.mask, self.scale, self.version)(dy),)

    def check_alive(self) -> None:
        super().check_alive()
        check_unchanged(self.name, self.version)


# -- the functions ---------------------------------------------------------------------------------


def _binary(operation: type[Operation], a: Any, b: Any) -> Tensor:
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


def floating(x: Any) -> Any:
    """Return an integer tensor as float32, beside a float (NumPy would give float64); all else as it is."""
    return x.to("float32") if isinstance(x, Tensor) and x.dtype not in FLOAT_TYPES else x


def add(a: Any, b: Any) -> Tensor:
    """a + b."""
    return _binary(Add, a, b)


def subtract(a: Any, b: Any) -> Tensor:
    """a - b."""
    return _binary(Subtract, a, b)


def multiply(a: Any, b: Any) -> Tensor:
    """a * b."""
    return _binary(Multiply, a, b)


def divide(a: Any, b: Any) -> Tensor:
    """a / b."""
    return _binary(Divide, a, b)


def power(a: Any, b: Any) -> Tensor:
    """a ** b; the gradient with respect to the exponent needs a > 0, or a = 0 and b >= 0, where it is 0.

    Raises ValueError for integers to the power of a negative integer, which has no integer results.
    """
    if isinstance(a, Tensor) and a.dtype.kind in "iub" and isinstance(b, int) and b < 0:
        raise ValueError(f"power: {a.dtype} to the power of {b} is no integer: use a float, as in x ** {b}.0")
    return _binary(Power, a, b)


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b; where they are equal, each gets half of the gradient.

    NaN counts as the larger.
    """
    return _binary(Maximum, a, b)


def negate(x: Tensor) -> Tensor:
    """-x."""
    require_tensor("negate", x)
    return Negate()(x)


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


def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    require_float("tanh", x)
    return Tanh()(x)


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x)); never overflows."""
    require_float("sigmoid", x)
    return Sigmoid()(x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)); never overflows."""
    require_float("softplus", x)
    return Softplus()(x)


def relu(x: Tensor) -> Tensor:
    """max(x, 0); the gradient at 0 is 0."""
    require_float("relu", x)
    return LeakyRelu(0.0)(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, negative_slope * x elsewhere; 0 <= negative_slope <= 1."""
    require_float("leaky_relu", x)
    check_slope("leaky_relu", negative_slope, "negative_slope")
    return LeakyRelu(float(negative_slope))(x)


def check_slope(function: str, slope: float, name: str = "slope") -> None:
    """Raise ValueError where a leaky ReLU would not be the larger one of x and slope * x."""
    if not 0 <= slope <= 1:
        raise ValueError(f"{function}: expected 0 <= {name} <= 1, got {slope}")


def comparison(compare: Callable[[Any, Any], Any]) -> Callable[[Tensor, Any], Tensor]:
    """A function of the operator module as one of a tensor and an operand: a boolean tensor."""

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
