"""Operations that move elements and compute nothing: each one's backward moves them back."""

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..backend.arguments import as_int
from ..backend.arrays import Array, refuse_masked
from ..backend.geometry import pair
from ..tensor import Tensor
from .cases import Case, normal
from .operation import MAKES_ONE, Operation, as_tensor, floating, require_tensor, snapshot

Shape = tuple[int, ...]


@dataclass(eq=False)
class Reshape(Operation):
    """y = x in another shape: dx = dy in x's shape."""

    shape: Shape

    view = True

    def forward(self, x: Array) -> Array:
        return self.backend.reshape(x, self.shape)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (Reshape(self.shapes[0])(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def last(x: Tensor) -> Tensor:
            return transpose(reshape(transpose(x, 0, 3, 1, 2), 2, -1), 1, 0)

        yield Case(
            lambda x: reshape(x, 3, -1), normal((2, 3, 2)), lambda x: x.reshape(3, 4), second_order=False
        )
        yield Case(
            last,
            normal((2, 2, 3, 2)),
            lambda x: x.transpose(0, 3, 1, 2).reshape(2, 12).T,
            "channels innermost",
            second_order=False,
        )


@dataclass(eq=False)
class Transpose(Operation):
    """y = x with its axes permuted: dx = dy permuted back."""

    axes: Shape

    view = True

    def forward(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        inverse = sorted(range(len(self.axes)), key=self.axes.__getitem__)
        return (Transpose(tuple(inverse))(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: transpose(x, 2, 0, 1),
            normal((2, 3, 4)),
            lambda x: x.transpose(2, 0, 1),
            second_order=False,
        )
        yield Case(transpose, normal((2, 3)), lambda x: x.T, "reversed", second_order=False)


@dataclass(eq=False)
class BroadcastTo(Operation):
    """y = x stretched to a shape; the walk sums dy back (backpropagate.py)."""

    shape: Shape

    view = True

    def forward(self, x: Array) -> Array:
        return self.xp.broadcast_to(x, self.shape)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (dy,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: broadcast_to(x, (2, 3, 4)),
            normal((3, 1)),
            lambda x: x + [[[0.0] * 4] * 3] * 2,
            second_order=False,
        )


@dataclass(eq=False)
class GetItem(Operation):
    """y = x[index]: dx is dy at the index and 0 elsewhere."""

    index: Any

    view = True

    def forward(self, x: Array) -> Array:
        return x[self.index]

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (PutItem(self.index, self.shapes[0])(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(lambda x: x[1:, ::-2], normal((3, 4)), lambda x: x[1:, ::-2], second_order=False)
        yield Case(
            lambda x: x[..., None, 1], normal((2, 3)), lambda x: x[:, None, 1], "new axis", second_order=False
        )
        yield Case(
            lambda x: x[[0, 2, 0]],
            normal((3, 2)),
            lambda x: x[[0, 2, 0]],
            "repeated rows",
            second_order=False,
        )


@dataclass(eq=False)
class PutItem(Operation):
    """y = zeros of a shape with x added at the index (twice where it names a place twice)."""

    index: Any
    shape: Shape

    def forward(self, x: Array) -> Array:
        y = self.xp.zeros(self.shape, x.dtype)
        if _is_basic(self.index):
            y[self.index] = x
        else:
            self.xp.add.at(y, self.index, x)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (GetItem(self.index)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: PutItem(slice(1, 3), (4,))(x),
            normal((2,)),
            lambda x: [0.0, x[0], x[1], 0.0],
            second_order=False,
        )
        yield Case(
            lambda x: PutItem([1, 1, 0], (3,))(x),
            normal((3,)),
            lambda x: [x[2], x[0] + x[1], 0.0],
            "repeated",
            second_order=False,
        )


@dataclass(eq=False)
class Concatenate(Operation):
    """y = the inputs one after another along an axis: each gets its own part of dy."""

    axis: int

    def forward(self, *arrays: Array) -> Array:
        return self.backend.concatenate(arrays, self.axis)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        gradients: list[Tensor | None] = []
        start = 0
        for shape, needed in zip(self.shapes, self.needs, strict=True):
            stop = start + shape[self.axis]
            part = (slice(None),) * self.axis + (slice(start, stop),)
            gradients.append(dy[part] if needed else None)
            start = stop
        return tuple(gradients)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda a, b: concatenate([a, b], axis=1),
            normal((2, 1), (2, 3)),
            lambda a, b: [[*a[0], *b[0]], [*a[1], *b[1]]],
            second_order=False,
        )
        yield Case(
            lambda a, b: stack([a, b], axis=-1),
            normal((2,), (2,)),
            lambda a, b: [[a[0], b[0]], [a[1], b[1]]],
            "stack",
            second_order=False,
        )


@dataclass(eq=False)
class Pad(Operation):
    """y = x with a border of a constant: dx = dy without the border."""

    widths: tuple[tuple[int, int], ...]
    value: float

    def forward(self, x: Array) -> Array:
        return self.xp.pad(x, self.widths, constant_values=self.value)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        inside = zip(self.widths, self.shapes[0], strict=True)
        return (dy[tuple(slice(before, before + n) for (before, _), n in inside)],)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: pad(x, ((0, 1), (2, 0)), 7.0),
            normal((1, 1)),
            lambda x: [[7.0, 7.0, x[0, 0]], [7.0] * 3],
            second_order=False,
        )


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """x in another shape, given as ints or as one tuple; one of them may be -1, for what is left."""
    require_tensor("reshape", x)
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    wanted = whole_numbers("reshape", given)
    if min(wanted, default=0) < -1:
        raise ValueError(f"reshape: expected sizes of 0 or more, and -1 once at the most, got {wanted}")
    try:
        return Reshape(_whole(wanted, x.size))(x)
    except ValueError:
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fit {wanted}") from None


def whole_numbers(name: str, values: Iterable[Any]) -> Shape:
    """Return integers, Python's or NumPy's, as Python ints. Raises TypeError for anything else."""
    values = tuple(values)
    found = [n for value in values if (n := as_int(value)) is not None]
    if len(found) < len(values):
        raise TypeError(f"{name}: expected ints, got {values!r:.80}")
    return tuple(found)


def _whole(shape: Shape, size: int) -> Shape:
    """The shape with the size that its -1 stands for, where there is one."""
    known = math.prod(n for n in shape if n != -1)
    if shape.count(-1) != 1 or not known or size % known:
        return shape  # for NumPy to refuse, if it must be
    return tuple(size // known if n == -1 else n for n in shape)


def transpose(x: Tensor, *axes: Any) -> Tensor:
    """x with its axes in the order `axes` (ints, or one tuple); reversed without any."""
    require_tensor("transpose", x)
    given = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
    order = whole_numbers("transpose", given) or tuple(reversed(range(x.ndim)))
    in_range = all(-x.ndim <= a < x.ndim for a in order)
    if not in_range or sorted(a % x.ndim for a in order) != list(range(x.ndim)):
        raise ValueError(f"transpose: expected a permutation of {x.ndim} axes, got {order}")
    return Transpose(tuple(a % x.ndim for a in order))(x)


def broadcast_to(x: Tensor, shape: Shape) -> Tensor:
    """x stretched to `shape`, a tuple of ints, along axes of length 1 and new ones in front."""
    require_tensor("broadcast_to", x)
    wanted = whole_numbers("broadcast_to", shape)
    try:
        if min(wanted, default=0) < 0:  # CuPy would take it
            raise ValueError
        return BroadcastTo(wanted)(x)
    except ValueError:
        raise ValueError(
            f"broadcast_to: a tensor of shape {x.shape} can't be stretched to {wanted}"
        ) from None


def get_item(x: Tensor, index: Any) -> Tensor:
    """x[index], as NumPy's: ints, slices, None, ..., integer or boolean arrays or tensors."""
    require_tensor("get_item", x)
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        refuse_masked(part, "get_item")
    parts = tuple(_index_part(p, x) for p in parts)
    return GetItem(parts if isinstance(index, tuple) else parts[0])(x)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors one after another along an axis; all other sizes must agree."""
    _require_list("concatenate", tensors)
    (axis,) = whole_numbers("concatenate", (axis,))
    first = tensors[0]
    if not -first.ndim <= axis < first.ndim:
        raise ValueError(f"concatenate: axis {axis} does not fit tensors of {first.ndim} axes")
    axis %= first.ndim
    for t in tensors:
        if t.ndim != first.ndim or any(
            i != axis and n != m for i, (n, m) in enumerate(zip(t.shape, first.shape, strict=True))
        ):
            raise ValueError(f"concatenate: shapes {first.shape} and {t.shape} differ besides axis {axis}")
    return Concatenate(axis)(*tensors)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The tensors, of one shape, along a new axis."""
    _require_list("stack", tensors)
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ValueError(f"stack: expected tensors of one shape, got {[t.shape for t in tensors]}")
    (axis,) = whole_numbers("stack", (axis,))
    shape = tensors[0].shape
    if not -len(shape) - 1 <= axis <= len(shape):
        raise ValueError(f"stack: axis {axis} does not fit tensors of {len(shape)} axes")
    axis %= len(shape) + 1
    return concatenate([t.reshape((*shape[:axis], 1, *shape[axis:])) for t in tensors], axis)


def _require_list(name: str, tensors: Any) -> None:
    listed = isinstance(tensors, Sequence) and len(tensors) and all(isinstance(t, Tensor) for t in tensors)
    if not listed:
        raise TypeError(f"{name}: expected a list of tensors, got {tensors!r:.80}: {MAKES_ONE}")


def pad(x: Tensor, widths: Sequence[tuple[int, int]], value: float = 0) -> Tensor:
    """x with a border: (before, after) for each axis, filled with `value`.

    Integers with a border of a float become float32.
    """
    require_tensor("pad", x)
    try:
        given = widths.tolist() if hasattr(widths, "tolist") else widths
        pairs = tuple(pair(width, "pad", 0) for width in given)
    except (TypeError, ValueError):
        pairs = ()
    if len(pairs) != x.ndim:
        raise ValueError(f"pad: expected {x.ndim} pairs (before, after) of ints >= 0, got {widths!r}")
    filling = as_tensor(value, x, "pad")
    if isinstance(filling, Tensor):
        raise TypeError(f"pad: expected a number as value, got a tensor of shape {filling.shape}")
    return Pad(pairs, filling)(floating(x) if isinstance(filling, float) else x)


def _index_part(part: Any, x: Tensor) -> Any:
    """One part of an index of x: an array instead of a tensor, and one that nobody will change."""
    if isinstance(part, list):
        return copy.deepcopy(part)
    if isinstance(part, Tensor):
        return snapshot(part.data, x)
    if getattr(part, "ndim", None) == 0 and not x.backend.owns(part):
        return part.item()  # NumPy's scalars count as Python's
    return snapshot(part, x) if hasattr(part, "ndim") else part


def _is_basic(index: Any) -> bool:
    """Whether an index names no place twice by its kind alone: ints, slices, None and ... ."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, int | slice) for p in parts)
