"""The arguments and results of a captured step, which lie at places of their own."""

import copy
from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from .backend.arrays import Array
from .backend.tape import ALIGNMENT, CaptureError
from .tensor import Tensor


class Joined:
    """The tensors in a result, side by side in one block of memory: they are copied by one call.

    Raises CaptureError for a tensor that requires a gradient, and for those of a device without graphs.

    Attributes:
        block: the memory, uint8 (bytes,); None for no tensors.
    """

    def __init__(self, result: Any) -> None:
        self._result, tensors = result, list(_tensors_in(result))
        # Of each tensor: the first byte, the one after the last, the dtype and the shape.
        self._forms: list[tuple[int, int, Any, tuple[int, ...]]] = []
        size = 0
        for tensor in tensors:
            if tensor.requires_grad:
                raise CaptureError(_refused("result", tensor))
            self._forms.append((size, size + tensor.data.nbytes, tensor.dtype, tensor.shape))
            size += -(-tensor.data.nbytes // ALIGNMENT) * ALIGNMENT
        self.block: Array | None = None
        if not tensors:
            return
        self._backend = tensors[0].backend
        if any(tensor.backend is not self._backend or not self._backend.has_graphs for tensor in tensors):
            raise CaptureError("expected results on the device of the graph: call .to() on them afterwards")
        self.block = self._backend.xp.empty(size, "uint8")
        for tensor, part in zip(tensors, self._parts(self.block), strict=True):
            part[...] = tensor.data

    def _parts(self, block: Array) -> list[Array]:
        """Return the arrays of the tensors in a block."""
        return [
            block[start:stop].view(dtype).reshape(shape)  # (shape)
            for start, stop, dtype, shape in self._forms
        ]

    def parted(self, block: Array | None) -> Any:
        """Return the result with its tensors in a copy of `block`."""
        if block is None:
            return self._result
        parts = iter(self._parts(block))
        return _mapped(lambda _: Tensor(next(parts), backend=self._backend), self._result)


def kind_of(value: Any) -> Hashable:
    """Return all of an argument that a capture depends on. Raises TypeError if it is not hashable."""
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.device, value.data.strides, value.requires_grad
    try:
        hash(value)
    except TypeError:
        raise _no_argument(value) from None
    if isinstance(value, tuple | frozenset) and any(isinstance(v, Tensor) for v in value):
        raise _no_argument(value)
    if isinstance(value, tuple):
        return type(value), tuple([kind_of(part) for part in value])  # (1,) == (True,)
    return type(value), value


def _no_argument(value: Any) -> TypeError:
    return TypeError(
        f"capture: expected tensors and hashable values as arguments, got {type(value).__name__}: pass its "
        "tensors one by one, or let the step hold it"
    )


def own_argument(value: Any) -> Any:
    """Return a copy of a tensor, into which later ones are copied; all else as it is."""
    if not isinstance(value, Tensor):
        return value
    if value.requires_grad:
        raise CaptureError(f"capture: {_refused('argument', value)}")
    return Tensor(value.backend.copy(value.data), backend=value.backend)  # in its memory order


def _refused(what: str, tensor: Tensor) -> str:
    """Return the message about an argument or a result that requires a gradient."""
    return (
        f"expected no {what} that requires a gradient, got one of shape {tensor.shape}: call backward in the "
        "step, and detach() what goes in or out"
    )


def _tensors_in(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in a result, in the order of `_mapped`."""
    found: list[Tensor] = []
    _mapped(found.append, value)
    return iter(found)


def _mapped(change: Callable[[Tensor], Any], value: Any) -> Any:
    """Return a result with each tensor in it changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(change, part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        parts = [_mapped(change, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)  # a named tuple
    if is_dataclass(value) and not isinstance(value, type):
        made = copy.copy(value)
        for field in fields(value):
            object.__setattr__(made, field.name, _mapped(change, getattr(value, field.name)))
        return made
    return value
