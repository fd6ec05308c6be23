"""Memory that is used again: large arrays of the NumPy backend, one training step after another.

A fresh large array is dear on a CPU. The system hands its pages out one by one, zeroed, as they are first
touched, and takes them back when the array goes; that costs as much as filling them. A training step asks
for the same sizes each time, so what its arrays leave behind serves the next step's.
"""

import math
import mmap
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SMALLEST = 1 << 16  # bytes; below, a fresh array costs no more than finding an old one
MOST_KEPT = 1 << 29  # bytes that wait to be used again, at the most
WIDEST = 2  # times the size that is wanted, which memory that is used again may have
HUGE = 1 << 21  # bytes of the system's large pages, of which there are fewer to look up
# Shared memory gets no large pages, and a forked process would write into its parent's arrays.
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)


class _Block(np.ndarray[Any, Any]):
    """The bytes under an array. It goes when the array and all its views have gone, and its memory is free.

    (Its memory must not be an array itself: NumPy would let views hold that, past the block.)
    """

    memory: mmap.mmap
    arena: "Arena | None" = None

    def __del__(self, at_exit: Callable[[], bool] = sys.is_finalizing) -> None:
        if self.arena is not None and not at_exit():  # then what it calls may have gone already
            self.arena.take_back(self.memory)


class Arena:
    """Hands out arrays, and their memory again once nobody holds them."""

    def __init__(self) -> None:
        # Waiting memory by its size, each list from the oldest to the youngest; sizes by their last use.
        self._waiting: OrderedDict[int, deque[mmap.mmap]] = OrderedDict()
        self._bytes = 0
        # An array may go at any moment: in the middle of what is done here, too, when garbage is collected.
        self._returned: deque[mmap.mmap] = deque()
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """As numpy.empty: an array (C order) of whatever was there before."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < SMALLEST:
            return np.empty(shape, dtype)
        memory = self._memory(-(-size // SMALLEST) * SMALLEST)
        block = _Block(len(memory), np.uint8, memory)
        block.memory, block.arena = memory, self
        return np.ndarray(shape, dtype, block)

    def take_back(self, memory: mmap.mmap) -> None:
        """Keep the memory of an array that has gone: at once, or with the next that is asked for."""
        self._returned.append(memory)
        if self._lock.acquire(blocking=False):
            try:
                self._sort_in()
            finally:
                self._lock.release()

    def _memory(self, size: int) -> mmap.mmap:
        with self._lock:
            self._sort_in()
            # Of this size, or of the next larger one: but not so large that too much would lie idle.
            waiting = (other for other, blocks in self._waiting.items() if blocks)
            best = min((other for other in waiting if size <= other <= WIDEST * size), default=None)
            if best is not None:
                self._bytes -= best
                return self._waiting[best].pop()  # the one used last: perhaps still in the cache
        memory = mmap.mmap(-1, size, **PRIVATE)
        if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory

    def _sort_in(self) -> None:
        """Let what came back wait by its size, and the oldest go where it is too much. The lock is held."""
        while self._returned:
            memory = self._returned.popleft()
            self._waiting.setdefault(len(memory), deque()).append(memory)
            self._waiting.move_to_end(len(memory))
            self._bytes += len(memory)
        while self._bytes > MOST_KEPT:
            oldest, waiting = next(iter(self._waiting.items()))
            if waiting:
                self._bytes -= len(waiting.popleft())
            else:
                del self._waiting[oldest]


def owns_memory(array: Array) -> bool:
    """Whether an array shares its memory with no other one, unless that is a view of it."""
    return array.base is None or isinstance(array.base, _Block)
