"""Reductions along axes: sums, means, variances and largest values."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import naive
from ..backend.arrays import Array
from ..tensor import Tensor
from .cases import Case, normal
from .elementwise import Where
from .operation import Operation, require_float, require_tensor
from .shape import broadcast_to, whole_numbers

Axes = tuple[int, ...]


def normalize_axes(axis: Any, ndim: int, name: str) -> Axes:
    """None, an int or several as sorted non-negative axes.

    Raises ValueError for an axis that is not there, or is there twice, and TypeError for anything but ints.
    """
    several = isinstance(axis, Iterable) and getattr(axis, "ndim", 1) != 0  # an array without axes is one
    given = range(ndim) if axis is None else whole_numbers(name, axis if several else (axis,))
    if not all(-ndim <= a < ndim for a in given) or len({a % ndim for a in given}) != len(given):
        raise ValueError(f"{name}: axis {axis!r} does not fit a tensor of {ndim} axes")
    return tuple(sorted(a % ndim for a in given))


def kept_shape(shape: tuple[int, ...], axes: Axes) -> tuple[int, ...]:
    """`shape` with 1 for each of `axes`: what a reduction with keepdims leaves."""
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


@dataclass(eq=False)
class Sum(Operation):
    """y = the sum of x along axes: dx = dy, the same for all that were summed.

    float32 is added up in float64 and rounded at the end, so that only the result can overflow.
    """

    axes: Axes
    keepdims: bool
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return self.backend.sum(x, self.axes, self.keepdims)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (broadcast_to(dy.reshape(kept_shape(self.shape, self.axes)), self.shape),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(sum_, normal((3, 4)), second_order=False)
        yield Case(
            lambda x: sum_(x, (0, -1)),
            normal((2, 3, 4)),
            lambda x: x.sum((0, 2)),
            "two axes",
            second_order=False,
        )
        yield Case(
            lambda x: sum_(x, 1, keepdims=True),
            normal((2, 3)),
            lambda x: x.sum(1, keepdims=True),
            "keepdims",
            second_order=False,
        )


@dataclass(eq=False)
class Mean(Operation):
    """y = the mean of x along axes, n values each: dx = dy / n, the same for all of them.

    It is the sum of `Sum`, rounded, over n.
    """

    axes: Axes
    keepdims: bool
    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return self.backend.mean(x, self.axes, self.keepdims)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        share = dy / _count(self.shape, self.axes, "mean")
        return (broadcast_to(share.reshape(kept_shape(self.shape, self.axes)), self.shape),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(mean, normal((3, 4)), lambda x: naive.sum(x) / 12, second_order=False)
        yield Case(
            lambda x: mean(x, (0, -1), keepdims=True),
            normal((2, 3, 4)),
            lambda x: x.sum((0, 2), keepdims=True) / 8,
            "two axes, keepdims",
            second_order=False,
        )


@dataclass(eq=False)
class Max(Operation):
    """y = the largest of x along axes: dy goes to it; those that tie for it share it equally.

    NaN counts as the largest, so that the result is NaN; several NaN share dy, as in PyTorch's `max`.
    """

    axes: Axes
    keepdims: bool
    keep_inputs = True
    keep_output = True

    def forward(self, x: Array) -> Array:
        return x.max(axis=self.axes, keepdims=self.keepdims)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x = self.inputs[0].data
        shape = kept_shape(x.shape, self.axes)
        largest = self.xp.logical_or(x == self._output.reshape(shape), x != x)
        count = largest.sum(axis=self.axes, keepdims=True).astype(x.dtype)
        return (Where(largest)(dy.reshape(shape) / Tensor(count, backend=self.backend), 0.0),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(max_, normal((3, 4)), second_order=False)
        yield Case(
            lambda x: max_(x, 1), normal((2, 3, 2)), lambda x: x.max(1), "one axis", second_order=False
        )


def sum_(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The sum along `axis`: None (all), an int or several."""
    require_tensor("sum", x)
    return Sum(normalize_axes(axis, x.ndim, "sum"), keepdims, x.shape)(x)


def mean(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The mean along `axis`: None (all), an int or several. It is infinite where the sum overflows."""
    require_float("mean", x)
    axes = normalize_axes(axis, x.ndim, "mean")
    _count(x.shape, axes, "mean")
    return Mean(axes, keepdims, x.shape)(x)


def var(x: Tensor, axis: Any = None, keepdims: bool = False, correction: float = 0) -> Tensor:
    """The mean of (x - mean)^2 along `axis`, with `correction` taken off the divisor.

    `correction` 0 is the variance of the values themselves, 1 the unbiased estimate. An infinite value makes
    the variance NaN, and the gradients of all values too. The variance is infinite where the sum of the
    squares overflows, from values of about 1e19 on in float32.
    """
    require_float("var", x)
    axes = normalize_axes(axis, x.ndim, "var")
    count = _count(x.shape, axes, "var")
    if count <= correction:
        raise ValueError(f"var: {count} values leave nothing to divide by with correction={correction}")
    centred = x - mean(x, axes, keepdims=True)
    return sum_(centred * centred, axes, keepdims) / (count - correction)


def max_(x: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The largest value along `axis`: None (all), an int or several.

    NaN counts as the largest; those that tie share the gradient.
    """
    require_tensor("max", x)
    axes = normalize_axes(axis, x.ndim, "max")
    _count(x.shape, axes, "max")
    return Max(axes, keepdims)(x)


def _count(shape: tuple[int, ...], axes: Axes, name: str) -> int:
    """Return the number of values that go into each result; ValueError if there are none."""
    count = 1
    for axis in axes:
        count *= shape[axis]
    if not count:
        raise ValueError(f"{name}: no values along axes {axes} of shape {shape}")
    return count
