"""The numbered examples: each runs, small, and what it claims is held against something else."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawing import DARK
from PIL import Image

import minigrad as mg
from minigrad import naive, optim
from minigrad.backend.cpu.transforms import period
from minigrad.backend.geometry import ConvGeometry
from minigrad.ops.operation import OPERATIONS

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
    """Run an example; gives its module and what it printed. Its picture must show something, in our style."""
    module = load(name)
    assert capsys.readouterr().out == "", "an import prints nothing"
    out = tmp_path / "picture.png"
    with matplotlib.rc_context(DARK):
        assert module.main([*map(str, options), "--out", str(out)]) == 0
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) >= 300
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    return module, capsys.readouterr().out


def test_no_example_imports_matplotlib_before_it_draws():
    """The import fails under some of the settings that a user may have."""
    program = f"""
import runpy, sys
for path in {sorted(map(str, FOLDER.glob("*.py")))}:
    runpy.run_path(path)
    assert "matplotlib" not in sys.modules, path
"""
    subprocess.run([sys.executable, "-c", program], cwd=FOLDER.parent, check=True)


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
    oracle = naive.batch_norm(x, weight, bias, example.EPS)
    assert_near(example.forward(x, weight, bias)[0], oracle, 1e-12)


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


# -- 9 ----------------------------------------------------------------------------------------------


def test_why_logits(tmp_path, capsys):
    example, _ = run("09_why_logits", tmp_path, capsys, "--steps", 30, "--points", 20)
    assert example.saturation() == pytest.approx(24 * np.log(2), abs=0.01)
    by_probability, by_logit = (example.loss_and_gradient(f, 20.0, 0.0) for f in example.FORMS.values())
    assert by_probability == (100.0, 0.0)
    assert by_logit == pytest.approx((20.0, 1.0), rel=1e-6)
    for logit in (-40.0, -3.0, 0.5, 30.0):
        for label in (0.0, 1.0):
            found = example.loss_and_gradient(example.by_logit, logit, label)
            assert found == pytest.approx(example.truth(logit, label), rel=1e-5)
    assert set(example.learn(example.by_probability, 20.0, 1.0, 5)) == {20.0}
    assert example.learn(example.by_logit, 20.0, 1.0, 30)[-1] < 0


# -- 8 ----------------------------------------------------------------------------------------------


def test_adam_on_a_ravine(tmp_path, capsys):
    example, printed = run("08_adam_on_a_ravine", tmp_path, capsys, "--steps", 40)
    valley = example.VALLEYS["ravine"]
    ends = {
        method: example.descend(valley, make, lr, 60)[1][-1]
        for (method, (make, _)), lr in zip(example.METHODS.items(), valley.rates, strict=True)
    }
    assert max(ends["Adam"], ends["momentum 0.9"]) < ends["gradient descent"]
    assert "0.1 / sqrt(0.001) = 3.16" in printed


def test_adams_first_steps_by_hand_are_the_engines():
    example, gradients = load("08_adam_on_a_ravine"), [0.5, -2.0, 1.0, 0.1]
    p = mg.tensor([0.0], dtype="float64", requires_grad=True)
    adam, places = optim.Adam([p], lr=1.0, betas=example.BETAS), []
    for g in gradients:
        p.grad = mg.tensor([g], dtype="float64")
        adam.step()
        places.append(p.item())
    steps = [row[6] for row in example.first_steps(gradients)]
    assert_near(-np.cumsum(steps), places, 1e-6)
    assert example.first_steps([3.0])[0][7] == pytest.approx(0.1 / 0.001**0.5)


def test_gradient_descent_diverges_beyond_its_rate():
    example = load("08_adam_on_a_ravine")
    plain, valley = example.METHODS["gradient descent"][0], example.VALLEYS["ravine"]
    assert example.descend(valley, plain, 0.039, 100)[1][-1] < 1
    assert example.descend(valley, plain, 0.0401, 2000)[1][-1] > 100


# -- 3 ----------------------------------------------------------------------------------------------


def test_spiral(tmp_path, capsys):
    _, printed = run("03_spiral", tmp_path, capsys, "--steps", 30, "--hidden", 8)
    assert "of those never seen" in printed


def test_spiral_is_learned():
    found = load("03_spiral").train(220, 32, shown=2, side=8)
    _, learned, held = found["regions"][220]
    assert learned > 0.97
    assert held > 0.9


# -- 2 ----------------------------------------------------------------------------------------------


def test_neuron(tmp_path, capsys):
    example, _ = run("02_neuron", tmp_path, capsys, "--steps", 20)
    x, t = example.clouds(50, np.random.default_rng(1))
    rows = example.learn_by_hand(x, t, 0.5, 20)
    assert_near(example.learn_by_minigrad(x, t, 0.5, 20), rows, 1e-12)
    assert rows[-1, 3] < 0.5 * rows[0, 3]
    assert example.right(rows[-1], x, t) > 0.9

    def value(w):
        return example.loss_and_gradients(w, 0.3, x, t)[0]

    w, h = np.array([0.4, -1.0]), 1e-6
    slopes = [(value(w + h * e) - value(w - h * e)) / (2 * h) for e in np.eye(2)]
    assert_near(example.loss_and_gradients(w, 0.3, x, t)[1], slopes, 1e-7)


# -- 10 ---------------------------------------------------------------------------------------------


@pytest.fixture
def operations_restored():
    """Operations that an example defines must not stay enrolled for other tests."""
    before = dict(OPERATIONS)
    yield
    OPERATIONS.clear()
    OPERATIONS.update(before)


@pytest.mark.usefixtures("operations_restored")
def test_own_operation(tmp_path, capsys):
    example, printed = run("10_own_operation", tmp_path, capsys, "--beta", 1.5)
    assert OPERATIONS["swish"] is example.Swish
    assert "order 2: agree" in printed
    assert "off by the same factor 1.01" in printed
    (case,) = example.Swish.cases()
    (x,) = case.inputs(np.random.default_rng(0))
    assert_near(case.call(mg.tensor(x)).numpy(), case.reference(x), 1e-12)
    assert example.check(lambda x: example.with_mistake(1.0, 1.0)(x), 2) == ""
    assert "relative error" in example.check(lambda x: example.with_mistake(1.0, 1.0001)(x), 1)


# -- 7 ----------------------------------------------------------------------------------------------


def test_frequency_domain(tmp_path, capsys):
    example, printed = run("07_frequency_domain", tmp_path, capsys)
    assert example.multiplications(7, 5, 2) == (1225, 121)
    assert "9 is enough" in printed


@pytest.mark.parametrize(("size", "kernel", "padding"), [(7, 5, 2), (6, 3, 1), (5, 5, 0), (5, 3, 2)])
def test_the_smallest_period_is_the_smallest(size, kernel, padding):
    example = load("07_frequency_domain")
    x, w = example.arrays(size, kernel)
    geometry = ConvGeometry.of_conv((size, size), (kernel, kernel), 1, padding, 1)
    oracle = naive.convolve(x[None, None], w[None, None], geometry)[0, 0]
    enough = example.smallest_period(size, kernel, padding)
    assert enough == period(geometry, 0)
    assert_near(example.on_a_circle(x, w, enough, padding), oracle, 1e-12)
    if enough > size:
        assert np.abs(example.on_a_circle(x, w, enough - 1, padding) - oracle).max() > 1e-3


# -- 13 ---------------------------------------------------------------------------------------------


def test_dcgan_in_60_lines(tmp_path, capsys):
    example, _ = run("13_dcgan_in_60_lines", tmp_path, capsys, "--steps", 2, "--width", 2)
    source = Path(example.__file__).read_text()
    body = source.split('"""', 2)[2].splitlines()  # after the docstring
    body = body[next(i for i, line in enumerate(body) if line.startswith("def networks")) :]
    body = body[: body.index("def main(argv=None):")]
    assert sum(bool(line.strip()) for line in body) <= 60
    g, d = example.networks(2)
    made = g(mg.tensor(np.zeros((3, 64), np.float32)))
    assert made.shape == (3, 1, 28, 28)
    assert d(made).shape == (3, 1)


# -- 12 ---------------------------------------------------------------------------------------------


def test_ring_of_gaussians(tmp_path, capsys):
    example, printed = run("12_ring_of_gaussians", tmp_path, capsys, "--steps", 40, "--hidden", 8)
    assert "modes came" in printed
    rng = np.random.default_rng(0)
    modes, near = example.census(example.ring(2000, rng))
    assert modes == 8
    assert near == pytest.approx(1 - np.exp(-4.5), abs=0.01)  # of a round Gaussian, within 3 sd
    assert example.census(np.tile(example.CENTRES[:3], (100, 1))) == (3, 1.0)
    assert example.census(np.concatenate([example.CENTRES[:1]] * 2 + [np.zeros((98, 2))])) == (0, 0.02)
    assert example.census(np.zeros((10, 2))) == (0, 0.0)
    assert example.play(20, 5, hidden=8)[0] == example.play(20, 5, hidden=8)[0]
