"""The benchmark of layers: that it counts right, takes turns, and writes down what it measured."""

import argparse
import json

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, bench, machine, nn


def test_the_operations_of_a_layer_are_counted_forward_and_back():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    x = mg.tensor(np.ones((2, 3, 5, 5), np.float32), requires_grad=True)
    product = 2 * 2 * (5 * 5) * (3 * 3) * 3 * 4  # 2 images, 25 positions, 9 taps, 3 by 4 channels
    assert bench.gflop(lambda: conv(x)) * 1e9 == pytest.approx(product)
    assert bench.gflop(lambda: conv(x).sum().backward()) * 1e9 == pytest.approx(3 * product)


@pytest.mark.parametrize("needed", [True, False])
def test_both_gradients_of_a_transposed_convolution_count(needed):
    layer = nn.ConvTranspose2d(3, 4, 4, stride=2, padding=1)
    x = mg.tensor(np.ones((2, 3, 5, 5), np.float32), requires_grad=needed)
    product = 2 * 2 * (5 * 5) * (4 * 4) * 3 * 4
    passes = 3 if needed else 2
    assert bench.gflop(lambda: layer(x).sum().backward()) * 1e9 == pytest.approx(passes * product)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3)], ids=["conv", "transposed"]
)
def test_a_gradient_that_can_be_differentiated_again_counts_once(layer):
    x = mg.tensor(np.ones((2, 3, 5, 5), np.float32), requires_grad=True)
    forward = bench.gflop(lambda: layer(x))
    work = bench.gflop(lambda: mg.grad(layer(x).sum(), [x, layer.weight], create_graph=True))
    assert work == pytest.approx(3 * forward)


def test_a_dense_layer_counts():
    layer = nn.Dense(6, 5)
    x = mg.tensor(np.ones((7, 6), np.float32), requires_grad=True)
    assert bench.gflop(lambda: layer(x).sum().backward()) * 1e9 == pytest.approx(3 * 2 * 7 * 6 * 5)


def test_things_take_turns(monkeypatch):
    monkeypatch.setattr(bench, "PAUSE", 0)
    called = []
    timings = bench.in_turn({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, rounds=2)
    each = 1 + bench.RUNS  # one is not counted
    assert called == (["a"] * each + ["b"] * each) * 2
    assert all(0 <= timings[name].minimum <= timings[name].median for name in "ab")


def test_a_timing_is_a_median_and_a_minimum():
    assert bench.Timing.of([3.0, 1.0, 2.0]) == bench.Timing(2.0, 1.0)


def test_the_table_has_ratios_where_there_is_something_to_compare_with():
    ours, theirs = bench.Timing(0.02, 0.01), bench.Timing(0.04, 0.04)
    rows = [bench.Row("one", 4.0, ours, theirs, 0.5), bench.Row("two", 4.0, ours, None, 0.5)]
    lines = bench.table(rows, 400.0).splitlines()
    assert lines[1].split() == [
        "one",
        "4.00",
        "20.00",
        "10.00",
        "200",
        "50%",
        "40.00",
        "40.00",
        "0.50",
        "0.25",
    ]
    assert lines[2].split()[-4:] == ["-", "-", "-", "-"]
    assert lines[3] == "geometric mean of ours/theirs: 0.50"
    assert lines[4] == "limit: 400 GFLOP/s, matrix products of this machine, float32"


def checked(argv):
    parser = argparse.ArgumentParser()
    bench.add_options(parser)
    given = parser.parse_args(argv)
    bench.check_options(parser, given)
    return given


@pytest.mark.parametrize(
    ("place", "said"),
    [("file/a.json", "the folder {tmp}/file can't be made"), ("", "it is there, and no plain file")],
    ids=["no folder", "a folder"],
)
def test_a_file_that_cannot_be_written_is_told_before_anything_is_timed(place, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended:
        checked(["--json", str(tmp_path / place)])
    assert ended.value.code == 2
    assert f"--json {tmp_path / place}: {said.format(tmp=tmp_path)}" in capsys.readouterr().err


def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / "new" / "er" / "a.json"
    assert checked(["--json", str(path)]).json == path
    assert list(path.parent.iterdir()) == []


def test_a_file_that_can_be_written_is_left_alone(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("{}")
    for path in (old, new):
        assert checked(["--json", str(path)]).json == path
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old.json", "{}")]


def test_the_command_prints_a_table_and_writes_json(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(bench, "product_limit", lambda: 100.0)
    monkeypatch.setattr(bench, "LAYERS", [("a convolution", (2, 3, 4, 4), lambda n: n.Conv2d(3, 2, 3))])
    path = tmp_path / "layers.json"
    assert bench.main(["--rounds", "1", "--no-pytorch", "--json", str(path)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert f"NumPy {np.__version__}" in head
    assert lines[1].startswith("a convolution")
    written = json.loads(path.read_text())
    assert written["processor"] == machine.processor()
    assert written["threads"] == backend.num_threads()
    assert written["versions"] == {
        "minigrad": mg.__version__, "numpy": np.__version__, "blas": machine.blas(),
    }  # fmt: skip
    assert written["limit_gflops"] == 100.0
    assert written["rows"][0]["name"] == "a convolution"
    assert written["rows"][0]["theirs"] is None
    assert written["rows"][0]["ours"]["minimum"] > 0
    assert written["peak_memory_mib"] > 10


def test_every_layer_of_the_list_is_one_of_ours():
    for name, shape, make in bench.LAYERS:
        x = mg.tensor(np.ones((2, *shape[1:]), np.float32))
        assert len(make(nn)(x)) == 2, name


@pytest.mark.parametrize("rounds", ["0", "-1"])
def test_no_rounds_are_a_users_mistake(rounds, capsys):
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--rounds", rounds])
    assert f"--rounds {rounds}: expected at least 1" in capsys.readouterr().err


def test_the_number_of_threads_can_be_set():
    before = backend.num_threads()
    try:
        mg.set_num_threads(3)
        assert backend.num_threads() == backend.get("cpu").pool.threads == 3
        y = backend.get("cpu").matmul(np.ones((900, 800), np.float32), np.ones((800, 700), np.float32))
        assert (y == 800).all()
    finally:
        mg.set_num_threads(before)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True, 1025, 99999])
def test_a_number_of_threads_that_is_none_is_told(wrong):
    with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to 1024, got "):
        mg.set_num_threads(wrong)


def test_the_help_names_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        bench.main(["--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: python -m minigrad.bench ")
