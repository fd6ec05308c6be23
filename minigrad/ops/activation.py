"""Activations: tanh, sigmoid, softplus and the leaky ReLU."""

from collections.abc import Iterable
from dataclasses import dataclass

from ..backend.arrays import Array
from ..tensor import Tensor
from .cases import Case, normal
from .operation import Operation, ResultVersion, check_unchanged, require_float


class Tanh(Operation):
    """y = tanh(x): dx = dy (1 - y^2), which is 0 where y rounds to 1: from |x| = 9.1 on in float32."""

    keep_output = True

    def forward(self, x: Array) -> Array:
        return self.backend.tanh(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        y = self.output
        return (dy * (1 - y * y),)

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (Tensor(self.backend.tanh_backward(dy.data, self._output), backend=self.backend),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(tanh, normal((3, 4)))


class Sigmoid(Operation):
    """y = 1 / (1 + exp(-x)): dx = dy y (1 - y), which is 0 where y rounds to 1: from x = 17 on in float32."""

    keep_output = True

    def forward(self, x: Array) -> Array:
        return self.backend.sigmoid(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        y = self.output
        return (dy * (y * (1 - y)),)

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (Tensor(self.backend.sigmoid_backward(dy.data, self._output), backend=self.backend),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(sigmoid, normal((3, 4)))


class Softplus(Operation):
    """y = log(1 + exp(x)): dx = dy sigmoid(x)."""

    keep_inputs = True

    def forward(self, x: Array) -> Array:
        return self.backend.softplus(x)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy * sigmoid(self.inputs[0]),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(softplus, normal((3, 4)))
        yield Case(softplus, lambda rng: (rng.normal(size=(6,)) * 20,), label="far from 0")


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

    def forward(self, x: Array) -> Array:
        return self.backend.leaky_relu(x, self.slope)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyReluGradient(self.slope, self._output, self.result_version)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: leaky_relu(x, 0.2),
            normal((3, 4)),
            lambda x: x.clip(0) + 0.2 * x.clip(None, 0),
            second_order=False,
        )
        yield Case(relu, normal((2, 3, 4, 5)), lambda x: x.clip(0), "relu", second_order=False)


@dataclass(eq=False)
class LeakyReluGradient(Operation):
    """dx = dy where y > 0, slope * dy elsewhere: linear in dy, and its own transpose.

    An element that a slope of 0 drops is 0 whatever dy is.
    """

    slope: float
    y: Array
    version: ResultVersion | None = None  # of y, where it is the result of an operation

    def forward(self, dy: Array) -> Array:
        return self.backend.leaky_relu_backward(dy, self.y, self.slope)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyReluGradient(self.slope, self.y, self.version)(dy),)

    def check_alive(self) -> None:
        super().check_alive()
        check_unchanged(self.name, self.version)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(dy: Tensor) -> Tensor:
            y = dy.backend.asarray([[1.0, -2.0, 0.0], [3.0, -1.0, 2.0]], dy.dtype)
            return LeakyReluGradient(0.2, y)(dy)

        factors = [[1.0, 0.2, 0.2], [1.0, 0.2, 1.0]]
        yield Case(call, normal((2, 3)), lambda dy: dy * factors, second_order=False)


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
    if not 0 <= negative_slope <= 1:
        raise ValueError(f"leaky_relu: expected 0 <= negative_slope <= 1, got {negative_slope}")
    return LeakyRelu(float(negative_slope))(x)
