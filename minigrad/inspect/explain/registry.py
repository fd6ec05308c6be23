"""The table of explainers, by layer.

To teach `explain` a layer, write a function that takes the steps, and say `@explains(TheLayer)` above it:

    @explains(Scale)
    def scale(layer, x, dy, seed):
        forward, backward = Steps(x.backend), Steps(x.backend)
        forward.take("scale", "y", "y = 2 * x", x.data * 2)
        dx = backward.take("scale", "dx", "dx = 2 * dy", dy.data * 2)
        return Opened(forward, backward, {"x": dx})
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...backend import Backend
from ...backend.arrays import Array
from ...nn import Module
from ...tensor import Tensor
from .explanation import Check, Explanation, Step
from .look import Host


class Steps(list[Step]):
    """Steps on arrays of a backend, which are copied to the host as they are taken."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend

    def take(self, name: str, symbol: str, sentence: str, array: Array) -> Array:
        """Add a step that gave `array`, and return that."""
        self.append(Step(name, symbol, sentence, host(self.backend, array)))
        return array


@dataclass(frozen=True)
class Opened:
    """A layer whose steps have been taken.

    Attributes:
        forward, backward: the steps.
        gradients: by name ("x", "weight", ...), on the backend.
        notes, loop, checks, sizes, parts: as of an `Explanation`; the checks against loops alone.
        buffers: what the layer's buffers are after the forward, by name, on the backend.
    """

    forward: Steps
    backward: Steps
    gradients: Mapping[str, Array]
    notes: tuple[str, ...] = ()
    loop: str = ""
    checks: tuple[Check, ...] = ()
    buffers: Mapping[str, Array] = field(default_factory=dict)
    sizes: Mapping[str, Host] = field(default_factory=dict)
    parts: Mapping[str, Explanation] = field(default_factory=dict)


Explainer = Callable[[Any, Tensor, Tensor, int], Opened]
_explainers: dict[type[Module], Explainer] = {}


def explains(layer: type[Module]) -> Callable[[Explainer], Explainer]:
    """Say that a function explains a class of layers, and those derived from it.

    It is called with the layer, x, dy (tensors on one device) and a seed for what it chooses, and must leave
    all of them as they are. The engine's own forward and backward are compared with what it returns.
    """

    def register(explainer: Explainer) -> Explainer:
        _explainers[layer] = explainer
        return explainer

    return register


def explainer_of(layer: Any) -> Explainer:
    """Return the explainer of a layer. Raises TypeError, with the remedy, if there is none."""
    if not isinstance(layer, Module):
        raise TypeError(f"explain: expected a layer, got {type(layer).__name__}")
    for cls in type(layer).__mro__:
        if cls in _explainers:
            return _explainers[cls]
    names = ", ".join(name for name, _ in layer.children())
    inside = f"explain one of the layers in it ({names})" if names else "explain a layer of minigrad.nn"
    raise TypeError(
        f"explain: no steps are known for {layer.describe()}: {inside}, or write its steps and register "
        "them with @minigrad.inspect.explains (minigrad/inspect/explain/registry.py)"
    )


def host(backend: Backend, array: Array) -> Host:
    """A copy on the host."""
    return np.array(backend.to_numpy(array))
