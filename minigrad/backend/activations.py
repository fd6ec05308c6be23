"""The reference activations, and their gradients, each a function of dy and of the result."""

from types import ModuleType

from .arrays import Array


class ReferenceActivations:
    """The activations: a part of `Backend`."""

    xp: ModuleType

    def leaky_relu(self, x: Array, slope: float) -> Array:
        """x where x > 0, slope * x elsewhere; 0 <= slope <= 1."""
        return self.xp.maximum(x, x * slope if slope else 0)  # 0 times infinity is NaN

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        """dy where y > 0, slope * dy elsewhere (y has x's sign, or is 0 with it).

        With a slope of 0 that is 0 whatever dy is, an infinite one too.
        """
        return self.xp.where(y > 0, dy, dy * slope if slope else 0)  # 0 times infinity is NaN

    def tanh(self, x: Array) -> Array:
        """The hyperbolic tangent."""
        return self.xp.tanh(x)

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        """dy * (1 - y^2)."""
        return dy * (1 - y * y)

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)), with an exponential that never overflows and small values kept exact."""
        e = self.xp.exp(-self.xp.abs(x))
        return self.xp.where(x >= 0, 1 / (1 + e), e / (1 + e))

    def sigmoid_backward(self, dy: Array, y: Array) -> Array:
        """dy * (y * (1 - y))."""
        return dy * (y * (1 - y))

    def softplus(self, x: Array) -> Array:
        """log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), finite for every finite x."""
        return self.xp.maximum(x, 0) + self.xp.log1p(self.xp.exp(-self.xp.abs(x)))
