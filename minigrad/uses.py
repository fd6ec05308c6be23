"""The tensors, modules and optimizers that a step works on: whether a captured one still holds."""

import weakref
from collections.abc import Iterable
from typing import Any

from . import observer
from .backend import Backend
from .backend.tape import CaptureError
from .nn import Module
from .optim import Optimizer
from .tensor import Tensor


class Uses:
    """All that a step works on and does not make itself, as it is when this is made.

    Args:
        tensors: those that operations read.
        modules: those that ran, and all in them.
        optimizers: those that stepped.
        names: of one operation on each backend.

    Attributes:
        tensors: these, and the parameters and buffers of the modules.
        leaves: those of them that require a gradient.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor] = (),
        modules: Iterable[Module] = (),
        optimizers: Iterable[Optimizer] = (),
        names: dict[Backend, str] | None = None,
    ) -> None:
        self._modules = list(modules)
        self._names = names or {}
        self._places = [
            (vars(module), name, value)
            for module in self._modules
            for name, value in vars(module).items()
            if isinstance(value, Tensor)
        ]
        found = [*tensors, *(tensor for _, _, tensor in self._places)]
        self.tensors = list({id(tensor): tensor for tensor in found}.values())
        self.leaves = [tensor for tensor in self.tensors if tensor.requires_grad]
        self._memory = [(tensor, tensor.data, tensor.requires_grad) for tensor in self.tensors]
        self._optimizers = [(each, each.state, each.fixed_values()) for each in optimizers]

    def includes(self, backend: Backend) -> bool:
        """Whether an operation ran on a backend."""
        return backend in self._names

    def modes(self) -> tuple[bool, ...]:
        """Return whether each module is in training mode."""
        return tuple([module.training for module in self._modules])

    def have_hooks(self) -> bool:
        """Whether a module has a hook: a function of Python's, which a replay would not call."""
        return any(module.forward_hooks or module.backward_hooks for module in self._modules)

    def are_unchanged(self) -> bool:
        """Whether everything lies where it lay: the same tensors, in the same memory."""
        return (
            all(tensor.data is array and tensor.requires_grad is r for tensor, array, r in self._memory)
            and all(attributes.get(name) is tensor for attributes, name, tensor in self._places)
            and all(o.state is state and o.fixed_values() == v for o, state, v in self._optimizers)
        )

    def restore(self) -> None:
        """Give the tensors back the memory that they had."""
        for tensor, array, _ in self._memory:
            if tensor.data is not array:
                tensor.data = array

    def check_memory(self) -> None:
        """Raise CaptureError if the step gave a tensor other memory."""
        if not self.are_unchanged():
            raise CaptureError(
                "the step gives a parameter, a buffer or an optimizer's state other memory, which the next "
                "replay would not see: change it in place, as by `x -= y` under no_grad()"
            )

    def check_device(self, backend: Backend) -> None:
        """Raise CaptureError if an operation ran on another backend."""
        for other, name in self._names.items():
            if other is not backend:
                raise CaptureError(
                    f"capture: {name} runs on {other.device!r}, which has no graphs, while the rest is on "
                    f"{backend.device!r}: move all of the step to one device"
                )


class Watcher(observer.Observer):
    """An observer that sees what a step uses while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self._tensors: dict[int, weakref.ref[Tensor]] = {}
        self._modules: dict[int, Module] = {}
        self._optimizers: dict[int, Optimizer] = {}
        self._names: dict[Backend, str] = {}

    def __enter__(self) -> "Watcher":
        super().__enter__()
        return self

    def begin(self, subject: Any, phase: str) -> None:
        if self.modules:
            self._modules[id(self.modules[0])] = self.modules[0]
        if phase == observer.STEP:
            self._optimizers[id(subject)] = subject

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.FORWARD:
            self._names.setdefault(subject.backend, subject.name)
        if phase == observer.STEP or phase == observer.BACKWARD:
            return
        changed = outputs if phase == observer.UPDATE else ()
        for value in (*inputs, *changed):
            if isinstance(value, Tensor) and value.node is None:
                self._tensors[id(value)] = weakref.ref(value)

    def has_seen(self, tensor: Tensor | None) -> bool:
        """Whether an operation read a tensor, which is still there."""
        seen = self._tensors.get(id(tensor))
        return tensor is not None and seen is not None and seen() is tensor

    def uses(self, before: Uses | None) -> Uses:
        """Return what was used and is still there.

        Args:
            before: the uses of the call before: only tensors that are among them are kept, since others were
                made by the step; None for no such call.
        """
        tensors = [tensor for seen in self._tensors.values() if (tensor := seen()) is not None]
        if before is not None:
            known = {id(tensor) for tensor in before.tensors}
            tensors = [tensor for tensor in tensors if id(tensor) in known]
        modules = {id(m): m for top in self._modules.values() for _, m in top.named_modules()}
        return Uses(tensors, modules.values(), self._optimizers.values(), self._names)
