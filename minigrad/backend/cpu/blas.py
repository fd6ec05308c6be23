"""BLAS held to one thread, while our own threads share the work.

threadpoolctl finds the libraries and can limit any of them. But its Python takes 65 us of a training step
each time (7 where it is all that runs: between two large products it has to come from memory again), and a
step has seventy such times. So NumPy's usual library, OpenBLAS with threads of its own, is told directly.
"""

import ctypes
import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from threadpoolctl import ThreadpoolController

from ..forks import Lock


class Library(NamedTuple):
    """The number of threads of a BLAS: what gives it and what sets it."""

    get: Callable[[], int]
    set: Callable[[int], None]


class SingleThreadedBLAS(Lock):
    """A context in which every BLAS of the process has one thread.

    The limit is the whole process's, so one thread at a time comes in: others wait. It may come in again.
    """

    def __init__(self) -> None:
        self._controller = ThreadpoolController().select(user_api="blas")
        found = [_openblas(info) for info in self._controller.info()]
        self._libraries = [library for library in found if library is not None]
        self._known = len(self._libraries) == len(found)  # all of them
        self._depth = 0
        self._before = [1] * len(self._libraries)
        self._limit: AbstractContextManager[Any] | None = None
        super().__init__(fork_order=1)  # who is in may take memory (2)

    def start_anew(self) -> None:
        """In a child whose parent has a thread that is in: BLAS gets its threads back."""
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
        except BaseException as interrupted:  # Python leaves a context only where it came in
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
        """Take all threads but one away."""
        # Where it is interrupted before it has done anything, nothing of an earlier time is to be put back.
        self._before, self._limit = [1] * len(self._libraries), None
        if not self._known:
            self._limit = self._controller.limit(limits=1, user_api="blas")
            self._limit.__enter__()
            return
        self._before = [library.get() for library in self._libraries]
        self._set([1] * len(self._before))

    def _put_back(self) -> None:
        """Give BLAS the threads that it had."""
        if self._limit is not None:
            self._limit.__exit__(None, None, None)
            return
        self._set(self._before)

    def _set(self, numbers: list[int]) -> None:
        """Each library's number of threads, where it is another."""
        for library, before, number in zip(self._libraries, self._before, numbers, strict=True):
            if before != 1:
                library.set(number)


def _openblas(info: dict[str, Any]) -> Library | None:
    """The library of which threadpoolctl tells, if it is OpenBLAS with threads of its own."""
    if info["internal_api"] != "openblas" or info.get("threading_layer") != "pthreads":
        return None
    library = ctypes.CDLL(info["filepath"])  # it is loaded: this is another handle of it
    # Builds of it differ in their names: NumPy's wheels have "scipy_openblas_set_num_threads64_".
    for prefix, suffix in itertools.product(("scipy_", ""), ("64_", "_64", "")):
        names = [f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set")]
        if all(hasattr(library, name) for name in names):
            return Library(*(getattr(library, name) for name in names))
    return None
