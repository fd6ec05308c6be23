"""One layer opened up on real numbers: its steps forward and back, and the plain loop that they equal.

- `explanation.py`: the steps, the checks, and their text; `look.py`: a look at an array.
- `registry.py`: who explains which layer; how to add one.
- `dense.py`, `convolution.py`, `norm.py`, `activation.py`, `dropout.py`, `shape.py`, `sequential.py`: the
  layers.
- `engine.py`: the engine's own pass, that they are compared with; `checks.py`: how; `opening.py`: both
  together.
"""

from typing import Any

from ... import random
from ...nn import Module

# Each registers its layers.
from . import activation, convolution, dense, dropout, norm, sequential, shape  # noqa: F401
from .engine import given
from .explanation import Check, Explanation, Step
from .opening import opened
from .registry import Opened, Steps, explainer_of, explains

__all__ = ["Check", "Explanation", "Opened", "Step", "Steps", "explain", "explains"]


def explain(layer: Module, x: Any, *, grad: Any = None, seed: int = 0) -> Explanation:
    """Explain what a layer computes on x, step by step, forward and back; `str()` gives all of it as text.

    The steps are the backend's own primitives in their plain form (`minigrad/backend/base.py` and
    `convolution.py`): im2col, product and col2im of a convolution, the statistics of a BatchNorm. What comes
    out is compared on the spot with the layer's own forward and backward, whatever form the engine picks for
    these sizes, and with plain loops over single numbers (`minigrad/naive.py`), for as many numbers as stay
    quick.

    Nothing is changed: the layer works as a copy, without hooks, in the mode that it is in, and the engine's
    random state is put back. A Dropout shows the draws that its next call will make.

    Args:
        layer: one of minigrad.nn; of a `Sequential` each layer is explained on what comes in there, and
            the whole is compared as well.
        x: what the layer takes: a Tensor, or an array or lists, which are moved to where the layer is, in
            its dtype.
        grad: dy, the gradient of the result, of its shape; by default standard normal numbers.
        seed: of those, and of which numbers the loops compute.

    Raises TypeError for a layer that no steps are known of (`explains` adds them), for an `x` or a
    `grad` that is not of real numbers, ValueError for a `grad` of another shape, for numbers that are not
    finite in the layer's dtype, and for a seed below 0, and what the layer's forward raises where x does
    not fit. With TensorFloat-32 allowed products are so much coarser that the checks say so.
    """
    explainer_of(layer)
    state = random.get_state()
    try:
        return opened(layer, given(layer, x), grad, seed)
    finally:
        random.set_state(state)
