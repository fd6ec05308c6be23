"""Looking into networks at work: where two of them, or two devices, begin to differ.

`compare` runs two networks side by side. `Shadow` watches one at work, and does each of its operations again
on another device, from the same inputs.
"""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from . import backend as backends
from . import observer, random
from .nn import Module
from .ops import Operation
from .optim import Optimizer
from .tensor import FLOATS, Tensor, is_grad_enabled

Host = np.ndarray[Any, Any]
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # of norms: |got - expected| / |expected|
# Where terms nearly cancel out, every float32 is far off: what is no more than so many times as far off as
# the other device's own float32 is no mistake.
MARGIN = 30.0
LAST_BITS = 2.0**-52


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two results that should be one.

    Attributes:
        layer: the name of the layer, or "" outside of any.
        operation: of the engine, such as "convolve", or an optimizer.
        what: "forward", "gradient of input 0", "parameter 3 after the step".
        error: |got - expected| / |expected|, by norms.
        place: the index of the worst element; `got` and `expected` are its two values.
    """

    layer: str
    operation: str
    what: str
    error: float
    place: tuple[int, ...]
    got: float
    expected: float

    def __str__(self) -> str:
        where = f"{self.layer}: " if self.layer else ""
        return (
            f"{where}{self.operation}, {self.what}: error {self.error:.3g}; the worst element "
            f"{list(self.place)} is {self.got!r}, expected {self.expected!r}"
        )


class ShadowError(Exception):
    """An operation gave another result on one device than on the other.

    Attributes:
        difference: what and where.
    """

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


def measure(got: Any, expected: Any) -> tuple[float, tuple[int, ...]]:
    """|got - expected| / |expected| by norms, and the index of the worst element, of two host arrays.

    Infinite where one has what is no finite number and the other has not the same there; absolute where
    `expected` is all 0.
    """
    if got.shape != expected.shape:
        return np.inf, ()
    if not got.size:
        return 0.0, ()
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    largest = max(np.abs(a[np.isfinite(a)]).max(initial=0.0) for a in (got, expected)) or 1.0
    got, expected = (
        got / largest,
        expected / largest,
    )  # squares of what is very large or small are not numbers
    finite = np.isfinite(got) & np.isfinite(expected)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    if not (finite | same).all():
        return np.inf, _index(~(finite | same))
    distance = np.where(finite, got, 0) - np.where(finite, expected, 0)
    size = np.linalg.norm(np.where(finite, expected, 0))
    error = np.linalg.norm(distance) / size if size else np.linalg.norm(distance) * largest
    return float(error), _index(np.abs(distance))


def _index(array: Host) -> tuple[int, ...]:
    """Where the largest is."""
    return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))


def _difference(layer: str, operation: str, what: str, got: Host, expected: Host) -> Difference:
    error, place = measure(got, expected)
    if got.shape != expected.shape:
        what = f"{what}, of shape {got.shape} instead of {expected.shape}"
        return Difference(layer, operation, what, error, place, float("nan"), float("nan"))
    return Difference(layer, operation, what, error, place, got[place].item(), expected[place].item())


class _Names:
    """Names of layers: of a module by its place in the networks, and its description."""

    def __init__(self, networks: Mapping[str, Module]) -> None:
        self._networks = networks  # kept, so that no other module takes an id
        self._by_id: dict[int, str] = {}
        for network, root in networks.items():
            for path, module in root.named_modules():
                name = ".".join(part for part in (network, path) if part)
                self._by_id[id(module)] = f"{name} {module.describe()}".strip()

    def of(self, modules: list[Any]) -> str:
        """The innermost of the modules that has a name."""
        return next((self._by_id[id(m)] for m in reversed(modules) if id(m) in self._by_id), "")


# -- two networks side by side -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Result:
    layer: str
    operation: str
    what: str
    array: Host


class _Recorder(observer.Observer):
    """Keeps every result of the operations, on the host."""

    def __init__(self, names: _Names) -> None:
        super().__init__()
        self.names = names
        self.results: list[_Result] = []
        self._layers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._inside = 0  # backward rules, which are made of operations

    def begin(self, subject: Any, phase: str) -> None:
        self._inside += phase == observer.BACKWARD

    def abort(self, subject: Any, phase: str) -> None:
        self._inside -= phase == observer.BACKWARD

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.BACKWARD:
            self._inside -= 1
        if self._inside or phase not in (observer.FORWARD, observer.BACKWARD):
            return
        layer = self._layers.setdefault(subject, self.names.of(self.modules))
        for i, output in enumerate(outputs):
            if output is not None:
                what = "forward" if phase == observer.FORWARD else f"gradient of input {i}"
                self.results.append(_Result(layer, subject.name, what, np.array(output.numpy())))


def compare(a: Module, b: "Module | str", x: Tensor, tolerance: float | None = None) -> Difference | None:
    """The first difference between two networks that get the same x: forward, and back from one gradient.

    Both are copied, and left as they are. They must be made of the same operations in the same order; what
    is random (Dropout) is drawn from the same state of the engine's generator.

    Args:
        a: a layer or a network.
        b: another one; or the name of a device, for a itself there.
        x: its input, (N, ...); moved to each network's device and dtype.
        tolerance: of |difference| / |b's result| by norms; by default that of the coarser dtype in TOLERANCE.

    Returns None where all agree. Raises ValueError where other operations run.
    """
    other = copy.deepcopy(a).to(b) if isinstance(b, str) else copy.deepcopy(b)
    state = random.get_state()
    first = _record(copy.deepcopy(a), x, x.device)
    random.set_state(state)
    second = _record(other, x, b if isinstance(b, str) else x.device)
    if [(r.operation, r.what) for r in first] != [(r.operation, r.what) for r in second]:
        raise ValueError(f"compare: other operations run: {_named(first)}; and {_named(second)}")
    for got, expected in zip(first, second, strict=True):
        if not got.array.size and got.array.shape == expected.array.shape:
            continue
        dtypes = {str(r.array.dtype) for r in (got, expected)} & set(FLOATS)
        coarser = max((TOLERANCE[dtype] for dtype in dtypes), default=0.0)
        allowed = coarser if tolerance is None else tolerance
        difference = _difference(got.layer, got.operation, got.what, got.array, expected.array)
        if difference.error > allowed:
            return difference
    return None


def _named(results: list[_Result]) -> str:
    return ", ".join(result.operation for result in results if result.what == "forward")


def _record(network: Module, x: Tensor, device: str) -> list[_Result]:
    """Every result of one pass forward and one back, from a gradient that depends on the shape alone.

    `device` is that of a network without parameters; others have theirs.
    """
    like = next(network.parameters(), None)
    target = backends.get(device) if like is None else like.backend
    dtype = x.dtype if like is None else like.dtype
    x = Tensor(target.asarray(x.numpy()).astype(dtype), requires_grad=True)
    recorder = _Recorder(_Names({"": network}))
    with recorder:
        y = network(x)
        start = np.random.default_rng(0).normal(size=y.shape).astype(str(y.dtype))
        y.backward(Tensor(y.backend.asarray(start)))
    return recorder.results


# -- one network, and each of its operations again elsewhere ------------------------------------------


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
        self._names = _Names(networks)
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
            expected.append(twin.backward(self._moved(dy, dtype)))
        for i, (got, same, double) in enumerate(zip(gradients, *expected, strict=True)):
            if got is not None and operation.needs[i]:
                self._check(twins.layer, operation.name, f"gradient of input {i}", got, same, double)

    def _step(self, optimizer: Optimizer) -> None:
        assert self._steppers is not None
        same, double = self._steppers
        same.step()
        double.step()
        name = type(optimizer).__name__
        for i, (p, q, r) in enumerate(zip(optimizer.params, same.params, double.params, strict=True)):
            self._check("", name, f"parameter {i} after the step", p, q, r)
        for i, states in enumerate(zip(optimizer.state, same.state, double.state, strict=True)):
            for slot in states[0]:
                self._check(
                    "", name, f"{slot} {i} after the step", *(Tensor(state[slot]) for state in states)
                )
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
                raise ShadowError(_difference(layer, operation, what, result, own))
            finite = np.isfinite(own)
            result, own, exact = (np.where(finite, array, 0) for array in (result, own, exact))
        error, _ = measure(result, exact)
        noise, _ = measure(own, exact)
        if not error <= max(self.tolerance[str(got.dtype)], MARGIN * noise):
            raise ShadowError(_difference(layer, operation, what, result, exact.astype(result.dtype)))
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
