"""A pool of threads over slices of the batch, for NumPy's forms.

NumPy releases the GIL in products, copies and element-wise loops. So Python's threads, each with a slice of
the batch, keep all cores busy, and a slice's intermediate results stay in its core's cache. BLAS is limited
to one thread meanwhile.

How work is cut depends on its size alone, not on the number of threads: results are the same bits on any
number of threads.
"""

import contextlib
import functools
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import Any

import numpy as np

from ..environment import BadEnvironment
from ..forks import AtFork
from ..ieee import ieee
from .blas import SingleThreadedBLAS

MAX_SLICE_BYTES = 1 << 21  # of one slice's intermediate results, so that they stay in the processor's cache
MIN_SLICE_BYTES = 1 << 20  # that are worth handing to another thread
MAX_CACHED_BYTES = 64 << 20  # bytes of scratch memory that one thread caches under one name
MAX_THREADS = 1024  # more would find no slices: only very large work is cut into so many
TARGET_SLICES = 8  # of smaller work, if they are not too small
PATIENCE = 0.5  # seconds between two looks whether this process was forked

Waiting = deque[Callable[[], None]]


def available_threads() -> int:
    """Return MINIGRAD_NUM_THREADS if it is set, else the number of cores that this process may use.

    Raises BadEnvironment if the variable is no integer from 1 to MAX_THREADS.
    """
    text = os.environ.get("MINIGRAD_NUM_THREADS")
    if text is None:
        # The cores that this process may run on, which in a container can be fewer than there are.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(cores, MAX_THREADS)
    try:
        threads = int(text) if text.isascii() and text.isdecimal() else 0
    except ValueError:  # thousands of digits
        threads = 0
    if not 1 <= threads <= MAX_THREADS:
        raise BadEnvironment(
            f"MINIGRAD_NUM_THREADS={text!r:.40}: expected an integer from 1 to {MAX_THREADS}"
        )
    return threads


def cut(count: int, bytes_each: int, most: int = MAX_SLICE_BYTES) -> list[slice]:
    """Return slices that cover range(count), where each item makes `bytes_each` of intermediate results.

    A slice makes at most `most` bytes, if it has more than one item. Small work is cut into fewer slices,
    down to one. Their number is a power of two, so that two or four threads share them evenly, and depends on
    the arguments alone.
    """
    total = count * bytes_each
    if total < 2 * MIN_SLICE_BYTES:
        return [slice(0, count)]
    return even(count, max(-(-total // most), min(TARGET_SLICES, total // MIN_SLICE_BYTES), 1))


def even(count: int, pieces: int) -> list[slice]:
    """Return slices of about equal size that cover range(count): `pieces`, rounded up to a power of two."""
    pieces = min(1 << (pieces - 1).bit_length(), max(count, 1))
    bounds = [count * i // pieces for i in range(pieces + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


class Pool(AtFork):
    """Threads that work through slices. The caller's thread is one of them.

    The others are started when there is work for them. If the system can't start as many, those that were
    started do the work, and `threads` becomes their number.

    `with pool.single_threaded_blas:` limits BLAS to one thread, so that a product's sums do not depend on the
    number of cores. One thread at a time enters it.

    Args:
        threads: their number.
        resized: called with each number of threads that is set, the first too.
    """

    def __init__(self, threads: int, resized: Callable[[int], None] = lambda threads: None) -> None:
        self.single_threaded_blas = SingleThreadedBLAS()
        self._resized = resized
        self._set(threads)
        self.call_at_fork()

    def _set(self, threads: int) -> None:
        self.threads = threads
        self._helpers = ThreadPoolExecutor(max(threads - 1, 1), "minigrad")
        self._resized(threads)

    def after_fork(self, in_child: bool) -> None:
        """In a child, forget the parent's helpers, which do not exist there."""
        if in_child:
            self._helpers = ThreadPoolExecutor(max(self.threads - 1, 1), "minigrad")

    def resize(self, threads: int) -> None:
        """Use `threads` threads from now on."""
        self._helpers.shutdown()
        self._set(threads)

    def run(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        """Call `work` with every slice. An exception in any of the calls is raised here.

        No more slices are begun after an exception. `run_products` is the same for work that multiplies
        matrices.
        """
        waiting: Waiting = deque(functools.partial(work, s) for s in slices)
        helping: list[Future[None]] = []
        process = os.getpid()
        try:
            _work_off(self._call_helpers(waiting, min(self.threads, len(slices)) - 1, helping))
            _wait(helping, process)
        finally:
            waiting.clear()  # so that nobody begins anything after an exception
            helping.clear()  # an exception refers to this frame, and would be referred to by it

    def _call_helpers(self, waiting: Waiting, count: int, helping: "list[Future[None]]") -> Waiting:
        """Let helpers make calls that wait, and return those that are left to the caller.

        If the system can't start so many helpers, the caller makes all calls: the executor has kept the last
        request, and a helper that is free later may take it.
        """
        try:
            for _ in range(count):
                helping.append(self._helpers.submit(_work_off, waiting))
        except RuntimeError:
            self.threads = len(helping) + 1
            left: Waiting = deque()
            with contextlib.suppress(IndexError):
                while True:  # one by one: helpers take calls too
                    left.append(waiting.popleft())
            return left
        return waiting

    def run_products(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        """Do `run` with BLAS limited to one thread, which takes a few microseconds."""
        with self.single_threaded_blas:
            self.run(work, slices)


@ieee()  # a thread has an error state of its own
def _work_off(waiting: Waiting) -> None:
    """Make the calls that wait, until none is left or one fails."""
    try:
        while True:
            try:
                call = waiting.popleft()  # no two threads get the same one
            except IndexError:
                return
            call()
    except BaseException:
        waiting.clear()
        raise


def _wait(helping: "list[Future[None]]", process: int) -> None:
    """Wait for helpers, unless they have not begun, and raise the exception that one met.

    A signal's handler may fork in the middle of a computation, and return in the child, where there is no
    helper that could end it: RuntimeError is raised there.
    """
    while helping:
        if helping[-1].cancel():
            helping.pop()
            continue
        while not wait(helping[-1:], PATIENCE).done:
            if os.getpid() != process:
                raise RuntimeError(
                    "the process was forked in the middle of this computation, which other threads of the "
                    "parent shared: compute it again"
                )
        helping.pop().result()


class Scratch(threading.local):
    """Arrays that a thread uses again: a new large array costs as much as filling it."""

    def __init__(self) -> None:
        self._buffers: dict[str, np.ndarray[Any, Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return this thread's array of a name, with arbitrary values. There is one for each name.

        Above MAX_CACHED_BYTES the array is a new one each time, and is not kept.
        """
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size > MAX_CACHED_BYTES:
            return np.empty(shape, dtype)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return np.ndarray(shape, dtype, buffer)
