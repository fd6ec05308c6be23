"""The engine's own forward and backward of a layer, on a copy."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...backpropagate import grad as gradients_of
from ...creation import tensor
from ...nn import Module
from ...tensor import FLOATS, Tensor, enable_grad
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
            x = _taken("x", x)
            x = x if str(x.dtype) in FLOATS else x.to("float32")
        else:
            x = _taken("x", x, str(like.dtype), like.device)
    if str(x.dtype) not in FLOATS:
        raise TypeError(f"explain: expected x of {' or '.join(FLOATS)}, got {x.dtype}: use x.to('float32')")
    if not x.size:
        raise ValueError(f"explain: expected x with numbers in it, got shape {x.shape}")
    named = {"x": x, **dict(layer.named_parameters()), **dict(layer.named_buffers())}
    for name, t in named.items():
        _check_finite(name, t.numpy())
    return x.detach()


def _taken(name: str, given: Any, dtype: str | None = None, device: str | None = None) -> Tensor:
    """Return the given value as a tensor; TypeError unless it holds real numbers.

    What `dtype` can't hold becomes infinite, for `_check_finite` to find.
    """
    kind = getattr(getattr(given, "dtype", None), "kind", "f")  # lists have none: `tensor` looks into them
    if kind not in "fiub":
        raise TypeError(f"explain: expected real numbers as {name}, got {given.dtype}: pass real floats")
    try:
        with np.errstate(over="ignore"):
            return tensor(given, dtype, device)
    except TypeError as error:
        raise TypeError(f"explain: {name} is no array of real numbers: {error}") from None


def _check_finite(name: str, values: Host) -> None:
    if not np.isfinite(values).all():
        most = f"{values.dtype} holds none beyond {np.finfo(values.dtype).max:.2g}"
        raise ValueError(
            f"explain: expected finite numbers, got others in {name}; {most}, and "
            "minigrad.inspect.detect_anomaly finds where others come up"
        )


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"explain: expected seed to be a whole number from 0 on, got {seed!r}")


def bare_copy(layer: Module) -> Module:
    """A copy to be worked on, without hooks."""
    copied = copy.deepcopy(layer)
    for _, module in copied.named_modules():
        module.forward_hooks.clear()
        module.backward_hooks.clear()
    return copied


def run(layer: Module, x: Tensor, grad: Any, seed: int) -> Own:
    """The layer's own pass; the layer is left as it is, the engine's random state moves on.

    Raises TypeError or ValueError where `grad` is not finite real numbers in the shape of the result, and
    ValueError for a seed that is no whole number from 0 on.
    """
    _check_seed(seed)
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
    start = _taken("grad", grad, str(y.dtype), y.device)
    if start.shape != y.shape:
        raise ValueError(f"explain: expected grad of the result's shape {y.shape}, got {start.shape}")
    _check_finite("grad", start.numpy())
    return start
