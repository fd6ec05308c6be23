"""Measuring a device's work: the time between two moments of it, and the most memory that it held."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np


class Timer:
    """Moments in a device's work, and the time between them. This one reads the host's clock.

    Attributes:
        runs_later: whether the device may reach a mark after the call has returned.
    """

    runs_later = False

    def mark(self) -> Any:
        """Return a mark of this moment, behind all work that the device has been given so far.

        Waits for nothing.
        """
        return time.perf_counter()

    def seconds(self, begin: Any, end: Any) -> float:
        """Return the time from one mark to a later one. Waits until the device has reached both."""
        return float(end - begin)


class Peak:
    """The most memory of a device that was in use at once.

    Attributes:
        bytes: so far; None where nobody counts them.
    """

    bytes: int | None = None


class Measuring:
    """The part of a backend that measures; as it stands here, on a device whose calls return when they are
    done.
    """

    device: str

    def synchronize(self) -> None:
        """Wait until the device has done all that it was given."""

    def timer(self) -> Timer:
        """Return a timer of this device's work."""
        return Timer()

    def memory_peak(self) -> AbstractContextManager[Peak]:
        """Return a context that counts the memory in use, of all that is allocated within it."""
        return _uncounted()

    def release_memory(self) -> None:
        """Give memory that is kept for new arrays back to the system."""

    def describe(self) -> str:
        """Return the name of the device, and the versions of what runs it."""
        return f"{self.device}, NumPy {np.__version__}"


@contextmanager
def _uncounted() -> Iterator[Peak]:
    yield Peak()
