"""Free parts of a line, against a line of single places that are free or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigrad.backend.cpu.ranges import FreeRanges

LENGTH = 40


def runs(free):
    """The ranges of a set of places: (start, size) of each, from the left."""
    found = []
    for place in sorted(free):
        if found and sum(found[-1]) == place:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((place, 1))
    return found


def held(ranges):
    """What is written down, which says the same thing three times."""
    by_start = sorted(ranges._sizes.items())
    assert ranges._by_size == sorted((size, start) for start, size in by_start)
    assert ranges._starts == {start + size: start for start, size in by_start}
    return by_start


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 12), st.integers(0, 100)), max_size=60))
def test_any_order_of_taking_and_freeing(actions):
    ranges, free, taken = FreeRanges(), set(range(LENGTH)), []
    ranges.put(0, LENGTH)
    for frees, size, which in actions:
        if frees and taken:
            start, size = taken.pop(which % len(taken))
            ranges.put(start, size)
            free |= set(range(start, start + size))
        else:
            room = [(s, start) for start, s in runs(free) if s >= size]
            start = ranges.take(size)
            assert start == (min(room)[1] if room else None)
            if start is not None:
                taken.append((start, size))
                free -= set(range(start, start + size))
        assert held(ranges) == runs(free)
        assert ranges.total == len(free)


def test_a_range_is_taken_whole_or_not_at_all():
    ranges = FreeRanges()
    ranges.put(10, 5)
    assert not ranges.take_whole(10, 4)
    assert not ranges.take_whole(11, 4)
    assert ranges.total == 5
    assert ranges.take_whole(10, 5)
    assert ranges.total == 0
    assert held(ranges) == []


def test_the_largest_come_first():
    ranges = FreeRanges()
    for start, size in ((0, 3), (10, 7), (20, 5)):
        ranges.put(start, size)
    assert list(ranges.largest_first()) == [(10, 7), (20, 5), (0, 3)]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_neighbours_are_joined(order):
    ranges = FreeRanges()
    for i in order:
        ranges.put(3 * i, 3)
    assert held(ranges) == [(0, 9)]
