"""Module: parameters, buffers and modules in a tree, by the names of their attributes."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import backend as backends
from .. import observer
from ..ops.tell import Tell
from ..tensor import FLOATS, Tensor


class Parameter(Tensor):
    """A tensor that a module learns: it requires a gradient, and `parameters()` finds it."""

    __slots__ = ()
    learned = True

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data, requires_grad)


class Hook:
    """A function that a module calls.

    Attributes:
        fn: the function.
    """

    def __init__(self, fn: Callable[..., object], place: "list[Hook]") -> None:
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
    """

    training: bool
    # Which of "slope" (of a leaky ReLU) and "p" (of a dropout) `forward` takes beside x, in this order, of
    # the modules that follow.
    takes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.training = True
        self.forward_hooks: list[Hook] = []
        self.backward_hooks: list[Hook] = []

    def as_follower(self) -> tuple[str, float] | None:
        """As what a layer before may take this one along, as things are: ("slope", 0.2) or ("p", 0.3)."""
        return None

    def __call__(self, *inputs: Any) -> Tensor:
        output = self._watched(*inputs) if observer.observers else self.forward(*inputs)
        if self.backward_hooks and output.requires_grad:
            output = Tell(self._tell_backward)(output)
        for hook in list(self.forward_hooks):
            hook.fn(self, inputs, output)
        return output

    def _tell_backward(self, gradient: Tensor) -> None:
        for hook in list(self.backward_hooks):
            hook.fn(self, gradient)

    def _watched(self, *inputs: Any) -> Tensor:
        watching = list(observer.observers)
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

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module (named "") and all below it, with dotted names."""
        yield prefix, self
        for name, child in self.children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    yield f"{prefix}.{name}" if prefix else name, value

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """What is learned, with dotted names; what is in two places is given once, under the first."""
        found = {
            id(t): (name, t) for name, t in reversed(list(self._named_tensors())) if isinstance(t, Parameter)
        }
        return reversed(found.values())

    def parameters(self) -> Iterator[Parameter]:
        """What is learned."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """What is kept but not learned (running statistics), with dotted names."""
        return ((name, t) for name, t in self._named_tensors() if not isinstance(t, Parameter))

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

    def to(self, target: str) -> "Module":
        """Move every tensor, in place, to a device ("cpu", "gpu") or a dtype ("float32", "float64").

        Parameters are replaced by new ones: make optimisers after this.
        """
        for _, module in self.named_modules():
            for name, value in list(vars(module).items()):
                if isinstance(value, Tensor):
                    moved = _moved(value, target)
                    setattr(module, name, type(value)(moved) if moved is not value.data else value)
        return self

    # -- keeping and bringing back -----------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers, by their dotted names."""
        return {name: Tensor(t.data.copy(), backend=t.backend) for name, t in self._named_tensors()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take every parameter and buffer from `state` (tensors or arrays), in place.

        `num_batches_tracked`, which PyTorch's BatchNorm keeps, is ignored. Raises ValueError,
        having changed nothing, where a key is missing or unknown, or a shape or dtype differs.
        """
        own = dict(self._named_tensors())
        given = {k: v for k, v in state.items() if k.rpartition(".")[2] != "num_batches_tracked"}
        problems = [f"missing: {name}" for name in own if name not in given]
        problems += [f"unexpected: {name}" for name in given if name not in own]
        arrays = {}
        for name in own.keys() & given.keys():
            value = given[name].numpy() if isinstance(given[name], Tensor) else given[name]
            if value.shape != own[name].shape or value.dtype != own[name].dtype:
                problems.append(
                    f"{name}: expected {own[name].dtype} of shape {own[name].shape}, "
                    f"got {value.dtype} of {value.shape}"
                )
            arrays[name] = value
        if problems:
            raise ValueError(f"load_state_dict({type(self).__name__}): " + "; ".join(sorted(problems)))
        for name, array in arrays.items():
            own[name].data = own[name].backend.asarray(array).copy()

    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.children()]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"]) if lines else self.describe()

    def describe(self) -> str:
        """The layer with its arguments, for messages and `repr`."""
        return f"{type(self).__name__}()"


def _moved(value: Tensor, target: str) -> Any:
    """The array of `value` on another device, or in another dtype (integers keep theirs)."""
    if target in FLOATS:
        is_float = str(value.dtype) in FLOATS
        return value.data.astype(target) if is_float and value.dtype != target else value.data
    backend = backends.get(target)
    return value.data if backend is value.backend else backend.asarray(value.numpy())


class Sequential(Module):
    """Modules one after another; each is named by its place, "0", "1", ...; `model[i]` is one of them."""

    def __init__(self, *modules: Module) -> None:
        super().__init__()
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                raise TypeError(f"Sequential: expected modules, got {type(module).__name__} at {i}")
            setattr(self, str(i), module)

    def forward(self, x: Tensor) -> Tensor:
        modules = list(self)
        while modules:
            module = modules.pop(0)
            followers = taken_along(module, modules)
            del modules[: len(followers)]
            x = module(x, *_settings(followers))
        return x

    def __iter__(self) -> Iterator[Module]:
        return (module for _, module in self.children())

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __getitem__(self, index: int) -> Module:
        return list(self)[index]


def taken_along(module: Module, following: Sequence[Module]) -> list[Module]:
    """Those of the modules that follow which a layer takes into its own pass over memory: a leaky ReLU, a
    dropout, or a dropout behind a leaky ReLU.

    What a class says of itself holds for its own `forward`, not for that of a subclass.
    """
    taken: list[Module] = []
    names = list(module.takes) if _speaks_for_itself(module, "takes") else []
    for follower in following:
        found = follower.as_follower() if _speaks_for_itself(follower, "as_follower") else None
        if found is None or found[0] not in names:
            break
        names = names[names.index(found[0]) + 1 :]
        taken.append(follower)
    return taken


def _speaks_for_itself(module: Module, attribute: str) -> bool:
    """Whether the class that defines `forward` has the attribute too, and no hook wants what is between."""
    own = next((cls for cls in type(module).__mro__ if "forward" in vars(cls)), object)
    hooked = module.forward_hooks or module.backward_hooks or "forward" in vars(module)
    return attribute in vars(own) and not hooked


def _settings(followers: Sequence[Module]) -> tuple[float, ...]:
    """What `forward` takes beside x for these: (slope,), or (slope, p) with a slope of 1 for none."""
    found = dict(setting for m in followers if (setting := m.as_follower()) is not None)
    if "p" in found:
        return found.get("slope", 1.0), found["p"]
    return tuple(found.values())
