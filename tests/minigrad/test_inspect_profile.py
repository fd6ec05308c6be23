"""`profile`: calls and work by hand, times by a clock of the test's own, and a trace read again."""

import json
import os
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, observer, optim
from minigrad.inspect import profile
from minigrad.ops import Operation


def flux():
    """The convolutions of the Flux tutorial's generator."""
    return nn.Sequential(
        nn.Reshape(256, 7, 7), nn.ConvTranspose2d(256, 128, 5, 1, 2, bias=False),
        nn.BatchNorm(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def images():
    return mg.tensor(np.random.default_rng(0).standard_normal((2, 12544)), "float32")


@pytest.fixture
def sleepers(monkeypatch):
    """Two operations and a pause that take 2, 5 and 1 seconds on the test's clock.

    The second's backward is made of two of the first.
    """
    monkeypatch.setattr("minigrad.ops.operation.OPERATIONS", {})
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def pause(seconds=1):
        now[0] += seconds

    class Doze(Operation):
        def forward(self, x):
            pause(2)
            return x + 1

        def backward(self, dy):
            return (dy,)

    class Sleep(Operation):
        def forward(self, x):
            pause(5)
            return x + 1

        def backward(self, dy):
            return (Doze()(Doze()(dy)),)

    return Doze, Sleep, pause


def trained():
    model, x = flux(), images()
    optimizer = optim.Adam(model.parameters(), 1e-3)
    with profile(model) as found:
        y = model(x)
        y.sum().backward()
        optimizer.step()
    return found


def by_name(found):
    return {(line.name, line.phase): line for line in found.lines}


def test_calls_work_and_bytes_of_a_step_by_hand():
    lines = by_name(trained())
    forward = lines["convolve_input_gradient", "forward"]
    backward = lines["convolve_input_gradient", "backward"]
    first, second = (
        2 * 2 * 49 * 25 * 256 * 128,
        2 * 2 * 49 * 16 * 128 * 64,
    )  # two images, two per multiply-add
    assert (forward.calls, forward.flop) == (2, first + second)
    assert forward.bytes == 4 * 2 * (128 * 49 + 64 * 196)
    assert (backward.calls, backward.flop) == (2, 2 * second + first)  # x needs no gradient
    assert backward.bytes == 4 * (256 * 128 * 25 + 128 * 64 * 16 + 2 * 128 * 49)
    assert (lines["Adam", "step"].calls, lines["Adam", "step"].flop) == (1, 0)
    assert lines["batch_norm", "forward"].calls == lines["tanh", "backward"].calls == 1
    assert observer.observers == []


def test_times_are_the_operations_own(sleepers):
    doze, sleep, pause = sleepers
    x = mg.tensor([1.0], requires_grad=True)
    with profile() as found:
        sleep()(doze()(x)).backward()
        pause()
    assert [(line.name, line.phase, line.calls, line.seconds) for line in found.lines] == [
        ("sleep", "forward", 1, 5), ("sleep", "backward", 1, 4), ("doze", "forward", 1, 2),
        ("doze", "backward", 1, 0),
    ]  # fmt: skip
    assert found.seconds == 12
    shares = [line.split()[-1] for line in str(found).splitlines()[-2:]]
    assert shares == ["8.3%", "100.0%"]


def test_the_table():
    found = trained()
    rows = [line.split() for line in str(found).splitlines()]
    assert rows[0][:5] == ["operation", "phase", "calls", "ms", "share"]
    assert {tuple(row[:3]) for row in rows} >= {("Adam", "step", "1"), ("tanh", "forward", "1")}
    assert rows[-1][0] == "all"
    shares = [float(cell[:-1]) for row in rows[1:] for cell in row if cell.endswith("%")]
    assert sum(shares[:-1]) == pytest.approx(100, abs=0.1 * len(shares))
    times = [line.seconds for line in found.lines]
    assert times == sorted(times, reverse=True)


def test_the_trace_is_nested_and_names_the_layers(tmp_path):
    found = trained()
    found.chrome_trace(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"X"}
    assert len(events) == len(found.events)
    names = {(event["name"], event["args"]["layer"]) for event in events}
    layer = "4 ConvTranspose2d(128, 64)"
    assert {(f"convolve_input_gradient {phase}", layer) for phase in ("forward", "backward")} <= names
    assert [event["args"]["layer"] for event in events if event["name"] == "Adam"] == [""]
    # Of each two, one is inside of the other, or they have no time in common.
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in events]
    for a, b in spans:
        for c, d in spans:
            assert b <= c or d <= a or a <= c <= d <= b or c <= a <= b <= d
    assert 0 <= min(a for a, _ in spans) <= max(b for _, b in spans) <= found.seconds * 1e6


def test_parts_of_a_backward_rule_lie_inside_of_it(sleepers):
    _, sleep, _ = sleepers
    with profile() as found:
        sleep()(mg.tensor([1.0], requires_grad=True)).backward()
    rule = next(event for event in found.events if event.phase == "backward")
    parts = [event for event in found.events if event.depth]
    assert [event.name for event in parts] == ["doze", "doze"]
    for part in parts:
        assert rule.start <= part.start <= part.start + part.seconds <= rule.start + rule.seconds


def test_an_operation_that_fails_leaves_the_profile_whole():
    with profile() as found:
        with pytest.raises(ValueError, match="broadcast"):
            mg.tensor([1.0, 2.0]) + mg.tensor([1.0, 2.0, 3.0])
        mg.tensor([1.0]) * 2.0
    assert [(event.name, event.depth) for event in found.events] == [("add", 0), ("multiply", 0)]
    assert all(0 <= event.seconds <= found.seconds for event in found.events)


def test_a_trace_that_can_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    found = trained()
    (tmp_path / "trace.json").write_text("before")

    def fails(_):
        raise OSError("full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="full"):
        found.chrome_trace(tmp_path / "trace.json")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"]
    assert (tmp_path / "trace.json").read_text() == "before"


def test_an_empty_profile_has_a_table():
    with profile() as found:
        pass
    assert found.lines == ()
    assert len(str(found).splitlines()) == 3
