"""The generator: Philox itself, streams and states, and what is drawn from it."""

import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from minigrad import naive
from minigrad.backend.philox import philox

ONES = 2**64 - 1
WORDS = st.integers(0, ONES)

# Random123's kat_vectors, philox4x64 of 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B],
    ),
    (
        (ONES, ONES, ONES, ONES),
        (ONES, ONES),
        [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0],
    ),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        [0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6],
    ),
]


def plus_one(counter):
    """The next counter: NumPy's Philox adds one before it makes a block."""
    number = sum(word << (64 * i) for i, word in enumerate(counter)) + 1
    return tuple((number >> (64 * i)) & ONES for i in range(4))


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_naive_philox_gives_the_known_answers(counter, key, expected):
    assert naive.philox(key, counter) == expected


@given(key=st.tuples(WORDS, WORDS), counter=st.tuples(WORDS, WORDS, WORDS, WORDS))
@settings(max_examples=50, deadline=None, database=None)
def test_naive_philox_is_numpys_after_its_increment(key, counter):
    numpys = np.random.Philox(key=np.array(key, np.uint64), counter=np.array(counter, np.uint64))
    assert numpys.random_raw(4).tolist() == naive.philox(key, plus_one(counter))


@given(
    key=st.tuples(WORDS, WORDS),
    counter=st.tuples(st.sampled_from([0, 7, ONES - 1, ONES]), WORDS, WORDS, WORDS),
)
@settings(max_examples=25, deadline=None, database=None)
def test_the_engines_philox_is_the_naive_one(key, counter):
    second = plus_one(plus_one(counter))
    expected = naive.philox(key, plus_one(counter)) + naive.philox(key, second)
    assert philox(key, counter).random_raw(8).tolist() == expected


def test_uniform_draws_are_the_words_of_philox():
    key, counter = mg.Generator(42, stream=3).next_counter()
    words = naive.philox(key, plus_one(counter)) + naive.philox(key, plus_one(plus_one(counter)))
    generator = mg.Generator(42, stream=3)
    doubles = generator.uniform((8,), dtype="float64")
    assert doubles.tolist() == [(word >> 11) * 2.0**-53 for word in words]
    key, counter = generator.next_counter()
    halves = [
        half for word in naive.philox(key, plus_one(counter)) for half in (word & 0xFFFFFFFF, word >> 32)
    ]
    again = mg.Generator(42, stream=3)
    again.normal((5,))
    assert again.uniform((8,)).tolist() == [(half >> 8) * 2.0**-24 for half in halves]


# -- states and streams --------------------------------------------------------------------------------

DRAWS = {
    "normal": lambda g: g.normal((3, 2)),
    "uniform": lambda g: g.uniform((3, 2)),
    "permutation": lambda g: g.permutation(20),
    "integers": lambda g: g.integers(0, 1000, (20,)),
    "next_counter": lambda g: np.array(g.next_counter()[1]),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_state_brings_the_same_draws_again(name):
    draw, generator = DRAWS[name], mg.Generator(7, stream=2)
    draw(generator)
    state = generator.state
    assert state == {"seed": 7, "stream": 2, "calls": 1}
    first, second = draw(generator).tolist(), draw(generator).tolist()
    assert first != second
    generator.state = state
    assert [draw(generator).tolist(), draw(generator).tolist()] == [first, second]
    elsewhere = mg.Generator(0)
    elsewhere.state = state
    assert draw(elsewhere).tolist() == first


def test_a_state_is_a_copy():
    generator = mg.Generator(7)
    state = generator.state
    state["calls"] = 5
    generator.normal((2,))
    assert generator.state == {"seed": 7, "stream": 0, "calls": 1}
    assert state["calls"] == 5


@pytest.mark.parametrize("size", [0, 1, 7, 1000])
@pytest.mark.parametrize("name", DRAWS)
def test_what_one_draw_takes_never_moves_the_next(name, size):
    expected, generator = mg.Generator(3), mg.Generator(3)
    expected.normal((5,))
    generator.uniform((size,), dtype="float64")
    assert DRAWS[name](generator).tolist() == DRAWS[name](expected).tolist()


def test_a_longer_draw_starts_like_a_shorter_one():
    assert mg.Generator(3).uniform((100,))[:10].tolist() == mg.Generator(3).uniform((10,)).tolist()
    assert mg.Generator(3).normal((100,))[:10].tolist() == mg.Generator(3).normal((10,)).tolist()


@pytest.mark.parametrize(
    ("one", "other"), [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 0)), ((5, 0), (2**70, 0))], ids=str
)
def test_seeds_and_streams_are_independent(one, other):
    a, b = (mg.Generator(seed, stream).normal((20_000,)) for seed, stream in (one, other))
    assert not np.isin(a[:100], b).any()
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(20_000)


def test_successive_draws_are_independent():
    generator = mg.Generator(0)
    a, b = generator.normal((20_000,)), generator.normal((20_000,))
    assert not np.isin(a[:100], b).any()
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / math.sqrt(20_000)


def test_manual_seed_starts_the_engines_generator_anew():
    mg.manual_seed(12)
    first = mg.random.default.normal((4,)).tolist()
    state = mg.random.get_state()
    assert state == {"seed": 12, "stream": 0, "calls": 1}
    second = mg.random.default.normal((4,)).tolist()
    mg.manual_seed(12)
    assert mg.random.default.normal((4,)).tolist() == first
    mg.random.set_state(state)
    assert mg.random.default.normal((4,)).tolist() == second
    assert mg.Generator(12).normal((4,)).tolist() == first
    mg.manual_seed(13)
    assert mg.random.default.normal((4,)).tolist() != first


