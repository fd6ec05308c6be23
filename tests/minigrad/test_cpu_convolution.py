"""The forms of a convolution on the CPU, and the matrix product in C, against the plain form in float64.

NaN lie around every array that goes in. Around every one that is made lie bytes that nobody may write, and it
is full of NaN at first.
"""

from itertools import product

import numpy as np
import pytest
from accuracy import assert_close
from convolutions import ORDERS, PLAIN, assert_near, biases, check, first, framed, operands
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from poisoned import guarded

from minigrad.backend.cpu import native, plans
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.direct import DirectForm
from minigrad.backend.cpu.forms import ColumnsForm
from minigrad.backend.cpu.frequency import FrequencyForm
from minigrad.backend.cpu.workspace import Workspace
from minigrad.backend.epilogue import NO_EPILOGUE, Epilogue
from minigrad.backend.geometry import ConvGeometry

FORMS = {
    "direct": lambda: DirectForm(Workspace.of(native.kernels())),
    "columns": lambda: ColumnsForm(Workspace.of(None)),
}
EACH_FORM = pytest.mark.parametrize("form", [pytest.param("direct", marks=pytest.mark.native), "columns"])
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
MOST_PRODUCTS = 4_000_000  # of a random case
# Around the width of vectors, one and two, of 16, 32 and 64 bytes.
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 64, 65, 70]


@pytest.fixture
def engine():
    """A CPU backend of its own with the C kernels; afterwards they have as many threads as before."""
    made = CPUBackend(native.kernels())
    threads = made.pool.threads
    yield made
    made.pool.resize(threads)


# -- random geometries -------------------------------------------------------------------------------------


