"""A function that is called with a gradient during the backward pass."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..backend.arrays import Array
from ..backend.ieee import as_user
from ..tensor import Tensor
from .cases import Case, normal
from .operation import Operation


@dataclass(eq=False)
class GradientHook(Operation):
    """y = x: dx = dy. `backward` first calls `hook(dy)`, with the user's settings of `numpy.seterr`."""

    hook: Callable[[Tensor], object]

    view = True

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        as_user(self.hook, dy)
        return (dy,)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(lambda x: cls(lambda dy: None)(x), normal((2, 3)), lambda x: x * 1.0, second_order=False)
