"""A layer opened up: its steps, beside what the engine itself makes of the same numbers."""

from typing import Any

from ... import random
from ...nn import Module
from ...tensor import Tensor
from .checks import STEPS, check
from .engine import Own, run
from .explanation import Check, Explanation
from .look import Host
from .registry import Opened, explainer_of, host


def opened(layer: Module, x: Tensor, grad: Any, seed: int) -> Explanation:
    """As `explain`, but that the engine's random state moves on."""
    explainer = explainer_of(layer)
    state = random.get_state()
    own = run(layer, x, grad, seed)
    random.set_state(state)
    found = explainer(layer, x, own.dy, seed)
    result = found.forward[-1].values
    gradients = {name: host(x.backend, array) for name, array in found.gradients.items()}
    return Explanation(
        layer.describe(),
        _heading(layer, x, own.result),
        host(x.backend, x.data),
        tuple(found.forward),
        result,
        host(x.backend, own.dy.data),
        tuple(found.backward),
        gradients,
        found.notes,
        found.loop,
        (*_own_checks(found, own, result, gradients), *found.checks),
        found.sizes,
        found.parts,
    )


def _heading(layer: Module, x: Tensor, y: Tensor) -> str:
    mode = "training" if layer.training else "eval"
    own = "".join(f", {name} {p.shape}" for name, p in layer.named_parameters() if "." not in name)
    return f"x {x.shape} to y {y.shape}{own}; {x.dtype} on {x.device!r}, in {mode} mode"


def _own_checks(found: Opened, own: Own, result: Host, gradients: dict[str, Host]) -> list[Check]:
    """The steps against the engine's own forward and backward."""
    y = host(own.result.backend, own.result.data)
    checks = [check("y", "the layer's own forward", result, y)]
    for name, array in found.buffers.items():
        checks.append(
            check(name, "the layer's own forward", host(own.result.backend, array), own.buffers[name])
        )
    backward = "the engine's own backward"
    for name, expected in own.gradients.items():
        if name in gradients:
            size = found.sizes.get(name)
            checks.append(check(f"d{name}", backward, gradients[name], expected, size=size))
        else:  # a parameter that the steps know nothing of
            checks.append(Check(f"d{name}", STEPS, backward, expected.size, float("inf"), 0.0))
    return checks
