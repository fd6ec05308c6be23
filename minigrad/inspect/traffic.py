"""The bytes that an operation must move between memory and processor."""

from typing import Any

from .. import observer
from ..optim import Optimizer
from ..tensor import Tensor


def moved(subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> int:
    """Return the bytes of an operation, of whose end an observer is notified: each array once.

    These are its inputs and its results. A backward also reads what its node kept. Whatever an operation
    writes and reads again meanwhile, such as the columns of a convolution, is not counted: so this is the
    least that must be moved. A view moves nothing. An optimizer reads a parameter, its gradient and its
    state, and writes all but the gradient.
    """
    if phase == observer.STEP:
        return _of_optimizer(subject) if isinstance(subject, Optimizer) else 0
    if getattr(subject, "view", False):
        return 0
    kept: list[Any] = []
    if phase == observer.BACKWARD:
        kept += subject.inputs if getattr(subject, "keep_inputs", False) else ()
        kept += [subject.output] if getattr(subject, "keep_output", False) else ()
    return sum(t.data.nbytes for t in (*inputs, *kept, *outputs) if isinstance(t, Tensor))


def _of_optimizer(optimizer: Optimizer) -> int:
    moving = [p.data.nbytes for p in optimizer.params if p.grad is not None]
    return sum(moving) * (3 + 2 * len(optimizer.slots))
