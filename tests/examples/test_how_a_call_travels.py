"""examples/how_a_call_travels.md: its lines run, and its layer takes the form that the page describes."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minigrad import backend, naive
from minigrad.backend.cpu import direct, plans
from minigrad.backend.cpu.convolution import forms
from minigrad.backend.geometry import ConvGeometry

PAGE = (Path(__file__).parents[2] / "examples" / "how_a_call_travels.md").read_text(encoding="utf-8")
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]
CHANNELS, OUT_CHANNELS, KERNEL = map(
    int, re.search(r"ConvTranspose2d\((\d+), (\d+), (\d+), stride=2", CODE).groups()
)
IMAGES, _, SIZE, _ = map(int, re.search(r"size=\((\d+), (\d+), (\d+), (\d+)\)", CODE).groups())
GEOMETRY = ConvGeometry.of_conv_transpose((SIZE, SIZE), (KERNEL, KERNEL), 2, 1, 0, 1)


def test_the_lines_run_and_print_what_the_page_says():
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"# {done.stdout.strip()}\n" in CODE


@pytest.mark.native
@pytest.mark.parametrize("product", ["convolve_input_gradient", "convolve", "convolve_weight_gradient"])
def test_the_layer_takes_the_direct_form(product):
    chosen = backend.get("cpu").convolution_form(product, GEOMETRY, IMAGES, OUT_CHANNELS, CHANNELS)
    assert chosen == direct.DirectForm.description


@pytest.mark.native
def test_all_forms_are_listed():
    for form in forms(backend.get("cpu")):
        assert f"| `{type(form).__name__}` |" in PAGE


@pytest.mark.native
def test_the_layer_with_twice_the_channels_takes_winograds_filters():
    assert f"twice as many, {2 * CHANNELS} and {2 * OUT_CHANNELS} |" in PAGE
    counts = (IMAGES, 2 * OUT_CHANNELS, 2 * CHANNELS)
    assert "winograd.py" in backend.get("cpu").convolution_form("convolve", GEOMETRY, *counts)


def test_the_figures_are_those_of_the_layer():
    positions = IMAGES * SIZE**2
    columns = OUT_CHANNELS * KERNEL**2
    operations = 2 * positions * CHANNELS * columns
    assert f"2 * {positions} * {CHANNELS} * {columns} = {operations:,} operations" in PAGE
    one = naive.convolve_input_gradient(
        np.ones((1, 1, SIZE, SIZE)), np.ones((1, 1, KERNEL, KERNEL)), GEOMETRY
    )
    assert f"adds up {int(one.sum()) * IMAGES * OUT_CHANNELS:,} of" in PAGE
    for name, shape in (
        ("x", (IMAGES, CHANNELS, SIZE, SIZE)),
        ("weight", (CHANNELS, OUT_CHANNELS, KERNEL, KERNEL)),
        ("columns", (positions, columns)),
        ("y", (IMAGES, OUT_CHANNELS, *GEOMETRY.input_size)),
    ):
        numbers = math.prod(shape)
        assert f"| {name} | {shape} | {numbers:,} | {4 * numbers:,} |" in PAGE


@pytest.mark.native
def test_the_pieces_are_those_of_the_direct_form(monkeypatch):
    cuts, parts = [], []
    cut, weight_parts = direct._cut, direct.DirectForm._weight_parts

    def count_parts(*arguments):
        parts.append(weight_parts(*arguments))
        return parts[-1]

    monkeypatch.setattr(direct, "_cut", lambda *arguments: cuts.append(cut(*arguments)) or cuts[-1])
    monkeypatch.setattr(direct.DirectForm, "_weight_parts", count_parts)
    cpu = backend.get("cpu")
    x = np.ones((IMAGES, CHANNELS, SIZE, SIZE), np.float32)
    y = cpu.convolve_input_gradient(
        x, np.ones((CHANNELS, OUT_CHANNELS, KERNEL, KERNEL), np.float32), None, GEOMETRY
    )
    cpu.convolve_weight_gradient(y, x, GEOMETRY)
    ((each, _),) = cuts
    pieces = -(-IMAGES // each)
    assert PAGE.count(f"{pieces} pieces of {each} images") == 2
    assert f"({IMAGES - (pieces - 1) * each} in\n   the last)" in PAGE
    assert f"There are {len(parts[0])} pieces, each of up to {-(-IMAGES // len(parts[0]))} images" in PAGE
    found = plans.of_input_gradient(GEOMETRY, OUT_CHANNELS, CHANNELS)
    height, width = found.canvas_size
    assert f"canvases of {height} x {width} pixels" in PAGE
    depth = len(found.segments) // len(found.plans) * found.plans[0].length
    assert f"{len(found.plans)} phases x 1 block of ({depth}, {OUT_CHANNELS})" in PAGE
