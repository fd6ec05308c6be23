"""Free ranges of a line, such as places in memory: best fit, with free neighbours joined.

Source: Knuth, "The art of computer programming", volume 1, section 2.5 (best fit; neighbours that are free
are joined as soon as they are).
"""

from bisect import bisect_left, insort
from collections.abc import Iterator


class FreeRanges:
    """The free ranges of a line. No two of them touch.

    Attributes:
        total: their sizes added up.
    """

    def __init__(self) -> None:
        self.total = 0
        self._by_size: list[tuple[int, int]] = []  # (size, start), sorted
        self._sizes: dict[int, int] = {}  # by the start of a range
        self._starts: dict[int, int] = {}  # by its end

    def take(self, size: int) -> int | None:
        """Take a part of that size; return its start, or None if no range has room for it.

        It is taken from the beginning of the smallest range with room, the first of several equal ones.
        """
        i = bisect_left(self._by_size, (size, 0))
        if i == len(self._by_size):
            return None
        room, start = self._by_size.pop(i)
        del self._sizes[start], self._starts[start + room]
        self.total -= room
        if room > size:
            self._add(start + size, room - size)
        return start

    def put(self, start: int, size: int) -> None:
        """Free a part, and join it with the free ranges on either side."""
        end = start + size
        if start in self._starts:
            left = self._starts[start]
            self._remove(left, start - left)
            start = left
        if end in self._sizes:
            right = self._sizes[end]
            self._remove(end, right)
            end += right
        self._add(start, end - start)

    def take_whole(self, start: int, size: int) -> bool:
        """Take exactly this range, if it is one; return whether it is."""
        if self._sizes.get(start) != size:
            return False
        self._remove(start, size)
        return True

    def largest_first(self) -> Iterator[tuple[int, int]]:
        """Yield (start, size) of each range, the largest first."""
        return ((start, size) for size, start in reversed(self._by_size))

    def _add(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._sizes[start], self._starts[start + size] = size, start
        self.total += size

    def _remove(self, start: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, start))]
        del self._sizes[start], self._starts[start + size]
        self.total -= size
