"""The origin of the first number that is not finite."""

from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import observer
from ..backend.ieee import ieee
from ..tensor import FLOATS, Tensor
from .names import Names, Networks

Range = tuple[float, float]


class AnomalyError(ArithmeticError):
    """A number that is not finite came up; `str()` says where, and what went in.

    Attributes:
        layer: the name of the layer with its description, or "" outside of any.
        operation: of the engine, such as "log", or an optimizer.
        phase: "forward", "backward", "step" (of an optimizer) or "update" (of running statistics).
        range: the smallest and the largest finite number that went in, or None where there was none.
        bad: for each tensor that went in and held numbers that were not finite already, a clause; () as a
            rule.
    """

    def __init__(
        self, layer: str, operation: str, phase: str, range: Range | None, bad: tuple[str, ...] = ()
    ) -> None:
        self.layer, self.operation, self.phase, self.range, self.bad = layer, operation, phase, range, bad
        where = f"in {layer}, " if layer else ""
        into = [] if range is None else ["what went in lies between {:.3g} and {:.3g}".format(*range)]
        into += bad
        super().__init__(f"{where}the {phase} of {operation}" + (f" ({'; '.join(into)})" if into else ""))


class _Watch(observer.Observer):
    """Stops at the first result that is not finite."""

    def __init__(self, names: Names) -> None:
        super().__init__()
        self._names = names
        # By the identity of a parameter or buffer: its layer, and what it is called there.
        self._owners = {
            id(value): (self._names.of([module]), name)
            for root in names.networks.values()
            for _, module in root.named_modules()
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        }
        self._layers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._rules: list[Any] = []  # the backward rules that run, which are made of operations

    def begin(self, subject: Any, phase: str) -> None:
        if phase == observer.BACKWARD:
            self._rules.append(subject)

    def abort(self, subject: Any, phase: str) -> None:
        if phase == observer.BACKWARD:
            self._rules.pop()

    @ieee()
    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.BACKWARD:
            self._rules.pop()
        # What a backward rule is made of belongs to the operation whose rule it is.
        rule = self._rules[-1] if self._rules else None
        if phase == observer.FORWARD:
            self._layers[subject] = self._layers.get(rule, "") if rule else self._names.of(self.modules)
        for value in subject.params if phase == observer.STEP else outputs:
            if isinstance(value, Tensor) and not _is_finite(value):
                layer = self._layers.get(subject) or self._owners.get(id(value), ("", ""))[0]
                if rule:
                    subject, phase = rule, observer.BACKWARD
                raise AnomalyError(layer, _name(subject), phase, _range(inputs), self._bad(inputs, layer))

    def _bad(self, inputs: tuple[Any, ...], layer: str) -> tuple[str, ...]:
        """Each input that holds numbers that are not finite: how many, and whose."""
        found = []
        for i, value in enumerate(inputs):
            if isinstance(value, Tensor) and not _is_finite(value):
                owner, name = self._owners.get(id(value), ("", f"input {i}"))
                count = int((~np.isfinite(value.numpy())).sum())
                called = f"the {name}" if owner else name
                whose = f"{called} of {owner}" if owner and owner != layer else called
                verb = "is" if count == 1 else "are"
                found.append(f"{count:,} of {value.size:,} numbers of {whose} {verb} not finite already")
        return tuple(found)


def detect_anomaly(model: Networks = None) -> observer.Observer:
    """A context in which the first result that is NaN or infinite raises AnomalyError.

        with inspect.detect_anomaly(model):
            loss(model(x)).backward()
            optimizer.step()

    Looked at are the results of all operations, forward and backward, running statistics, and parameters
    after a step. Each is read once more, on the host: expect training to take a few times as long.

    Args:
        model: whose layers are to be named; or several, by name, as {"generator": ..., ...}.
    """
    return _Watch(Names(model))


def _name(subject: Any) -> str:
    return getattr(subject, "name", type(subject).__name__)


def _is_finite(tensor: Tensor) -> bool:
    return str(tensor.dtype) not in FLOATS or bool(np.isfinite(tensor.numpy()).all())


def _range(inputs: tuple[Any, ...]) -> Range | None:
    """The smallest and the largest finite number that went in."""
    arrays = [t.numpy() for t in inputs if isinstance(t, Tensor) and str(t.dtype) in FLOATS]
    finite = [a[np.isfinite(a)] for a in arrays]
    if not any(a.size for a in finite):
        return None
    return float(min(a.min() for a in finite if a.size)), float(max(a.max() for a in finite if a.size))
