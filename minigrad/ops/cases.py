"""The examples that operations are checked on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..tensor import Tensor

Inputs = Callable[[Any], tuple[Any, ...]]  # makes arrays from a numpy.random.Generator


@dataclass(frozen=True)
class Case:
    """One example that the checks of an operation run on.

    Args:
        call: the public function, called with the inputs as tensors.
        inputs: makes the input arrays, in float64.
        reference: the same function over plain NumPy arrays, by means that share nothing with the
            operation; by default the function of the operation's name in `minigrad.naive`.
        label: what is special about the case.
        second_order: False where the second derivative is zero everywhere.
    """

    call: Callable[..., Tensor]
    inputs: Inputs
    reference: Callable[..., Any] | None = None
    label: str = ""
    second_order: bool = True


def normal(*shapes: tuple[int, ...]) -> Inputs:
    """Inputs of these shapes from N(0, 1)."""
    return lambda rng: tuple(rng.normal(size=shape) for shape in shapes)


def positive(*shapes: tuple[int, ...]) -> Inputs:
    """Inputs of these shapes from U(0.5, 2)."""
    return lambda rng: tuple(rng.uniform(0.5, 2.0, size=shape) for shape in shapes)
