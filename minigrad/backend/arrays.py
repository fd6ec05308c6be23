"""Arrays as all backends have them: their type, their dtypes, the order of the axes of a batch.

Arrays are NCHW to the caller. In memory the channels may lie innermost (a transposed view).
"""

from typing import Any

import numpy as np

Array = Any  # a NumPy array, or another backend's: the engine only ever hands it to its backend
FLOAT_TYPES = np.dtype("float32"), np.dtype("float64")  # to compare names takes ten times as long


def channels_last(x: Array) -> Array:
    """(N, C, H, W) seen as (N, H, W, C); no copy."""
    return x.transpose(0, 2, 3, 1)


def channels_first(x: Array) -> Array:
    """(N, H, W, C) seen as (N, C, H, W); no copy."""
    return x.transpose(0, 3, 1, 2)


def per_channel(vector: Array, ndim: int) -> Array:
    """(C,) seen as (1, C) or (1, C, 1, 1), to broadcast against a batch of `ndim` axes; no copy."""
    return vector.reshape((1, -1) + (1,) * (ndim - 2))


def on_host(numbers: object) -> Array:
    """Return numbers as a NumPy array in C order; no copy of one. Raises ValueError for ragged lists."""
    return np.asarray(numbers, order="C")


def refuse_masked(data: object, name: str = "") -> None:
    """Raise TypeError for a masked array of NumPy, whose mask the engine would ignore.

    `name` is of the function or the argument, for the message.
    """
    if isinstance(data, np.ma.MaskedArray):
        raise TypeError(
            f"{name}{name and ': '}expected an array without a mask, got a MaskedArray: replace its masked "
            "elements with .filled(value)"
        )
