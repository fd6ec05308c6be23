"""Observers of the engine: they are notified of every operation, backward rule and optimizer's step.

As a rule there are none. The cost is then a look at an empty list.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FORWARD, BACKWARD, STEP, UPDATE = "forward", "backward", "step", "update"


class Observer:
    """Is notified of all that runs while it is entered: `with observer: ...`.

    Override `begin`, `end` and `abort`. Operations that these run themselves notify nobody. An observer is
    notified of what runs in the thread that has entered it, and of nothing that other threads run meanwhile.

    Attributes:
        modules: the modules whose forward is running, the innermost last.
        differentiated: the node or the leaf whose gradient is being computed, or summed up; None outside of
            a backward pass.
    """

    follows_updates = True  # else `end` need not be called for updates: running statistics are copied for it

    def __init__(self) -> None:
        self.modules: list[Any] = []
        self.differentiated: Any = None

    def begin(self, subject: Any, phase: str) -> None:
        """An operation's forward or backward begins, or an optimizer's step."""

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """The same has ended, with these tensors in and out.

        A backward has the gradient of the result in, and a gradient (or None) for each input out; a step
        has neither. A backward rule is made of operations, which notify between its begin and its end.
        An update is one of BatchNorm's running statistics, without a begin: (old, the batch's, keep, share)
        in, keep * old + share * batch out.
        """

    def abort(self, subject: Any, phase: str) -> None:
        """The same ends with an exception."""

    def __enter__(self) -> "Observer":
        current().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        current().remove(self)


class _Thread(threading.local):
    """The observers of this thread."""

    def __init__(self) -> None:
        self.observers: list[Observer] = []


_thread = _Thread()


def current() -> list[Observer]:
    """Return the observers that this thread has entered, the innermost last."""
    return _thread.observers


def notify_end(subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
    """Call `end` of every observer."""
    with _muted() as watching:
        for observer in watching:
            observer.end(subject, phase, inputs, outputs)


@contextmanager
def differentiating() -> Iterator[None]:
    """A context that ends with `differentiate(None)`."""
    try:
        yield
    finally:
        differentiate(None)


def differentiate(subject: Any) -> None:
    """Tell every observer which node or leaf a backward pass has come to; None where it ends."""
    for observer in current():
        observer.differentiated = subject


@contextmanager
def notifying(subject: Any, phase: str) -> Iterator[None]:
    """A context that calls `begin` of every observer, and `abort` if it is left by an exception.

    Its end is not yet that of the work for observers: call `notify_end` with the results.
    """
    with _muted() as watching:
        for observer in watching:
            observer.begin(subject, phase)
    try:
        yield
    except BaseException:
        with _muted() as watching:
            for observer in watching:
                observer.abort(subject, phase)
        raise


@contextmanager
def _muted() -> Iterator[list[Observer]]:
    """A context with the observers, in which nobody is notified of what they do."""
    observers = current()
    watching = list(observers)
    observers.clear()
    try:
        yield watching
    finally:
        observers[:] = watching
