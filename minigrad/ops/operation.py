"""Operations: a forward on arrays, a backward on tensors, and the cases that test both.

To add one, write a subclass with `forward`, `backward` and `cases`, and call it through
`apply`. Defining the class registers it: from then on every check of the engine (reference,
first and second order gradients, planted mistakes, backends) runs over its cases.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from .. import observer
from ..backend import Backend
from ..backend.arrays import FLOAT_TYPES, Array, refuse_masked
from ..backend.ieee import ieee, is_ignoring
from ..tensor import FLOATS, Node, Tensor, is_grad_enabled, next_number
from ..version_counter import VersionCounter
from .cases import Case

MAKES_ONE = "minigrad.tensor(...) makes one"
OPERATIONS: "dict[str, type[Operation]]" = {}
ResultVersion = tuple[VersionCounter, int]  # the counter of a result's memory, and its value when made


@dataclass(eq=False)
class Operation:
    """One use of an operation: a node of the graph.

    A subclass is a dataclass whose fields are the operation's parameters. It defines

    - `forward(*arrays)`: the result as an array. It may keep more on `self`.
    - `backward(dy)`: the gradient with respect to each input (None for one that has none or
      is not needed: see `needs`), as tensors computed from the tensor dy by differentiable
      operations. So the same rule serves every order. Gradients of broadcast inputs are summed
      to the inputs' shapes afterwards, in one place.
    - `fused_backward(dy)`, only where the backend has a faster form of the same gradients: it takes and
      returns what `backward` does, and is called in its place where no graph of the gradients is recorded
      (`create_graph=False`). So it may compute on arrays and make tensors of them, by
      `Tensor(array, backend=self.backend)`, or return `self.backward(dy)` where the faster form does not pay.
      A subclass that defines `backward` alone does not inherit it.
    - `keep_inputs`, `keep_output`: whether either backward reads `self.inputs` or `self.output`.
    - `view`: whether the result may lie in an input's memory, and so changes where that does.

    NumPy's floating-point errors are ignored in these methods (see backend/ieee.py).
    """

    keep_inputs: ClassVar[bool] = False
    keep_output = False
    view: ClassVar[bool] = False
    has_fused_backward: ClassVar[bool] = False  # set for each class that defines one
    name: ClassVar[str] = "Operation"

    backend: Backend = field(init=False, repr=False)
    inputs: tuple[Any, ...] = field(init=False, repr=False)
    edges: tuple[Node | Tensor | None, ...] = field(init=False, repr=False)
    shapes: tuple[tuple[int, ...], ...] = field(init=False, repr=False)
    needs: tuple[bool, ...] = field(init=False, repr=False)
    number: int = field(init=False, repr=False)
    released: bool = field(init=False, repr=False, default=False)

    def __init_subclass__(cls) -> None:
        # CamelCase to snake_case: ConvolveWeightGradient is convolve_weight_gradient.
        cls.name = "".join("_" + c.lower() if c.isupper() else c for c in cls.__name__).lstrip("_")
        OPERATIONS[cls.name] = cls
        own = vars(cls)
        if "fused_backward" in own:
            cls.has_fused_backward = True
        elif "backward" in own:  # another rule than that of the class it inherits a fused form from
            cls.has_fused_backward = False

    def forward(self, *arrays: Any) -> Array:
        raise NotImplementedError

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """The examples on which this operation is checked."""
        raise NotImplementedError(f"{cls.__name__}.cases: every operation brings cases to be checked on")

    # -- the life of a node ----------------------------------------------------------------------

    def __call__(self, *inputs: Any) -> Tensor:
        """Compute the result, and record this node where a gradient may be wanted.

        Inputs are tensors of one device and one dtype, or Python numbers.
        """
        if not observer.current():
            return self._run(inputs)
        with observer.notifying(self, observer.FORWARD):
            result = self._run(inputs)
        observer.notify_end(self, observer.FORWARD, inputs, (result,))
        return result

    def _run(self, inputs: tuple[Any, ...]) -> Tensor:
        tensors = [t for t in inputs if isinstance(t, Tensor)]
        self.backend = _common_backend(self.name, inputs, tensors)
        arrays = [t.data if isinstance(t, Tensor) else t for t in inputs]
        y = self.forward(*arrays) if is_ignoring() else _forward(self, arrays)
        backend = self.result_backend
        if not backend.owns(y):
            y = self._as_result(y, backend)
        counter = self._counter_of_viewed(y, tensors) if self.view else VersionCounter()
        if not is_grad_enabled() or not any(t.requires_grad for t in tensors):
            return Tensor(y, backend=backend, version_counter=counter)
        self.number = next_number()
        self.edges = tuple([_edge(t) for t in inputs])
        self.shapes = tuple([t.shape if isinstance(t, Tensor) else () for t in inputs])
        if self.keep_inputs:
            self.inputs = inputs
            self._states = [(t.version_counter, t.version_counter.value, _some_bits(t)) for t in tensors]
        if self.keep_output:
            self._output, self._output_counter, self._output_version = y, counter, counter.value
        return Tensor(y, node=self, backend=backend, version_counter=counter)

    def _as_result(self, y: Any, backend: Backend) -> Array:
        """Return the result of `forward` as an array; NumPy's reductions return a number."""
        if isinstance(y, Tensor) or (not hasattr(y, "dtype") and not isinstance(y, int | float)):
            raise TypeError(
                f"{self.name}: expected its forward to return an array on {backend.device!r}, got "
                f"{type(y).__name__}"
            )
        return backend.asarray(y)

    def __getattr__(self, name: str) -> Any:
        """Raise AttributeError; for what `backward` reads but the node did not keep, with the remedy."""
        keep = {"inputs": "keep_inputs", "output": "keep_output", "_output": "keep_output"}.get(name)
        if keep is None or self.released:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(
            f"{self.name}: self.{name.lstrip('_')} is read, but was not kept: write `{keep} = True` in the "
            f"class {type(self).__name__} (and read it in backward only)"
        )

    def _counter_of_viewed(self, y: Array, inputs: list[Tensor]) -> VersionCounter:
        """Return the version counter of the memory that y lies in: an input's if y is a view of it."""
        if self.result_backend is self.backend:
            for t in inputs:
                if self.xp.may_share_memory(y, t.data):
                    return t.version_counter
        return VersionCounter()

    @property
    def result_backend(self) -> Backend:
        """The backend of the result: that of the inputs, but for the operation that moves it."""
        return self.backend

    @property
    def xp(self) -> Any:
        """The NumPy-like module of the inputs' device."""
        return self.backend.xp

    @property
    def output(self) -> Tensor:
        """The result again, as a tensor of this graph (kept as an array: a tensor would be a cycle)."""
        return Tensor(self._output, node=self, backend=self.backend, version_counter=self._output_counter)

    @property
    def result_version(self) -> ResultVersion:
        """The version counter of the result's memory, and its first value, for nodes that keep the array."""
        return self._output_counter, self._output_version

    def check_alive(self) -> None:
        """Raise RuntimeError if an array that backward needs was freed, or changed in place."""
        if self.released:
            raise RuntimeError(
                f"backward through {self.name} a second time: what it kept was freed by the first. Pass "
                "retain_graph=True to the first backward, or compute the result again"
            )
        if self.keep_output:
            check_unchanged(self.name, self.result_version)
        if not self.keep_inputs:
            return
        tensors = [t for t in self.inputs if isinstance(t, Tensor)]
        for (counter, version, bits), t in zip(self._states, tensors, strict=True):
            if t.version_counter is not counter or counter.value != version or _some_bits(t) != bits:
                raise RuntimeError(
                    f"backward through {self.name}: an input of shape {t.shape} was changed in place (by an "
                    "optimizer's step, load_state_dict, an assignment to .data or a write into its array) "
                    "after it was used: call backward before the change, or compute the result again after it"
                )

    def release(self) -> None:
        """Free all that was kept but the edges; another backward through the node raises."""
        edges, number = self.edges, self.number
        self.__dict__.clear()
        self.edges, self.number, self.released = edges, number, True


