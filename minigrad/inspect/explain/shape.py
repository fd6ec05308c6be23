"""Flatten and Reshape: the same numbers in another shape."""

import math

import numpy as np

from ...nn import Flatten, Reshape
from ...tensor import Tensor
from .checks import check, chosen, where
from .explanation import Check
from .registry import Opened, Steps, explains, host

PRODUCTS_PER_NUMBER = 10  # that looking one number up counts as


@explains(Flatten)
def flatten(layer: Flatten, x: Tensor, dy: Tensor, seed: int) -> Opened:
    return _opened(x, dy, seed)


@explains(Reshape)
def reshape(layer: Reshape, x: Tensor, dy: Tensor, seed: int) -> Opened:
    return _opened(x, dy, seed)


def _opened(x: Tensor, dy: Tensor, seed: int) -> Opened:
    backend = x.backend
    forward, backward = Steps(backend), Steps(backend)
    y, dx = x.data.reshape(dy.shape), dy.data.reshape(x.shape)
    seen = backend.xp.may_share_memory(y, x.data)
    memory = (
        "nothing is copied"
        if seen
        else "x is copied, since in memory its numbers lie in another order (the channels innermost)"
    )
    forward.take(
        "shape",
        "y",
        f"the {x.size:,} numbers of x {x.shape} in the same order as {dy.shape}{_rule(x.shape, dy.shape)}; "
        f"{memory}",
        y,
    )
    backward.take("shape", "dx", f"dy's numbers in x's shape {x.shape}", dx)
    checks = (_compared("y", forward, x, seed), _compared("dx", backward, dy, seed))
    loop = (
        f"for k, m in zip(ndindex{x.shape}, ndindex{dy.shape}):  # both begin at 0, ..., 0\n"
        "    y[m] = x[k]\n    dx[k] = dy[m]"
    )
    return Opened(forward, backward, {"x": dx}, loop=loop, checks=checks)


def _rule(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Return the rule for the places of an item's numbers in a row."""
    if len(before) == 2 < len(after):
        return f": number k of row n becomes y[n, {_place(after)}]"
    if len(after) == 2 < len(before):
        return f": x[n, {_place(before)}] becomes number k of row n"
    return ""


def _place(shape: tuple[int, ...]) -> str:
    """The place of number k in an item of a batch of this shape."""
    terms = []
    for axis in range(1, len(shape)):
        step = math.prod(shape[axis + 1 :])
        whole = "k" if step == 1 else f"k // {step}"
        terms.append(whole if axis == 1 else f"{whole} % {shape[axis]}")
    return ", ".join(terms)


def _compared(symbol: str, steps: Steps, source: Tensor, seed: int) -> Check:
    """The last step against the numbers of `source` in turn, the last axis running first."""
    made, values = steps[-1].values.reshape(-1), host(source.backend, source.data)
    few = chosen(made.size, PRODUCTS_PER_NUMBER, seed)
    expected = np.array([values[np.unravel_index(k, values.shape)] for k in few])
    return check(symbol, where(len(few), made.size), made[few], expected)
