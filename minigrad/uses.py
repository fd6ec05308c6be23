"""The tensors, modules and optimizers that a step works on: whether a captured one still holds."""

import threading
import weakref
from collections.abc import Callable, Iterable
from operator import is_
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
        self._names = names or {}
        self._modules = [(module, dict(vars(module))) for module in modules]
        held = [value for _, values in self._modules for value in values.values()]
        found = [*tensors, *(value for value in held if isinstance(value, Tensor))]
        self.tensors = list({id(tensor): tensor for tensor in found}.values())
        self.leaves = [tensor for tensor in self.tensors if tensor.requires_grad]
        self._memory = [(tensor, tensor.data, tensor.requires_grad) for tensor in self.tensors]
        self._optimizers = [(each, _arrays_of(each), each.fixed_values()) for each in optimizers]

    def includes(self, backend: Backend) -> bool:
        """Whether an operation ran on a backend."""
        return backend in self._names

    def modes(self) -> tuple[bool, ...]:
        """Return whether each module is in training mode."""
        return tuple([module.training for module, _ in self._modules])

    def have_hooks(self) -> bool:
        """Whether a module has a hook: a function of Python's, which a replay would not call."""
        return any(module.forward_hooks or module.backward_hooks for module, _ in self._modules)

    def are_unchanged(self) -> bool:
        """Whether everything is what it was: tensors in their memory, and all that modules hold."""
        return (
            all(tensor.data is array and tensor.requires_grad is r for tensor, array, r in self._memory)
            and all(_same(vars(module), values) for module, values in self._modules)
            and all(
                all(map(is_, _arrays_of(o), arrays)) and o.fixed_values() == values
                for o, arrays, values in self._optimizers
            )
        )

    def restore(self) -> None:
        """Give the modules back all that they held, and the tensors their memory."""
        for module, values in self._modules:
            vars(module).clear()
            vars(module).update(values)
        for tensor, array, _ in self._memory:
            if tensor.data is not array:
                tensor.data = array

    def check_unchanged(self) -> None:
        """Raise CaptureError if the step has replaced something."""
        if not self.are_unchanged():
            raise CaptureError(
                "the step gives a parameter, a buffer or an optimizer's state other memory, or a module "
                "another attribute or mode, which the next replay would not see: change tensors in place, as "
                "by `x -= y` under no_grad(), and leave modules as they are"
            )

    def check_optimizers(self) -> None:
        """Raise CaptureError if an optimizer's rule may read numbers of the step."""
        for optimizer, _, _ in self._optimizers:
            if optimizer.replayed is None:
                name = type(optimizer).__name__
                raise CaptureError(
                    f"capture: {name}: its rule may read `steps` or a rate, which would stay those of the "
                    f"capture: read them by `from_host`, and name rates in `{name}.replayed` (() for none)"
                )

    def check_device(self, backend: Backend) -> None:
        """Raise CaptureError if an operation ran on another backend."""
        for other, name in self._names.items():
            if other is not backend:
                raise CaptureError(
                    f"capture: {name} runs on {other.device!r}, which has no graphs, while the rest is on "
                    f"{backend.device!r}: move all of the step to one device"
                )


def _same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Return whether two modules' attributes are the same objects, in the same order."""
    return len(a) == len(b) and all(map(is_, a.values(), b.values()))


def _arrays_of(optimizer: Optimizer) -> list[Any]:
    """Return the arrays of an optimizer's state."""
    return [array for state in optimizer.state for array in state.values()]


class Watcher(observer.Observer):
    """An observer that sees what this thread's step uses while it is entered.

    Args:
        check: is called with each tensor that an operation reads and that no operation has recorded, and with
            the gradients that an optimizer reads; None for nobody.
    """

    def __init__(self, check: Callable[[Tensor], None] | None = None) -> None:
        super().__init__()
        self.follows_updates = check is None  # else a capture would have copies of running statistics in it
        self._check, self._thread = check, threading.get_ident()
        self._tensors: dict[int, weakref.ref[Tensor]] = {}
        self._modules: dict[int, Module] = {}
        self._optimizers: dict[int, Optimizer] = {}
        self._names: dict[Backend, str] = {}

    def __enter__(self) -> "Watcher":
        super().__enter__()
        return self

    def begin(self, subject: Any, phase: str) -> None:
        if threading.get_ident() != self._thread:
            return
        if self.modules:
            self._modules[id(self.modules[0])] = self.modules[0]
        if phase == observer.STEP:
            self._optimizers[id(subject)] = subject
            for parameter in subject.params:
                if parameter.grad is not None:
                    self._see(parameter.grad)

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase in (observer.STEP, observer.BACKWARD) or threading.get_ident() != self._thread:
            return
        if phase == observer.FORWARD:
            self._names.setdefault(subject.backend, subject.name)
        for value in inputs:
            if isinstance(value, Tensor) and value.node is None:
                self._see(value)

    def _see(self, tensor: Tensor) -> None:
        if self._check is not None:
            self._check(tensor)
        self._tensors[id(tensor)] = weakref.ref(tensor)

    def has_seen(self, tensor: Tensor | None) -> bool:
        """Whether an operation or an optimizer read a tensor, which is still there."""
        seen = self._tensors.get(id(tensor))
        return tensor is not None and seen is not None and seen() is tensor

    def uses(self, before: Uses | None, further: Iterable[Module]) -> Uses:
        """Return all that was used and is still there.

        Args:
            before: the uses of the call before: only tensors that are among them are kept, since others were
                made by the step; None for no such call.
            further: modules that the step works on without running them.
        """
        tensors = [tensor for seen in self._tensors.values() if (tensor := seen()) is not None]
        if before is not None:
            known = {id(tensor) for tensor in before.tensors}
            tensors = [tensor for tensor in tensors if id(tensor) in known]
        tops = [*self._modules.values(), *further]
        modules = {id(module): module for top in tops for _, module in top.named_modules()}
        return Uses(tensors, modules.values(), self._optimizers.values(), self._names)
