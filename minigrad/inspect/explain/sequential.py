"""Sequential: each layer on what comes in there, and all together."""

from collections.abc import Callable, Mapping

from ... import random
from ...backpropagate import grad as gradients_of
from ...nn import Sequential
from ...nn.sequential import taken_along
from ...tensor import Tensor, enable_grad
from .engine import bare_copy
from .explanation import Explanation
from .look import Host
from .opening import opened
from .registry import Opened, Steps, explains


@explains(Sequential)
def sequential(layer: Sequential, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """Each layer's own explanation, of the tensor and the gradient that the engine hands on to it.

    There each has a pass of its own. In the whole, some layers may go along with those before them: its
    checks compare the two.
    """
    names = [name for name, _ in layer.children()]
    if not names:
        raise ValueError("explain: this Sequential has no layers in it")
    inputs, states = _handed_on(layer, x)
    gradients = gradients_of(inputs[-1], inputs, dy)
    parts: dict[str, Explanation] = {}
    for i, (name, child) in reversed(list(enumerate(layer.children()))):
        random.set_state(states[i])
        parts[name] = opened(child, inputs[i].detach(), gradients[i + 1], seed)

    forward, backward = Steps(x.backend), Steps(x.backend)
    for name in names:
        forward.take(name, "y", parts[name].layer, x.backend.asarray(parts[name].result))
    for name in reversed(names):
        part = parts[name]
        backward.take(name, "dx", part.layer, x.backend.asarray(part.gradients["x"]))
    parts = {name: parts[name] for name in names}  # in the order of the layers
    made = {
        name: x.backend.asarray(gradient)
        for name, gradient in _gathered(layer, parts, lambda part: part.gradients).items()
    }
    sizes = _gathered(layer, parts, lambda part: part.sizes)
    return Opened(forward, backward, made, _notes(layer), sizes=sizes, parts=parts)


def _handed_on(layer: Sequential, x: Tensor) -> tuple[list[Tensor], list[random.State]]:
    """x and what each layer makes of it, in one graph; and the random state before each."""
    passed, states = [Tensor(x.data, requires_grad=True, backend=x.backend)], []
    with enable_grad():
        for child in bare_copy(layer):  # type: ignore[attr-defined]
            states.append(random.get_state())
            passed.append(child(passed[-1]))
    return passed, states


def _gathered(
    layer: Sequential, parts: Mapping[str, Explanation], of: Callable[[Explanation], Mapping[str, Host]]
) -> dict[str, Host]:
    """Return the parts' gradients of x and each parameter, by the whole's names; a shared one's add up."""
    names = {id(p): name for name, p in layer.named_parameters()}
    gathered = {name: value for name, value in of(next(iter(parts.values()))).items() if name == "x"}
    for place, child in layer.children():
        found = of(parts[place])
        for name, parameter in child.named_parameters():
            if name in found:
                whole = names[id(parameter)]
                gathered[whole] = gathered[whole] + found[name] if whole in gathered else found[name]
    return gathered


def _notes(layer: Sequential) -> tuple[str, ...]:
    """Return notes on the layers that take those behind them along."""
    named = list(layer.children())
    together = []
    for i, (name, first) in enumerate(named):
        followers = named[i + 1 : i + 1 + len(taken_along(first, [m for _, m in named[i + 1 :]]))]
        if followers:
            taken = " and ".join(f"{n} {m.describe()}" for n, m in followers)
            together.append(f"{name} {first.describe()} takes {taken} along")
    if not together:
        return ()
    return (
        f"The engine itself takes some layers in the pass of the layer before: {'; '.join(together)}. "
        "Here each has a step of its own; the checks compare both.",
    )
