"""The numbered examples: each runs, small, and what it claims is held against something else."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minigrad import naive
from minigrad.backend.geometry import ConvGeometry

FOLDER = Path(__file__).parents[2] / "examples"


def load(name):
    """The program examples/<name>.py as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def assert_near(result, oracle, most):
    """The same shape, and a difference of at most `most`, relative, in norms."""
    assert np.shape(result) == np.shape(oracle)
    assert np.linalg.norm(np.subtract(result, oracle)) <= most * np.linalg.norm(oracle)


def run(name, tmp_path, capsys, *options):
    """Run an example; gives its module and what it printed. Its picture must show something."""
    module = load(name)
    assert capsys.readouterr().out == "", "an import prints nothing"
    out = tmp_path / "picture.png"
    assert module.main([*map(str, options), "--out", str(out)]) == 0
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) >= 300
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    return module, capsys.readouterr().out


# -- 1 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [(0.8, 1.5, -0.7), (-2.0, 0.3, 0.1)])
def test_scalar_graph(at, tmp_path, capsys):
    example, printed = run("01_scalar_graph", tmp_path, capsys, "--at", *at)
    gradients, walk = example.backward(example.forward(*at))
    by_hand = [gradients[name] for name in "abc"]
    a, b, c = at
    t = np.tanh(a * b + c)
    solved = [t + a * b * (1 - t * t), a * a * (1 - t * t), a * (1 - t * t)]
    np.testing.assert_allclose(by_hand, solved, rtol=1e-12)
    np.testing.assert_allclose(example.by_minigrad(at), solved, rtol=1e-12)
    np.testing.assert_allclose(example.by_differences(at), solved, rtol=1e-6)
    assert sum(source == "a" for _, source, *_ in walk) == 2
    assert f"{solved[0]:.9f}" in printed


# -- 6 ----------------------------------------------------------------------------------------------


def test_batch_norm(tmp_path, capsys):
    example, printed = run("06_batch_norm", tmp_path, capsys, "--batch", 3, "--channels", 2)
    found = example.measure(3, 2)
    for right, minigrad, differences in zip(
        found["right"], found["minigrad"], found["differences"], strict=True
    ):
        assert_near(right, minigrad, 1e-10)
        assert_near(right, differences, 1e-7)
    assert example.error(found["wrong_dx"], found["differences"][0]) > 0.1
    assert "s dn alone" in printed


def test_batch_norm_forward_is_that_of_the_loops():
    rng = np.random.default_rng(3)
    x, weight, bias = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=3), rng.normal(size=3)
    example = load("06_batch_norm")
    assert_near(example.forward(x, weight, bias)[0], naive.batch_norm(x, weight, bias, example.EPS), 1e-12)


def test_without_the_mean_terms_the_descent_goes_astray():
    example = load("06_batch_norm")
    right, wrong = example.descend(True), example.descend(False)
    assert all(np.diff(right) <= 1e-12)
    assert wrong[-1] > 1.3 * right[-1]


# -- 5 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kernel", "stride"), [(5, 3, 2), (6, 4, 1), (6, 3, 2), (4, 2, 3)])
def test_transposed_convolution_forms(size, kernel, stride):
    a, made, (first, second) = load("05_transposed_convolution").forms(size, kernel, stride)
    assert np.count_nonzero(a) == len(a) * kernel**2
    assert first == pytest.approx(second, rel=1e-12)
    by_matrix = made["A^T y, by the matrix"]
    for value in made.values():
        assert_near(value, by_matrix, 1e-12)


def test_transposed_convolution(tmp_path, capsys):
    example, printed = run("05_transposed_convolution", tmp_path, capsys, "--size", 4)
    inside = example.counts(3, 2)[2:-2, 2:-2]
    assert set(inside.ravel()) == {1, 2, 4}
    assert set(example.counts(4, 2)[2:-2, 2:-2].ravel()) == {4}
    assert "kernel 3, stride 2, row 4  2 4 2 4" in printed


# -- 4 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "kernel", "padding"), [(1, 3, 1), (2, 4, 1), (2, 3, 0), (3, 2, 2)])
def test_convolution_forms(stride, kernel, padding):
    example = load("04_convolution_as_product")
    g = example.Sizes(2, 3, 6, 2, kernel, stride, padding)
    x, w = example.draw_arrays(g, np.random.default_rng(1))
    geometry = ConvGeometry.of_conv((6, 6), (kernel, kernel), stride, padding, 1)
    oracle = naive.convolve(x, w, geometry)
    for form in (example.loops, example.product, example.engine):
        assert_near(form(x, w, g), oracle, 1e-12)
    assert example.cost(g)["columns"] == example.im2col(x, g).nbytes
    assert example.cost(g)["y"] == oracle.nbytes


def test_convolution_as_product(tmp_path, capsys):
    options = ("--size", 5, "--channels", 2, "--out-channels", 3)
    _, printed = run("04_convolution_as_product", tmp_path, capsys, *options)
    assert "The columns are 9.0 times as large as x." in printed
