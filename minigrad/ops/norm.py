"""Batch normalisation: with the statistics of the batch itself, or with given ones.

Source: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ..backend.base import Array
from ..tensor import Tensor, is_grad_enabled
from .elementwise import normal
from .operation import Case, Operation
from .reduce import mean as mean_of
from .reduce import sum_


@dataclass(eq=False)
class BatchNorm(Operation):
    """y = (x - m) / sqrt(v + eps) * weight + bias, m and v the channel's mean and variance in x.

    With xhat = (x - m) / sqrt(v + eps), and sums and means over a channel's values:

        dbias = sum(dy), dweight = sum(dy xhat),
        dx = weight / sqrt(v + eps) * (dy - mean(dy) - xhat mean(dy xhat)).

    The two means are what flows back through m and v. After the call `mean` and `variance` (biased)
    hold m and v as arrays (C,) in float64.
    """

    eps: float
    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return cls(1e-3)(x, weight, bias)

        yield Case(call, normal((4, 3), (3,), (3,)), label="(N, C)")
        yield Case(call, normal((2, 3, 2, 3), (3,), (3,)), label="(N, C, H, W)")
        yield Case(call, normal((1, 2, 2, 2), (2,), (2,)), label="a batch of one")

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.mean, self.variance = self.backend.moments(x)
        self._inv_std = 1 / self.xp.sqrt(self.variance + self.eps)
        return self.backend.normalize(x, self.mean, self._inv_std, weight, bias)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        if is_grad_enabled():
            return self._differentiable_backward(dy, x, weight)
        gradients = self.backend.normalize_backward(dy.data, x.data, self.mean, self._inv_std, weight.data)
        return tuple(Tensor(g, backend=self.backend) for g in gradients)

    def _differentiable_backward(self, dy: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor | None, ...]:
        """The same formulas from x on, so that they can be differentiated again."""
        axes = (0, 2, 3)[: x.ndim - 1]
        channels = (1, -1) + (1,) * (x.ndim - 2)
        centred = x - mean_of(x, axes, keepdims=True)
        inv_std = (mean_of(centred * centred, axes, keepdims=True) + self.eps) ** -0.5  # (1, C, ...)
        xhat = centred * inv_std
        projection = mean_of(dy * xhat, axes, keepdims=True)
        inner = dy - mean_of(dy, axes, keepdims=True) - xhat * projection
        dx = inner * (inv_std * weight.reshape(channels))
        return dx, sum_(dy * xhat, axes), sum_(dy, axes)


@dataclass(eq=False)
class Normalize(Operation):
    """y = (x - mean) * inv_std * weight + bias with constants mean and inv_std, each (C,)."""

    mean: Array
    inv_std: Array
    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        mean, inv_std = (0.5, -1.0), (2.0, 0.25)

        def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            constants = (x.backend.asarray(v, x.dtype) for v in (mean, inv_std))
            return cls(*constants)(x, weight, bias)

        def reference(x: Array, weight: Array, bias: Array) -> Array:
            xhat = (x.swapaxes(1, -1) - mean) * inv_std  # (N, ..., C)
            return (xhat * weight + bias).swapaxes(1, -1)

        yield Case(call, normal((3, 2), (2,), (2,)), reference, "(N, C)")
        yield Case(call, normal((2, 2, 3, 2), (2,), (2,)), reference, "(N, C, H, W)")

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return self.backend.normalize(x, self.mean, self.inv_std, weight, bias)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        axes = (0, 2, 3)[: x.ndim - 1]
        channels = (1, -1) + (1,) * (x.ndim - 2)
        mean, inv_std = (Tensor(v.reshape(channels), backend=self.backend) for v in (self.mean, self.inv_std))
        return (
            dy * (inv_std * weight.reshape(channels)) if self.needs[0] else None,
            sum_(dy * ((x - mean) * inv_std), axes) if self.needs[1] else None,
            sum_(dy, axes) if self.needs[2] else None,
        )
