"""The program that a person with a GPU runs first."""

import gpu_smoke
import pytest

import minigrad as mg
from minigrad.backend import get
from minigrad.ops import OPERATIONS

CASES = sum(len(list(operation.cases())) for operation in OPERATIONS.values())
SMALL = ["--batch-size", "4", "--rounds", "1", "--presets", "quick", "--timed", "quick", "--no-pytorch"]


@pytest.fixture
def operations_alone(monkeypatch):
    """All checks but those of operations pass at once, and nothing is timed."""
    for name in ("check_repeats", "check_captured", "check_ahead", "check_resumed", "check_memory"):
        monkeypatch.setattr(gpu_smoke, name, lambda *_: True)
    monkeypatch.setattr(gpu_smoke, "check_recipe", lambda name, batch_size: "")
    monkeypatch.setattr(gpu_smoke.bench, "main", lambda argv: 0)


@pytest.mark.gpu
def test_all_is_well(capsys, few_digits, monkeypatch):
    monkeypatch.setattr(gpu_smoke, "AHEAD_SIZE", 16)
    assert gpu_smoke.main(SMALL) == 0
    said = capsys.readouterr().out
    assert f"{2 * CASES} of {2 * CASES} cases agree" in said
    lines = [line.split(": ") for line in said.splitlines() if line.endswith((": yes", ": NO"))]
    assert [(what.strip(), answer) for what, answer in lines] == [
        ("three steps of flux, twice", "yes"),
        ("six steps of quick, captured and one by one", "yes"),
        ("40 replays that nobody waits for", "yes"),
        ("the files of a run of quick, resumed and uninterrupted", "yes"),
        ("four steps of flux after one for which memory was too small, captured and one by one", "yes"),
    ]
    assert "all is well" in said
    assert said.index("all is well") < said.index("quick, batch 4: ") < said.index("  ours, captured ")


@pytest.mark.gpu
def test_what_differs_is_named(capsys, monkeypatch, operations_alone):
    right = type(get("gpu")).leaky_relu_backward
    monkeypatch.setattr(
        type(get("gpu")), "leaky_relu_backward", lambda self, dy, y, slope: right(self, dy, y, slope * 1.01)
    )
    assert gpu_smoke.main(SMALL) == 1
    assert "leaky_relu (plain, float64): error" in capsys.readouterr().out


@pytest.mark.gpu
def test_a_check_that_fails_or_raises_stops_no_other(capsys, monkeypatch, operations_alone):
    def raises():
        raise ValueError("of the test")

    monkeypatch.setattr(gpu_smoke, "check_operations", lambda: (0, []))
    assert gpu_smoke.main(SMALL) == 0
    monkeypatch.setattr(gpu_smoke, "check_captured", lambda name, batch_size: False)
    monkeypatch.setattr(gpu_smoke, "check_resumed", raises)
    capsys.readouterr()
    assert gpu_smoke.main(SMALL) == 1
    said = capsys.readouterr().out
    wrong = [
        "  six steps of quick, captured and one by one: NO",
        "  the files of a run of quick, resumed and uninterrupted: NO: ValueError: of the test",
    ]
    assert said.splitlines()[-3:] == ["NOT WELL:", *wrong]
    monkeypatch.undo()


@pytest.mark.gpu
def test_a_captured_step_that_differs_is_seen(monkeypatch):
    class Wrong:
        """Draws once more than it should, so that Dropout drops others."""

        is_captured = True

        def __init__(self, step):
            self.step = step

        def __call__(self, real):
            mg.random.default.next_counter()
            return self.step(real)

    monkeypatch.setattr(mg, "capture", Wrong)
    assert not gpu_smoke.check_captured("quick", 4)


@pytest.mark.gpu
def test_memory_that_is_enough_is_no_pass(monkeypatch):
    monkeypatch.setattr(type(get("gpu")), "free_memory", lambda _: 4 * 12544)
    with pytest.raises(RuntimeError, match="a batch of 2 fits into 50176 bytes"):
        gpu_smoke.check_memory()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--presets", "no"], "--presets: invalid choice: 'no'"),
        (["--timed", "no"], "--timed: invalid choice: 'no'"),
        (["--rounds", "0"], "--rounds: expected an integer of at least 1"),
        (["--batch-size", "0"], "--batch-size: expected an integer of at least 1"),
        (["--timed", "quick", "--batch-size", "1"], "--batch-size 1: a BatchNorm needs two images or more"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(options, said, capsys, monkeypatch):
    monkeypatch.setattr(gpu_smoke.backend, "get", lambda _: pytest.fail("something runs"))
    with pytest.raises(SystemExit) as ended:
        gpu_smoke.main(options)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    def none(device):
        raise RuntimeError("CuPy finds no GPU")

    monkeypatch.setattr(gpu_smoke.backend, "get", none)
    assert gpu_smoke.main([]) == 2
    assert capsys.readouterr().err == "no GPU to be used: CuPy finds no GPU\n"
