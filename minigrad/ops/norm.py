"""Batch normalisation: with the statistics of the batch itself, or with given ones.

Both can take the activation that usually follows into the same pass over memory (`epilogue`).

Source: Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing
Internal Covariate Shift" (2015).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from .. import naive
from ..backend.arrays import Array
from ..backend.epilogue import NO_EPILOGUE, Epilogue
from ..tensor import Tensor
from .cases import Case, normal
from .epilogue import HasEpilogue
from .operation import Operation
from .reduce import mean as mean_of
from .reduce import sum_


@dataclass(eq=False)
class BatchNorm(HasEpilogue, Operation):
    """y = f((x - m) / sqrt(v + eps) * weight + bias), m and v the channel's mean and variance in x.

    f is the epilogue, an activation. With dy taken back through it, xhat = (x - m) / sqrt(v + eps), and sums
    and means over a channel's values:

        dbias = sum(dy), dweight = sum(dy xhat),
        dx = weight / sqrt(v + eps) * (dy - mean(dy) - xhat mean(dy xhat)).

    The two means are what flows back through m and v. After the call `mean` and `variance` (biased)
    hold m and v as arrays (C,) in float64.

    A channel with an infinite value or NaN is NaN all over. Where the gradients are recorded
    (`create_graph`), v is made again in x's dtype. In float32 it overflows from values of about 1e19 on, and
    dx is 0 then.
    """

    eps: float
    epilogue: Epilogue = NO_EPILOGUE
    keep_inputs = True

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        self.mean, self.variance = self.backend.moments(x)
        return self.backend.normalize(x, self.mean, self.variance, self.eps, weight, bias, self.epilogue)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The formulas above from x on, so that they can be differentiated again."""
        x, weight, _ = self.inputs
        dy = self.back_through_epilogue(dy)
        axes = (0, 2, 3)[: x.ndim - 1]
        channels = (1, -1) + (1,) * (x.ndim - 2)
        centred = x - mean_of(x, axes, keepdims=True)
        inv_std = (mean_of(centred * centred, axes, keepdims=True) + self.eps) ** -0.5  # (1, C, ...)
        xhat = centred * inv_std
        projection = mean_of(dy * xhat, axes, keepdims=True)
        inner = dy - mean_of(dy, axes, keepdims=True) - xhat * projection
        dx = inner * (inv_std * weight.reshape(channels))
        return dx, sum_(dy * xhat, axes), sum_(dy, axes)

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        gradients = self.backend.normalize_backward(
            dy.data,
            x.data,
            self._output if self.keep_output else None,
            self.mean,
            self.variance,
            self.eps,
            weight.data,
            self.epilogue,
        )
        return tuple(Tensor(g, backend=self.backend) for g in gradients)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return cls(1e-3)(x, weight, bias)

        def activated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return cls(1e-3, Epilogue(0.2))(x, weight, bias)

        def reference(x: Array, weight: Array, bias: Array) -> Array:
            return naive.leaky_relu(naive.batch_norm(x, weight, bias), 0.2)

        for shape, label in (((4, 3), "(N, C)"), ((2, 3, 2, 3), "(N, C, H, W)")):
            yield Case(activated, normal(shape, (3,), (3,)), reference, f"{label}, leaky ReLU")
        yield Case(call, normal((4, 3), (3,), (3,)), label="(N, C)")
        yield Case(call, normal((2, 3, 2, 3), (3,), (3,)), label="(N, C, H, W)")
        yield Case(call, normal((1, 2, 2, 2), (2,), (2,)), label="a batch of one")


@dataclass(eq=False)
class Normalize(HasEpilogue, Operation):
    """y = f((x - mean) / sqrt(variance + eps) * weight + bias) with constants mean and variance, each (C,).

    f is the epilogue, an activation.
    """

    mean: Array
    variance: Array
    eps: float
    epilogue: Epilogue = NO_EPILOGUE
    keep_inputs = True

    def forward(self, x: Array, weight: Array, bias: Array) -> Array:
        return self.backend.normalize(x, self.mean, self.variance, self.eps, weight, bias, self.epilogue)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, _ = self.inputs
        dy = self.back_through_epilogue(dy)
        axes = (0, 2, 3)[: x.ndim - 1]
        channels = (1, -1) + (1,) * (x.ndim - 2)
        constants = self.mean, 1 / self.xp.sqrt(self.variance + self.eps)
        mean, inv_std = (Tensor(v.reshape(channels), backend=self.backend) for v in constants)
        return (
            dy * (inv_std * weight.reshape(channels)) if self.needs[0] else None,
            sum_(dy * ((x - mean) * inv_std), axes) if self.needs[1] else None,
            sum_(dy, axes) if self.needs[2] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        mean, variance = (0.5, -1.0), (0.2, 3.0)

        def call(x: Tensor, weight: Tensor, bias: Tensor, epilogue: Epilogue = NO_EPILOGUE) -> Tensor:
            m, v = (x.backend.asarray(values, x.dtype) for values in (mean, variance))
            return cls(m, v, 0.05, epilogue)(x, weight, bias)

        def call_activated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return call(x, weight, bias, Epilogue(0.2))

        def reference(x: Array, weight: Array, bias: Array) -> Array:
            xhat = (x.swapaxes(1, -1) - mean) * (0.25**-0.5, 3.05**-0.5)  # (N, ..., C)
            return (xhat * weight + bias).swapaxes(1, -1)

        def activated(x: Array, weight: Array, bias: Array) -> Array:
            return naive.leaky_relu(reference(x, weight, bias), 0.2)

        for shape, label in (((3, 2), "(N, C)"), ((2, 2, 3, 2), "(N, C, H, W)")):
            yield Case(call, normal(shape, (2,), (2,)), reference, label)
            yield Case(call_activated, normal(shape, (2,), (2,)), activated, f"{label}, leaky ReLU")
