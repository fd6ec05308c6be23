"""Optimisers: how parameters move along their gradients, in place."""

from collections.abc import Iterable, Mapping
from typing import Any

from . import observer
from .backend.base import AdamUpdate, Array, Backend
from .backend.ieee import ieee
from .tensor import Tensor


class Optimizer:
    """What the optimisers share: the parameters, a step count, and state arrays by parameter.

    A subclass lists its state in `slots` and defines `_update(parameter, gradient, *state)`, which
    changes arrays in place. Parameters whose `.grad` is None are left alone, state included.
    """

    slots: tuple[str, ...] = ()

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float) -> None:
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise TypeError(f"{name}: expected an iterable of parameters, got one Tensor")
        self.params = list(params)
        if not self.params:
            raise ValueError(f"{name}: no parameters given")
        if not all(isinstance(p, Tensor) and p.requires_grad and p.node is None for p in self.params):
            raise ValueError(f"{name}: expected tensors that require a gradient")
        if len({id(p) for p in self.params}) != len(self.params):
            raise ValueError(f"{name}: a parameter is given twice")
        if not (lr >= 0 and weight_decay >= 0):
            raise ValueError(f"{name}: expected lr and weight_decay >= 0, got {lr} and {weight_decay}")
        self.lr, self.weight_decay = lr, weight_decay
        # One count a parameter: where some had no gradient, their bias corrections lag behind.
        self.steps = [0] * len(self.params)
        self.state = [{slot: p.backend.xp.zeros_like(p.data) for slot in self.slots} for p in self.params]

    def step(self) -> None:
        """Move every parameter that has a gradient."""
        with observer.told(self, observer.STEP):
            gradients = {i: p.grad.data for i, p in enumerate(self.params) if p.grad is not None}
            for i in gradients:
                self.steps[i] += 1
            with ieee():
                self._update_all(gradients)
            for i in gradients:
                self.params[i].mark_changed()
        observer.end(self, observer.STEP, (), ())

    def _update_all(self, gradients: dict[int, Array]) -> None:
        """Move the parameters of these places along their gradients."""
        for i, gradient in gradients.items():
            self._update(i, self.params[i], gradient)

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        raise NotImplementedError

    def zero_grad(self) -> None:
        """Forget the gradients of the parameters."""
        for p in self.params:
            p.grad = None

    def state_dict(self) -> dict[str, Any]:
        """{"steps": counts by parameter, "<slot>.<index>": copies of the state}."""
        arrays = {
            f"{slot}.{i}": Tensor(array.copy())
            for i, state in enumerate(self.state)
            for slot, array in state.items()
        }
        return {"steps": list(self.steps), **arrays}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; a ValueError, and no change, where it does not fit."""
        name = type(self).__name__
        expected = {"steps", *(f"{slot}.{i}" for i in range(len(self.params)) for slot in self.slots)}
        if set(state) != expected:
            missing, extra = sorted(expected - set(state)), sorted(set(state) - expected)
            raise ValueError(f"load_state_dict({name}): missing {missing}, unexpected {extra}")
        arrays = []
        for i, p in enumerate(self.params):
            values = {slot: state[f"{slot}.{i}"] for slot in self.slots}
            for slot, value in values.items():
                if value.shape != p.shape or value.dtype != p.dtype:
                    raise ValueError(
                        f"load_state_dict({name}): {slot}.{i}: expected {p.dtype} of shape {p.shape}, "
                        f"got {value.dtype} of {value.shape}"
                    )
            arrays.append(
                {
                    slot: p.backend.asarray(v.numpy() if isinstance(v, Tensor) else v).copy()
                    for slot, v in values.items()
                }
            )
        if len(state["steps"]) != len(self.params):
            raise ValueError(
                f"load_state_dict({name}): {len(state['steps'])} steps, {len(self.params)} parameters"
            )
        self.steps, self.state = [int(n) for n in state["steps"]], arrays


class SGD(Optimizer):
    """velocity = momentum velocity + gradient; parameter -= lr velocity.

    With momentum 0, plain stochastic gradient descent. `weight_decay` adds weight_decay *
    parameter to the gradient. Source of the form: PyTorch's SGD.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.0, *, weight_decay: float = 0.0
    ) -> None:
        if momentum < 0:
            raise ValueError(f"SGD: expected momentum >= 0, got {momentum}")
        self.momentum = momentum
        self.slots = ("velocity",) if momentum else ()
        super().__init__(params, lr, weight_decay)

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * p.data
        if self.momentum:
            velocity = self.state[index]["velocity"]
            velocity *= self.momentum
            velocity += gradient
            gradient = velocity
        p.data[...] -= self.lr * gradient


class RMSprop(Optimizer):
    """square = alpha square + (1 - alpha) gradient^2; parameter -= lr gradient / (sqrt(square) + eps).

    Source: Hinton, "Neural networks for machine learning", lecture 6e (2012); defaults are PyTorch's.
    """

    slots = ("square",)

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        if not 0 <= alpha < 1 or eps <= 0:
            raise ValueError(f"RMSprop: expected 0 <= alpha < 1 and eps > 0, got {alpha} and {eps}")
        self.alpha, self.eps = alpha, eps
        super().__init__(params, lr, weight_decay)

    def _update(self, index: int, p: Tensor, gradient: Array) -> None:
        if self.weight_decay:
            gradient = gradient + self.weight_decay * p.data
        square = self.state[index]["square"]
        square *= self.alpha
        square += (1 - self.alpha) * (gradient * gradient)
        p.data[...] -= self.lr * gradient / (p.backend.xp.sqrt(square) + self.eps)


class Adam(Optimizer):
    """Steps of about lr, by the ratio of the gradient's running mean to its running size.

    m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2;
    parameter -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps).
    The divisions by 1 - b^t undo that m and v start at 0. `weight_decay` adds weight_decay *
    parameter to g (L2, coupled). Source: Kingma and Ba, "Adam" (2015), algorithm 1.
    """

    slots = ("first", "second")

    def __init__(
        self, params: Iterable[Tensor], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        pair = isinstance(betas, tuple | list) and len(betas) == 2
        if not pair or not all(0 <= b < 1 for b in betas) or eps <= 0:
            raise ValueError(f"Adam: expected two betas, 0 <= beta < 1, and eps > 0, got {betas} and {eps}")
        self.betas, self.eps = (betas[0], betas[1]), eps
        super().__init__(params, lr, weight_decay)

    def _update_all(self, gradients: dict[int, Array]) -> None:
        """All parameters of a device together: there it may be one launch."""
        by_backend: dict[Backend, list[AdamUpdate]] = {}
        for i, gradient in gradients.items():
            p, state = self.params[i], self.state[i]
            update = (p.data, gradient, state["first"], state["second"], self.steps[i])
            by_backend.setdefault(p.backend, []).append(update)
        for backend, updates in by_backend.items():
            backend.adam_updates(
                updates, lr=self.lr, betas=self.betas, eps=self.eps, weight_decay=self.weight_decay
            )