@ieee()
def _forward(operation: Operation, arrays: list[Any]) -> Array:
    return operation.forward(*arrays)


def check_unchanged(name: str, version: ResultVersion | None) -> None:
    """Raise RuntimeError where the result that a node of this name reads was changed in place."""
    if version is not None and version[0].value != version[1]:
        raise RuntimeError(
            f"backward through {name}: its result was changed in place (by an assignment to .data) "
            "after it was computed: call backward before the change, or compute the result again"
        )


def _some_bits(t: Tensor) -> bytes | None:
    """Return a sample of a leaf's bits, to notice writes into its array without `mark_changed`."""
    return t.backend.sample(t.data) if t.node is None else None


def _edge(value: Any) -> Node | Tensor | None:
    if not isinstance(value, Tensor):
        return None
    return value.node or (value if value.requires_grad else None)


def _common_backend(name: str, inputs: tuple[Any, ...], tensors: list[Tensor]) -> Backend:
    """Return the backend of the tensors among the inputs, which must all have the same device and dtype."""
    if len(tensors) < len(inputs):
        for value in inputs:
            if not isinstance(value, Tensor | int | float):
                given = type(value).__name__
                raise TypeError(f"{name}: expected tensors and numbers, got {given}: {MAKES_ONE}")
    if not tensors:
        raise TypeError(f"{name}: expected at least one tensor, got {inputs!r:.80}: {MAKES_ONE}")
    first = tensors[0]
    for t in tensors[1:]:
        if t.backend is not first.backend:
            raise ValueError(
                f"{name}: tensors on {first.device!r} and {t.device!r}: move one with .to(device)"
            )
        if t.dtype != first.dtype:
            raise TypeError(
                f"{name}: {first.dtype} and {t.dtype} tensors do not mix: convert one with .to(dtype)"
            )
    return first.backend


