"""Flatten and Reshape: the same numbers in another shape."""

import numpy as np

from ...nn import Flatten, Module, Reshape
from ...tensor import Tensor
from .checks import check
from .registry import Opened, Steps, explains, host


@explains(Flatten)
def flatten(layer: Flatten, x: Tensor, dy: Tensor, seed: int) -> Opened:
    return _opened(layer, x, dy)


@explains(Reshape)
def reshape(layer: Reshape, x: Tensor, dy: Tensor, seed: int) -> Opened:
    return _opened(layer, x, dy)


def _opened(layer: Module, x: Tensor, dy: Tensor) -> Opened:
    backend = x.backend
    forward, backward = Steps(backend), Steps(backend)
    y, dx = x.data.reshape(dy.shape), dy.data.reshape(x.shape)
    seen = backend.xp.may_share_memory(y, x.data)
    memory = (
        "nothing is copied" if seen else
        "x is copied, since in memory its numbers lie in another order (the channels innermost)"
    )  # fmt: skip
    forward.take(
        "shape", "y",
        f"the {x.size:,} numbers of x {x.shape} in the same order as {dy.shape}; {memory}",
        y,
    )  # fmt: skip
    backward.take("shape", "dx", f"dy's numbers in x's shape {x.shape}", dx)
    same = [
        check(symbol, "number by number", steps[-1].values.reshape(-1), _in_turn(host(backend, source.data)))
        for symbol, steps, source in (("y", forward, x), ("dx", backward, dy))
    ]
    loop = (
        f"for k, m in zip(ndindex{x.shape}, ndindex{dy.shape}):  # both begin at 0, ..., 0\n"
        "    y[m] = x[k]\n    dx[k] = dy[m]"
    )
    return Opened(forward, backward, {"x": dx}, loop=loop, checks=tuple(same))


def _in_turn(values: np.ndarray) -> np.ndarray:
    """The numbers one after another, the last axis running first."""
    return np.array([values[k] for k in np.ndindex(values.shape)])
