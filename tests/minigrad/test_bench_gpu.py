"""The benchmark of ways to run a step: turns, failures, figures by hand, and a table that is not too wide."""

import json
from contextlib import contextmanager

import pytest

from minigrad import backend, bench_gpu
from minigrad.backend.measuring import Peak, Timer
from minigrad.bench_gpu import Row, Step, Way
from minigrad.inspect import Limits

LIMITS = {False: Limits(50_000.0, 2_000.0, 8192), True: Limits(400_000.0, 2_000.0, 8192)}


@contextmanager
def taking(count):
    yield_ = Peak()
    yield_.bytes = count
    yield yield_


def way(name, make, count=None):
    return Way(name, make, lambda: taking(count))


@pytest.fixture
def engine(monkeypatch):
    """The CPU, with a timer whose marks are 1, 2, 4, 8, ... seconds apart."""
    marks = iter(2.0**n for n in range(100))
    timer = Timer()
    monkeypatch.setattr(timer, "mark", lambda: next(marks))
    monkeypatch.setattr(type(backend.get("cpu")), "timer", lambda _: timer)
    monkeypatch.setattr(bench_gpu, "RUNS", 3)
    return backend.get("cpu")


def test_ways_take_turns_in_both_precisions(engine):
    done, tf32 = [], [None]

    def make(name):
        precision = tf32[0]
        return lambda: done.append((name, precision, tf32[0]))

    def set_tf32(allowed):
        tf32[0] = allowed

    ways = [way("a", lambda: make("a"), 7), way("b", lambda: make("b"))]
    rows = bench_gpu.measure(engine, ways, set_tf32, rounds=2)
    assert [(row.way, row.tf32, row.memory) for row in rows] == [
        ("a", False, 7), ("a", True, 7), ("b", False, None), ("b", True, None),
    ]  # fmt: skip
    turns = [("a", False), ("a", True), ("b", False), ("b", True)]
    each = 1 + bench_gpu.RUNS + bench_gpu.HOST_RUNS  # one is not counted
    warm = [turn for turn in turns for _ in range(bench_gpu.WARM_UP)]
    expected = warm + 2 * [turn for turn in turns for _ in range(each)]
    assert done == [(name, allowed, allowed) for name, allowed in expected]
    assert tf32 == [False]


def test_a_row_has_the_times_from_one_end_to_the_next(engine):
    rows = bench_gpu.measure(engine, [way("a", lambda: lambda: None)], lambda _: None, rounds=1)
    assert [(row.median, row.minimum) for row in rows] == [(2.0, 1.0), (32.0, 16.0)]
    assert all(0 <= row.host < 1 for row in rows)


def test_a_way_that_fails_leaves_the_others_alone(engine):
    calls = []

    def fails_later():
        calls.append(0)
        if len(calls) > bench_gpu.WARM_UP + 1:
            raise RuntimeError("by and by")

    def fails():
        raise ImportError("no\n compiler")

    ways = [way("a", fails), way("b", lambda: fails_later), way("c", lambda: lambda: None)]
    rows = bench_gpu.measure(engine, ways, lambda _: None, rounds=2)
    failures = [(row.way, row.failure) for row in rows]
    assert failures[:2] == [("a", "ImportError: no compiler")] * 2
    assert failures[2:4] == [("b", "RuntimeError: by and by")] * 2
    assert failures[4:] == [("c", "")] * 2
    assert rows[4].median > 0 == rows[0].median == rows[2].median


def step(**changes):
    rows = (
        Row("ours", False, 0.002, 0.0015, 0.0004, 3 * 2**20),
        Row("ours", True, 0.0005, 0.0004, 0.0004, 3 * 2**20),
        Row("theirs", False, 0.25, 0.2, 0.1),
        Row("theirs", True, failure="ValueError: no"),
    )
    return Step(**{"name": "flux", "images": 128, "gflop": 50.0, "launches": 119, "products": 29,
                   "moved": 10**9, "rows": rows, "counted": ("ours",), **changes})  # fmt: skip


