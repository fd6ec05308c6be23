"""Memory that is used again: large arrays of the NumPy backend, one training step after another.

A fresh large array is dear on a CPU. The system hands its pages out one by one, zeroed, as they are first
touched, and takes them back when the array goes; that costs as much as filling them. So memory comes from the
system in large regions, which arrays share: what one leaves behind serves others, smaller ones or larger ones
with what lies beside it. A training step asks for the same sizes each time, and soon needs nothing new.
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

MIN_BLOCK = 1 << 16  # bytes; below, a fresh array costs no more than finding an old one. Sizes are multiples
MIN_REGION = 1 << 27  # bytes; pages of it that were never touched cost nothing
MAX_FREE = 1 << 30  # bytes that are free and not given back to the system
HUGE_PAGE = 1 << 21  # bytes of the system's large pages, of which there are fewer to look up
GAP = 1  # between the places of two regions
# Shared memory gets no large pages, and a forked process would write into its parent's arrays.
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)


class _Block(np.ndarray[Any, Any]):
    """The bytes under an array. It goes when the array and all its views have gone, and its memory is free.

    (Its memory must not be an array itself: NumPy would let views hold that, past the block.)
    """

    start: int
    arena: "Arena | None" = None

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.arena is not None and not at_exit():  # then what it calls may have gone already
            self.arena.take_back(self.start, len(self))


class Arena(Lock):
    """Hands out arrays, and their memory again once nobody holds them.

    Places are counted over all regions, one after the other, with a gap between two: so that memory of two
    regions is never joined.
    """

    def __init__(self) -> None:
        super().__init__(fork_order=2)  # whoever holds its lock waits for no other
        self._free = FreeRanges()
        self._regions: dict[int, mmap.mmap] = {}  # by their starts, in order
        self._end = 0
        self._used = 0  # bytes that came back since pages were given to the system
        # An array may go at any moment: in the middle of what is done here, too, when garbage is collected.
        self._returned: deque[tuple[int, int]] = deque()
        self._busy = False  # whether the thread that holds the lock is in the middle of something

    def start_anew(self) -> None:
        """In a child whose parent has a thread in the middle of something: what was free is left alone."""
        self._free, self._busy = FreeRanges(), False

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """As numpy.empty: an array (C order) of whatever was there before."""
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
        """Keep the memory of an array that has gone: at once, or with the next that is asked for."""
        self._returned.append((start, size))
        if not self._lock.acquire(blocking=False):
            return
        try:
            if not self._busy:
                self._sort_in()
        finally:
            self._lock.release()

    def _memory(self, size: int) -> tuple[int, mmap.mmap, int] | None:
        """A place with room, which is free no longer; its region, and how far it is from its beginning.

        None where this thread was interrupted in here: by a signal's handler, which asks for memory too.
        """
        with self._lock:
            if self._busy:
                return None
            try:
                self._busy = True
                self._take_in()
                while (start := self._free.take(size)) is None:
                    self._grow(size)
                return start, *self._where(start)
            finally:
                self._busy = False

    def _where(self, start: int) -> tuple[mmap.mmap, int]:
        """The region of a place, and how far it is from its beginning. The lock is held."""
        first = next(first for first in reversed(self._regions) if first <= start)
        return self._regions[first], start - first

    def _grow(self, size: int) -> None:
        """A new region, with room for so much. The lock is held."""
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

    def _sort_in(self) -> None:
        """`_take_in`, which what interrupts it does not enter. The lock is held."""
        try:
            self._busy = True
            self._take_in()
        finally:
            self._busy = False

    def _take_in(self) -> None:
        """Free what came back, and let the system have what is too much. The lock is held."""
        while self._returned:
            start, size = self._returned.popleft()
            self._free.put(start, size)
            self._used += size
        if self._free.total > MAX_FREE:
            self._shrink()

    def _shrink(self) -> None:
        """Let regions go that nobody uses, the last first: the others are filled before it.

        Where others are held by an array or two, the pages of what is free in them go back, once so many
        bytes may have been written since the last time.
        """
        for start, region in reversed(list(self._regions.items())):
            if self._free.total > MAX_FREE and self._free.take_whole(start, len(region)):
                del self._regions[start]
        if self._free.total > MAX_FREE and self._used > MAX_FREE:
            self._used = 0
            self._give_pages_back(self._free.total - MAX_FREE)

    def _give_pages_back(self, count: int) -> None:
        """Let the system have so many bytes that are free, or some more; they stay free. The lock is held."""
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
