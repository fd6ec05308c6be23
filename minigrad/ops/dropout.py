"""Dropout, and its gradient together with that of a leaky ReLU before it."""

from collections.abc import Iterable
from dataclasses import dataclass

from .. import naive
from ..backend.arrays import Array
from ..backend.philox import Counter, Key
from ..tensor import Tensor
from .cases import Case, normal
from .operation import Operation, ResultVersion, check_unchanged


@dataclass(eq=False)
class Dropout(Operation):
    """y = x / (1 - p) with probability 1 - p, 0 otherwise: dx = dy by the same mask.

    A dropped element is 0 even if x, or dy, is infinite or NaN there. (PyTorch multiplies by 0, which gives
    NaN.)

    Which elements are kept follows from the key and the counter alone (`Backend.dropout_mask`).
    """

    p: float
    key: Key
    counter: Counter

    @property
    def scale(self) -> float:
        """The factor of the kept elements."""
        return 1 / (1 - self.p)

    def forward(self, x: Array) -> Array:
        y, self._mask = self.backend.dropout(x, self.p, self.key, self.counter)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (MaskScale(self._mask, self.scale)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        draw = (5, 7), (0, 3, 0, 0)
        for shape, label in (((3, 5), "(N, C)"), ((2, 3, 2, 3), "(N, C, H, W)")):
            yield Case(
                lambda x: cls(0.4, *draw)(x),
                normal(shape),
                lambda x: naive.dropout(x, 0.4, *draw),
                label,
                second_order=False,
            )


@dataclass(eq=False)
class MaskScale(Operation):
    """y = x * scale where the mask is True, 0 elsewhere, whatever x is: linear, and its own transpose."""

    mask: Array
    scale: float

    def forward(self, x: Array) -> Array:
        return self.backend.mask_scale(x, self.mask, self.scale)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (MaskScale(self.mask, self.scale)(dy),)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(x: Tensor) -> Tensor:
            return MaskScale(x.backend.asarray([[True, False, True], [False, True, True]]), 1.25)(x)

        factors = [[1.25, 0.0, 1.25], [0.0, 1.25, 1.25]]
        yield Case(call, normal((2, 3)), lambda x: x * factors, second_order=False)


@dataclass(eq=False)
class LeakyDropoutGradient(Operation):
    """dx = dy * scale where the mask is True, times slope where y is not above 0; 0 elsewhere.

    That is back through a dropout and the leaky ReLU before it: linear in dy, and its own transpose.
    """

    slope: float
    y: Array
    mask: Array
    scale: float
    version: ResultVersion | None = None  # of y, where it is the result of an operation

    def forward(self, dy: Array) -> Array:
        return self.backend.leaky_dropout_backward(dy, self.y, self.mask, self.slope, self.scale)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return (LeakyDropoutGradient(self.slope, self.y, self.mask, self.scale, self.version)(dy),)

    def check_alive(self) -> None:
        super().check_alive()
        check_unchanged(self.name, self.version)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        def call(dy: Tensor) -> Tensor:
            y = dy.backend.asarray([[1.0, -2.0, 0.0], [3.0, -1.0, 0.0]], dy.dtype)
            mask = dy.backend.asarray([[True, True, False], [True, True, True]])
            return LeakyDropoutGradient(0.2, y, mask, 1.25)(dy)

        factors = [[1.25, 0.25, 0.0], [1.25, 0.25, 0.25]]
        yield Case(call, normal((2, 3)), lambda dy: dy * factors, second_order=False)
