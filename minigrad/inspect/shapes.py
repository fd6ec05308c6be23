"""What can be the shape of an input."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def is_shape(given: Any) -> bool:
    """Whether it is a sequence of whole numbers from 1 on."""
    return isinstance(given, Sequence) and all(isinstance(n, int | np.integer) and n > 0 for n in given)