def test_numpys_own_generator_is_left_alone():
    np.random.seed(0)  # noqa: NPY002
    expected = np.random.random(3).tolist()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    mg.manual_seed(4)
    mg.random.default.normal((10,))
    assert np.random.random(3).tolist() == expected  # noqa: NPY002


@pytest.mark.parametrize(
    "state",
    [
        {"seed": 1, "stream": 0},
        {"seed": 1, "stream": 0, "calls": 0, "more": 0},
        {"seed": -1, "stream": 0, "calls": 0},
        {"seed": 1, "stream": 0, "calls": 1.5},
        {"seed": 1, "stream": "0", "calls": 0},
        {"seed": True, "stream": 0, "calls": 0},
        {"seed": 1, "stream": None, "calls": 0},
        {"seed": 1, "stream": 2**64, "calls": 0},
        {"seed": 1, "stream": 0, "calls": 2**64},
        {},
    ],
    ids=str,
)
def test_a_bad_state_is_refused_and_changes_nothing(state):
    generator = mg.Generator(9)
    generator.normal((1,))
    with pytest.raises(ValueError, match="random state: expected integers"):
        generator.state = state
    assert generator.state == {"seed": 9, "stream": 0, "calls": 1}


@pytest.mark.parametrize("seed", [-1, 1.5, "1", None], ids=repr)
def test_a_bad_seed_is_refused(seed):
    before = mg.random.get_state()
    with pytest.raises(ValueError, match="random state"):
        mg.manual_seed(seed)
    with pytest.raises(ValueError, match="random state"):
        mg.Generator(seed)
    assert mg.random.get_state() == before


# -- distributions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normal_draws_have_normal_moments(dtype):
    x = mg.Generator(1).normal((400, 500), dtype)
    assert x.shape == (400, 500)
    assert x.dtype == dtype
    x = x.astype(np.float64).ravel()
    scale = 5 / math.sqrt(x.size)
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < scale * math.sqrt(spread)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 2.0), (10.0, 10.5)])
def test_uniform_draws_fill_their_bounds_evenly(low, high, dtype):
    x = mg.Generator(2).uniform((100_000,), low, high, dtype)
    assert x.dtype == dtype
    assert low <= x.min() < low + 0.001 * (high - low)
    assert high - 0.001 * (high - low) < x.max() <= high
    counts = np.histogram(x, bins=10, range=(low, high))[0]
    assert np.abs(counts - 10_000).max() < 5 * math.sqrt(10_000)


def test_a_permutation_has_every_number_once():
    generator = mg.Generator(5)
    first, second = generator.permutation(1000), generator.permutation(1000)
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(1000))
    assert first.tolist() != second.tolist()
    assert (first == np.arange(1000)).sum() < 10
    assert generator.permutation(0).tolist() == []
    assert generator.permutation(1).tolist() == [0]
    assert sorted(generator.permutation(np.int64(3)).tolist()) == [0, 1, 2]
    calls = generator.state["calls"]
    for wrong in (-1, 2.5, [1, 2], None, True):
        with pytest.raises(ValueError, match=r"permutation: expected an integer >= 0, got"):
            generator.permutation(wrong)
    assert generator.state["calls"] == calls


def test_every_permutation_is_as_likely():
    generator = mg.Generator(6)
    counts = {}
    for _ in range(3000):
        order = tuple(generator.permutation(3).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert all(abs(n - 500) < 5 * math.sqrt(500) for n in counts.values())


def test_integers_stay_below_their_bound_and_reach_it():
    x = mg.Generator(7).integers(-2, 5, (30, 100))
    assert x.shape == (30, 100)
    assert sorted(set(x.ravel().tolist())) == [-2, -1, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (1, 2, 3)], ids=str)
def test_draws_have_the_shape_asked_for(shape):
    for dtype in ("float32", "float64"):
        assert np.shape(mg.Generator(1).normal(shape, dtype)) == shape
        assert np.shape(mg.Generator(1).uniform(shape, dtype=dtype)) == shape


# -- a generator of one context ------------------------------------------------------------------------


def test_isolated_draws_depend_on_nothing_and_move_nothing():
    mg.manual_seed(7)
    before = mg.random.get_state()
    weights = []
    for _ in range(2):
        with mg.random.isolated(seed=3) as own:
            assert mg.random.current() is own
            weights.append(mg.nn.Dense(3, 2).weight.numpy())
            mg.functional.dropout(mg.tensor(np.ones(5, np.float32)), 0.5)
            assert own.state["calls"] == 3  # weight, bias, dropout
    assert np.array_equal(*weights)
    assert mg.random.get_state() == before
    assert mg.random.current() is mg.random.default
    with mg.random.isolated(seed=4):
        assert not np.array_equal(mg.nn.Dense(3, 2).weight.numpy(), weights[0])


def test_isolated_contexts_nest_and_end_with_an_exception():
    with mg.random.isolated(1) as outer:
        with mg.random.isolated(2):
            mg.manual_seed(5)
            assert mg.random.get_state()["seed"] == 5
        with pytest.raises(LookupError), mg.random.isolated(2):
            raise LookupError
        assert mg.random.current() is outer
        assert outer.state["seed"] == 1


def test_isolated_is_of_one_thread():
    seen = []
    with mg.random.isolated(1):
        thread = threading.Thread(target=lambda: seen.append(mg.random.current()))
        thread.start()
        thread.join()
    assert seen == [mg.random.default]
