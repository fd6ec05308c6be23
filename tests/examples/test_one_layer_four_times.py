"""examples/14_one_layer_four_times.py: its forms, the lines that it names, and what it says is missing."""

import importlib.util
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from drawing import DARK
from PIL import Image

from minigrad import backend, naive
from minigrad.backend.cpu.native import KernelStatus

PATH = Path(__file__).parents[2] / "examples" / "14_one_layer_four_times.py"


def load():
    """The program as a module of its own."""
    spec = importlib.util.spec_from_file_location("one_layer_four_times", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


example = load()


@pytest.fixture(scope="module")
def own():
    """The form of the example's own kernels."""
    kernels, reason = example.own_kernels()
    assert reason == ""
    return example.OwnC(kernels)


SIZES = [
    example.Sizes(2, 3, 3, 5),
    example.Sizes(1, 1, 1, 1, kernel=3, stride=1, padding=1),
    example.Sizes(3, 2, 4, 1, kernel=2, stride=3, padding=0),  # pixels that no tap reaches
    example.Sizes(2, 4, 1, 33, kernel=5, stride=2, padding=3),
]


@pytest.mark.parametrize("g", SIZES, ids=str)
def test_the_loops_are_the_formulas(g):
    """By hand, as the docstring has them."""
    x, w, dy = example.draw_arrays(g, np.float64)
    made = example.results(example.Loops(), (x, w, dy), g)
    y, dx, dw = (np.zeros_like(made[name]) for name in ("y", "dx", "dw"))
    for h, v, i, j in np.ndindex(g.size, g.size, g.kernel, g.kernel):
        row, column = h * g.stride + i - g.padding, v * g.stride + j - g.padding
        if 0 <= row < g.out_size and 0 <= column < g.out_size:
            y[:, :, row, column] += x[:, :, h, v] @ w[:, :, i, j]
            dx[:, :, h, v] += dy[:, :, row, column] @ w[:, :, i, j].T
            dw[:, :, i, j] += x[:, :, h, v].T @ dy[:, :, row, column]
    for name, expected in (("y", y), ("dx", dx), ("dw", dw)):
        np.testing.assert_allclose(made[name], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", example.MAX_ERROR)
@pytest.mark.parametrize("g", SIZES, ids=str)
@pytest.mark.parametrize(
    "name", ["NumPy", *(pytest.param(name, marks=pytest.mark.native) for name in ("own C", "C"))]
)
def test_forms_agree(name, g, dtype):
    example.check(example.find_forms()[0][name], g, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", example.MAX_ERROR)
def test_the_form_on_a_gpu_agrees(dtype):
    form = example.find_forms()[0]["CUDA"]
    for g in SIZES:
        example.check(form, g, dtype)
    assert example.measure(form, SIZES[0], rounds=1).forward > 0


@pytest.mark.native
@pytest.mark.parametrize(
    ("right", "wrong", "named"),
    [
        ("to[c] += from[r]", "to[c] += (REAL)1.01 * from[r]", "y"),
        ("h * g->stride + i - g->padding", "h * g->stride + i - g->padding + (h == 1)", "y"),
        ("call->back ? pixel : at", "call->back ? (at + pixel) % small : at", "dx"),
        ("tap / g->kernel, tap % g->kernel", "tap % g->kernel, tap / g->kernel", "dw"),
    ],
    ids=["1%", "a row too low", "another pixel", "another tap"],
)
def test_a_mistake_in_the_kernel_is_found(right, wrong, named, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    text = example.SOURCE.read_text()
    assert text.count(right) == 1
    mistaken = tmp_path / "mistaken.c"
    mistaken.write_text(text.replace(right, wrong))
    kernels, reason = example.own_kernels(mistaken)
    assert reason == ""
    with pytest.raises(AssertionError, match=f"^{named}: relative error"):
        example.check(example.OwnC(kernels), SIZES[0], "float64")


@pytest.mark.native
def test_own_kernels_give_the_same_bits_on_any_number_of_threads(own):
    g = example.Sizes(5, 3, 7, 9)
    arrays = example.draw_arrays(g, np.float32)
    found = []
    for threads in (1, 3):
        own.kernels.set_members(threads)
        found.append(example.results(own, arrays, g))
    own.kernels.set_members(backend.num_threads())
    for name, one in found[0].items():
        np.testing.assert_array_equal(one, found[1][name])


def test_the_operations_are_those_of_the_loops():
    g = example.Sizes(2, 3, 4, 5, padding=0)  # nothing is cropped
    w = np.ones((4, 5, 4, 4))
    products = naive.convolve_input_gradient(np.ones((2, 4, 3, 3)), w, g.geometry).sum()
    assert g.operations == 2 * products


def test_the_loops_time_is_that_of_the_whole(monkeypatch):
    sizes = []

    def seconds(on, rounds, function, *arguments):
        sizes.append(arguments[-1])
        return [2.0]

    monkeypatch.setattr(example, "seconds", seconds)
    g = example.Sizes(6, 7, 16, 24)
    taken = example.measure(example.Loops(), g)
    assert set(sizes) == {example.Sizes(1, 7, 8, 8)}
    assert (taken.forward, taken.backward) == (2.0 * 6 * 2 * 3, 2.0 * 6 * 2 * 3)
    assert taken.speed == pytest.approx(3 * 2 * 6 * 49 * 16 * 16 * 24 / 144)
    assert example.measure(example.ByBackend(example.Plain()), g).forward == 2.0


@pytest.mark.parametrize("name", [*example.SOURCES, *example.OTHER_FORMS])
def test_the_lines_named_are_there(name):
    path, *beginnings = (example.SOURCES | example.OTHER_FORMS)[name]
    place = example.places(path, *beginnings)
    shown, numbers = place.split(":")
    assert (shown.split("/")[0]) == ("examples" if name == "own C" else "minigrad")
    assert path.as_posix().endswith(shown)
    lines = path.read_text().splitlines()
    for number, beginning in zip(numbers.split(", "), beginnings, strict=True):
        assert lines[int(number) - 1].strip().startswith(beginning)


def run(tmp_path, capsys):
    """Return the output of the program for a small layer; its picture must show something, in our style."""
    out = tmp_path / "picture.png"
    sizes = ("--batch", "2", "--size", "2", "--channels", "2", "--out-channels", "3")
    with matplotlib.rc_context(DARK):
        assert example.main([*sizes, "--out", str(out)]) == 0
    with Image.open(out) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    return capsys.readouterr().out


@pytest.mark.native
def test_one_layer_four_times(tmp_path, capsys):
    printed = run(tmp_path, capsys)
    lines = [line.split() for line in printed.splitlines()]
    times = [line for line in lines if line[:1] == ["loops"]][1]
    assert times[-1] == "1"
    assert "x (2, 2, 2, 2), w (2, 3, 4, 4) -> y (2, 3, 4, 4), float32" in printed
    assert "own C was not run" not in printed
    assert "kernels/convolution.c" in printed


@pytest.mark.native
@pytest.mark.parametrize(
    ("sizes", "file"),
    [
        ((64, 7, 64, 32), "convolution.c"),  # the program's own
        ((128, 7, 128, 64), "winograd.c"),
        ((512, 7, 512, 512), "frequency.c"),
    ],
)
def test_the_file_of_the_form_that_runs_is_named(sizes, file, capsys):
    example.report_sources(example.Sizes(*sizes), {})
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["C"])
    assert line.split()[1].split(":")[0] == f"minigrad/backend/cpu/kernels/{file}"


def test_without_a_compiler_it_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MINIGRAD_NATIVE", "0")
    missing = KernelStatus("NumPy", reason="no C compiler was found")
    monkeypatch.setattr(backend, "cpu_kernels", lambda: missing)

    def no_gpu(device):
        if device == "gpu":
            raise ImportError("No module named 'cupy'")
        return get(device)

    get = backend.get
    monkeypatch.setattr(backend, "get", no_gpu)
    printed = run(tmp_path, capsys)
    assert "own C was not run: MINIGRAD_NATIVE=0." in printed
    assert "\nC was not run: no C compiler was found." in printed
    assert "CUDA was not run: No module named 'cupy' (it takes an NVIDIA GPU and CuPy" in printed
    assert "NumPy" in printed


def test_sizes_of_nothing_are_refused(capsys):
    with pytest.raises(SystemExit):
        example.main(["--channels", "0"])
    assert "expected sizes of at least 1" in capsys.readouterr().err
