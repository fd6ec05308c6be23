"""`profile`: calls and work by hand, times by a clock of the test's own, and a trace read again."""

import importlib
import json
import os
import time

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, nn, observer, optim
from minigrad.backend.measuring import Timer
from minigrad.inspect import Limits, limits, profile
from minigrad.inspect.limits import occupy
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
    assert observer.current() == []


def test_each_array_that_an_operation_needs_is_moved_once():
    lines = by_name(trained())
    x, y, z = 2 * 256 * 49, 2 * 128 * 49, 2 * 64 * 196  # numbers of the images, layer by layer
    first, second = 256 * 128 * 25, 128 * 64 * 16
    assert lines["convolve_input_gradient", "forward"].moved == 4 * (x + first + y + y + second + z)
    # The gradient above, what was kept, what is found. x needs none, so that the first weight is not read.
    backward = (z + y + second + y + second) + (y + x + first)
    assert lines["convolve_input_gradient", "backward"].moved == 4 * backward
    assert lines["tanh", "backward"].moved == 4 * 3 * z
    assert lines["reshape", "forward"].moved == 0  # a view
    # p, g, m, v are read; p, m, v written
    assert lines["Adam", "step"].moved == 4 * 7 * (first + second + 128 + 128)


@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
def test_the_work_of_a_dense_layer_is_that_of_its_products(biased):
    layer, product = nn.Dense(5, 7, bias=biased), 2 * 3 * 5 * 7
    with profile() as found:
        layer(mg.tensor(np.ones((3, 5)), "float32")).sum().backward()  # x needs no gradient
    lines = by_name(found)
    assert (lines["dense", "forward"].flop, lines["dense", "backward"].flop) == (product, product)
    with profile() as found:
        layer(mg.tensor(np.ones((3, 5)), "float32", requires_grad=True)).sum().backward()
    assert by_name(found)["dense", "backward"].flop == 2 * product


def test_a_rule_moves_what_its_parts_move(sleepers):
    _, sleep, _ = sleepers
    with profile() as found:
        sleep()(mg.tensor([1.0, 2.0], requires_grad=True)).backward(mg.tensor([1.0, 1.0]))
    assert {line.phase: line.moved for line in found.lines} == {"forward": 4 * 4, "backward": 4 * (4 + 4)}


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


# ---- a device that works through a queue ----


class Queue(Timer):
    """Marks on the clock of the test, of a device that is behind the host."""

    runs_later = True
    waits = 0

    def seconds(self, begin, end):
        Queue.waits += 1
        return super().seconds(begin, end)


@pytest.fixture
def queued(monkeypatch):
    """The CPU as such a device, whose limits are 8 GFLOP/s and 4 GB/s; and what it was given ahead."""
    ahead = []
    monkeypatch.setattr(Queue, "waits", 0)
    monkeypatch.setattr(type(backend.get("cpu")), "timer", lambda _: Queue())
    module = importlib.import_module("minigrad.inspect.profile")
    monkeypatch.setattr(module, "limits", lambda device: Limits(8.0, 4.0, 256))
    monkeypatch.setattr(module, "occupy", lambda *given: ahead.append(given))
    return ahead


def test_nothing_waits_until_times_are_asked_for(queued, sleepers):
    doze, _, pause = sleepers
    with profile() as found:
        y = doze()(mg.tensor([1.0]))
        pause()
        doze()(y)
    assert queued == [("cpu", Limits(8.0, 4.0, 256), 0.05)]
    assert Queue.waits == 0
    assert [(event.start, event.seconds) for event in found.events] == [(0, 2), (3, 2)]
    waits = Queue.waits
    assert waits > 0
    assert found.events[1].seconds == 2
    assert Queue.waits == waits  # once is enough
    with found:
        doze()(y)
    assert len(queued) == 1
    assert [event.start for event in found.events] == [0, 3, 5]
    assert found.seconds == 7


def test_the_table_has_the_shares_of_the_limits(queued, monkeypatch):
    now = iter([0.0, 1.0, 1.5, 4.0])  # the begin, a product, the end
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    a = mg.tensor(np.ones((1000, 1000), np.float32))
    with profile() as found:
        a @ a
    lines = str(found).splitlines()
    assert lines[0].split("  ")[-1].strip() == "of limit"
    # 2 GFLOP in half a second are 4 a second; 12 MB in it are 0.024 GB a second.
    assert lines[1].split() == [
        "matmul", "forward", "1", "500.00", "12.5%", "2.000", "4.0", "3.81", "MiB",
        "50%", "11.4", "MiB", "0", "1%",
    ]  # fmt: skip
    assert lines[-1] == "limits: 8 GFLOP/s, a large matrix product; 4 GB/s, a large copy"


def test_limits_are_measured_at_a_size_that_takes_long_enough(monkeypatch):
    engine = backend.get("cpu")
    timer = Timer()
    monkeypatch.setattr(timer, "seconds", lambda begin, end: 0.25)
    monkeypatch.setattr(type(engine), "timer", lambda _: timer)
    assert limits("cpu") == Limits(2 * 256**3 / 0.25 / 1e9, 2 * 2**20 / 0.25 / 1e9, 256)


def test_limits_leave_most_of_the_memory_alone(monkeypatch):
    engine = backend.get("cpu")
    timer = Timer()
    monkeypatch.setattr(timer, "seconds", lambda begin, end: 0.001)
    monkeypatch.setattr(type(engine), "timer", lambda _: timer)
    monkeypatch.setattr(type(engine), "free_memory", lambda _: 4 * 3 * 4 * 512**2)  # 12 MiB
    assert limits("cpu") == Limits(2 * 512**3 / 0.001 / 1e9, 2 * 2**20 / 0.001 / 1e9, 512)


def test_a_device_is_kept_busy_with_products(monkeypatch):
    engine, done = backend.get("cpu"), []
    monkeypatch.setattr(type(engine), "matmul", lambda _, a, b: done.append(a.shape))
    occupy("cpu", Limits(2 * 16**3 * 100 / 1e9, 1.0, 16), 0.055)  # 100 products a second
    assert done == [(16, 16)] * 6


@pytest.mark.gpu
def test_on_a_gpu_the_layers_say_which_device():
    model, x = flux().to("gpu"), images().to("gpu")
    with profile(model) as found:
        model(x).sum().backward()
    assert found.device == "gpu"
    assert found.limits.product > 0 < found.limits.copy
    assert 0 < sum(line.seconds for line in found.lines) <= found.seconds
    assert all(event.start >= 0 for event in found.events)
    assert str(found).splitlines()[-1].startswith("limits: ")
    assert profile(flux()).device == profile().device == "cpu"
    assert profile(device="gpu").device == "gpu"


@pytest.mark.gpu
def test_the_bytes_in_use_on_a_gpu():
    engine = backend.get("gpu")
    assert "compute capability" in engine.describe()
    with engine.memory_peak() as peak:
        a = mg.tensor(np.ones(2**20, np.float32), device="gpu")
        b = a + 1.0
        del a, b
        mg.tensor(np.ones(2**10, np.float32), device="gpu")
    assert 2 * 2**22 <= peak.bytes < 2.1 * 2**22


def test_nobody_counts_the_bytes_on_the_cpu():
    with backend.get("cpu").memory_peak() as peak:
        mg.tensor([1.0])
    assert peak.bytes is None
    assert backend.get("cpu").describe() == f"cpu, NumPy {np.__version__}"
