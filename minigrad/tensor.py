"""Tensors, the graph that operations record, and the walk back through it.

Every operation on tensors that require a gradient leaves a node in a graph (an `Operation`, see
ops/operation.py). `backward` visits the nodes in the reverse of the order they were made in, so
that each is reached once all that depends on it is done. That is reverse-mode automatic
differentiation; source: Baydin et al., "Automatic differentiation in machine learning: a survey"
(2018), section 3.2.

What a node keeps points only to what was made before it, never the other way. So there are no
cycles, and memory is freed as soon as the last reference goes.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from . import backend as backends
from . import observer
from .backend import Backend
from .backend.base import FLOAT_TYPES
from .backend.ieee import ieee

Array = Any
FLOATS = ("float32", "float64")


class Node(Protocol):
    """What the walk needs of a node of the graph; every `Operation` has it (ops/operation.py).

    Attributes:
        name: of the operation, for messages.
        number: nodes are numbered in the order in which they are made.
        edges: for each input the node that made it, the leaf that it is, or None for neither.
        shapes: of the inputs.
        needs: which inputs' gradients are wanted; set before `backward` is called.
    """

    name: ClassVar[str]
    number: int
    edges: "tuple[Node | Tensor | None, ...]"
    shapes: tuple[tuple[int, ...], ...]
    needs: tuple[bool, ...]

    def backward(self, dy: "Tensor") -> "tuple[Tensor | None, ...]":
        """The gradient for each input, from the gradient dy of the result."""
        ...

    def check_alive(self) -> None:
        """Raise RuntimeError where `backward` can't be called (any more)."""
        ...

    def release(self) -> None:
        """Free what `backward` needed."""
        ...


class _GradMode(threading.local):
    enabled = True


_grad_mode = _GradMode()


def is_grad_enabled() -> bool:
    """Whether operations record a graph now, in this thread."""
    return _grad_mode.enabled


@contextmanager
def _recording(enabled: bool) -> Iterator[None]:
    before, _grad_mode.enabled = _grad_mode.enabled, enabled
    try:
        yield
    finally:
        _grad_mode.enabled = before


def no_grad() -> Any:
    """A context (or a decorator) in which operations record no graph; for this thread only."""
    return _recording(False)


def enable_grad() -> Any:
    """A context (or a decorator) in which operations record a graph, inside `no_grad` too."""
    return _recording(True)


