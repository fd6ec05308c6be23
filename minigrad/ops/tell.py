"""Looking at a gradient on its way back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..backend.arrays import Array
from ..backend.ieee import as_user
from ..tensor import Tensor
from .elementwise import normal
from .operation import Case, Operation


@dataclass(eq=False)
class Tell(Operation):
    """y = x: dx = dy, of which `tell` is told; NumPy's error state is the user's there."""

    tell: Callable[[Tensor], object]

    view = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(lambda x: cls(lambda dy: None)(x), normal((2, 3)), lambda x: x * 1.0, second_order=False)

    def forward(self, x: Array) -> Array:
        return x

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        as_user(self.tell, dy)
        return (dy,)
