"""Where a run went wrong: the first operation whose numbers are no longer finite."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigrad import nn, observer
from minigrad.tensor import FLOATS, Tensor


class Diverged(Exception):
    """A loss is no finite number any more.

    Attributes:
        step: the first such step, from 1.
        names: of the losses.
    """

    def __init__(self, step: int, names: list[str]) -> None:
        super().__init__(f"at step {step} {', '.join(names)} is not finite")
        self.step, self.names = step, names


class _Found(Exception):
    """What was looked for; the text says where."""


class _Watch(observer.Observer):
    """Stops at the first result that is not finite."""

    def __init__(self, networks: Mapping[str, nn.Module], until: float) -> None:
        super().__init__()
        self.until = until
        self._names = {
            id(module): f"{network}.{path} {module.describe()}"
            for network, root in networks.items()
            for path, module in root.named_modules()
            if path
        }
        self._owners = {
            id(value): self._names.get(id(module), "")
            for root in networks.values()
            for _, module in root.named_modules()
            for value in vars(module).values()
            if isinstance(value, Tensor)
        }
        self._layers: dict[int, tuple[Any, str]] = {}  # the operation is kept, so that its id stays its own

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError
        if phase == observer.STEP:
            self._layers.clear()
            outputs = tuple(subject.params)
        if phase == observer.FORWARD:
            layer = next((self._names[id(m)] for m in reversed(self.modules) if id(m) in self._names), "")
            self._layers[id(subject)] = (subject, layer)
        for value in outputs:
            if isinstance(value, Tensor) and str(value.dtype) in FLOATS and not _is_finite(value):
                _, layer = self._layers.get(id(subject), (None, self._owners.get(id(value), "")))
                name = getattr(subject, "name", type(subject).__name__)
                where = f"in {layer}, " if layer else ""
                raise _Found(f"{where}the {phase} of {name}{_range(inputs)}")


def _is_finite(tensor: Tensor) -> bool:
    return bool(np.isfinite(tensor.numpy()).all())


def _range(inputs: tuple[Any, ...]) -> str:
    """The smallest and the largest number that went in, for people."""
    arrays = [t.numpy() for t in inputs if isinstance(t, Tensor) and t.size and str(t.dtype) in FLOATS]
    if not arrays:
        return ""
    low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
    return f" (what went in lies between {low:.3g} and {high:.3g})"


def first_not_finite(
    networks: Mapping[str, nn.Module], steps: Callable[[], Any], seconds: float = 60.0
) -> str | None:
    """Where the first number that is not finite comes up while `steps()` trains the networks.

    Args:
        networks: by name.
        steps: does the steps again, from before it happened.
        seconds: how long to look.

    Returns None where it does not come up in that time.
    """
    try:
        with _Watch(networks, time.monotonic() + seconds), np.errstate(all="ignore"):
            steps()
    except _Found as found:
        return str(found)
    except TimeoutError:
        return None
    return None
