"""Work in threads that share a bounded number of pixels."""

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Condition
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
IN_FLIGHT = 2**25  # pixels that all threads together hold at once, at 4 to 12 bytes each


class Budget:
    """A weighted semaphore: threads take pixels from it and wait until enough are free.

    Args:
        pixels: how many can be taken at once. Whoever asks for more gets all of them, alone.
    """

    def __init__(self, pixels: int = IN_FLIGHT) -> None:
        self._total = self._free = pixels
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Hold so many pixels for the duration of a `with`. Raise CancelledError if the budget is closed."""
        pixels = min(pixels, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or pixels <= self._free)
            if self._closed:
                raise CancelledError
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()

    def close(self) -> None:
        """Turn away all who wait now or later; those who hold pixels finish."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def in_threads(
    work: Callable[[Item, Budget], Result], items: Sequence[Item], workers: int
) -> Generator[Result, None, None]:
    """Yield `work(item, budget)` for each item in turn, computed by `workers` threads that share a budget.

    If the caller stops early (Ctrl-C, an error, `close`), only the work that holds pixels is waited for.
    """
    budget = Budget()
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from pool.map(lambda item: work(item, budget), items)
        finally:
            budget.close()
            pool.shutdown(cancel_futures=True)
