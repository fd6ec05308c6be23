"""Tensors that are copied, pickled, and sent to other processes."""

from typing import TYPE_CHECKING, Any

from . import backend as backends
from .backend import Backend
from .backend.arrays import Array
from .version_counter import VersionCounter


class Copies:
    """The methods that `copy` and `pickle` call; a base of `Tensor`."""

    __slots__ = ()

    if TYPE_CHECKING:
        backend: Any
        data: Any
        grad: Any
        node: Any
        version_counter: VersionCounter
        device: Any
        requires_grad: Any

        @classmethod
        def bare(cls, array: Array, backend: Backend, requires_grad: bool = False) -> Any: ...
        def numpy(self) -> Array: ...

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a leaf: its class, values, device, `requires_grad` and `grad`.

        The unpickled tensor has memory of its own, on a device of the same name. Raises RuntimeError for a
        computed tensor.
        """
        if self.node is not None:
            raise RuntimeError("pickle: this tensor was computed, and its graph is not pickled: detach() it")
        made = type(self), self.numpy(), self.device, self.requires_grad
        return _unpickled, made, self.grad, None, None, _set_grad

    def __copy__(self) -> Any:
        """Return another tensor over the same memory, with the same place in the graph."""
        copied = self.bare(self.data, self.backend, self.requires_grad and self.node is None)
        copied.node, copied.version_counter, copied.grad = self.node, self.version_counter, self.grad
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a leaf with a copy of the values, without `grad`. RuntimeError for a computed one."""
        if self.node is not None:
            raise RuntimeError("deepcopy: this tensor was computed, and its graph is not copied: detach() it")
        copied = self.bare(self.backend.copy(self.data), self.backend, self.requires_grad)
        memo[id(self)] = copied
        return copied


def _unpickled(cls: type[Copies], values: Array, device: str, requires_grad: bool) -> Any:
    # A copy: the array that pickle gives may be read-only, over the bytes of the pickle.
    backend = backends.get(device)
    return cls.bare(backend.asarray(values.copy()), backend, requires_grad)


def _set_grad(tensor: Any, gradient: Any) -> None:
    tensor.grad = gradient
