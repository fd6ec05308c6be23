"""One network at work, and each of its operations again on another device, from the same inputs."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import backend as backends
from .. import observer
from ..backend.ieee import ieee
from ..nn import Module
from ..ops import Operation
from ..optim import Optimizer
from ..tensor import FLOATS, Tensor, is_grad_enabled
from .compare import TOLERANCE, Difference, Host, difference, measure
from .names import Names

# Where terms nearly cancel out, every float32 is far off: what is no more than so many times as far off as
# the other device's own float32 is no mistake.
MARGIN = 30.0
LAST_BITS = 2.0**-52


class ShadowError(Exception):
    """An operation gave another result on one device than on the other.

    Attributes:
        difference: what and where.
    """

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


@dataclasses.dataclass
class _Twins:
    """The same operation on the other device, twice, and its layer.

    `double` is in float64 and gives what is expected. `same` tells how much of an error is rounding: it is in
    the first's dtype, or, where that is float64 too, from inputs that are changed in their last bits.
    """

    layer: str
    same: Operation
    double: Operation


class Shadow(observer.Observer):
    """Does again, on another device, whatever the engine does while it is entered, from the same inputs.

    Every operation's forward and backward, BatchNorm's running statistics, and every step of an optimizer.
    Each result is held against the other device's in float64. An error is past tolerance where it is larger
    than TOLERANCE and than MARGIN times what rounding does on the other device; then ShadowError is raised.

    Args:
        networks: by name, so that layers can be named: {"generator": ..., "discriminator": ...}.
        device: the other device.
        tolerance: by dtype; TOLERANCE by default.

    Attributes:
        checked: how many results agreed.
        worst: the largest error among them.
    """

    def __init__(
        self, networks: Mapping[str, Module], device: str = "cpu", tolerance: Mapping[str, float] = TOLERANCE
    ) -> None:
        super().__init__()
        self.backend = backends.get(device)
        self.tolerance = tolerance
        self.checked, self.worst = 0, 0.0
        self._names = Names(networks)
        self._twins: WeakKeyDictionary[Any, _Twins] = WeakKeyDictionary()
        self._inside = 0  # backward rules, which are made of operations
        self._steppers: tuple[Optimizer, Optimizer] | None = None

    def begin(self, subject: Any, phase: str) -> None:
        if phase == observer.BACKWARD:
            self._inside += 1
        if phase == observer.STEP:
            self._steppers = (self._optimizer(subject, None), self._optimizer(subject, "float64"))

    def abort(self, subject: Any, phase: str) -> None:
        self._inside -= phase == observer.BACKWARD

    @ieee()
    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.BACKWARD:
            self._inside -= 1
        if self._inside:
            return
        if phase == observer.FORWARD:
            self._forward(subject, inputs, outputs[0])
        elif phase == observer.BACKWARD:
            self._backward(subject, inputs[0], outputs)
        elif phase == observer.STEP:
            self._step(subject)
        else:
            self._update(subject, inputs, outputs[0])

    def _forward(self, operation: Operation, inputs: tuple[Any, ...], output: Tensor) -> None:
        if operation.result_backend is not operation.backend:
            return  # it moves a tensor from device to device
        twins = _Twins(
            self._names.of(self.modules), self._twin(operation, None), self._twin(operation, "float64")
        )
        same, double = (
            twin(*(self._moved(value, dtype) for value in inputs))
            for twin, dtype in ((twins.same, None), (twins.double, "float64"))
        )
        self._check(twins.layer, operation.name, "forward", output, same, double)
        if output.node is not operation:
            return
        if operation.keep_output:  # backward reads it: from here on all three go on from the same one
            twins.same._output = self._moved(operation._output, None)
            twins.double._output = self._moved(operation._output, "float64")
        self._twins[operation] = twins

    def _backward(self, operation: Any, dy: Tensor, gradients: tuple[Tensor | None, ...]) -> None:
        twins = self._twins.get(operation)
        if twins is None:
            return
        expected = []
        for twin, dtype in ((twins.same, None), (twins.double, "float64")):
            twin.needs = operation.needs
            fused = twin.has_fused_backward and not is_grad_enabled()  # as the walk chooses
            rule = twin.fused_backward if fused else twin.backward
            expected.append(rule(self._moved(dy, dtype)))
        for i, (got, same, double) in enumerate(zip(gradients, *expected, strict=True)):
            if got is not None and operation.needs[i]:
                self._check(twins.layer, operation.name, f"gradient of input {i}", got, same, double)

    def _step(self, optimizer: Optimizer) -> None:
        assert self._steppers is not None
        same, double = self._steppers
        same.step()
        double.step()
        name = type(optimizer).__name__
        every = list(zip(optimizer.params, same.params, double.params, strict=True))
        for i, owners in enumerate(every):
            self._check("", name, f"parameter {i} after the step", *owners)
        for i, owners in enumerate(every):
            states = [each.state[i] for each in (optimizer, same, double)]
            for slot in states[0]:
                pairs = zip(states, owners, strict=True)
                found = [Tensor(state[slot], backend=owner.backend) for state, owner in pairs]
                self._check("", name, f"{slot} {i} after the step", *found)
        self._steppers = None

    def _update(self, operation: Operation, inputs: tuple[Any, ...], new: Tensor) -> None:
        old, batch, keep, share = inputs
        before, taken = (self._moved(t, "float64") for t in (old, batch))
        expected = before * keep + taken * share
        own = expected.to(str(new.dtype))
        self._check(self._names.of(self.modules), operation.name, "running statistics", new, own, expected)

    def _check(
        self, layer: str, operation: str, what: str, got: Tensor, same: Tensor | None, double: Tensor | None
    ) -> None:
        assert same is not None
        assert double is not None
        if str(got.dtype) not in FLOATS:
            return
        # A gradient may come as one number, to be stretched.
        result, own, exact = (np.asarray(t.numpy()) for t in (got, same, double))
        if result.shape == own.shape:
            # What is too large for the dtype must be so on both; of all else the error counts.
            pattern, _ = measure(np.where(np.isfinite(result), 0, result), np.where(np.isfinite(own), 0, own))
            if pattern:
                raise ShadowError(difference(layer, operation, what, result, own))
            finite = np.isfinite(own)
            result, own, exact = (np.where(finite, array, 0) for array in (result, own, exact))
        error, _ = measure(result, exact)
        noise, _ = measure(own, exact)
        if not error <= max(self.tolerance[str(got.dtype)], MARGIN * noise):
            raise ShadowError(difference(layer, operation, what, result, exact.astype(result.dtype)))
        self.checked += 1
        self.worst = max(self.worst, error)

    def _twin(self, operation: Operation, dtype: str | None) -> Operation:
        """The operation, not used yet, with its arrays on the other device."""
        fields = {
            f.name: self._moved(getattr(operation, f.name), dtype)
            for f in dataclasses.fields(operation)
            if f.init
        }
        return type(operation)(**fields)

    def _optimizer(self, optimizer: Optimizer, dtype: str | None) -> Optimizer:
        """The optimizer before its step, with parameters, gradients and state on the other device."""
        twin = copy.copy(optimizer)
        twin.params = [self._moved(p, dtype, leaf=True) for p in optimizer.params]
        for p, q in zip(optimizer.params, twin.params, strict=True):
            q.grad = None if p.grad is None else self._moved(p.grad, dtype)
        twin.steps = list(optimizer.steps)
        twin.state = [{k: self._moved(v, dtype) for k, v in state.items()} for state in optimizer.state]
        return twin

    def _moved(self, value: Any, dtype: str | None, leaf: bool = False) -> Any:
        """A tensor or an array (also inside of tuples, lists and dicts) copied there; all else as it is."""
        if isinstance(value, Tensor):
            wanted = leaf or (value.requires_grad and is_grad_enabled())
            return Tensor(self._moved(value.data, dtype), wanted, backend=self.backend)
        return _mapped(value, lambda array, source: self._array(source.to_numpy(array), dtype))

    def _array(self, array: Host, dtype: str | None) -> Any:
        """The array there, in float64 or (None) in its own dtype (but for the last bits of float64)."""
        if str(array.dtype) == "float64" and dtype is None:
            array = array * (1 + LAST_BITS * np.random.default_rng(0).uniform(-1, 1, array.shape))
        moved = self.backend.asarray(np.array(array))
        return moved.astype(dtype) if dtype and str(array.dtype) in FLOATS else moved


def _mapped(value: Any, change: Callable[[Any, Any], Any]) -> Any:
    """`value` with change(array, its backend) in the place of each array in it."""
    if isinstance(value, tuple) and type(value) is tuple:
        return tuple(_mapped(v, change) for v in value)
    if isinstance(value, list):
        return [_mapped(v, change) for v in value]
    source = backends.backend_of(value)
    return value if source is None else change(value, source)
