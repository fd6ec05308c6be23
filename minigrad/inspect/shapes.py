"""The check of an input's shape."""

from collections.abc import Sequence
from typing import Any

from ..backend.arguments import as_int


def is_shape(given: Any) -> bool:
    """Whether it is a sequence of whole numbers from 1 on."""
    return isinstance(given, Sequence) and all((as_int(n) or 0) > 0 for n in given)