@st.composite
def geometries(draw):
    """Any convolution, or transposed convolution, that fits, padded by more than its kernel too."""
    side, pad = st.integers(1, 5), st.sampled_from([0, 0, 1, 2, 3, 5])
    kernel = draw(st.tuples(side, side))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 2), (2, 2)]))
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    kind = draw(st.sampled_from(["convolution", "transposed", "whole image"]))
    if kind == "whole image":
        return ConvGeometry.of_conv(tuple(spans), kernel, stride, 0, dilation)
    padding = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    more = draw(st.tuples(st.integers(0, 6), st.integers(0, 6)))
    if kind == "convolution":
        size = [max(1, span - sum(p)) + m for span, p, m in zip(spans, padding, more, strict=True)]
        return ConvGeometry.of_conv(tuple(size), kernel, stride, padding, dilation)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    size = tuple(1 + sum(p) // s + m for s, p, m in zip(stride, padding, more, strict=True))
    return ConvGeometry.of_conv_transpose(size, kernel, stride, padding, extra, dilation)


@st.composite
def cases(draw):
    geometry = draw(geometries())
    c, o = (draw(st.sampled_from(SIZES) | st.integers(1, 70)) for _ in range(2))
    n = draw(st.integers(1, 20) | st.just(130))
    n = max(1, min(n, MOST_PRODUCTS // (geometry.positions * geometry.taps * c * o)))
    orders = [draw(st.sampled_from(ORDERS)) for _ in range(3)]
    biased = draw(st.tuples(st.booleans(), st.booleans()))
    return geometry, n, c, o, orders, biased, draw(st.sampled_from([0.0, 0.2, 1.0]))


@EACH_FORM
@DTYPES
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases())
def test_the_products_of_any_geometry(form, dtype, case):
    geometry, n, c, o, orders, biased, slope = case
    bias = [b if wanted else None for b, wanted in zip(biases(geometry, c, o, dtype), biased, strict=True)]
    check(FORMS[form](), geometry, *operands(geometry, n, c, o, dtype, orders), *bias, slope)


@pytest.mark.native
@DTYPES
@settings(max_examples=30, deadline=None, derandomize=True)
@given(case=cases(), channels=st.tuples(st.integers(1, 4), st.integers(1, 4)))
def test_the_products_of_the_frequency_form(dtype, case, channels):
    geometry, n, _, _, orders, biased, slope = case
    c, o = (16 * k for k in channels)  # it takes no others
    assume(geometry.stride == (1, 1) or geometry.dilation == (1, 1))
    bias = [b if wanted else None for b, wanted in zip(biases(geometry, c, o, dtype), biased, strict=True)]
    form = FrequencyForm(Workspace.of(native.kernels()))
    check(form, geometry, *operands(geometry, min(n, 20), c, o, dtype, orders), *bias, slope)


LARGE = {
    "more columns than rows": ((3, 3), 3, 1, 1, 1, 40, 300),
    "one position, many images": ((4, 4), 4, 1, 0, 130, 33, 40),
    "a weight gradient beyond the cache": ((7, 7), 5, 1, 2, 3, 200, 130),
    "sums of many images in parts": ((12, 12), 4, 2, 1, 130, 5, 33),
    "few columns of long segments": ((9, 9), 3, 1, 1, 20, 70, 1),
    "few columns back": ((9, 9), 3, 1, 1, 20, 1, 70),
    "three columns of each": ((16, 16), 4, 2, 1, 9, 3, 3),
    "sums that are put aside": ((6, 6), 5, 1, 0, 4, 600, 35),
    "no tap for some pixels": ((11, 11), 1, 3, 0, 17, 16, 32),
}


@EACH_FORM
@DTYPES
@pytest.mark.parametrize("sizes", LARGE.values(), ids=LARGE)
def test_large_sizes(form, dtype, sizes):
    size, kernel, stride, padding, n, c, o = sizes
    geometry = ConvGeometry.of_conv(size, (kernel, kernel), stride, padding, 1)
    check(FORMS[form](), geometry, *operands(geometry, n, c, o, dtype), *biases(geometry, c, o, dtype), 0.2)


@EACH_FORM
def test_long_sums_are_as_exact_in_float32(form):
    """12,544 products of one sign: added up one after another, they would be wrong by some 1e-5."""
    rng = np.random.default_rng(0)
    made = FORMS[form]()
    for size, kernel, padding, n, c, o in (
        ((7, 7), 7, 0, 3, 256, 33),  # of y; one vector and more
        ((7, 7), 7, 0, 3, 256, 1),
        ((7, 7), 7, 6, 1, 33, 256),  # of dx
        ((7, 7), 7, 6, 1, 1, 256),
        ((14, 14), 1, 0, 64, 17, 33),  # of the weight gradient
    ):
        geometry = ConvGeometry.of_conv(size, (kernel, kernel), 1, padding, 1)
        arrays = [rng.random(a.shape, np.float32) for a in operands(geometry, n, c, o, "float32")]
        check(made, geometry, *arrays)


# -- infinity and NaN --------------------------------------------------------------------------------------


def assert_same_specials(found, right):
    assert found.shape == right.shape
    assert np.array_equal(np.isnan(found), np.isnan(right))
    assert np.array_equal(found[np.isinf(right)], right[np.isinf(right)])
    finite = np.isfinite(right)
    assert np.allclose(found[finite], right[finite], rtol=1e-4, atol=1e-4)


GEOMETRIES = [
    ConvGeometry.of_conv((5, 6), (3, 2), 2, ((1, 2), (0, 1)), 1),
    ConvGeometry.of_conv((5, 6), (3, 3), 1, 0, 2),
    ConvGeometry.of_conv_transpose((3, 4), (4, 3), 3, 1, (2, 0), 1),
    ConvGeometry.of_conv((4, 4), (4, 4), 1, 0, 1),
]


@EACH_FORM
@DTYPES
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=range(len(GEOMETRIES)))
@pytest.mark.parametrize(("c", "o"), [(5, 17), (33, 1), (2, 40)])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_special_values_go_where_they_go_in_the_plain_form(form, geometry, dtype, c, o, value):
    made = FORMS[form]()
    for spoilt in range(3):
        arrays = [a.copy() for a in operands(geometry, 3, c, o, dtype)]
        x, weight, dy = arrays
        arrays[spoilt].reshape(-1)[[0, arrays[spoilt].size // 2]] = value  # (2,)
        with np.errstate(all="ignore"), guarded():
            found = [
                first(made.convolve(x, weight, None, geometry, Epilogue(0.2))),
                first(made.input_gradient(dy, weight, None, geometry, Epilogue(0.0))),
                made.weight_gradient(x, dy, geometry),
            ]
        with np.errstate(all="ignore"):
            right = [
                PLAIN.convolve(x, weight, None, geometry, Epilogue(0.2))[0],
                PLAIN.convolve_input_gradient(dy, weight, None, geometry, Epilogue(0.0)),
                PLAIN.convolve_weight_gradient(x, dy, geometry),
            ]
        for a, b in zip(found, right, strict=True):
            assert_same_specials(a, b)


# -- what the kernels leave to NumPy -----------------------------------------------------------------------

SMALL = ConvGeometry.of_conv((5, 5), (3, 3), 2, 1, 1)


@pytest.mark.native
@pytest.mark.parametrize("dtype", ["float16", "int32", ">f4", ">f8"])
def test_other_numbers_are_left_to_numpy(engine, dtype):
    x, weight, dy = (np.rint(a).astype(dtype) for a in operands(SMALL, 3, 4, 5, "float64"))
    found = [
        engine.convolve(x, weight, None, SMALL)[0],
        engine.convolve_input_gradient(dy, weight, None, SMALL),
        engine.convolve_weight_gradient(x, dy, SMALL),
        *engine.convolve_and_weight_gradient(x, weight, dy, SMALL),
        *engine.convolve_gradients(x, weight, dy, SMALL),
    ]
    x, weight, dy = (a.astype(np.float64) for a in (x, weight, dy))
    y, dx, dw = (
        PLAIN.convolve(x, weight, None, SMALL)[0],
        PLAIN.convolve_input_gradient(dy, weight, None, SMALL),
        PLAIN.convolve_weight_gradient(x, dy, SMALL),
    )
    for a, b in zip(found, [y, dx, dw, y, dw, dx, dw], strict=True):
        assert np.array_equal(a, b)


@pytest.mark.native
@pytest.mark.parametrize(("n", "c", "o"), [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_no_images_and_no_channels(engine, n, c, o):
    x, weight, dy = (np.ones(a.shape, "f") for a in operands(SMALL, n, c, o, "float32"))
    y = engine.convolve(x, weight, np.full(o, 2, "f"), SMALL)[0]
    dx = engine.convolve_input_gradient(dy, weight, np.full(c, 3, "f"), SMALL)
    dw = engine.convolve_weight_gradient(x, dy, SMALL)
    assert (y.shape, dx.shape, dw.shape) == (dy.shape, x.shape, weight.shape)
    assert (y == 2).all()
    assert (dx == 3).all()
    assert (dw == 0).all()


@pytest.mark.native
def test_the_first_form_that_pays_is_taken(engine):
    def named(*sizes):
        return engine.convolution_form("convolve", SMALL, *sizes)

    assert "kernels/convolution.c" in named(2, 3, 4)
    assert "columns" in named(0, 3, 4)
    assert "columns" in CPUBackend().convolution_form("convolve", SMALL, 2, 3, 4)


# -- the matrix product ------------------------------------------------------------------------------------


def matrix(seed, shape, dtype, order):
    """A matrix in a memory order; what lies between its numbers is NaN."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    m, n = shape
    if order == "turned":
        return framed(values.T).T
    if order == "every other":
        memory = framed(np.full((2 * m, 3 * n + 1), np.nan, dtype))
        view = memory[::2, 1::3]
        view[...] = values
        return view
    if order == "backwards":
        return framed(np.ascontiguousarray(values[::-1, ::-1]))[::-1, ::-1]
    if order == "a row again and again":
        return np.broadcast_to(framed(values[:1]), shape)
    return framed(values)


# The kernel takes 256 numbers of k at a time, and at most 252 rows.
LENGTHS = st.sampled_from(SIZES) | st.sampled_from([100, 128, 130, 253, 257, 513])
LAID = st.sampled_from(["rows", "turned", "every other", "backwards", "a row again and again"])


@pytest.mark.native
@DTYPES
@settings(max_examples=80, deadline=None, derandomize=True)
@given(lengths=st.tuples(LENGTHS, LENGTHS, LENGTHS), orders=st.tuples(LAID, LAID))
def test_products_of_matrices(dtype, lengths, orders):
    m, k, n = lengths
    a, b = matrix(1, (m, k), dtype, orders[0]), matrix(2, (k, n), dtype, orders[1])
    with guarded():
        found = CPUBackend(native.kernels()).matmul(a, b)
    assert_near(found, a.astype(np.float64) @ b.astype(np.float64), dtype, k)


@pytest.mark.native
@pytest.mark.parametrize("columns", [1, 17, 33])
def test_a_long_product_is_as_exact_in_float32(engine, columns):
    rng = np.random.default_rng(0)
    a, b = rng.random((5, 12_544), np.float32), rng.random((12_544, columns), np.float32)
    right = a.astype(np.float64) @ b.astype(np.float64)
    for x, y in product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
        assert_close(engine.matmul(x, y), right, "float32")


@pytest.mark.native
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ((0, 3), (3, 4)), ((2, 0), (0, 4)), ((2, 3), (3, 0)), ((3,), (3, 4)), ((2, 3), (3,)), ((3,), (3,)),
        ((5, 2, 3), (3, 4)), ((5, 2, 3), (5, 3, 4)), ((2, 3), (5, 3, 4)),
    ],
)  # fmt: skip
def test_products_that_are_no_kernels(engine, a, b):
    a, b = (np.arange(1.0, 1 + np.prod(shape)).reshape(shape) for shape in (a, b))
    found = engine.matmul(a, b)
    assert np.array_equal(found, np.matmul(a, b))


@pytest.mark.native
@pytest.mark.parametrize("dtypes", ["f d", "d f", "e e", "i i", ">f4 >f4", "i f"])
def test_products_of_other_numbers(engine, dtypes):
    of_a, of_b = dtypes.split()
    a, b = np.arange(6).reshape(2, 3).astype(of_a), np.arange(12).reshape(3, 4).astype(of_b)
    found, right = engine.matmul(a, b), np.matmul(a, b)
    assert np.array_equal(found, right)
    assert found.dtype == right.dtype


# -- threads -----------------------------------------------------------------------------------------------

ON_THREADS = [
    (ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 1), 37, 17, 33),
    (ConvGeometry.of_conv((7, 7), (5, 5), 1, 2, 1), 5, 70, 130),
    (ConvGeometry.of_conv_transpose((5, 5), (5, 5), 3, 0, 2, 1), 19, 33, 3),
]


def bits(engine):
    """The bits of all products of ON_THREADS, and of matrices in four orders."""
    found = []
    for geometry, n, c, o in ON_THREADS:
        x, weight, dy = operands(geometry, n, c, o, "float32")
        bias, back_bias = biases(geometry, c, o, "float32")
        found += [
            engine.convolve(x, weight, bias, geometry, Epilogue(0.2))[0],
            engine.convolve_input_gradient(dy, weight, back_bias, geometry, NO_EPILOGUE),
            engine.convolve_weight_gradient(x, dy, geometry),
            *engine.convolve_and_weight_gradient(x, weight, dy, geometry),
            *engine.convolve_gradients(x, weight, dy, geometry),
        ]
    for orders in product(["rows", "turned"], repeat=2):
        a = matrix(0, (300, 130), "float32", orders[0])
        b = matrix(1, (130, 70), "float32", orders[1])
        found.append(engine.matmul(a, b))
    return b"".join(np.ascontiguousarray(a).tobytes() for a in found)


@pytest.mark.parametrize("kernels", [pytest.param(True, marks=pytest.mark.native), False], ids=["C", "NumPy"])
def test_the_same_bits_on_any_number_of_threads(kernels):
    engine, found = CPUBackend(native.kernels() if kernels else None), []
    threads = engine.pool.threads
    for count in (1, 2, 3, 5):
        engine.pool.resize(count)
        found += [bits(engine) for _ in range(3)]
    engine.pool.resize(threads)
    assert len(set(found)) == 1


@pytest.mark.parametrize("kernels", [pytest.param(True, marks=pytest.mark.native), False], ids=["C", "NumPy"])
def test_the_same_bits_from_threads_that_call_at_once(at_once, kernels):
    engine, found = CPUBackend(native.kernels() if kernels else None), []
    right = bits(engine)
    at_once(lambda i: found.extend(bits(engine) == right for _ in range(3)), 4)
    assert found == [True] * 12


# -- plans -------------------------------------------------------------------------------------------------


def triples(found, channels):
    """All that plans multiply: (number of the result, tap, pixel of the canvas, channel), each as often."""
    made = []
    for number, plan in enumerate(found.plans):
        rows, row, segments, segment, length, before = found.table[number]
        assert before == sum(p.depth for p in found.plans[:number])
        assert (rows, segments, length) == (len(plan.rows), len(plan.segments), plan.length)
        assert np.array_equal(found.rows[row : row + rows], plan.rows)
        assert np.array_equal(found.out[row : row + rows], plan.out)
        assert np.array_equal(found.segments[segment : segment + segments], plan.segments)
        taps = found.taps[before // channels :][: len(plan.taps)]
        assert np.array_equal(taps, plan.taps)
        assert plan.depth == len(plan.taps) * channels == segments * length
        for start, out in zip(plan.rows, plan.out, strict=True):
            for k in range(plan.depth):
                place = start + plan.segments[k // plan.length] + k % plan.length
                assert place % channels == k % channels
                made.append((out, plan.taps[k // channels], place // channels, k % channels))
    assert found.depth == sum(p.depth for p in found.plans)
    assert len(found.rows) == len(found.out) == sum(len(p.rows) for p in found.plans)
    return sorted(map(tuple, np.array(made, np.int64).reshape(-1, 4).tolist()))


def all_products(g):
    """Each position of a convolution with each tap: its pixel in the image, which may lie in the padding."""
    for p, q, i, j in product(*map(range, (*g.output_size, *g.kernel_size))):
        down = p * g.stride[0] + i * g.dilation[0] - g.padding[0][0]
        right = q * g.stride[1] + j * g.dilation[1] - g.padding[1][0]
        yield p * g.output_size[1] + q, i * g.kernel_size[1] + j, (down, right)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(geometries(), st.integers(1, 3), st.integers(1, 3))
def test_a_convolutions_plan_has_each_tap_of_each_position_once(geometry, channels, out_channels):
    found = plans.of_convolution(geometry, channels, out_channels)
    (top, left), width = found.corner, found.canvas_size[1]
    assert found.corner == tuple(p[0] for p in geometry.padding)
    expected = [
        (position * out_channels, tap, (top + down) * width + left + right, channel)
        for position, tap, (down, right) in all_products(geometry)
        for channel in range(channels)
    ]
    assert triples(found, channels) == sorted(expected)
    assert all(0 <= pixel < found.canvas_size[0] * width for _, _, pixel, _ in expected)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(geometries(), st.integers(1, 3), st.integers(1, 3))
def test_an_input_gradients_plans_have_each_tap_of_each_pixel_once(geometry, channels, out_channels):
    found = plans.of_input_gradient(geometry, channels, out_channels)
    (top, left), (height, width) = found.corner, found.canvas_size
    down, across = geometry.output_size

    def on_canvas(position):
        return (top + position // across) * width + left + position % across

    expected = [
        ((h * geometry.input_size[1] + w) * channels, tap, on_canvas(position), channel)
        for position, tap, (h, w) in all_products(geometry)
        if 0 <= h < geometry.input_size[0] and 0 <= w < geometry.input_size[1]
        for channel in range(out_channels)
    ]
    within = {on_canvas(position) for position in range(down * across)}
    made = triples(found, out_channels)
    assert [t for t in made if t[2] in within] == sorted(expected)
    assert all(0 <= pixel < height * width for _, _, pixel, _ in made)  # the others read zeros
    assert sorted(found.out) == [channels * i for i in range(np.prod(geometry.input_size))]


@pytest.mark.native
def test_tables_are_made_once_for_a_geometry():
    again = ConvGeometry.of_conv((5, 5), (3, 3), 2, 1, 1)
    assert plans.of_convolution(SMALL, 3, 4) is plans.of_convolution(again, 3, 4)
    assert plans.of_input_gradient(SMALL, 3, 4) is plans.of_input_gradient(again, 3, 4)
