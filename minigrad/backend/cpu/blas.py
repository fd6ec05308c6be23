"""BLAS limited to one thread, while our own threads share the work.

threadpoolctl finds the libraries and can limit any of them. But each limit takes 65 us of a training step (7
when nothing else runs: between two large products its code has to be fetched from memory again), and a step
needs seventy of them. So the functions of NumPy's usual library, OpenBLAS with threads of its own, are called
directly.
"""

import ctypes
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from threadpoolctl import ThreadpoolController

from ..forks import Lock


class Library(NamedTuple):
    """The functions that get and set the number of threads of a BLAS."""

    get: Callable[[], int]
    set: Callable[[int], None]


class SingleThreadedBLAS(Lock):
    """A context in which every BLAS of the process has one thread.

    The limit holds for the whole process, so one thread at a time enters it; others wait. It may enter again.
    """

    def __init__(self) -> None:
        self._controller = ThreadpoolController().select(user_api="blas")
        found = [_openblas(info) for info in self._controller.info()]
        self._libraries = [library for library in found if library is not None]
        self._known = len(self._libraries) == len(found)  # all of them
        self._depth = 0
        self._before = [1] * len(self._libraries)
        self._limit: AbstractContextManager[Any] | None = None
        super().__init__(fork_order=1)  # a thread in this context may take memory (2)

    def start_anew(self) -> None:
        """End the limit, in a forked child whose parent had a thread in this context."""
        if self._depth:
            self._depth = 0
            self._put_back()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth > 1:
            return
        try:
            self._hold()
        except BaseException as interrupted:  # Python calls __exit__ only after a whole __enter__
            self.__exit__(type(interrupted), interrupted, None)
            raise

    def __exit__(self, *problem: Any) -> None:
        try:
            if self._depth == 1:
                self._put_back()
        finally:
            self._depth -= 1
            self._lock.release()

    def _hold(self) -> None:
        """Limit each BLAS to one thread."""
        # If this is interrupted before it has changed anything, `_put_back` must not restore earlier numbers.
        self._before, self._limit = [1] * len(self._libraries), None
        if not self._known:
            self._limit = self._controller.limit(limits=1, user_api="blas")
            self._limit.__enter__()
            return
        self._before = [library.get() for library in self._libraries]
        self._set([1] * len(self._before))

    def _put_back(self) -> None:
        """Give each BLAS the number of threads that it had."""
        if self._limit is not None:
            self._limit.__exit__(None, None, None)
            return
        self._set(self._before)

    def _set(self, numbers: list[int]) -> None:
        """Set each library's number of threads, unless it was 1 before and so was not changed."""
        for library, before, number in zip(self._libraries, self._before, numbers, strict=True):
            if before != 1:
                library.set(number)


def _openblas(info: dict[str, Any]) -> Library | None:
    """Return the library that threadpoolctl describes, if it is OpenBLAS with threads of its own."""
    if info["internal_api"] != "openblas" or info.get("threading_layer") != "pthreads":
        return None
    library = ctypes.CDLL(info["filepath"])  # it is loaded already: this is another handle
    # The names differ by build: NumPy's wheels have "scipy_openblas_set_num_threads64_".
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "_64", "")):
        names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
        if all(hasattr(library, name) for name in names):
            return Library(*(getattr(library, name) for name in names))
    return None
