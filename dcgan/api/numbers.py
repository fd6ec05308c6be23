"""Whole numbers that a program gives."""

from typing import Any

import numpy as np

from ..errors import UserError

MOST = 2**63 - 1


def whole(name: str, value: Any, least: int, most: int = MOST) -> int:
    """Return a value as an int. Raises UserError unless it is a whole number from `least` to `most`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    limits = f"of at least {least}" if most == MOST else f"from {least} to {most}"
    raise UserError(f"{name}={value!r:.40}: expected an integer {limits}")
