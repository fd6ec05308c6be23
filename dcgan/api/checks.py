"""Checks of the arguments that a program gives."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad.backend.arrays import refuse_masked

from ..errors import UserError

MOST = 2**63 - 1


def whole(name: str, value: Any, least: int, most: int = MOST) -> int:
    """Return a value as an int. Raises UserError unless it is a whole number from `least` to `most`."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and least <= value <= most:
        return int(value)
    limits = f"of at least {least}" if most == MOST else f"from {least} to {most}"
    raise UserError(f"{name}={value!r:.40}: expected an integer {limits}")


def number(name: str, value: Any) -> float:
    """Return a value as a float. Raises UserError unless it is a number."""
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return float(value)
    raise UserError(f"{name}={value!r:.40}: expected a number")


def path(name: str, value: Any) -> Path:
    """Return a value as a path, "~" as the home directory. Raises UserError if it is none."""
    if isinstance(value, str | os.PathLike) and not isinstance(os.fspath(value), bytes):
        return Path(value).expanduser()
    raise UserError(
        f"{name}={value!r:.40}: expected a path, a str or os.PathLike, got {type(value).__name__}"
    )


def array(name: str, value: Any) -> NDArray[Any]:
    """Return a value as an array: of NumPy's, lists, tensors, and whatever turns into one.

    Raises UserError for lists of several lengths, masked arrays, and whatever does not.
    """
    try:
        refuse_masked(value)
        return value.numpy() if isinstance(value, mg.Tensor) else np.asarray(value)
    except Exception as error:  # other arrays may raise anything, such as those on a GPU
        raise UserError(
            f"{name}: {type(value).__name__} is no array of one shape ({error!s:.200})"
        ) from error


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise UserError unless a value is one of the choices."""
    if value not in choices:
        raise UserError(f"{name}={value!r:.40}: expected one of {', '.join(choices)}")
