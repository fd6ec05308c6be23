"""The times of an animation's frames: they add up, are long enough to be seen, and leave out evenly."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcgan import pace

few = settings(max_examples=200, deadline=None, derandomize=True)
seconds = st.integers(10, 60_000).map(lambda ticks: ticks / 100)


@given(st.integers(1, 1000), seconds)
@few
def test_frames_last_as_long_as_asked_and_none_is_too_short(count, asked):
    shown = len(pace.spread(count, pace.most_frames(asked)))
    times = pace.lasting(shown, asked)
    assert sum(times) == round(1000 * asked)
    assert len(times) == shown
    assert min(times) >= 20
    *others, last = times
    assert max(others, default=0) - min(others, default=0) <= 10
    assert last >= max(others, default=0) - 10  # nobody misses it
    assert last <= max(2000, asked * 250, *times[:1]) + 10


@given(st.integers(2, 1000), seconds)
@few
def test_as_many_frames_are_shown_as_the_time_allows(count, asked):
    shown = pace.most_frames(asked)
    held = max(20, min(2000, 250 * asked))
    assert (shown - 1) * 20 <= 1000 * asked - held + 10 < (shown + 1) * 20


@given(st.integers(1, 2000), st.integers(2, 300))
@few
def test_frames_are_left_out_evenly_but_never_the_first_and_the_last(count, most):
    places = pace.spread(count, most)
    assert len(places) == min(count, most)
    assert (places[0], places[-1]) == (0, count - 1)
    steps = [b - a for a, b in itertools.pairwise(places)]
    assert all(step >= 1 for step in steps)
    assert max(steps, default=1) - min(steps, default=1) <= 1


@pytest.mark.parametrize(
    ("count", "asked", "first", "last"),
    [
        (9, 5.0, 460, 1250),
        (2, 5.0, 2500, 2500),
        (60, 60.0, 980, 2000),
        (5, 0.1, 20, 20),
        (1, 3.0, 3000, 3000),
    ],
)
def test_times_by_hand(count, asked, first, last):
    times = pace.lasting(count, asked)
    assert (times[0], times[-1]) == (first, last)


@pytest.mark.parametrize(
    ("count", "pace_of_it", "total"),
    [(1, None, 2000), (2, 500, 2500), (9, 500, 6000), (13, 500, 8000), (25, 250, 8000), (151, 40, 8000),
     (500, 40, 21_960)],
)  # fmt: skip
def test_without_a_time_the_pace_is_one_to_look_at(count, pace_of_it, total):
    times = pace.comfortable(count)
    assert set(times[:-1]) == ({pace_of_it} if count > 1 else set())
    assert times[-1] == 2000
    assert sum(times) == total


@given(st.integers(2, 600))
@few
def test_a_comfortable_pace_has_its_limits(count):
    times = pace.comfortable(count)
    assert all(40 <= time <= 500 for time in times[:-1])
    assert sum(times) == 8000 or set(times[:-1]) in ({40}, {500})


def test_a_steady_pace_stays_on_the_last_frame():
    assert pace.steady(3, 80) == [80, 80, 2000]
