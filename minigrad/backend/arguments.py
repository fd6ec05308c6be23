"""Conversions of arguments: sizes, seeds and rates to Python's numbers, dtypes to their names."""

import math
import numbers
import operator
from typing import Any

import numpy as np


def as_int(value: Any) -> int | None:
    """Return an integer, Python's or NumPy's, as a Python int; None for anything else, booleans too.

    Arguments are written to JSON and shown by `repr`, where a NumPy integer would fail or look different.
    """
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def as_float(value: object) -> float:
    """Return a real number, Python's or NumPy's, as a Python float; for anything else NaN."""
    return float(value) if isinstance(value, numbers.Real) else math.nan


def float_type(dtype: Any, name: str) -> str:
    """Return "float32" or "float64", whichever `dtype` is; "float32" for None, which is float64 to NumPy.

    Raises TypeError for anything else. `name` is of the function or the layer, for the message.
    """
    if dtype is None:
        return "float32"
    try:
        found = str(np.dtype(dtype))
    except TypeError:
        found = ""
    if found not in ("float32", "float64"):
        raise TypeError(f"{name}: expected dtype 'float32' or 'float64', got {dtype!r:.80}")
    return found
