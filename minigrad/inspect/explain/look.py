"""A look at an array, in text: its size, its range, and some of its numbers."""

from typing import Any

import numpy as np

from ...tables import table

Host = np.ndarray[Any, Any]
CORNER = (4, 6)  # rows and columns that are shown of a large array
WHOLE = (9, 9)  # an array that is one matrix of at most so many is shown whole


def summary_of(values: Host) -> str:
    """The shape, the dtype, and the least, largest and mean number; of a mask, how many are True."""
    start = f"{values.shape} {values.dtype}"
    if not values.size:
        return f"{start}: no numbers"
    if values.dtype == bool:
        return f"{start}: {np.count_nonzero(values):,} of {values.size:,} are True"
    with np.errstate(all="ignore"):  # what is no finite number is shown as it is
        mean = values.mean(dtype=np.float64)
    return f"{start}: {number(values.min())} to {number(values.max())}, mean {number(mean)}"


def look(values: Host) -> list[str]:
    """Some of the numbers, as lines: all of one small matrix, else a corner.

    Of more than two axes the last two are shown, at the first place of the others. A corner of zeros says
    nothing (padding does that): there it is a part from the middle.
    """
    if not values.size:
        return []
    plane = values[(0,) * max(values.ndim - 2, 0)]
    plane = plane.reshape((1, -1) if plane.ndim < 2 else plane.shape)  # a vector is one row
    whole = plane.size == values.size and all(n <= most for n, most in zip(plane.shape, WHOLE, strict=True))
    rows, across = plane.shape if whole else CORNER
    top = left = 0
    if not plane[:rows, :across].any():
        top, left = (max(0, (n - size) // 2) for n, size in zip(plane.shape, (rows, across), strict=True))
    shown = plane[top : top + rows, left : left + across]
    cells = [[number(v) for v in row] for row in shown]
    if left + shown.shape[1] < plane.shape[1]:
        cells = [[*row, "..."] for row in cells]
    lines = table(cells, ">").splitlines()
    if top + shown.shape[0] < plane.shape[0]:
        lines.append("...")
    place = ["0"] * (values.ndim - 2) + [f"{top}:" if top else ":", f"{left}:" if left else ":"]
    if plane.size < values.size or top or left:
        lines.insert(0, f"[{', '.join(place[-values.ndim :])}]")
    return lines


def number(value: Any) -> str:
    """A number in four digits; True and False as 1 and 0; a whole number as it is; -0 as 0."""
    return f"{value + 0:.4g}" if isinstance(value, np.floating) else str(int(value))
