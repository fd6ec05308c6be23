"""The reference updates of parameters, in place: the steps of Adam, and running averages."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from .arrays import Array
from .ieee import ieee

AdamUpdate = tuple[Array, Array, Array, Array]  # a parameter, its gradient, its first and second moment
Factors = Callable[[], Sequence[tuple[float, float]]]  # gives `rate` and `correction` of each `adam_update`


class ReferenceOptimizers:
    """The updates of optimizers: a part of `Backend`. The attribute is what it needs of the rest."""

    xp: ModuleType

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        """`adam_update` of several parameters, each with its own gradient, moments and factors.

        Args:
            factors: gives (rate, correction) of each of them. A captured step calls it in each replay.
        """
        for arrays, (rate, correction) in zip(updates, factors(), strict=True):
            self.adam_update(*arrays, rate=rate, correction=correction, **constants)

    @ieee()
    def average_updates(
        self, pairs: Sequence[tuple[Array, Array]], weights: Callable[[], tuple[float, float]]
    ) -> None:
        """Move running averages, in place: average = keep * average + share * new for each (average, new).

        Args:
            weights: gives (keep, share). A captured step calls it in each replay.
        """
        keep, share = weights()
        for average, new in pairs:
            average *= keep
            average += share * new

    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first: Array,
        second: Array,
        *,
        rate: float,
        correction: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """One step of Adam, in place on the parameter and on its two moments.

        g = gradient + weight_decay * parameter; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
        parameter -= rate * m / (sqrt(v / correction) + eps).

        `rate` and `correction` are numbers of the step: `minigrad.optim.Adam` has both forms of them.
        """
        beta1, beta2 = betas
        if weight_decay:
            gradient = gradient + weight_decay * parameter
        first *= beta1
        first += (1 - beta1) * gradient
        second *= beta2
        second += (1 - beta2) * (gradient * gradient)
        parameter -= rate * first / (self.xp.sqrt(second / correction) + eps)
