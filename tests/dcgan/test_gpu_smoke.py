"""The program that a person with a GPU runs first."""

import gpu_smoke
import pytest

from minigrad.backend import get
from minigrad.ops import OPERATIONS

CASES = sum(len(list(operation.cases())) for operation in OPERATIONS.values())
SMALL = ["--batch-size", "4", "--rounds", "1", "--presets", "quick", "--timed", "quick", "--no-pytorch"]


@pytest.mark.gpu
def test_all_is_well(capsys):
    assert gpu_smoke.main(SMALL) == 0
    said = capsys.readouterr().out
    assert f"{2 * CASES} of {2 * CASES} cases agree" in said
    assert "the same bits" in said
    assert "quick" in said


@pytest.mark.gpu
def test_what_differs_is_named(capsys, monkeypatch):
    right = type(get("gpu")).leaky_relu_backward
    monkeypatch.setattr(
        type(get("gpu")), "leaky_relu_backward", lambda self, dy, y, slope: right(self, dy, y, slope * 1.01)
    )
    assert gpu_smoke.main(SMALL) == 1
    assert "leaky_relu (plain, float64): error" in capsys.readouterr().out


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    def none(device):
        raise RuntimeError("CuPy finds no GPU")

    monkeypatch.setattr(gpu_smoke.backend, "get", none)
    assert gpu_smoke.main([]) == 2
    assert capsys.readouterr().err == "no GPU to be used: CuPy finds no GPU\n"
