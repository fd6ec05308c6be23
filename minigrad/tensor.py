"""Tensors, and the graph that operations record.

Every operation on tensors that require a gradient leaves a node in a graph (an `Operation`, see
ops/operation.py). The walk back through it is in backpropagate.py.

What a node keeps points only to what was made before it, never the other way. So there are no
cycles, and memory is freed as soon as the last reference goes.
"""

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

from . import backend as backends
from .backend import Backend
from .backend.arrays import FLOAT_TYPES, Array
from .backend.tape import recording as current_tape
from .copies import Copies
from .for_numpy import ForNumPy
from .version_counter import VersionCounter

FLOATS = ("float32", "float64")


class Node(Protocol):
    """The part of a graph's node that the walk needs; every `Operation` has it (ops/operation.py).

    Attributes:
        name: of the operation, for messages.
        has_fused_backward: whether there is a `fused_backward`.
        number: nodes are numbered in the order in which they are made.
        edges: for each input the node that made it, the leaf that it is, or None for neither.
        shapes: of the inputs.
        needs: which inputs' gradients are wanted; set before `backward` or `fused_backward` is called.
    """

    name: ClassVar[str]
    has_fused_backward: ClassVar[bool]
    number: int
    edges: "tuple[Node | Tensor | None, ...]"
    shapes: tuple[tuple[int, ...], ...]
    needs: tuple[bool, ...]

    def backward(self, dy: "Tensor") -> "tuple[Tensor | None, ...]":
        """The gradient for each input, from the gradient dy of the result."""
        ...

    def fused_backward(self, dy: "Tensor") -> "tuple[Tensor | None, ...]":
        """The same where no graph of the gradients is recorded, if the operation has such a form."""
        ...

    def check_alive(self) -> None:
        """Raise RuntimeError where `backward` can't be called (any more)."""
        ...

    def release(self) -> None:
        """Free what `backward` needed."""
        ...


# Gives nodes their numbers.
next_number = itertools.count().__next__


class _GradMode(threading.local):
    enabled = True


