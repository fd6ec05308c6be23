"""Checks of what an optimizer is given: parameters, hyperparameters, a state to load."""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from .. import backend as backends
from ..backend.arrays import Array, refuse_masked
from ..nn import Module
from ..tensor import Tensor


def number(what: str, value: Any) -> float:
    """Return a hyperparameter as a finite float: `value` is a number of Python's or NumPy's, or a 0-d array.

    Raises TypeError for anything else, and ValueError for NaN and infinities.
    """
    simple = plain(value, ())
    if isinstance(simple, bool) or not isinstance(simple, numbers.Real):
        remedy = ": give its .item()" if isinstance(value, Tensor) else ""
        raise TypeError(f"{what}: expected a number, got {shown(value)}{remedy}")
    try:
        found = float(simple)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{what}: expected a finite number, got {found:g}")
    return found


def pair(what: str, value: Any) -> tuple[float, float]:
    """Return a hyperparameter as two floats. Raises TypeError or ValueError where it is anything else."""
    simple = plain(value, (2,))
    if not isinstance(simple, tuple | list) or len(simple) != 2:
        name, _, what = what.partition(": ")
        raise ValueError(f"{name}: expected two {what}, such as (0.9, 0.999), got {shown(value)}")
    return number(what, simple[0]), number(what, simple[1])


def flag(what: str, value: Any) -> bool:
    """Return a hyperparameter as a bool. Raises TypeError for anything but True and False."""
    simple = plain(value, ())
    if not isinstance(simple, bool):
        raise TypeError(f"{what}: expected True or False, got {shown(value)}")
    return simple


def plain(value: Any, shape: tuple[int, ...]) -> Any:
    """Return an array of this shape (a NumPy number has ()) as Python's numbers, and all else as it is."""
    is_array = not isinstance(value, Tensor) and hasattr(value, "tolist")
    return value.tolist() if is_array and getattr(value, "shape", None) == shape else value


def shown(value: Any) -> str:
    """Return a wrong value for a message: itself where it is short, else its type."""
    short = value is None or isinstance(value, bool | str | numbers.Number)
    return f"{value!r:.60}" if short else type(value).__name__


def parameters(name: str, params: Any) -> list[Tensor]:
    """Return the parameters that an optimizer is given. Raises TypeError or ValueError if they are none."""
    remedies = {
        Tensor: ": put it into a list",
        Module: ": give its parameters()",
        Mapping: ": give its values()",
    }
    remedy = next((text for kind, text in remedies.items() if isinstance(params, kind)), "")
    if remedy or not isinstance(params, Iterable):
        raise TypeError(
            f"{name}: expected an iterable of parameters, got one {type(params).__name__}{remedy}"
        )
    found = list(params)
    if not found:
        raise ValueError(
            f"{name}: no parameters given: the list is empty, or an iterator that was used before"
        )
    for i, p in enumerate(found):
        wrong = _no_parameter(p)
        if wrong:
            raise ValueError(f"{name}: expected tensors that require a gradient, got {wrong} at {i}")
    if len({id(p) for p in found}) != len(found):
        raise ValueError(f"{name}: a parameter is given twice")
    return found


def _no_parameter(p: Any) -> str:
    """Return what something is that can't be learned, with the remedy; "" for a parameter."""
    if isinstance(p, Tensor):
        if p.node is not None:
            return "one that was computed (detach() cuts it off)"
        return (
            ""
            if p.requires_grad
            else "one that requires none (leave frozen ones out: [p for p in params if p.requires_grad])"
        )
    remedies = {
        Module: " (give its parameters())",
        tuple: " (give parameters(), not named_parameters())",
        Mapping: " (groups of parameters need an optimizer each)",
    }
    remedy = next((text for kind, text in remedies.items() if isinstance(p, kind)), "")
    return type(p).__name__ + remedy


def copied(what: str, value: Any, p: Tensor) -> Array:
    """Return a state array of the parameter p, copied to its device. Raises ValueError if it does not fit.

    Raises TypeError for a masked array.
    """
    refuse_masked(value, what)
    source = backends.backend_of(value)
    if source is None:
        raise ValueError(f"{what}: expected {p.dtype} of shape {p.shape}, got {shown(value)}")
    if tuple(value.shape) != p.shape or value.dtype != p.dtype:
        raise ValueError(
            f"{what}: expected {p.dtype} of shape {p.shape}, got {value.dtype} of {tuple(value.shape)}"
        )
    return p.backend.copy(p.backend.asarray(source.to_numpy(value)))


def counts(where: str, steps: Any, parameters: int) -> list[int]:
    """Return the counts of steps, one for each parameter. Raises ValueError if `steps` is anything else."""
    found = plain(steps, (parameters,))
    if not isinstance(found, tuple | list):
        raise ValueError(f"{where}: steps: expected a list of {parameters} integers, got {shown(steps)}")
    if len(found) != parameters:
        raise ValueError(f"{where}: {len(found)} steps, {parameters} parameters")
    found = [plain(n, ()) for n in found]
    if not all(type(n) is int and 0 <= n < 2**63 for n in found):
        raise ValueError(f"{where}: steps: expected integers of at least 0, got {found!s:.60}")
    return found