def as_tensor(value: Any, like: Tensor, name: str) -> Any:
    """An operand beside the tensor `like`: tensors and Python numbers stay, arrays become tensors.

    Raises TypeError for anything else.
    """
    if isinstance(value, Tensor):
        return value
    refuse_masked(value, name)
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        return value.item()  # NumPy's scalars count as Python's (float64 is a float): they follow the tensor
    if isinstance(value, bool | int | float):
        return value
    if like.backend.owns(value):
        return Tensor(snapshot(like.backend.plain(value), like), backend=like.backend)
    raise TypeError(
        f"{name}: expected a tensor, a number or an array on {like.device!r}, got {type(value).__name__}: "
        f"{MAKES_ONE}"
    )


def floating(x: Any) -> Any:
    """Return an integer tensor as float32, beside a float (NumPy would give float64); all else as it is."""
    return x.to("float32") if isinstance(x, Tensor) and x.dtype not in FLOAT_TYPES else x


def as_constant(value: Any, like: Tensor, name: str) -> Array:
    """Return an operand without a gradient (labels, a condition) as an array on the device of `like`.

    Lists and numbers are made into one; a tensor or an array must be there already. Raises
    ValueError for a tensor of another device, and TypeError for anything else.
    """
    if isinstance(value, Tensor):
        if value.backend is not like.backend:
            raise ValueError(
                f"{name}: tensors on {like.device!r} and {value.device!r}: move one with .to(device)"
            )
        return value.data
    refuse_masked(value, name)
    if like.backend.owns(value):
        return like.backend.plain(value)
    if getattr(value, "ndim", None) == 0:
        value = value.item()  # NumPy's scalars count as Python's
    if isinstance(value, list | tuple | bool | int | float):
        return like.backend.asarray(value)
    raise TypeError(
        f"{name}: expected a tensor, a list or an array on {like.device!r}, got {type(value).__name__}: "
        f"{MAKES_ONE}"
    )


def snapshot(array: Array, *inputs: Any) -> Array:
    """Return what a node is to keep of an array that the caller may change: a copy, if a node is recorded."""
    recorded = is_grad_enabled() and any(t.requires_grad for t in inputs if isinstance(t, Tensor))
    return array.copy() if recorded else array


def require_tensor(name: str, *values: Any) -> None:
    """Raise TypeError, in the name of the function that was called, unless every value is a tensor."""
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}: {MAKES_ONE}")


def require_float(name: str, *tensors: Tensor) -> None:
    """Raise TypeError unless every tensor is float32 or float64."""
    for t in tensors:
        if not isinstance(t, Tensor):
            require_tensor(name, t)
        if t.dtype not in FLOAT_TYPES:
            raise TypeError(
                f"{name}: expected {' or '.join(FLOATS)}, got {t.dtype}: convert it with .to('float32')"
            )
