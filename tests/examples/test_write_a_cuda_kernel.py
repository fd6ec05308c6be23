"""examples/11_write_a_cuda_kernel.py: its three forms, its counts, and what it prints."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest
from accuracy import assert_close

from minigrad import naive
from minigrad.backend.geometry import ConvGeometry

PATH = Path(__file__).parents[2] / "examples" / "11_write_a_cuda_kernel.py"


def load():
    """The program as a module of its own."""
    spec = importlib.util.spec_from_file_location("write_a_cuda_kernel", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


example = load()

SIZES = [(1, 1), (5, 1), (1, 5), (5, 4)]
CHANNELS = [(1, 33), (33, 1), (3, 3)]


def geometries(stride, kernel):
    """Every size, channels and padding that leave something of the result; batches of two."""
    for (height, width), channels, padding in itertools.product(SIZES, CHANNELS, range(kernel)):
        g = example.Geometry(2, height, width, *channels, kernel, stride, padding)
        if min(g.out_height, g.out_width) >= 1:
            yield g


STRIDES = pytest.mark.parametrize("stride", [1, 2, 3])
KERNELS = pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])


# -- the NumPy half -------------------------------------------------------------------------------


def oracle(x, w, g):
    """The transposed convolution by minigrad/naive.py, which numbers its axes another way."""
    size, taps = (g.height, g.width), (g.kernel, g.kernel)
    geometry = ConvGeometry.of_conv_transpose(size, taps, g.stride, g.padding, 0, 1)
    made = naive.convolve_input_gradient(x.transpose(0, 3, 1, 2), w.transpose(0, 3, 1, 2), geometry)
    return made.transpose(0, 2, 3, 1)  # (N, H', W', O)


@pytest.mark.parametrize("form", example.NUMPY_FORMS)
@pytest.mark.parametrize(("stride", "kernel", "padding"), [(1, 3, 1), (2, 4, 1), (3, 2, 0), (2, 5, 3)])
def test_numpy_forms_compute_a_transposed_convolution(form, stride, kernel, padding):
    g = example.Geometry(2, 4, 3, 2, 3, kernel, stride, padding)
    x, w = (a.astype(np.float64) for a in example.draw(g))
    assert x.shape == g.x_shape
    assert w.shape == g.w_shape
    result = example.NUMPY_FORMS[form](x, w, g)
    assert result.shape == g.out_shape
    assert example.relative_error(result, oracle(x, w, g)) < 1e-14


@STRIDES
@KERNELS
def test_numpy_forms_agree(stride, kernel):
    for g in geometries(stride, kernel):
        x, w = (a.astype(np.float64) for a in example.draw(g))
        exact = example.scatter_numpy(x, w, g)
        for form in example.NUMPY_FORMS.values():
            np.testing.assert_allclose(form(x, w, g), exact, rtol=0, atol=1e-12)


def test_a_sum_depends_on_its_order():
    g = example.Geometry(1, 7, 7, 16, 8, 4, 2, 1)
    x, w = example.draw(g)
    assert x.dtype == w.dtype == np.float32
    products, sums = example.count_sums(x, w, g)
    assert products == 4 * 16  # two taps each way, sixteen channels
    assert sums > 1
    whole = [np.round(4 * a) for a in (x, w)]  # whole numbers add up exactly
    assert example.count_sums(*whole, g) == (64, 1)


# -- the counts ------------------------------------------------------------------------------------


def landed(g):
    """Every (pixel, tap) pair of an image that lands inside of the result, by the definition."""
    for h, v, i, j in np.ndindex(g.height, g.width, g.kernel, g.kernel):
        row, column = h * g.stride + i - g.padding, v * g.stride + j - g.padding
        if 0 <= row < g.out_height and 0 <= column < g.out_width:
            yield h, v, i, j


def counted_in_loops(g):
    """{form: (operations, floats that the threads read and write)}, one by one."""
    operations, moved = dict.fromkeys(example.GPU_FORMS, 0), dict.fromkeys(example.GPU_FORMS, 0)
    pixels = g.images * g.out_height * g.out_width * g.out_channels
    moved["scatter"] += pixels  # set to 0
    moved["scatter"] += g.images * g.height * g.width * g.channels  # x, by each thread once
    moved["gather"] += pixels  # written
    moved["product"] += pixels
    for _ in itertools.product(range(g.images), landed(g), range(g.out_channels)):
        operations["product"] += 1  # col2im: an addition
        moved["product"] += 1  # of a column's element
        for _ in range(g.channels):
            operations["scatter"] += 2
            operations["gather"] += 2
            moved["scatter"] += 3  # w; `out`, read and written
            moved["gather"] += 2  # x and w
    rows, row = g.columns_shape
    for top, left in itertools.product(range(0, rows, example.TILE), range(0, row, example.TILE)):
        height, width = min(example.TILE, rows - top), min(example.TILE, row - left)
        operations["product"] += 2 * height * width * g.channels
        moved["product"] += (height + width) * g.channels  # the tile's rows of x and columns of w
        moved["product"] += height * width  # written
    return {form: (operations[form], moved[form]) for form in operations}


@pytest.mark.parametrize(
    "g",
    [
        example.Geometry(2, 3, 4, 3, 2, 4, 2, 1),
        example.Geometry(1, 5, 2, 2, 3, 3, 1, 1),
        example.Geometry(3, 2, 3, 1, 2, 2, 3, 0),
        example.Geometry(1, 1, 1, 2, 2, 5, 3, 2),
        example.Geometry(2, 6, 6, 2, 5, 5, 1, 4),  # more than one tile each way
        example.Geometry(0, 3, 3, 2, 2, 3, 2, 0),
    ],
)
def test_costs_are_those_counted_one_by_one(g):
    costs = example.count_costs(g)
    for form, (operations, moved) in counted_in_loops(g).items():
        assert (costs[form].operations, costs[form].asked) == (operations, 4 * moved)
    x, w, out = (np.empty(shape, np.float32).nbytes for shape in (g.x_shape, g.w_shape, g.out_shape))
    columns = np.empty(g.columns_shape, np.float32).nbytes
    assert costs["scatter"].once == x + w + 3 * out  # set to 0, read, written
    assert costs["gather"].once == x + w + out
    assert costs["product"].once == (x + w + columns) + (columns + out)


@STRIDES
@KERNELS
def test_landings_of_every_size_and_padding(stride, kernel):
    for size, padding in itertools.product(range(1, 7), range(8)):
        g = example.Geometry(1, size, size, 1, 1, kernel, stride, padding)
        if g.out_height >= 1:
            assert example.landings(size, g.out_height, g) ** 2 == len(list(landed(g)))


# -- the program ------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--size", "1"], ["--size", "3", "--time"]])
def test_it_runs_without_cupy(arguments, monkeypatch, capsys):
    module = load()
    monkeypatch.setattr(module, "cp", None)
    assert module.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "CuPy is missing" in printed
    assert "pip install 'cupy-cuda12x[ctk]'" in printed
    assert "No times were taken" in printed
    assert "1,649,704,960" in printed  # the layer's product and col2im


def test_it_runs_where_cupy_finds_no_gpu(monkeypatch, capsys):
    class NoGPU:
        class cuda:
            class runtime:
                CUDARuntimeError = RuntimeError

                @staticmethod
                def getDeviceCount():
                    raise RuntimeError("no driver")

    module = load()
    monkeypatch.setattr(module, "cp", NoGPU)
    assert module.main(["--size", "2"]) == 0
    assert "CuPy finds no GPU (no driver)" in capsys.readouterr().out


def test_tables_are_aligned(capsys):
    example.show(example.cost_rows(example.LAYER, {"scatter": 1.0, "gather": 20.5, "product": 0.25}))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1
    assert lines[3].endswith("6.60e+12")  # operations of the product in a quarter of a millisecond


def test_a_wrong_form_fails_the_run(monkeypatch):
    module = load()

    def wrong(x, w, g):
        return 1.001 * module.scatter_numpy(x, w, g)

    monkeypatch.setitem(module.NUMPY_FORMS, "gather", wrong)
    with pytest.raises(AssertionError, match="gather on NumPy"):
        module.main(["--size", "2"])


def test_a_size_of_nothing_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        example.main(["--size", "0"])
    assert left.value.code == 2
    assert "--size: expected at least 1" in capsys.readouterr().err


def test_the_structure_is_that_of_the_source():
    declared = example.SOURCE.split("int images", 1)[1].split(";", 1)[0]
    assert ("images" + declared).split(", ") == list(example.STRUCTURE.names)


# -- the CUDA half -----------------------------------------------------------------------------------


def on_gpu(g):
    return [example.cp.asarray(array) for array in example.draw(g)]


@pytest.mark.gpu
@STRIDES
@KERNELS
def test_gpu_forms_are_right(stride, kernel):
    for g in geometries(stride, kernel):
        x, w = (a.astype(np.float64) for a in example.draw(g))
        exact, sizes = example.scatter_numpy(x, w, g), example.scatter_numpy(abs(x), abs(w), g)
        # m products, rounded, and added up in whatever order: each rounding is at most 2^-24 of a sum
        # that is at most that of the products' sizes.
        m = g.channels * (-(-kernel // stride)) ** 2
        for name, form in example.GPU_FORMS.items():
            result = form(*on_gpu(g), g).get()
            assert np.all(np.abs(result - exact) <= 1.01 * m * 2.0**-24 * sizes), (name, g)
            if name != "scatter":  # few numbers, added up in an unlucky order, are over the norm's limit
                assert_close(result, exact, "float32")


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["gather", "product"])
def test_without_atomics_the_bits_are_the_same_again(form):
    g = example.Geometry(4, 7, 7, 33, 9, 5, 2, 1)
    first, again = (example.GPU_FORMS[form](*on_gpu(g), g).get() for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("form", example.GPU_FORMS)
def test_a_batch_of_nothing(form):
    g = example.Geometry(0, 3, 3, 2, 4, 3, 2, 1)
    assert example.GPU_FORMS[form](*on_gpu(g), g).shape == g.out_shape


@pytest.mark.gpu
@pytest.mark.parametrize("form", example.GPU_FORMS)
def test_what_a_kernel_would_misread_is_refused(form):
    g = example.Geometry(2, 3, 3, 2, 2, 3, 2, 1)
    x, w = on_gpu(g)
    for wrong in (x.astype(np.float64), x[:1], x.transpose(0, 2, 1, 3)):
        with pytest.raises(ValueError, match="expected float32 of shape"):
            example.GPU_FORMS[form](wrong, w, g)


@pytest.mark.gpu
def test_it_runs_on_a_gpu(monkeypatch, capsys):
    module = load()
    monkeypatch.setattr(module, "LAYER", module.Geometry(2, 3, 3, 4, 4, 4, 2, 1))
    assert module.main(["--size", "3", "--time"]) == 0
    printed = capsys.readouterr().out
    assert sum("  GPU  " in line for line in printed.splitlines()) == 3
    assert "only the NumPy half" not in printed
    assert "No times" not in printed
    assert "op/s" in printed