class Tensor:
    """An array that remembers how it was made.

    Args:
        data: an array of a backend (NumPy's on the CPU). It is not copied.
        requires_grad: whether gradients with respect to this tensor are wanted.

    Attributes:
        data: the array; assigning one of the same shape, dtype and device replaces it.
        grad: a Tensor of the same shape, or None. `backward` adds to it.
        requires_grad: True also for everything computed from such a tensor.

    Comparisons (`x > 0`, `x == y`) give boolean tensors, element by element; they have no
    gradient. Mixing float32 with float64 tensors, or tensors of two devices, is an error. Results
    are those of IEEE 754, infinity and NaN among them, whatever `numpy.seterr` was told:
    `minigrad.inspect.detect_anomaly` finds the first number that is not finite.
    """

    __slots__ = ("__weakref__", "_data", "_requires_grad", "backend", "changes", "grad", "node")
    __array_ufunc__ = None  # so that `array * tensor` asks the tensor

    def __init__(
        self,
        data: Array,
        requires_grad: bool = False,
        *,
        node: Node | None = None,
        backend: Backend | None = None,
        changes: list[int] | None = None,
    ) -> None:
        backend = backend or backends.backend_of(data)
        if backend is None:
            raise TypeError(
                f"Tensor: expected an array, got {type(data).__name__}; "
                "minigrad.tensor(...) makes tensors of numbers and lists"
            )
        self._data = data
        self.backend = backend
        self.grad: Tensor | None = None
        self.node = node
        self.changes = [0] if changes is None else changes  # shared by all that view the same memory
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
        if array.shape != self.shape or array.dtype != self.dtype:
            raise ValueError(
                f"data: expected {self.dtype} of shape {self.shape}, got {array.dtype} of {array.shape}"
            )
        self._data = array
        self.mark_changed()

    def mark_changed(self) -> None:
        """Say that `data` was written into; `backward` through a graph that needs the old values raises then.

        A graph keeps arrays, not copies. It knows by itself of an optimizer's step, `load_state_dict` and an
        assignment to `data`. It also notices other writes into a leaf on the CPU (`w.data[...] *= 2`, or one
        into the array that it was made of) by a sample: all numbers of an array of fewer than 128, else some
        64 that lie a fixed distance apart. A write that meets none of them goes unnoticed without a call of
        this, and so does one into a tensor that was computed, or on a GPU, where to look is to wait. Then the
        gradient is that of a weight's new values; it may be that of an image's old ones.
        """
        self.changes[0] += 1

    @property
    def version(self) -> int:
        """How often the memory was changed in place."""
        return self.changes[0]

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
        return tuple(self._data.shape)

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
        """The same values, cut off from the graph; the memory is shared."""
        return Tensor(self._data, backend=self.backend, changes=self.changes)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Tensor":
        """A leaf of its own with the same values; the backend is not copied."""
        if self.node is not None:
            raise RuntimeError("deepcopy: this tensor was computed, and its graph is not copied: detach() it")
        copied = type(self)(self._data.copy(), self._requires_grad)
        memo[id(self)] = copied
        return copied

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

    # -- gradients -----------------------------------------------------------------------------

    def backward(
        self,
        grad: "Tensor | None" = None,
        *,
        create_graph: bool = False,
        retain_graph: bool | None = None,
        inputs: "Tensor | Sequence[Tensor] | None" = None,
    ) -> None:
        """Add the gradient of this tensor to the `.grad` of what it was computed from.

        Args:
            grad: the gradient of the final result with respect to this tensor; 1 by default,
                which only a tensor of one element allows.
            create_graph: record the gradients' own computation, to differentiate it again.
                `.grad` then holds the graph that holds the tensor, a cycle: prefer `grad(...)`.
            retain_graph: keep what the graph saved, for another backward; by default it is kept
                where `create_graph` is. Otherwise it is freed on the way.
            inputs: the tensors whose `.grad` is wanted, by default every leaf that requires one.
                What no path to them needs is not computed.

        Raises RuntimeError where nothing was recorded or the graph is gone already.
        """
        wanted = [inputs] if isinstance(inputs, Tensor) else None if inputs is None else list(inputs)
        if wanted is not None:
            wanted = list({id(t): t for t in wanted}.values())  # one asked for twice gets its gradient once
        given = set() if grad is None else {id(grad.data)}
        found = _backpropagate([self], [grad], wanted, create_graph, retain_graph)
        for leaf, gradient in found:
            if gradient is None:
                raise RuntimeError(_unused(wanted or [], leaf))
        for leaf, gradient in found:
            assert gradient is not None
            if leaf.grad is not None:
                with _recording(create_graph):
                    leaf.grad = leaf.grad + gradient
                continue
            # People write into `.grad`, so no two may share memory, nor with what was passed in.
            array = gradient.data
            if not self.backend.owns_memory(array) or id(array) in given:
                gradient = Tensor(array.copy(), node=gradient.node, backend=self.backend)
            given.add(id(array))
            leaf.grad = gradient

    # -- operations ----------------------------------------------------------------------------
    # Attached by the table in ops/methods.py; these lines tell type checkers and readers of them.

    if TYPE_CHECKING:

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
        def __getitem__(self, index: Any) -> "Tensor": ...
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


