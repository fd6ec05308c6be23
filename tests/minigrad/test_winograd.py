"""The convolution by Winograd's filters, against the plain form in float64."""

import numpy as np
import pytest
from convolutions import ORDERS, biases, check, gradients_agree, operands
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad.functional as F
from minigrad import backend
from minigrad.backend.cpu import native, winograd
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.winograd import WinogradForm, squares
from minigrad.backend.cpu.workspace import Workspace
from minigrad.backend.epilogue import Epilogue
from minigrad.backend.geometry import ConvGeometry

STRIDED = ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 1)
THREE = ConvGeometry.of_conv((7, 7), (3, 3), 1, 1, 1)


@pytest.fixture(scope="module")
def form():
    return WinogradForm(Workspace.of(native.kernels()))


@pytest.fixture
def always(monkeypatch):
    """Winograd's filters wherever they can be used."""

    def can(geometry, n, channels, out_channels):
        return squares(geometry) is not None and channels % 16 == out_channels % 16 == 0

    monkeypatch.setattr(winograd, "pays", can)


@st.composite
def geometries(draw):
    """Any convolution with two or three taps in each phase that fits, its padding on each side by itself."""
    taps, pad = draw(st.sampled_from([2, 3])), st.integers(0, 5)
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    kernel = tuple(draw(st.integers(max(s, s * (taps - 1) + 1), s * taps)) for s in stride)
    padding = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    size = tuple(max(1, k - sum(p)) + draw(st.integers(0, 12)) for k, p in zip(kernel, padding, strict=True))
    return ConvGeometry.of_conv(size, kernel, stride, padding, 1)


@pytest.mark.native
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    geometry=geometries(),
    n=st.sampled_from([1, 2, 5, 17]),
    channels=st.tuples(*[st.sampled_from([16, 32, 48])] * 2),
    orders=st.tuples(*[st.sampled_from(ORDERS)] * 3),
    biased=st.tuples(st.booleans(), st.booleans()),
    slope=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_the_products_of_any_geometry(form, dtype, geometry, n, channels, orders, biased, slope):
    c, o = channels
    bias = [b if wanted else None for b, wanted in zip(biases(geometry, c, o, dtype), biased, strict=True)]
    check(form, geometry, *operands(geometry, n, c, o, dtype, orders), *bias, slope)


@pytest.mark.native
@pytest.mark.parametrize(
    ("geometry", "n", "c", "o"),
    [
        (STRIDED, 33, 64, 128), (THREE, 9, 128, 256),
        (ConvGeometry.of_conv((64, 60), (4, 4), 2, 1, 1), 2, 32, 64),
        (ConvGeometry.of_conv((8, 8), (4, 4), 2, 1, 1), 40, 256, 144),
        (ConvGeometry.of_conv_transpose((5, 5), (4, 4), 2, 1, 1, 1), 20, 32, 64),
    ],
)  # fmt: skip
def test_many_squares_and_channels(form, geometry, n, c, o):
    check(form, geometry, *operands(geometry, n, c, o, "float32"), *biases(geometry, c, o, "float32"), 0.2)


@pytest.mark.parametrize(
    ("kernel", "stride", "size", "found"),
    [
        ((4, 4), 2, (32, 32), (2, 2, 64, 576)),  # squares of 3x3: 529 products
        ((4, 4), 2, (28, 28), (3, 2, 25, 361)),  # squares of 2x2: 441
        ((4, 4), 2, (14, 14), (2, 2, 16, 121)),  # seven of the squares are cut
        ((2, 2), 1, (7, 7), (3, 2, 4, 64)),
        ((3, 3), 1, (9, 9), (2, 3, 16, 225)),
        ((5, 6), (2, 2), (14, 14), (2, 3, 9, 121)),
    ],
)
def test_larger_squares_must_save_a_sixth_of_the_products(kernel, stride, size, found):
    made = squares(ConvGeometry.of_conv(size, kernel, stride, 1 if kernel == (4, 4) else 0, 1))
    assert (made.m, made.taps, made.count, made.products) == found


