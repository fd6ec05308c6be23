"""Memory for large arrays, used again from one training step to the next.

A new large array is expensive on a CPU: the system provides its pages one by one, zeroed, when they are
first touched, and takes them back when the array is freed. That costs as much as filling the array. So an
arena gets large regions from the system and places arrays in them. When an array is freed, its memory serves
other arrays: smaller ones, or larger ones together with free memory beside it. A training step asks for the
same sizes each time, and soon needs no new memory.
"""

import contextlib
import math
import mmap
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..forks import Lock
from .ranges import FreeRanges

MIN_BLOCK = 1 << 16  # bytes; smaller arrays are NumPy's own. Sizes are rounded up to multiples of it
MIN_REGION = 1 << 27  # bytes; pages that were never touched cost nothing
MAX_FREE = 1 << 30  # bytes that are free and kept; more are given back to the system
HUGE_PAGE = 1 << 21  # bytes of the system's large pages, of which there are fewer to look up
GAP = 1  # between the places of two regions
# Shared memory gets no large pages, and a forked process would write into its parent's arrays.
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)


class _Block(np.ndarray[Any, Any]):
    """The bytes of an array. They are free again once the array and all its views are freed.

    (A block lies in an mmap, not in an array: views would refer to that array, and outlive the block.)
    """

    start: int
    arena: "Arena | None" = None

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.arena is not None and not at_exit():  # then what it calls may have gone already
            self.arena.take_back(self.start, len(self))


class Arena(Lock):
    """Makes arrays in memory that is used again once they are freed.

    A place is a number of bytes, counted through all regions one after the other, with a gap between two, so
    that free memory of two regions is never joined.
    """

    def __init__(self) -> None:
        super().__init__(fork_order=2)  # whoever holds its lock waits for no other
        self._free = FreeRanges()
        self._regions: dict[int, mmap.mmap] = {}  # by their starts, in order
        self._end = 0
        self._used = 0  # bytes that came back since pages were given to the system
        # An array may be freed at any moment: by the garbage collector even in the middle of a method here.
        self._returned: deque[tuple[int, int]] = deque()
        self._busy = False  # whether the thread that holds the lock is in the middle of something

    def start_anew(self) -> None:
        """Forget what is free, in a forked child whose parent had a thread in the middle of a change."""
        self._free, self._busy = FreeRanges(), False

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return an array in C order with arbitrary values, as numpy.empty does."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < MIN_BLOCK:
            return np.empty(shape, dtype)
        size = -(-size // MIN_BLOCK) * MIN_BLOCK
        place = self._memory(size)
        if place is None:
            return np.empty(shape, dtype)
        start, region, offset = place
        try:
            block = _Block(size, np.uint8, region, offset)
        except BaseException:  # an interrupt, say: nobody else knows of the place
            self.take_back(start, size)
            raise
        block.start, block.arena = start, self
        return np.ndarray(shape, dtype, block)

    def take_back(self, start: int, size: int) -> None:
        """Free the memory of an array: now, or at the next request if another thread is in a method."""
        self._returned.append((start, size))
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._busy:
                try:
                    self._busy = True  # for whatever interrupts it
                    self._take_in()
                finally:
                    self._busy = False
        finally:
            self._lock.release()

    def _memory(self, size: int) -> tuple[int, mmap.mmap, int] | None:
        """Take a free place; return it, its region, and its distance from the region's beginning.

        Returns None if this thread is in here already, interrupted by a signal's handler that asks for memory
        too.
        """
        with self._lock:
            if self._busy:
                return None
            try:
                self._busy = True
                if self._returned:
                    self._take_in()
                while (start := self._free.take(size)) is None:
                    self._grow(size)
                return start, *self._where(start)
            finally:
                self._busy = False

    def _where(self, start: int) -> tuple[mmap.mmap, int]:
        """Return the region of a place, and its distance from the region's beginning. The lock is held."""
        first = max([first for first in self._regions if first <= start])
        return self._regions[first], start - first

    def _grow(self, size: int) -> None:
        """Get a new region of at least so many bytes. The lock is held."""
        needed = -(-size // HUGE_PAGE) * HUGE_PAGE
        try:
            region = mmap.mmap(-1, max(MIN_REGION, needed), **PRIVATE)
        except OSError:  # so much room is not left
            region = mmap.mmap(-1, needed, **PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with contextlib.suppress(OSError):  # of a system that has none
                region.madvise(mmap.MADV_HUGEPAGE)
        self._regions[self._end] = region
        self._free.put(self._end, len(region))
        self._end += len(region) + GAP

    def _take_in(self) -> None:
        """Free what came back, and give memory beyond MAX_FREE to the system. The lock is held."""
        while self._returned:
            start, size = self._returned.popleft()
            self._free.put(start, size)
            self._used += size
        if self._free.total > MAX_FREE:
            self._shrink()

    def _shrink(self) -> None:
        """Give unused regions back to the system, the last first, since the others are filled before it.

        If that is not enough, because an array or two lie in each, give back the pages of free places; but
        only after MAX_FREE bytes have come back since the last time.
        """
        for start, region in reversed(list(self._regions.items())):
            if self._free.total > MAX_FREE and self._free.take_whole(start, len(region)):
                del self._regions[start]
        if self._free.total > MAX_FREE and self._used > MAX_FREE:
            self._used = 0
            self._give_pages_back(self._free.total - MAX_FREE)

    def _give_pages_back(self, count: int) -> None:
        """Give the pages of at least so many free bytes to the system; they stay free. The lock is held."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for start, size in self._free.largest_first():
            if count <= 0:
                return
            region, offset = self._where(start)
            with contextlib.suppress(OSError):  # of pages that can't go
                region.madvise(mmap.MADV_DONTNEED, offset, size)
            count -= size


def owns_memory(array: NDArray[Any]) -> bool:
    """Whether an array shares its memory with no other one, unless that is a view of it."""
    return array.base is None or isinstance(array.base, _Block)
