"""Two networks, or two devices, side by side: the first result in which they differ."""

import copy
import dataclasses
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from .. import backend as backends
from .. import observer, random
from ..backend.ieee import ieee
from ..markup import paragraph
from ..nn import Module
from ..tensor import FLOATS, Tensor
from .names import Names

Host = np.ndarray[Any, Any]
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # of norms: |got - expected| / |expected|


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

    def _repr_html_(self) -> str:
        return paragraph(self)


@ieee()
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
    """Return the index of the largest element."""
    return tuple(int(i) for i in np.unravel_index(array.argmax(), array.shape))


def difference(layer: str, operation: str, what: str, got: Host, expected: Host) -> Difference:
    """Of two host arrays, as `measure` has it."""
    error, place = measure(got, expected)
    if got.shape != expected.shape:
        what = f"{what}, of shape {got.shape} instead of {expected.shape}"
        return Difference(layer, operation, what, error, place, float("nan"), float("nan"))
    return Difference(layer, operation, what, error, place, got[place].item(), expected[place].item())


@dataclasses.dataclass(frozen=True)
class _Result:
    layer: str
    operation: str
    what: str
    array: Host


class _Recorder(observer.Observer):
    """Keeps every result of the operations, on the host."""

    def __init__(self, names: Names) -> None:
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

    Returns None where all agree. Raises ValueError where other operations run, and TypeError for what is no
    network.
    """
    for network in (a, a if isinstance(b, str) else b):
        if not isinstance(network, Module):
            raise TypeError(
                f"compare: expected two layers or networks of minigrad.nn, got {type(network).__name__}"
            )
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
        found = difference(got.layer, got.operation, got.what, got.array, expected.array)
        if found.error > allowed:
            return found
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
    x = Tensor(target.asarray(x.numpy()).astype(dtype), requires_grad=True, backend=target)
    recorder = _Recorder(Names({"": network}))
    with recorder:
        y = network(x)
        start = np.random.default_rng(0).normal(size=y.shape).astype(str(y.dtype))
        y.backward(Tensor(y.backend.asarray(start), backend=y.backend))
    return recorder.results