@ieee()
def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """A new tensor that holds a copy of `data`.

    Args:
        data: a number, a (nested) list, a NumPy array, an array of a device, or a Tensor.
        dtype: "float32" or "float64"; by default an array keeps its own, and Python numbers and
            lists become float32.
        device: "cpu" or "gpu"; by default where the data are, if that is a device's array or a tensor, and
            the default device for what comes from the host (`minigrad.set_default_device`).
        requires_grad: whether gradients with respect to it are wanted.
    """
    array = data.data if isinstance(data, Tensor) else data
    source = backends.backend_of(array)
    if source is None:
        source, array = backends.get("cpu"), _numbers(array, dtype)
    stays = device is None and (isinstance(data, Tensor) or source.device != "cpu")
    target = source if stays else backends.get(device)
    # Complex numbers stay so, and are refused: no dtype makes up for their imaginary parts.
    wanted = array.dtype if dtype is None or array.dtype.kind == "c" else source.xp.dtype(dtype)
    if wanted.kind not in "iub" and str(wanted) not in FLOATS:
        raise TypeError(f"tensor: expected float32, float64, integers or booleans, got {wanted}")
    if target is not source:
        array = target.asarray(source.to_numpy(array))
    return Tensor(array.astype(wanted), requires_grad)


def _numbers(data: Any, dtype: Any) -> Array:
    """Numbers and lists as an array on the CPU: float32 where the caller names no dtype."""
    cpu = backends.get("cpu")
    try:
        array = cpu.asarray(data)
    except (TypeError, ValueError):  # lists of unequal lengths
        array = cpu.asarray(None)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: expected numbers in lists of equal length, got {data!r:.80}")
    return array.astype(dtype or "float32")


def grad(
    outputs: "Tensor | Sequence[Tensor]",
    inputs: "Tensor | Sequence[Tensor]",
    grad_outputs: Any = None,
    *,
    create_graph: bool = False,
    retain_graph: bool | None = None,
    allow_unused: bool = False,
) -> "tuple[Tensor | None, ...]":
    """The gradients of `outputs` with respect to `inputs`, leaving every `.grad` alone.

    Args:
        outputs: a tensor or several, whose gradients are added up.
        inputs: a tensor or several: leaves, or tensors on the way.
        grad_outputs: a tensor for each output, or None for 1 (outputs of one element only).
        create_graph: record the gradients' own computation, to differentiate it again.
        retain_graph: keep the graph for another backward; defaults to `create_graph`.
        allow_unused: give None for an input that the outputs do not depend on, not an error.

    Returns a tuple with one gradient for each input.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    starts = [None] * len(outs) if grad_outputs is None else grad_outputs
    starts = [starts] if isinstance(starts, Tensor) else starts
    if not isinstance(starts, list | tuple) or len(starts) != len(outs):
        raise ValueError(f"grad: expected grad_outputs for {len(outs)} outputs, got {grad_outputs!r:.80}")
    found = _backpropagate(outs, list(starts), wanted, create_graph, retain_graph)
    for target, gradient in found:
        if gradient is None and not allow_unused:
            raise RuntimeError(_unused(wanted, target))
    return tuple(gradient for _, gradient in found)


def _unused(inputs: list[Tensor], target: Tensor) -> str:
    index = next(i for i, t in enumerate(inputs) if t is target)
    return (
        f"the outputs do not depend on inputs[{index}] (shape {target.shape}): leave it out, "
        "or use grad(..., allow_unused=True), which gives None for it"
    )


def _backpropagate(
    outputs: list[Tensor],
    grad_outputs: list[Tensor | None],
    inputs: list[Tensor] | None,
    create_graph: bool,
    retain_graph: bool | None,
) -> list[tuple[Tensor, Tensor | None]]:
    """The walk itself: each wanted tensor with its gradient, or None where there is no path.

    `inputs=None` wants every leaf that requires a gradient.
    """
    retain = create_graph if retain_graph is None else retain_graph
    starts = [_check_start(out, g) for out, g in zip(outputs, grad_outputs, strict=True)]
    order = _nodes_from(outputs)
    if inputs is None:
        leaves = {id(e): e for node in order for e in node.edges if isinstance(e, Tensor)}
        leaves |= {id(out): out for out in outputs if out.node is None}
        inputs = list(leaves.values())
    for target in inputs:
        if not target.requires_grad:
            raise RuntimeError(
                f"a gradient was asked for with respect to a tensor of shape {target.shape} that does "
                "not require one: set requires_grad=True before it is used"
            )
    # Gradients so far, by what they belong to: a node for what was computed, else the leaf.
    keys = [id(target.node or target) for target in inputs]
    collected: dict[int, Tensor] = {}
    kept = set(keys)
    useful = _leading_to(kept, order)
    for node in order:
        if any(id(edge) in useful for edge in node.edges):
            node.check_alive()
    with _recording(create_graph):
        for out, start in zip(outputs, starts, strict=True):
            _accumulate(collected, id(out.node or out), start)
        while order:
            node = order.pop()
            key = id(node)
            dy = collected.get(key) if key in kept else collected.pop(key, None)
            if dy is None or not any(id(edge) in useful for edge in node.edges):
                continue
            node.needs = tuple(id(edge) in useful for edge in node.edges)
            for edge, shape, needed, gradient in zip(
                node.edges, node.shapes, node.needs, _gradients(node, dy), strict=True
            ):
                if needed:
                    assert gradient is not None, f"{node.name}: no gradient where one is needed"
                    _accumulate(collected, id(edge), _unbroadcast(gradient, shape, node.name))
            if not retain:
                node.release()
    return [(target, collected.get(key)) for target, key in zip(inputs, keys, strict=True)]


def _gradients(node: Node, dy: Tensor) -> "tuple[Tensor | None, ...]":
    """What the node's rule gives, and whoever watches is told."""
    if not observer.observers:
        return node.backward(dy)
    with observer.told(node, observer.BACKWARD):
        gradients = node.backward(dy)
    observer.end(node, observer.BACKWARD, (dy,), gradients)
    return gradients


