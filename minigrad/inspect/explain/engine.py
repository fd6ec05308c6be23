"""What the engine itself makes of a layer: its own forward and backward, on a copy."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...nn import Module
from ...tensor import FLOATS, Tensor, enable_grad, tensor
from ...tensor import grad as gradients_of
from .look import Host
from .registry import host

GRAD = 1  # the stream of numbers that is drawn for dy: an x from the same seed is another


@dataclass(frozen=True)
class Own:
    """One pass of a layer forward and back.

    Attributes:
        result: y, (...).
        dy: what the backward began with.
        gradients: of x and of every parameter, by name, on the host; zeros where y does not depend on one.
        buffers: of the layer after the forward, by name, on the host.
    """

    result: Tensor
    dy: Tensor
    gradients: dict[str, Host]
    buffers: dict[str, Host]


def given(layer: Module, x: Any) -> Tensor:
    """x as a tensor of its own: what is no tensor goes where the layer is, in its dtype.

    Raises TypeError or ValueError for what is no batch of real numbers, and where the layer's own are not
    finite.
    """
    if not isinstance(x, Tensor):
        like = next((p for p in layer.parameters()), None)
        if like is None:
            x = tensor(x)
            x = x if str(x.dtype) in FLOATS else x.to("float32")
        else:
            x = tensor(x, str(like.dtype), like.device)
    if str(x.dtype) not in FLOATS:
        raise TypeError(f"explain: expected x of {' or '.join(FLOATS)}, got {x.dtype}: use x.to('float32')")
    if not x.size:
        raise ValueError(f"explain: expected x with numbers in it, got shape {x.shape}")
    named = {"x": x, **dict(layer.named_parameters()), **dict(layer.named_buffers())}
    for name, t in named.items():
        _check_finite(name, t.numpy())
    return x.detach()


def _check_finite(name: str, values: Host) -> None:
    if not np.isfinite(values).all():
        raise ValueError(
            f"explain: expected finite numbers, got others in {name}; minigrad.inspect.detect_anomaly finds "
            "where they come up"
        )


def bare_copy(layer: Module) -> Module:
    """A copy to be worked on, without hooks."""
    copied = copy.deepcopy(layer)
    for _, module in copied.named_modules():
        module.forward_hooks.clear()
        module.backward_hooks.clear()
    return copied


def run(layer: Module, x: Tensor, grad: Any, seed: int) -> Own:
    """The layer's own pass; the layer is left as it is, the engine's random state moves on.

    Raises ValueError where `grad` has not the shape of the result.
    """
    copied = bare_copy(layer)
    x = Tensor(x.data, requires_grad=True, backend=x.backend)
    with enable_grad():
        y = copied(x)
    dy = _start(grad, y, seed)
    named = {"x": x} | {name: p for name, p in copied.named_parameters() if p.requires_grad}
    found = gradients_of(y, list(named.values()), dy, allow_unused=True)
    gradients = {
        name: np.zeros(t.shape, str(t.dtype)) if gradient is None else host(t.backend, gradient.data)
        for (name, t), gradient in zip(named.items(), found, strict=True)
    }
    buffers = {name: host(t.backend, t.data) for name, t in copied.named_buffers()}
    return Own(y.detach(), dy, gradients, buffers)


def _start(grad: Any, y: Tensor, seed: int) -> Tensor:
    """The gradient of y: the given one, or standard normal numbers."""
    if grad is None:
        grad = np.random.default_rng((seed, GRAD)).standard_normal(y.shape)
    values = grad.numpy() if isinstance(grad, Tensor) else np.asarray(grad)
    if values.shape != y.shape:
        raise ValueError(f"explain: expected grad of the result's shape {y.shape}, got {values.shape}")
    _check_finite("grad", values)
    return Tensor(y.backend.asarray(values.astype(str(y.dtype))))