@pytest.mark.native
def test_which_form_runs_follows_from_the_sizes(form):
    assert form.pays(STRIDED, 128, 64, 128)
    assert form.pays(THREE, 128, 64, 64)
    assert not form.pays(STRIDED, 128, 16, 32)  # few channels: the transforms are not worth it
    assert not form.pays(STRIDED, 128, 64, 100)  # channels that do not fill vectors
    assert not form.pays(STRIDED, 128, 60, 128)
    assert not form.pays(STRIDED, 0, 64, 128)
    assert not form.pays(STRIDED, 128, 0, 128)
    one_pixel = ConvGeometry.of_conv((2, 2), (4, 4), 2, 1, 1)  # in a square of four
    assert not form.pays(one_pixel, 128, 64, 128)
    assert not form.pays(ConvGeometry.of_conv((7, 7), (1, 1), 1, 0, 1), 128, 64, 64)
    assert not form.pays(ConvGeometry.of_conv((7, 7), (4, 4), 1, 0, 1), 128, 64, 64)  # four taps in a phase
    assert not form.pays(ConvGeometry.of_conv((9, 9), (3, 3), 1, 0, 2), 128, 64, 64)  # dilated
    assert not form.pays(ConvGeometry.of_conv((9, 9), (3, 4), 1, 0, 1), 128, 64, 64)  # unlike along the axes
    unmet = ConvGeometry.of_conv((9, 9), (3, 3), 4, 0, 1)  # no tap meets some pixels
    assert not form.pays(unmet, 128, 64, 64)
    assert not form.pays(ConvGeometry.of_conv((90, 90), (27, 27), 9, 0, 1), 128, 64, 64)  # 729 taps


@pytest.mark.native
@pytest.mark.parametrize("call", [F.conv2d, F.conv_transpose2d])
def test_gradients_of_both_orders(always, call):
    geometry = ConvGeometry.of_conv((3, 2), (2, 2), 1, 1, 1)
    assert "Winograd" in backend.get("cpu").convolution_form("convolve", geometry, 1, 16, 16)
    assert gradients_agree(call)


@pytest.mark.native
@pytest.mark.parametrize(
    ("geometry", "n", "c", "o"),
    [
        (STRIDED, 37, 64, 128),
        (THREE, 9, 64, 128),
        (ConvGeometry.of_conv((8, 8), (4, 4), 2, 1, 1), 5, 256, 512),
    ],
    ids=["4x4, stride 2", "3x3", "large sums"],
)
def test_the_number_of_threads_changes_no_bit(geometry, n, c, o):
    engine = CPUBackend(native.kernels())
    x, weight, dy = operands(geometry, n, c, o, "float32")
    threads, results = engine.pool.threads, []
    for count in (1, 2, 3, 8):
        engine.pool.resize(count)
        y, _ = engine.convolve(x, weight, None, geometry, Epilogue(0.2))
        dx = engine.convolve_input_gradient(dy, weight, None, geometry, Epilogue())
        dw = engine.convolve_weight_gradient(x, dy, geometry)
        results.append((y.tobytes(), dx.tobytes(), dw.tobytes()))
    engine.pool.resize(threads)
    assert len(set(results)) == 1


@pytest.mark.native
def test_what_is_not_finite_stays_in_its_image(form):
    x, weight, dy = operands(THREE, 3, 16, 16, "float32")
    right = (
        form.convolve(x, weight, None, THREE, Epilogue()),
        form.input_gradient(dy, weight, None, THREE, Epilogue()),
    )
    for number in (np.inf, np.nan):
        x[1, 3, 3, 3] = dy[1, 3, 3, 3] = number
        y = form.convolve(x, weight, None, THREE, Epilogue())
        dx = form.input_gradient(dy, weight, None, THREE, Epilogue())
        for found, expected in zip((y, dx), right, strict=True):
            assert np.array_equal(found[[0, 2]], expected[[0, 2]])
            assert not np.isfinite(found[1, 2:5, 2:5]).any()


def test_matrices_in_the_text_are_a_convolution():
    x, w = np.array([3.0, 5.0, 7.0]), np.array([2.0, 11.0])
    k1, k2, k3 = (x[0] - x[1]) * w[0], x[1] * (w[0] + w[1]), (x[2] - x[1]) * w[1]
    assert [k1 + k2, k2 + k3] == [x[0] * w[0] + x[1] * w[1], x[1] * w[0] + x[2] * w[1]]
    assert winograd.__doc__.count("k2 = x1 (w0 + w1)") == 1
