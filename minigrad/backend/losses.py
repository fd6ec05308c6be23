"""The reference losses: each the mean over all elements, and its gradient, from the same pass."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from .arrays import Array

MIN_LOG = -100.0  # PyTorch's: the logarithm of a probability that is 0
MIN_DIVISOR = 1e-12  # PyTorch's: what a probability is at the least where it divides a gradient


class ReferenceLosses:
    """The binary cross-entropies: a part of `Backend`. The attributes are what it needs of the rest."""

    xp: ModuleType
    sum: Callable[[Array, tuple[int, ...]], Array]
    sigmoid: Callable[[Array], Array]
    softplus: Callable[[Array], Array]

    def logit_bce(self, x: Array, target: Any) -> tuple[Array, Array]:
        """The mean over all elements of -t log(p) - (1 - t) log(1 - p), p = sigmoid(x), and its gradient.

        The first is max(x, 0) - x t + log(1 + exp(-|x|)), where nothing overflows; the second is
        (p - t) / n, as (1 - t) sigmoid(x) - t sigmoid(-x), which keeps its small values.
        """
        loss = (self.xp.maximum(x, 0) - x * target) + self.softplus(-self.xp.abs(x))
        gradient = ((1 - target) * self.sigmoid(x) - target * self.sigmoid(-x)) / x.size
        return self.sum(loss, tuple(range(x.ndim))) / x.size, gradient

    def bce(self, p: Array, target: Any, epsilon: float | None) -> tuple[Array, Array]:
        """The mean over all elements of -t log(p) - (1 - t) log(1 - p), and its gradient.

        Args:
            p: probabilities.
            target: labels t of p's shape, or a number for all.
            epsilon: what is added inside the logarithms; the gradient divides by p + epsilon and
                1 - p + epsilon. None for `floored_log` and `floored_log_complement` in their place; the
                gradient divides by p and 1 - p then, each MIN_DIVISOR at the least.
        """
        q = 1 - p
        if epsilon is None:
            log_p, log_q = self.floored_log(p), self.floored_log_complement(p)
            p, q = self.xp.clip(p, MIN_DIVISOR, None), self.xp.clip(q, MIN_DIVISOR, None)
        else:
            p, q = p + epsilon, q + epsilon
            log_p, log_q = self.xp.log(p), self.xp.log(q)
        loss = -(target * log_p + (1 - target) * log_q)
        share = -(self.xp.ones((), p.dtype) / p.size)
        gradient = -(share * (1 - target) / q) + share * target / p
        return self.sum(loss, tuple(range(p.ndim))) / p.size, gradient

    def floored_log(self, p: Array) -> Array:
        """max(log(p), MIN_LOG); p below 0 counts as 0, NaN stays NaN."""
        return self.xp.where(p <= 0, MIN_LOG, self.xp.maximum(self.xp.log(p), MIN_LOG))

    def floored_log_complement(self, p: Array) -> Array:
        """max(log(1 - p), MIN_LOG), by log1p(-p); p above 1 counts as 1, NaN stays NaN."""
        return self.xp.where(p >= 1, MIN_LOG, self.xp.log1p(-p))  # from p < 1 on it is above -37
