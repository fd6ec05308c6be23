"""Watching the engine at work: who is told of every operation, layer and optimiser's step.

As a rule nobody watches, and all that costs is a look at an empty list.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FORWARD, BACKWARD, STEP, UPDATE = "forward", "backward", "step", "update"


class Observer:
    """Is told of all that runs while it is entered: `with observer: ...`.

    Training runs in one thread, and so does what is told; what other threads do meanwhile may be missed.

    Override `begin` and `end`. What they do themselves is not told to anybody.

    Attributes:
        modules: the modules whose forward is running, the innermost last.
    """

    def __init__(self) -> None:
        self.modules: list[Any] = []

    def begin(self, subject: Any, phase: str) -> None:
        """An operation's forward or backward begins, or an optimizer's step."""

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        """The same has ended, with these tensors in and out.

        A backward has the gradient of the result in, and a gradient (or None) for each input out; a step
        has neither. A backward rule is made of operations, which are told between its begin and its end.
        An update is one of BatchNorm's running statistics, without a begin: (old, the batch's, keep, share)
        in, keep * old + share * batch out.
        """

    def abort(self, subject: Any, phase: str) -> None:
        """The same ends with an exception."""

    def __enter__(self) -> "Observer":
        observers.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        observers.remove(self)


observers: list[Observer] = []


def begin(subject: Any, phase: str) -> None:
    """Tell all who watch."""
    with _quiet() as watching:
        for observer in watching:
            observer.begin(subject, phase)


def end(subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
    """Tell all who watch."""
    with _quiet() as watching:
        for observer in watching:
            observer.end(subject, phase, inputs, outputs)


@contextmanager
def told(subject: Any, phase: str) -> Iterator[None]:
    """Tell of the begin, and of an exception; the end, with what came out, is told by `end`."""
    begin(subject, phase)
    try:
        yield
    except BaseException:
        with _quiet() as watching:
            for observer in watching:
                observer.abort(subject, phase)
        raise


@contextmanager
def _quiet() -> Iterator[list[Observer]]:
    """Those who watch; meanwhile nobody is told what they do."""
    watching = list(observers)
    observers.clear()
    try:
        yield watching
    finally:
        observers[:] = watching
