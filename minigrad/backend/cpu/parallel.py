"""A pool of threads over slices of the batch, for NumPy's forms.

NumPy releases the GIL in products, copies and element-wise loops. So Python's threads, each with a slice of
the batch, keep all cores busy, and a slice's intermediate results stay in its core's cache. BLAS is limited
to one thread meanwhile.

How work is cut depends on its size alone, not on the number of threads: results are the same bits on any
number of threads.
"""

import contextlib
import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from queue import SimpleQueue
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


def steps(s: slice, size: int) -> Iterator[slice]:
    """Yield slices of `size` that cover `s`; the last may be smaller."""
    for start in range(s.start, s.stop, size):
        yield slice(start, min(start + size, s.stop))


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
        self.threads = threads
        self._resized = resized
        resized(threads)
        self.single_threaded_blas = SingleThreadedBLAS()
        self._helpers: list[threading.Thread] = []
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._shared: list[Job] = []  # those that are being worked off
        self.call_at_fork()

    def after_fork(self, in_child: bool) -> None:
        """In a child, forget the parent's helpers, which do not exist there."""
        if not in_child:
            return
        self._helpers, self._jobs = [], SimpleQueue()
        for job in self._shared:
            job.abandon()
        self._shared = []

    def resize(self, threads: int) -> None:
        """Use `threads` threads from now on."""
        for _ in self._helpers:
            self._jobs.put(None)
        for helper in self._helpers:
            helper.join()
        self._helpers, self.threads = [], threads
        self._resized(threads)

    def run(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        """Call `work` with every slice. An exception in any of the calls is raised here.

        `work` must not call `run` itself: it would wait for its own thread. `run_products` is the same for
        work that multiplies matrices.
        """
        if self.threads > 1 and len(slices) > 1:
            self._share(work, slices)
            return
        for s in slices:
            work(s)

    def run_products(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        """Do `run` with BLAS limited to one thread, which takes a few microseconds."""
        with self.single_threaded_blas:
            self.run(work, slices)

    def _start_helpers(self, most: int) -> None:
        """Start helpers until there are `most`, or as many as the system can start."""
        while len(self._helpers) < min(self.threads - 1, most):
            helper = threading.Thread(target=_help, args=(self._jobs,), name="minigrad", daemon=True)
            self._helpers.append(helper)
            try:
                helper.start()
            except RuntimeError:  # the system has no room for it
                self._helpers.remove(helper)
                self.threads = len(self._helpers) + 1

    def _share(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        """Share the work with helpers. At the end only slices that were taken are waited for, not helpers."""
        self._start_helpers(len(slices) - 1)
        job = Job(work, slices)
        self._shared.append(job)
        try:
            for _ in range(min(self.threads, len(slices)) - 1):
                self._jobs.put(job)
            job.work_off()
            job.wait()
        except BaseException as interrupted:  # between slices
            job.give_up(interrupted)
        finally:
            with contextlib.suppress(ValueError):  # of a child that was forked meanwhile
                self._shared.remove(job)
        if job.problem is not None:
            problem, job.problem = job.problem, None
            try:
                raise problem
            finally:  # its traceback leads here: the arrays of the work would stay until garbage is collected
                del problem, job, work, slices


class Job:
    """Slices that several threads work off together.

    Attributes:
        problem: the first exception, if there was any; the slices that are left are dropped then.
    """

    def __init__(self, work: Callable[[slice], None], slices: Sequence[slice]) -> None:
        self.problem: BaseException | None = None
        self._work = work
        self._waiting = deque(slices)
        self._left = len(slices)  # to be done
        self._counting, self._gate = threading.Lock(), threading.Lock()
        self._gate.acquire()  # until all slices are done

    def work_off(self) -> None:
        """Take slices and do them, until none is left."""
        while (s := self.take()) is not None:
            try:
                if self.problem is None:
                    self._work(s)
            except BaseException as problem:
                self.problem = self.problem or problem
            self.count()

    def take(self) -> slice | None:
        """Return the next slice, or None if none is left. No two threads get the same one."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def count(self) -> None:
        """Count a slice as done."""
        with self._counting:
            self._left -= 1
            if not self._left:
                self._open_gate()

    def wait(self) -> None:
        """Wait until all slices are done."""
        with self._gate:
            pass

    def give_up(self, problem: BaseException) -> None:
        """Drop the slices that are left, and do not wait for those that were taken."""
        self.problem = problem
        with self._counting:
            if self._left > 0:
                self._left = 0
                self._open_gate()

    def abandon(self) -> None:
        """End the job in a child that was forked meanwhile: the parent's helpers do not exist there.

        This happens if a signal's handler forks and returns in the child.
        """
        self.problem = RuntimeError(
            "the process was forked in the middle of this computation, which other threads of the parent "
            "shared: compute it again"
        )
        # A thread that does not exist here may hold the locks.
        self._counting, self._left, self._work = threading.Lock(), 0, _nothing
        if self._gate.locked():
            self._gate.release()

    def _open_gate(self) -> None:
        self._work = _nothing  # a helper that comes late must not hold the arrays of the work
        self._gate.release()


def _nothing(_: slice) -> None:
    """Do the work of a job that has ended."""


@ieee()  # a thread has an error state of its own
def _help(jobs: "SimpleQueue[Job | None]") -> None:
    """Do the jobs of a queue until it gives None."""
    while (job := jobs.get()) is not None:
        job.work_off()
        del job  # while this thread waits it must not hold the arrays that the work is on


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
        return buffer[:size].view(dtype).reshape(shape)