def test_the_lines_of_a_step_by_hand():
    title, ours, theirs, failure = bench_gpu.lines(step(), LIMITS).splitlines()
    assert title == "flux: 50.0 GFLOP, 119 launches, 29 products, 954 MiB read and written"
    # 50 GFLOP in 2 ms are 25,000 a second, half of what is possible; 1 GB in it is 500 a second, a quarter.
    assert ours.split() == [
        "ours", "2.00", "1.50", "64,000", "50%", "25%", "0.500", "0.400", "256,000", "25%", "100%",
        "0.400", "3",
    ]  # fmt: skip
    # The bytes are those of our launches, and say nothing of theirs.
    assert theirs.split() == ["theirs", "250", "200", "512", "0%", *"------", "100", "-"]
    assert failure == "    theirs, TF32: ValueError: no"


def test_a_failure_of_both_precisions_is_told_once():
    rows = tuple(Row("theirs", tf32, failure="ValueError: no") for tf32 in (False, True))
    assert bench_gpu.lines(step(rows=rows), LIMITS).splitlines()[2:] == [
        "    theirs, float32 and TF32: ValueError: no"
    ]


def test_what_nobody_counts_is_left_out():
    title, ours, *_ = bench_gpu.lines(step(launches=None, products=None, moved=None), LIMITS).splitlines()
    assert title == "flux: 50.0 GFLOP"
    assert ours.split()[4:7] == ["50%", "-", "0.500"]
    uncounted = step(gflop=None, launches=None, products=None, moved=None)
    title, ours, *_ = bench_gpu.lines(uncounted, LIMITS).splitlines()
    assert title == "flux"
    assert ours.split()[4:7] == ["-", "-", "0.500"]


def test_the_table_has_120_columns_at_most():
    wide = [Row("PyTorch, CUDA graph", tf32, 0.00013, 0.00012, 0.09999, 2**36) for tf32 in (False, True)]
    lines = bench_gpu.lines(step(rows=tuple(wide)), LIMITS).splitlines()
    above, below = bench_gpu.heads().splitlines()
    assert max(len(above), len(below)) <= 120
    assert [len(line) for line in lines if line.startswith("  ")] == [len(below)]


def test_each_share_has_its_head():
    above, below = bench_gpu.heads().splitlines()
    of = [below[above.index("of", at) - 5 : above.index("of", at) + 2].strip() for at in (0, 75)]
    assert of == ["product"] * 2
    assert above.split() == ["float32", "of", "of", "TF32", "of", "of", "host"]
    assert below.split() == [*["ms", "min", "images/s", "product", "copy"] * 2, "ms", "MiB"]


def test_ratios_are_geometric_means_of_what_both_ran():
    other = step(rows=(Row("ours", False, 0.25, 0.1), Row("theirs", False, 0.002, 0.1)))
    alone = step(rows=(Row("ours", False, 9.0, 9.0),))
    assert bench_gpu.ratios([step(), other, alone], "ours", "theirs") == (
        "ours / theirs, geometric mean: 1.00 (float32)"
    )
    assert bench_gpu.ratios([alone], "ours", "theirs") == ""


def test_the_figures_as_json(tmp_path):
    engine = backend.get("cpu")
    bench_gpu.write(tmp_path / "a.json", engine, LIMITS, [step()])
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["device"] == engine.describe()
    assert written["limits"]["TF32"] == {"product": 400_000.0, "copy": 2_000.0, "side": 8192}
    assert written["steps"][0]["rows"][0] == {
        "way": "ours", "tf32": False, "median": 0.002, "minimum": 0.0015, "host": 0.0004,
        "memory": 3 * 2**20, "failure": "",
    }  # fmt: skip


def test_the_card_is_described():
    first, second, *_ = bench_gpu.card(backend.get("cpu"), LIMITS, ["PyTorch 2.0"]).splitlines()
    assert first == f"{backend.get('cpu').describe()}, PyTorch 2.0"
    products = "a large matrix product, GFLOP/s: 50,000 in float32, 400,000 in TF32"
    assert second == f"limits: {products}; a large copy, GB/s: 2,000"
