"""Module: parameters, buffers and modules in a tree, by the names of their attributes."""

import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from .. import backend as backends
from .. import observer
from ..backend import Backend
from ..backend.arguments import float_type
from ..backend.arrays import FLOAT_TYPES, Array, refuse_masked
from ..backend.epilogue import Epilogue
from ..backend.ieee import ieee
from ..creation import tensor
from ..ops.gradient_hook import GradientHook
from ..ops.in_place import check_writeable
from ..tensor import Tensor

Kind = TypeVar("Kind")


class Parameter(Tensor):
    """A tensor that a module learns: it requires a gradient, and `parameters()` finds it.

    With `requires_grad=False` it is frozen: it is kept with the weights, and gets no gradient.

    Args:
        data: an array of a backend, or a tensor, whose memory it shares; or numbers, which become float32.
        requires_grad: whether it is learned.
    """

    __slots__ = ()
    learned = True

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        if backends.backend_of(data) is not None:
            super().__init__(data, requires_grad)
            return
        given = data if isinstance(data, Tensor) else tensor(data)
        super().__init__(
            given.data, requires_grad, backend=given.backend, version_counter=given.version_counter
        )


class Hook:
    """A function that a module calls.

    Attributes:
        fn: the function.
    """

    def __init__(self, fn: Callable[..., object], place: "list[Hook]") -> None:
        if not callable(fn):
            raise TypeError(f"a hook: expected a function, got {type(fn).__name__}")
        self.fn, self._place = fn, place
        place.append(self)

    def remove(self) -> None:
        """Call it no longer; a second time does nothing."""
        if self in self._place:
            self._place.remove(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Hook":
        """Of a copied module: the function itself is not copied, nor what it belongs to."""
        copied = copy.copy(self)
        copied._place = copy.deepcopy(self._place, memo)
        return copied


class Module:
    """A layer, or several under one name.

    Parameters, buffers (tensors that are kept but not learned) and modules that are assigned to
    attributes are found by those names: `Sequential(Dense(2, 3))` has the parameter "0.weight".
    Subclasses call `super().__init__()` first and define `forward`.

    One parameter, buffer or module may be in several places (tied weights): it stays shared in `to` and in
    copies, is given once by `parameters()` and `named_modules()`, and has all its names in `state_dict()`.
    To a parameter's attribute only a Parameter or None is assigned, to a buffer's only a Tensor or None, and
    to a module's only a Module or None (TypeError): anything else would silently be neither learned nor
    kept. `del` the attribute first to make it something else. A module can't contain itself (ValueError).
    """

    training: bool
    # The parts ("activation", "dropout") that `forward` takes in an Epilogue beside x: a Sequential makes one
    # of the modules that follow. Empty: `forward` takes x alone.
    takes: Collection[str] = ()

    def __init__(self) -> None:
        self.training = True
        self.forward_hooks: list[Hook] = []
        self.backward_hooks: list[Hook] = []

    def __setattr__(self, name: str, value: Any) -> None:
        held = self.__dict__.get(name)
        if isinstance(held, Tensor | Module) or isinstance(value, Tensor | Module):
            _check_assigned(self, name, held, value)
        object.__setattr__(self, name, value)

    if not TYPE_CHECKING:  # or every name would be an attribute to type checkers

        def __getattr__(self, name: str) -> Any:
            """Raise AttributeError, with the remedy where `__init__` was not called."""
            if name in ("training", "forward_hooks", "backward_hooks"):
                raise _not_started(self)
            return object.__getattribute__(self, name)  # raises, as without this method

    def as_epilogue(self) -> Epilogue | None:
        """Return what a layer before may apply in place of this module, as it is now; None if nothing can."""
        return None

    def __call__(self, *inputs: Any) -> Tensor:
        output = self._watched(*inputs) if observer.current() else self.forward(*inputs)
        if self.backward_hooks and _requires_grad(self, output):
            output = GradientHook(self._call_backward_hooks)(output)
        for hook in list(self.forward_hooks):
            hook.fn(self, inputs, output)
        return output

    def _call_backward_hooks(self, gradient: Tensor) -> None:
        for hook in list(self.backward_hooks):
            hook.fn(self, gradient)

    def _watched(self, *inputs: Any) -> Tensor:
        watching = list(observer.current())
        for each in watching:
            each.modules.append(self)
        try:
            return self.forward(*inputs)
        finally:
            for each in watching:
                each.modules.pop()

    def forward(self, *inputs: Any) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def register_forward_hook(self, fn: "Callable[[Module, tuple[Any, ...], Tensor], object]") -> "Hook":
        """Call fn(module, inputs, output) after each forward of this module; what it returns is ignored.

        Returns a handle; its `remove()` ends that. A module with a hook has a pass of its own, where a
        `Sequential` else takes a leaky ReLU with the layer before it.
        """
        return Hook(fn, self.forward_hooks)

    def register_backward_hook(self, fn: "Callable[[Module, Tensor], object]") -> "Hook":
        """Call fn(module, gradient) in each backward with the gradient of this module's output.

        It is called before the module's own backward, for every forward that ran since this was called.
        What fn returns is ignored, and it must not change the gradient. Returns a handle, as above.
        """
        return Hook(fn, self.backward_hooks)

    # -- what is in it ---------------------------------------------------------------------------

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules directly below, with their names."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def _places(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module and all below it, with dotted names; one in two places is given twice."""
        yield prefix, self
        for name, child in self.children():
            yield from child._places(f"{prefix}.{name}" if prefix else name)

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter and buffer under each of its names."""
        for prefix, module in self._places():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module (named "") and all below it, with dotted names, each once, under the first of them."""
        return _once(self._places(prefix))

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters, with dotted names; one in two places is given once, under the first."""
        return _once((name, t) for name, t in self._named_tensors() if isinstance(t, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Iterate over the buffers, tensors that are not learned, each once, with dotted names."""
        return _once((name, t) for name, t in self._named_tensors() if not isinstance(t, Parameter))

    # -- modes and gradients -----------------------------------------------------------------------

    def train(self, mode: bool = True) -> "Module":
        """Behave as in training (BatchNorm by the batch, Dropout on), all the way down."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self) -> "Module":
        """Behave as in use: `train(False)`."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self, target: Any) -> "Module":
        """Move every tensor, in place, to a device ("cpu", "gpu") or a dtype ("float32", "float64").

        Parameters are replaced by new ones, with their gradients: make optimisers after this. A frozen one
        (`requires_grad` is False) stays frozen, and a shared one shared. Raises ValueError, having moved
        nothing, for anything but a device or a dtype.
        """
        convert = _conversion(type(self).__name__, target)
        moved = {id(tensor): _converted(tensor, convert) for _, tensor in _once(self._named_tensors())}
        for _, module in self.named_modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    setattr(module, name, moved[id(value)])
        return self

    # -- keeping and bringing back -----------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers, by their dotted names."""
        return {name: Tensor(t.data.copy(), backend=t.backend) for name, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take every parameter and buffer from `state` (tensors or arrays), in place.

        In place means in their memory: views and detached tensors see the new values, too.
        `num_batches_tracked`, which PyTorch's BatchNorm keeps, is ignored. Having changed nothing, raises
        ValueError if a key is missing or unknown, a shape or dtype differs, or two names of a shared tensor
        have different values, and TypeError if `state` is not a mapping or holds a masked array.
        """
        name = f"load_state_dict({type(self).__name__})"
        if not isinstance(state, Mapping):
            raise TypeError(f"{name}: expected tensors by name, got {_other_state(state)}")
        own = dict(self._named_tensors())
        given = {k: v for k, v in state.items() if str(k).rpartition(".")[2] != "num_batches_tracked"}
        problems = [f"missing: {name}" for name in own if name not in given]
        problems += [f"unexpected: {name}" for name in given if name not in own]
        arrays: dict[str, Any] = {}
        firsts: dict[int, str] = {}
        for key in (key for key in own if key in given):
            value = given[key].numpy() if isinstance(given[key], Tensor) else given[key]
            if (problem := _misfit(own[key], value)) is not None:
                problems.append(f"{key}: {problem}")
                continue
            arrays[key] = own[key].backend.asarray(value)
            first = firsts.setdefault(id(own[key]), key)
            if first != key and not _same_bits(own[key], arrays[first], arrays[key]):
                problems.append(f"{key}: it is the same tensor as {first}, which is given other values")
        if problems:
            raise ValueError(f"{name}: " + "; ".join(sorted(problems)))
        copies = {
            key: own[key].backend.copy(array) for key, array in arrays.items()
        }  # `state` may hold these very tensors
        for key, array in copies.items():
            _write(own[key], array)

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.children()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else self.describe()

    def describe(self) -> str:
        """The layer with its arguments, for messages and `repr`."""
        return f"{type(self).__name__}()"


def _once(named: Iterable[tuple[str, Kind]]) -> Iterator[tuple[str, Kind]]:
    """Give each object once, with the first of its names."""
    found: dict[int, tuple[str, Kind]] = {}
    for name, thing in named:
        found.setdefault(id(thing), (name, thing))
    return iter(found.values())


def _conversion(owner: str, target: Any) -> Callable[[Tensor], Tensor]:
    """Return the function from a tensor to one on another device, or in another dtype (floats only).

    It gives the tensor itself if nothing changes.
    """
    if isinstance(target, str) and target in backends.known():
        backend = backends.get(target)
        return lambda t: t if t.backend is backend else Tensor(_moved(t, backend), backend=backend)
    try:
        dtype = "" if target is None else float_type(target, "to")
    except TypeError:
        dtype = ""
    if not dtype:
        devices = ", ".join(map(repr, backends.known()))
        raise ValueError(
            f"to({owner}): expected a device ({devices}) or a dtype ('float32', 'float64'), "
            f"got {target!r:.80}"
        )
    return lambda t: (
        Tensor(t.data.astype(dtype), backend=t.backend) if t.dtype in FLOAT_TYPES and t.dtype != dtype else t
    )


def _moved(tensor: Tensor, backend: Backend) -> Array:
    """Return the values in memory of the backend, never in that of the tensor."""
    array = backend.asarray(tensor.numpy())
    return backend.copy(array) if array is tensor.data else array


@ieee()
def _converted(tensor: Tensor, convert: Callable[[Tensor], Tensor]) -> Tensor:
    """Return a converted tensor of the same class, with its gradient; itself if nothing changes."""
    converted = convert(tensor)
    if converted is tensor:
        return tensor
    made = tensor.bare(converted.data, converted.backend, tensor.requires_grad and tensor.node is None)
    if tensor.grad is not None:
        made.grad = convert(tensor.grad)
    return made


def _check_assigned(module: Module, name: str, held: Any, value: Any) -> None:
    """Raise an error if an assignment would lose a parameter, buffer or module, or make a cycle."""
    if "forward_hooks" not in vars(module):
        raise _not_started(module)
    if isinstance(value, Module) and any(m is module for _, m in value.named_modules()):
        raise ValueError(
            f"{type(module).__name__}.{name}: a module can't contain itself; keep a weakref to "
            "one above it, or a list that holds it"
        )
    if value is None:
        return
    place, given = f"{type(module).__name__}.{name}", type(value).__name__
    if isinstance(held, Module) and not isinstance(value, Module):
        raise TypeError(
            f"{place} is a module: expected a Module or None, got {given}, which would leave its parameters "
            f"out; `del` the attribute first to make it something else"
        )
    if isinstance(held, Parameter) and not isinstance(value, Parameter):
        raise TypeError(
            f"{place} is a parameter: expected a Parameter or None, got {given}, which would not be learned; "
            f"assign minigrad.nn.Parameter(array), write its values by `{name}.data = array`, or change it "
            "in place (`-=`) under minigrad.no_grad()"
        )
    if isinstance(held, Tensor) and not isinstance(value, Tensor):
        raise TypeError(
            f"{place} is a buffer: expected a Tensor or None, got {given}, which state_dict() would leave "
            f"out; assign minigrad.tensor(...), or write its values by `{name}.data = array`"
        )


def _not_started(module: Module) -> AttributeError:
    return AttributeError(f"{type(module).__name__}: its __init__ must call super().__init__() first")


def _requires_grad(module: Module, output: Any) -> bool:
    if not isinstance(output, Tensor):
        raise TypeError(
            f"{module.describe()}: a backward hook needs a forward that returns a Tensor, "
            f"got {type(output).__name__}"
        )
    return output.requires_grad


def _other_state(state: Any) -> str:
    """Describe a value that is no state dict, with the remedy, for a message."""
    if isinstance(state, Module):
        return f"{type(state).__name__}: pass its .state_dict()"
    if isinstance(state, str) or hasattr(state, "__fspath__"):
        return f"the path {str(state)!r}: pass minigrad.load(path)"
    return type(state).__name__


def _misfit(own: Tensor, value: Any) -> str | None:
    """Why an array can't be the values of a tensor; None where it can. Raises TypeError for a masked one."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        return f"expected a tensor or an array, got {type(value).__name__}"
    refuse_masked(value, "load_state_dict")
    if value.shape == own.shape and value.dtype == own.dtype:
        return None
    return f"expected {own.dtype} of shape {own.shape}, got {value.dtype} of {value.shape}"


def _write(own: Tensor, array: Any) -> None:
    """Write the values of an array into a tensor's memory; where that can't be done, give it new memory."""
    try:
        check_writeable("load_state_dict", own)
    except ValueError:
        own.data = array
        return
    own.data[...] = array
    own.mark_changed()


def _same_bits(own: Tensor, a: Any, b: Any) -> bool:
    """Whether two arrays of a tensor's device are equal, NaN for NaN."""
    return a is b or own.backend.to_numpy(a).tobytes() == own.backend.to_numpy(b).tobytes()
