"""The rules by which parameters move along their gradients, in place."""

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, ClassVar

from ..backend.arrays import Array
from ..backend.base import Backend
from ..backend.optimizers import AdamUpdate
from ..tensor import Tensor
from .given import flag, number, pair
from .optimizer import Optimizer, Read


class SGD(Optimizer):
    """velocity = momentum velocity + gradient; parameter -= lr velocity.

    With momentum 0, plain stochastic gradient descent. `weight_decay` adds weight_decay *
    parameter to the gradient. Source of the form: PyTorch's SGD.
    """

    hyperparameters: ClassVar[dict[str, Read]] = {**Optimizer.hyperparameters, "momentum": number}
    replayed = ("lr",)
    momentum: float

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr, weight_decay, momentum=momentum)

    def _out_of_range(self, values: Mapping[str, Any]) -> str:
        if values["momentum"] >= 0:
            return super()._out_of_range(values)
        return f"expected momentum >= 0, got {values['momentum']:g}"

    def _slots(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        return ("velocity",) if values["momentum"] else ()

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * p.data
        if self.momentum:
            velocity = self.state[index]["velocity"]
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        p.data[...] -= self._lr_for(p) * gradient


class RMSprop(Optimizer):
    """square = alpha square + (1 - alpha) gradient^2; parameter -= lr gradient / (sqrt(square) + eps).

    Source: Hinton, "Neural networks for machine learning", lecture 6e (2012); defaults are PyTorch's.
    """

    slots = ("square",)
    hyperparameters: ClassVar[dict[str, Read]] = {**Optimizer.hyperparameters, "alpha": number, "eps": number}
    replayed = ("lr",)
    alpha: float
    eps: float

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay, alpha=alpha, eps=eps)

    def _out_of_range(self, values: Mapping[str, Any]) -> str:
        alpha, eps = values["alpha"], values["eps"]
        if 0 <= alpha < 1 and eps > 0:
            return super()._out_of_range(values)
        return f"expected 0 <= alpha < 1 and eps > 0, got {alpha:g} and {eps:g}"

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * p.data
        square = self.state[index]["square"]
        square *= self.alpha
        square += (1 - self.alpha) * (gradient * gradient)
        p.data[...] -= self._lr_for(p) * gradient / (p.backend.xp.sqrt(square) + self.eps)


class Adam(Optimizer):
    """Steps of about lr, by the ratio of the gradient's running mean to its running size.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    parameter -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), t = 1, 2, ...
    The divisions by 1 - b^t undo that m and v start at 0. `weight_decay` adds weight_decay *
    parameter to g (L2, coupled). Source: Kingma and Ba, "Adam" (2015), algorithm 1; PyTorch has the
    same form.

    With `epsilon_hat`, eps is added outside of the bias correction:
    parameter -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).
    In the first steps eps then weighs 1 / sqrt(1 - b2^t) times as much, 32 times at t = 1 with b2 =
    0.999, which shows where gradients are not far above eps. Source: the end of section 2 of the paper,
    which calls this eps "epsilon hat"; TensorFlow's and Keras's Adam have this form.

    Args:
        params: the parameters, which require a gradient.
        lr: the rate, 0 or more.
        betas: (b1, b2), each in [0, 1).
        eps: above 0.
        weight_decay: 0 or more.
        epsilon_hat: whether eps is added outside of the bias correction.

    Raises TypeError or ValueError for anything else.
    """

    slots = ("first", "second")
    hyperparameters: ClassVar[dict[str, Read]] = {
        **Optimizer.hyperparameters,
        "betas": pair,
        "eps": number,
        "epsilon_hat": flag,
    }
    replayed = ("lr",)
    betas: tuple[float, float]
    eps: float
    epsilon_hat: bool

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        epsilon_hat: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay, betas=betas, eps=eps, epsilon_hat=epsilon_hat)

    def _out_of_range(self, values: Mapping[str, Any]) -> str:
        betas, eps = values["betas"], values["eps"]
        if all(0 <= b < 1 for b in betas) and eps > 0:
            return super()._out_of_range(values)
        return f"expected two betas, 0 <= beta < 1, and eps > 0, got {betas} and {eps:g}"

    def _update_all(self, gradients: dict[int, Array]) -> None:
        """All parameters of a device together: there it may be one launch."""
        constants = {"betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}
        by_backend: dict[Backend, list[int]] = {}
        for i in gradients:
            by_backend.setdefault(self.params[i].backend, []).append(i)
        for backend, places in by_backend.items():
            updates: list[AdamUpdate] = [
                (self.params[i].data, gradients[i], self.state[i]["first"], self.state[i]["second"])
                for i in places
            ]
            backend.adam_updates(updates, partial(self._factors_at, places), **constants)

    def _factors_at(self, places: list[int]) -> list[tuple[float, float]]:
        """Return (rate, correction) of the parameters of these places, at the steps that they have."""
        by_step = {step: self._factors(step) for step in {self.steps[i] for i in places}}
        return [by_step[self.steps[i]] for i in places]

    def _factors(self, step: int) -> tuple[float, float]:
        """Return (rate, correction) of a step, from 1: p -= rate * m / (sqrt(v / correction) + eps)."""
        beta1, beta2 = self.betas
        rate, correction = self.lr / (1 - beta1**step), 1 - beta2**step
        return (rate * math.sqrt(correction), 1.0) if self.epsilon_hat else (rate, correction)
