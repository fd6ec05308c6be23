"""Tensors that are copied, pickled, and sent to other processes."""

from typing import TYPE_CHECKING, Any

from . import backend as backends
from .backend.base import Array


class Copies:
    """The protocols that `copy` and `pickle` ask for; `Tensor` has them."""

    __slots__ = ()

    if TYPE_CHECKING:
        data: Any
        grad: Any
        node: Any
        changes: list[int]
        device: Any
        requires_grad: Any

        @classmethod
        def bare(cls, array: Array, requires_grad: bool = False) -> Any: ...
        def numpy(self) -> Array: ...

    def __reduce__(self) -> tuple[Any, ...]:
        """A tensor is pickled as a leaf: its class, values, device, `requires_grad` and `grad`.

        What is read has memory of its own, on a device of the same name. Raises RuntimeError for a tensor
        that was computed.
        """
        if self.node is not None:
            raise RuntimeError("pickle: this tensor was computed, and its graph is not pickled: detach() it")
        made = type(self), self.numpy(), self.device, self.requires_grad
        return _unpickled, made, self.grad, None, None, _set_grad

    def __copy__(self) -> Any:
        """Another tensor over the same memory, with the same place in the graph."""
        copied = self.bare(self.data, self.requires_grad and self.node is None)
        copied.node, copied.changes, copied.grad = self.node, self.changes, self.grad
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """A leaf of its own with the same values; the backend is not copied."""
        if self.node is not None:
            raise RuntimeError("deepcopy: this tensor was computed, and its graph is not copied: detach() it")
        copied = self.bare(self.data.copy(), self.requires_grad)
        memo[id(self)] = copied
        return copied


def _unpickled(cls: type[Copies], values: Array, device: str, requires_grad: bool) -> Any:
    # A copy: what NumPy has read may be read-only, or lie in bytes of the pickle.
    return cls.bare(backends.get(device).asarray(values.copy()), requires_grad)


def _set_grad(tensor: Any, gradient: Any) -> None:
    tensor.grad = gradient
