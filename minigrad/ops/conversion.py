"""Conversion to another dtype or device: each one's backward converts back."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .. import backend as backends
from ..backend.arrays import Array
from ..backend.base import Backend
from ..backend.ieee import ieee
from ..tensor import FLOATS, Tensor
from .cases import Case, normal
from .operation import Operation, require_tensor


@dataclass(eq=False)
class Cast(Operation):
    """y = x in another dtype: dx = dy in x's dtype."""

    dtype: Any

    def forward(self, x: Array) -> Array:
        self.source = x.dtype
        return x.astype(self.dtype)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (Cast(self.source)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(lambda x: cls("float64")(x), normal((2, 3)), lambda x: x * 1.0, second_order=False)


@dataclass(eq=False)
class ToDevice(Operation):
    """y = x on another device: dx = dy brought back."""

    source: Backend
    target: Backend

    view = True

    @property
    def result_backend(self) -> Backend:
        return self.target

    def forward(self, x: Array) -> Array:
        moved = self.target.asarray(self.source.to_numpy(x))
        shared = moved is x and self.target is not self.source  # two devices of NumPy arrays
        return self.target.copy(moved) if shared else moved

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (ToDevice(self.target, self.source)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(
            lambda x: ToDevice(x.backend, x.backend)(x), normal((2, 3)), lambda x: x * 1.0, second_order=False
        )


@ieee()
def to(x: Tensor, target: Any) -> Tensor:
    """x on another device ("cpu", "gpu") or in another dtype ("float32", "float64"); None is float32.

    Numbers too large for float32 become infinite. NaN, and numbers too large for an integer type, become some
    integer, which depends on the device.
    """
    require_tensor("to", x)
    target = "float32" if target is None else target  # NumPy's dtype(None) is float64
    if target in backends.known():
        return ToDevice(x.backend, backends.get(target))(x)
    try:
        dtype = x.backend.xp.dtype(target)
    except TypeError:
        dtype = None
    if dtype is None or (dtype.kind not in "iub" and str(dtype) not in FLOATS):
        raise ValueError(
            f"to: expected a device ({', '.join(backends.known())}) or a dtype (float32, float64, integers, "
            f"bool), got {target!r}"
        )
    if x.dtype == dtype:
        return x
    if str(dtype) not in FLOATS:
        return Tensor(x.data.astype(dtype), backend=x.backend)  # no gradient goes through integers
    return Cast(dtype)(x)
