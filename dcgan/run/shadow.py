"""Training with every operation done again on another device, to find the first whose result differs."""

from collections.abc import Iterator
from contextlib import contextmanager

from minigrad.inspect import TOLERANCE, Shadow

from ..console import tell
from .learner import Learner

TF32_TOLERANCE = {**TOLERANCE, "float32": 1e-2}  # products of factors with 10 bits of mantissa


@contextmanager
def shadowed(learner: Learner, device: str, tf32: bool) -> Iterator[None]:
    """Do each operation within the context again on `device`, and tell how well they agreed at its end.

    Args:
        tf32: whether the factors of products are rounded to TensorFloat-32.

    Raises ShadowError at the first result that differs.
    """
    networks = learner.networks
    if learner.average is not None:
        networks["average of the generator"] = learner.average.average
    shadow = Shadow(networks, device, TF32_TOLERANCE if tf32 else TOLERANCE)
    with shadow:
        yield
    tell(
        f"shadow: {shadow.checked} results of {learner.done} steps agree with the {device.upper()}'s; the "
        f"largest error is {shadow.worst:.2g}"
    )