_grad_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether operations record a graph now, in this thread."""
    return _grad_mode.enabled


@contextmanager
def recording(enabled: bool) -> Iterator[None]:
    """A context in which operations record a graph, or none; for this thread only."""
    before, _grad_mode.enabled = _grad_mode.enabled, enabled
    try:
        yield
    finally:
        _grad_mode.enabled = before


def no_grad() -> Any:
    """A context (or a decorator) in which operations record no graph; for this thread only."""
    return recording(False)


def enable_grad() -> Any:
    """A context (or a decorator) in which operations record a graph, inside `no_grad` too."""
    return recording(True)


class Tensor(ForNumPy, Copies):
    """An array that remembers how it was made.

    Args:
        data: an array of a backend (NumPy's on the CPU). It is not copied. One of a subclass, such as
            numpy.matrix, is taken as a plain array; masked arrays are refused.
        requires_grad: whether gradients with respect to this tensor are wanted.

    Attributes:
        data: the array; assigning one of the same shape, dtype and device replaces it, for this tensor
            alone: views and detached tensors keep the old array.
        grad: a Tensor of the same shape, dtype and device, or None; another one is refused. `backward`
            adds to it.
        requires_grad: True also for everything computed from such a tensor.

    Comparisons (`x > 0`, `x == y`) give boolean tensors, element by element; they have no
    gradient. `x += y` makes a new tensor, but changes a leaf in place under `no_grad`. Mixing
    float32 with float64 tensors, or tensors of two devices, is an error. Results are those of IEEE
    754, infinity and NaN among them, whatever the settings of `numpy.seterr`:
    `minigrad.inspect.detect_anomaly` finds the first value that is not finite.
    """

    learned: ClassVar[bool] = False  # whether a module learns tensors of this class

    __slots__ = ("__weakref__", "_data", "_grad", "_requires_grad", "backend", "node", "version_counter")

    def __init__(
        self,
        data: Array,
        requires_grad: bool = False,
        *,
        node: Node | None = None,
        backend: Backend | None = None,
        version_counter: VersionCounter | None = None,
    ) -> None:
        if backend is None:  # else the array is the engine's own
            backend = backends.backend_of(data)
            if backend is None:
                raise TypeError(
                    f"Tensor: expected an array, got {type(data).__name__}; "
                    "minigrad.tensor(...) makes tensors of numbers and lists"
                )
            data = backend.plain(data)
        self._data = data
        self.backend = backend
        self._grad: Tensor | None = None
        self.node = node
        # Shared by all that view the same memory.
        self.version_counter = VersionCounter() if version_counter is None else version_counter
        self._requires_grad = False
        if requires_grad:
            self.requires_grad = True

    # -- what it is ----------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if not self.backend.owns(array):
            raise TypeError(f"data: expected an array on {self.device!r}, got {type(array).__name__}")
        array = self.backend.plain(array)
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"data: expected {self.dtype} of shape {self.shape}, got {array.dtype} of {array.shape}"
            )
        shared = array is self._data or self.backend.xp.may_share_memory(array, self._data)
        if shared or self.node is not None:  # a computed tensor may not change unnoticed
            self.mark_changed()
        if not shared:  # the views of the old memory, and what was detached, keep it and its counter
            self.version_counter = VersionCounter(self.version + 1)
        self._data = array

    @property
    def grad(self) -> "Tensor | None":
        return self._grad

    @grad.setter
    def grad(self, gradient: "Tensor | None") -> None:
        if gradient is not None:
            self._check_grad(gradient)
        tape = current_tape()
        if tape is not None:
            tape.assigned(self, gradient)
        self._grad = gradient

    def _check_grad(self, gradient: Any) -> None:
        if not isinstance(gradient, Tensor):
            raise TypeError(
                f"grad: expected None or a Tensor of shape {self.shape}, got {type(gradient).__name__}: "
                "minigrad.tensor(...) makes one"
            )
        if (
            gradient.shape != self.shape
            or gradient.dtype != self.dtype
            or gradient.backend is not self.backend
        ):
            raise ValueError(
                f"grad: expected {self.dtype} of shape {self.shape} on {self.device!r}, as of the tensor; "
                f"got {gradient.dtype} of {gradient.shape} on {gradient.device!r}"
            )

    def mark_changed(self) -> None:
        """Record a write into `data`: `backward` through a graph that needs the old values raises then.

        A graph keeps arrays, not copies. An optimizer's step, `load_state_dict`, an assignment to `data` and
        operators such as `+=` call this themselves. Other writes into a leaf on the CPU (`w.data[...] *= 2`,
        or into the array that it was made of) are noticed by a sample: all numbers of an array of fewer than
        128, else about 64 that lie a fixed distance apart. Without a call of this a write that misses the
        sample goes unnoticed, and so does one into a computed tensor, or on a GPU, where to look is to wait.
        The gradient is then that of a weight's new values, or that of an image's old or new ones.

        The version counter belongs to the memory: views and detached tensors share it.
        """
        self.version_counter.bump()

    @property
    def version(self) -> int:
        """The number of changes to the values, in place or by assignment to `data`."""
        return self.version_counter.value

    @property
    def requires_grad(self) -> bool:
        return self._requires_grad or self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self.node is not None and not wanted:
            raise RuntimeError("requires_grad: this tensor was computed; use detach() to cut it off")
        if wanted and self.dtype not in FLOAT_TYPES:
            raise TypeError(f"requires_grad: only {' and '.join(FLOATS)} have gradients, not {self.dtype}")
        self._requires_grad = wanted

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._data.shape
        return shape

    @property
    def ndim(self) -> int:
        return int(self._data.ndim)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self._data.size)

    @property
    def dtype(self) -> Any:
        return self._data.dtype

    @property
    def device(self) -> str:
        """ "cpu" or "gpu"."""
        return self.backend.device

    def numpy(self) -> Any:
        """The values as a NumPy array on the host (on the CPU the same memory, not a copy)."""
        return self.backend.to_numpy(self._data)

    def item(self) -> float:
        """The value of a tensor of one element, as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: expected one element, got shape {self.shape}")
        return self.numpy().item()

    def detach(self) -> "Tensor":
        """Return a tensor of the same values, cut off from the graph; it shares the memory."""
        return Tensor(self._data, backend=self.backend, version_counter=self.version_counter)

    @classmethod
    def bare(cls, array: Array, backend: Backend, requires_grad: bool = False) -> Self:
        """Return a tensor of this class, without a call of a subclass's constructor."""
        made = cls.__new__(cls)
        Tensor.__init__(made, array, requires_grad, backend=backend)
        return made

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(f"a tensor of shape {self.shape} is neither true nor false: compare elements")
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item() if spec else str(self), spec)

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        """The value of an integer tensor of one element, to be used as an index, or as a size."""
        if self.dtype.kind not in "iu" or self.size != 1:
            raise TypeError(
                "expected an integer tensor of one element as an index, got "
                f"{self.dtype} of shape {self.shape}"
            )
        return int(self.item())

    __hash__ = object.__hash__

    def __iter__(self) -> "Iterator[Tensor]":
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        text = repr(self.numpy()).removeprefix("array(").removesuffix(")")
        notes = "" if self.device == "cpu" else f", device={self.device!r}"
        if self.node is not None:
            notes += f", made by {self.node.name}"
        elif self.requires_grad:
            notes += ", requires_grad=True"
        return f"tensor({text}{notes})"

    # -- operations ----------------------------------------------------------------------------
    # Attached by the table in ops/methods.py; these lines tell type checkers and readers of them.

    if TYPE_CHECKING:

        def backward(
            self,
            grad: "Tensor | None" = None,
            *,
            create_graph: bool = False,
            retain_graph: bool | None = None,
            inputs: "Tensor | Sequence[Tensor] | None" = None,
        ) -> None: ...
        def __add__(self, other: Any) -> "Tensor": ...
        def __radd__(self, other: Any) -> "Tensor": ...
        def __sub__(self, other: Any) -> "Tensor": ...
        def __rsub__(self, other: Any) -> "Tensor": ...
        def __mul__(self, other: Any) -> "Tensor": ...
        def __rmul__(self, other: Any) -> "Tensor": ...
        def __truediv__(self, other: Any) -> "Tensor": ...
        def __rtruediv__(self, other: Any) -> "Tensor": ...
        def __pow__(self, exponent: Any) -> "Tensor": ...
        def __rpow__(self, base: Any) -> "Tensor": ...
        def __neg__(self) -> "Tensor": ...
        def __abs__(self) -> "Tensor": ...
        def __matmul__(self, other: Any) -> "Tensor": ...
        def __rmatmul__(self, other: Any) -> "Tensor": ...
        def __iadd__(self, other: Any) -> "Tensor": ...
        def __isub__(self, other: Any) -> "Tensor": ...
        def __imul__(self, other: Any) -> "Tensor": ...
        def __itruediv__(self, other: Any) -> "Tensor": ...
        def __ipow__(self, exponent: Any) -> "Tensor": ...
        def __imatmul__(self, other: Any) -> "Tensor": ...
        def __getitem__(self, index: Any) -> "Tensor": ...
        def __setitem__(self, index: Any, value: Any) -> None: ...
        def __eq__(self, other: object) -> "Tensor": ...  # type: ignore[override]  # as NumPy's
        def __ne__(self, other: object) -> "Tensor": ...  # type: ignore[override]  # as NumPy's
        def __lt__(self, other: Any) -> "Tensor": ...
        def __le__(self, other: Any) -> "Tensor": ...
        def __gt__(self, other: Any) -> "Tensor": ...
        def __ge__(self, other: Any) -> "Tensor": ...
        def exp(self) -> "Tensor": ...
        def log(self) -> "Tensor": ...
        def sqrt(self) -> "Tensor": ...
        def abs(self) -> "Tensor": ...
        def clip(self, low: float | None = None, high: float | None = None) -> "Tensor": ...
        def sum(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def mean(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def var(self, axis: Any = None, keepdims: bool = False, correction: float = 0) -> "Tensor": ...
        def max(self, axis: Any = None, keepdims: bool = False) -> "Tensor": ...
        def reshape(self, *shape: Any) -> "Tensor": ...
        def transpose(self, *axes: Any) -> "Tensor": ...
        def to(self, target: Any) -> "Tensor": ...
