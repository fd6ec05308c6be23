"""NumPy's floating-point errors, which the engine ignores.

An operation gives the results of IEEE 754: infinity, NaN, 0 or a subnormal number. What a user has NumPy do
about them (`numpy.seterr`) is meant for the user's own computations: it would make an error of every sigmoid
that underflows to 0. `minigrad.inspect.detect_anomaly` finds the first value that is not finite.
"""

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")


class _Thread(threading.local):
    users: Any = None  # the user's error state, while the engine ignores errors throughout


_thread = _Thread()


def ieee() -> np.errstate:
    """Return a context, also a decorator, in which NumPy ignores these errors: no exception, no warning.

    It holds for one thread, and costs a microsecond.
    """
    return np.errstate(all="ignore")


def throughout(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function that runs many operations: errors are ignored in all of it, by one context.

    `is_ignoring` tells an operation that it needs no context of its own.
    """

    @functools.wraps(function)
    def ignoring(*args: P.args, **kwargs: P.kwargs) -> R:
        if _thread.users is not None:
            return function(*args, **kwargs)
        _thread.users = np.geterr()
        try:
            with ieee():
                return function(*args, **kwargs)
        finally:
            _thread.users = None

    return ignoring


def is_ignoring() -> bool:
    """Whether this thread is in a function that `throughout` decorates."""
    return _thread.users is not None


def as_user(function: Callable[..., Any], *args: Any) -> None:
    """Call a function of the user's under the error state that the user has set."""
    users, _thread.users = _thread.users, None
    try:
        with np.errstate(**(users or {})):
            function(*args)
    finally:
        _thread.users = users
