"""Losses, element by element; the functions below reduce them to one number."""

import numbers
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import naive
from ..backend.arrays import Array
from ..backend.losses import MIN_DIVISOR
from ..tensor import Tensor
from .activation import sigmoid
from .cases import Case
from .elementwise import clip, exp, log
from .operation import Operation, as_constant, as_tensor, require_float, snapshot
from .reduce import mean, sum_


class LogitBinaryCrossEntropy(Operation):
    """l = max(x, 0) - x t + log(1 + exp(-|x|)); dx = dl ((1 - t) sigmoid(x) - t sigmoid(-x)), dt = -dl x.

    It is -t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), rearranged so that nothing overflows. The
    first two terms cancel exactly where the label is right, which leaves the small third one whole;
    and dx, which is dl (sigmoid(x) - t), is written so that it keeps its own small values too.
    x = inf gives NaN (in PyTorch infinity, for t < 1), and so does x = -inf where t is 0.
    """

    keep_inputs = True

    def forward(self, x: Array, t: Array) -> Array:
        return (self.xp.maximum(x, 0) - x * t) + self.backend.softplus(-self.xp.abs(x))

    def backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        x, t = self.inputs
        return (
            dl * ((1 - t) * sigmoid(x) - t * sigmoid(-x)) if self.needs[0] else None,
            -(dl * x) if self.needs[1] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def inputs(rng: Any) -> tuple[Any, ...]:
            return rng.normal(size=(3, 4)) * 3, rng.uniform(size=(3, 4))

        yield Case(lambda x, t: cls()(x, t), inputs)


class MeanLogitBinaryCrossEntropy(Operation):
    """The mean of `LogitBinaryCrossEntropy` over all elements, with its gradient made in the same pass."""

    keep_inputs = True

    def forward(self, x: Array, t: Array) -> Array:
        loss, self._gradient = self.backend.logit_bce(x, t)
        return loss

    def backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        x, t = self.inputs
        return (
            dl * (((1 - t) * sigmoid(x) - t * sigmoid(-x)) / x.size) if self.needs[0] else None,
            self._target_gradient(dl),
        )

    def fused_backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        dx = Tensor(self._gradient, backend=self.backend)
        return dl * dx if self.needs[0] else None, self._target_gradient(dl)

    def _target_gradient(self, dl: Tensor) -> Tensor | None:
        x = self.inputs[0]
        return -(dl * x) / x.size if self.needs[1] else None

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def inputs(rng: Any) -> tuple[Any, ...]:
            return rng.normal(size=(3, 4)) * 3, rng.uniform(size=(3, 4))

        yield Case(lambda x, t: cls()(x, t), inputs)
        yield Case(
            lambda x: cls()(x, 0.3),
            lambda rng: (rng.normal(size=(5, 1)),),
            lambda x: naive.mean_logit_binary_cross_entropy(x, 0.3),
            "a number as label",
        )


class FlooredLog(Operation):
    """y = max(log(p), -100): dp = dy / max(p, 1e-12).

    Finite at p = 0 too, and not cut to 0 there, as the gradient of the bound would be. The two
    constants are those of PyTorch's BCELoss.
    """

    keep_inputs = True

    def forward(self, p: Array) -> Array:
        return self.backend.floored_log(p)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy / clip(self.inputs[0], low=MIN_DIVISOR),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(lambda p: cls()(p), lambda rng: (rng.uniform(0.1, 0.9, size=(3, 4)),))


class FlooredLogComplement(Operation):
    """y = max(log(1 - p), -100): dp = -dy / max(1 - p, 1e-12).

    By log1p(-p), as PyTorch's BCELoss computes it: a small p would be lost in 1 - p. For the rest see
    `FlooredLog`.
    """

    keep_inputs = True

    def forward(self, p: Array) -> Array:
        return self.backend.floored_log_complement(p)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (-(dy / clip(1 - self.inputs[0], low=MIN_DIVISOR)),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda p: cls()(p),
            lambda rng: (rng.uniform(0.1, 0.9, size=(3, 4)),),
            lambda p: naive.floored_log(1 - p),
        )


@dataclass(eq=False)
class MeanBinaryCrossEntropy(Operation):
    """l = mean(-t log(p) - (1 - t) log(1 - p)), with its gradient made in the same pass.

    dp = dl ((1 - t) / (1 - p) - t / p) / n, dt = dl (log(1 - p) - log(p)) / n. With an `epsilon` it is added
    to p and to 1 - p; without one the logarithms are `FlooredLog` and `FlooredLogComplement`, whose gradients
    have a bound.
    """

    epsilon: float | None = None
    keep_inputs = True

    def forward(self, p: Array, t: Array) -> Array:
        loss, self._gradient = self.backend.bce(p, t, self.epsilon)
        return loss

    def backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        p, t = self.inputs
        share = -(dl / p.size)
        if self.epsilon is None:
            below_p, below_q = clip(p, low=MIN_DIVISOR), clip(1 - p, low=MIN_DIVISOR)
        else:
            below_p, below_q = p + self.epsilon, 1 - p + self.epsilon
        return (
            -(share * (1 - t) / below_q) + share * t / below_p if self.needs[0] else None,
            self._target_gradient(dl),
        )

    def fused_backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        dp = Tensor(self._gradient, backend=self.backend)
        return dl * dp if self.needs[0] else None, self._target_gradient(dl)

    def _target_gradient(self, dl: Tensor) -> Tensor | None:
        if not self.needs[1]:
            return None
        p = self.inputs[0]
        log_p, log_q = _logarithms(p, self.epsilon)
        return -(dl / p.size) * (log_p - log_q)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def inputs(rng: Any) -> tuple[Any, ...]:
            return rng.uniform(0.1, 0.9, size=(3, 4)), rng.uniform(size=(3, 4))

        yield Case(lambda p, t: cls()(p, t), inputs)
        yield Case(
            lambda p, t: cls(0.2)(p, t),
            inputs,
            lambda p, t: naive.mean_binary_cross_entropy(p, t, 0.2),
            "epsilon",
        )
        yield Case(
            lambda p: cls()(p, 0.3),
            lambda rng: (rng.uniform(0.1, 0.9, size=(5, 1)),),
            lambda p: naive.mean_binary_cross_entropy(p, 0.3),
            "a number as label",
        )


@dataclass(eq=False)
class CrossEntropy(Operation):
    """l[n] = log(sum over k of exp(x[n, k])) - x[n, label[n]]: dx = dl (softmax(x) - one_hot(label)).

    The largest logit is taken off first, which changes nothing but keeps the exponentials finite. A logit of
    -inf is a class of probability 0; one of inf, or all of -inf, give NaN, as in PyTorch.
    """

    labels: Array
    keep_inputs = True

    def forward(self, x: Array) -> Array:
        rows = self.xp.arange(len(x))
        shifted = x - x.max(axis=1, keepdims=True)
        return self.xp.log(self.xp.exp(shifted).sum(axis=1)) - shifted[rows, self.labels]

    def backward(self, dl: Tensor) -> tuple[Tensor | None, ...]:
        x = self.inputs[0]
        shifted = x - Tensor(x.data.max(axis=1, keepdims=True), backend=self.backend)
        exponentials = exp(shifted)
        softmax = exponentials / sum_(exponentials, 1, keepdims=True)
        one_hot = (self.labels[:, None] == self.xp.arange(x.shape[1])).astype(x.dtype)  # (N, K)
        gradient = softmax - Tensor(one_hot, backend=self.backend)
        return (dl.reshape(-1, 1) * gradient,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        labels = [2, 0, 1]

        def call(x: Tensor) -> Tensor:
            return cls(x.backend.asarray(labels))(x)

        yield Case(call, lambda rng: (rng.normal(size=(3, 4)) * 3,))


def binary_cross_entropy_with_logits(logits: Tensor, target: Any, reduction: str = "mean") -> Tensor:
    """-t log(p) - (1 - t) log(1 - p) with p = sigmoid(logits), finite for every finite logit.

    Args:
        logits: any shape.
        target: a tensor of that shape, or a number for all of them; usually in [0, 1].
        reduction: "mean", "sum" or "none".
    """
    target = _target("binary_cross_entropy_with_logits", logits, target)
    if reduction == "mean" and logits.size:
        return MeanLogitBinaryCrossEntropy()(logits, target)
    return _reduced(LogitBinaryCrossEntropy()(logits, target), reduction)


def binary_cross_entropy(
    probabilities: Tensor, target: Any, reduction: str = "mean", *, epsilon: float | None = None
) -> Tensor:
    """-t log(p) - (1 - t) log(1 - p) of probabilities p.

    Args:
        probabilities: any shape, values in [0, 1].
        target: a tensor of that shape, or a number for all of them.
        reduction: "mean", "sum" or "none".
        epsilon: None holds the logarithms above -100, as PyTorch does, and takes the second one by
            log1p(-p), so that a small p counts in it; a number is added inside them instead:
            -t log(p + epsilon) - (1 - t) log(1 - p + epsilon).

    A sigmoid in float32 is 1 from a logit of 17 on: against the label 0 that costs 100 here and 17
    in `binary_cross_entropy_with_logits`, which is the one to use where there is a choice.
    Raises ValueError for a value outside [0, 1] (on the CPU, where looking costs no wait).
    """
    target = _target("binary_cross_entropy", probabilities, target)
    values = probabilities.data
    # NaN passes, as in all operations: the loss is NaN then.
    if probabilities.device == "cpu" and values.size and (values.min() < 0 or values.max() > 1):
        raise ValueError(
            "binary_cross_entropy: expected probabilities in [0, 1], got values from "
            f"{values.min():.4g} to {values.max():.4g}; for logits use binary_cross_entropy_with_logits"
        )
    if epsilon is not None and not isinstance(epsilon, numbers.Real):
        raise TypeError(
            f"binary_cross_entropy: expected None or a number as epsilon, got {type(epsilon).__name__}"
        )
    epsilon = None if epsilon is None else float(epsilon)
    if reduction == "mean" and probabilities.size:
        return MeanBinaryCrossEntropy(epsilon)(probabilities, target)
    log_p, log_q = _logarithms(probabilities, epsilon)
    return _reduced(-(target * log_p + (1 - target) * log_q), reduction)


def _logarithms(p: Tensor, epsilon: float | None) -> tuple[Tensor, Tensor]:
    """Return log(p) and log(1 - p) as `binary_cross_entropy` takes them."""
    if epsilon is None:
        return FlooredLog()(p), FlooredLogComplement()(p)
    return log(p + epsilon), log(1 - p + epsilon)


def cross_entropy(logits: Tensor, labels: Any, reduction: str = "mean") -> Tensor:
    """-log softmax(logits)[label], for logits (N, K) and integer labels (N,) in range(K).

    `labels` is a list, or a tensor or an array on the same device; `reduction` "mean", "sum" or "none".
    Raises ValueError where the shapes differ or (on the CPU) a label is out of range, and TypeError
    where labels are no integers.
    """
    require_float("cross_entropy", logits)
    indices = as_constant(labels, logits, "cross_entropy")
    if logits.ndim != 2 or indices.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: expected logits (N, K) and labels (N,), got {logits.shape} and {indices.shape}"
        )
    if indices.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: expected integer labels, got {indices.dtype}")
    looked = logits.device == "cpu" and indices.size  # elsewhere to look is to wait
    if looked and not (indices.min() >= 0 and indices.max() < logits.shape[1]):
        raise ValueError(
            f"cross_entropy: expected labels from 0 to {logits.shape[1] - 1}, "
            f"got {indices.min()} to {indices.max()}"
        )
    return _reduced(CrossEntropy(snapshot(indices, logits))(logits), reduction)


def _target(name: str, x: Tensor, target: Any) -> Any:
    require_float(name, x)
    target = as_tensor(target, x, name)
    if isinstance(target, Tensor) and target.shape != x.shape:
        raise ValueError(f"{name}: expected a target of shape {x.shape}, got {target.shape}")
    return target


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum_(loss)
    if reduction == "none":
        return loss
    raise ValueError(f'reduction: expected "mean", "sum" or "none", got {reduction!r}')