def _check_start(out: Tensor, start: Tensor | None) -> Tensor:
    """The gradient that the walk starts with at `out`: the given one, checked, or 1."""
    if not out.requires_grad:
        raise RuntimeError(
            "backward: nothing was recorded for this tensor: no input requires a gradient, "
            "or it was computed under no_grad() or detached"
        )
    if start is None:
        if out.size != 1:
            raise RuntimeError(
                f"backward: the gradient of a tensor of shape {out.shape} needs a starting gradient of "
                "that shape; without one, reduce it to one number first, with .sum() or .mean()"
            )
        return Tensor(out.backend.xp.ones_like(out.data), backend=out.backend)
    if not isinstance(start, Tensor):
        raise TypeError(f"backward: expected a Tensor as the starting gradient, got {type(start).__name__}")
    if start.shape != out.shape or start.dtype != out.dtype or start.device != out.device:
        raise ValueError(
            f"backward: expected a starting gradient of {out.dtype}, shape {out.shape}, on {out.device!r}; "
            f"got {start.dtype}, {start.shape}, on {start.device!r}"
        )
    return start


def _nodes_from(outputs: list[Tensor]) -> list[Node]:
    """Every node that `outputs` depend on, oldest first (each is younger than its inputs)."""
    found: dict[int, Node] = {}
    waiting = [out.node for out in outputs if out.node is not None]
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += [e for e in node.edges if e is not None and not isinstance(e, Tensor)]
    return sorted(found.values(), key=lambda node: node.number)


def _leading_to(targets: set[int], order: list[Node]) -> set[int]:
    """The targets and all that depends on them: only there does a gradient have somewhere to go."""
    useful = set(targets)
    for node in order:
        if any(id(edge) in useful for edge in node.edges):
            useful.add(id(node))
    return useful


def _accumulate(collected: dict[int, Tensor], key: int, gradient: Tensor) -> None:
    before = collected.get(key)
    collected[key] = gradient if before is None else before + gradient


def _unbroadcast(gradient: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Sum over the axes along which an input of `shape` was stretched: each use adds its share."""
    if gradient.shape == shape:
        return gradient
    extra = gradient.ndim - len(shape)
    if extra < 0 or any(n not in (1, m) for n, m in zip(shape, gradient.shape[extra:], strict=True)):
        raise RuntimeError(
            f"{name}: its backward gave a gradient of shape {gradient.shape} for an input of shape {shape}"
        )
    stretched = tuple(extra + i for i, n in enumerate(shape) if n != gradient.shape[extra + i])
    return gradient.sum(axis=(*range(extra), *stretched), keepdims=True).reshape(shape)
