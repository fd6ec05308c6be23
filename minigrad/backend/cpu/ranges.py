"""Free parts of a line, such as places in memory: the smallest with room is taken, neighbours are joined.

Source: Knuth, "The art of computer programming", volume 1, section 2.5 (best fit; neighbours that are free
are joined as soon as they are).
"""

from bisect import bisect_left, insort
from collections.abc import Iterator


class FreeRanges:
    """Parts of a line that are free: no two of them touch.

    Attributes:
        total: how much they are together.
    """

    def __init__(self) -> None:
        self.total = 0
        self._by_size: list[tuple[int, int]] = []  # (size, start), sorted
        self._sizes: dict[int, int] = {}  # by the start of a range
        self._starts: dict[int, int] = {}  # by its end

    def take(self, size: int) -> int | None:
        """The start of a part of that size, which is free no longer; None where there is no room for it.

        It is the beginning of the smallest range with room, of the first of several equal ones.
        """
        i = bisect_left(self._by_size, (size, 0))
        if i == len(self._by_size):
            return None
        room, start = self._by_size[i]
        self._remove(start, room)
        if room > size:
            self._add(start + size, room - size)
        return start

    def put(self, start: int, size: int) -> None:
        """Free a part, and join it with what is free on either side."""
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
        """Take exactly this range, if it is one: free from end to end, and what is around it is not."""
        if self._sizes.get(start) != size:
            return False
        self._remove(start, size)
        return True

    def largest_first(self) -> Iterator[tuple[int, int]]:
        """(start, size) of each range."""
        return ((start, size) for size, start in reversed(self._by_size))

    def _add(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._sizes[start], self._starts[start + size] = size, start
        self.total += size

    def _remove(self, start: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, start))]
        del self._sizes[start], self._starts[start + size]
        self.total -= size
