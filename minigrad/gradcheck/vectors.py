"""Lists of arrays as one long vector."""

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def inner(a: list[Array], b: list[Array]) -> float:
    """The sum of the products of all elements."""
    return math.fsum(float((x * y).sum()) for x, y in zip(a, b, strict=True))


def norm(arrays: list[Array]) -> float:
    """The root of the sum of all squares."""
    return math.sqrt(inner(arrays, arrays))


def halves(direction: list[Array]) -> tuple[list[Array], list[Array]] | None:
    """The direction split in two by its elements that are not 0; None where there is only one."""
    flat = np.concatenate([u.reshape(-1) for u in direction]) if direction else np.zeros(0)
    places = np.flatnonzero(flat)
    if len(places) < 2:
        return None
    parts = []
    for chosen in (places[: len(places) // 2], places[len(places) // 2 :]):
        kept = np.zeros_like(flat)
        kept[chosen] = flat[chosen]
        ends = np.cumsum([u.size for u in direction])[:-1]
        parts.append([p.reshape(u.shape) for p, u in zip(np.split(kept, ends), direction, strict=True)])
    return parts[0], parts[1]
