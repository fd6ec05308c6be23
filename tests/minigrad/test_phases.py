"""The transposed convolution by phases of its result: against naive loops."""

import itertools

import numpy as np
import pytest
from accuracy import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, naive
from minigrad.backend.base import Backend
from minigrad.backend.cpu import phases
from minigrad.backend.epilogue import Epilogue
from minigrad.backend.geometry import ConvGeometry

pytestmark = pytest.mark.cpu_only("a form of the CPU's alone")
FLUX = ConvGeometry.of_conv((14, 14), (4, 4), 2, 1, 1)
pad = st.integers(0, 4)


@st.composite
def strided(draw):
    """Any convolution with a stride and no more than that between taps of one phase."""
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda s: s != (1, 1)))
    kernel = tuple(s + draw(st.integers(0, 3)) for s in stride)
    padding = draw(st.tuples(st.tuples(pad, pad), st.tuples(pad, pad)))
    size = tuple(max(1, k - sum(p)) + draw(st.integers(0, 5)) for k, p in zip(kernel, padding, strict=True))
    return ConvGeometry.of_conv(size, kernel, stride, padding, 1)


@pytest.fixture(scope="module", autouse=True)
def always():
    """The form wherever it can be used."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "FEWEST_CHANNELS", 1)
        patch.setattr(phases, "CHEAPER", 100)
        yield


def arrays(geometry, dtype, n=2, c=3, o=4):
    rng = np.random.default_rng(0)
    shapes = (n, o, *geometry.output_size), (o, c, *geometry.kernel_size), (c,)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(strided(), st.sampled_from(["float32", "float64"]), st.booleans(), st.sampled_from([1.0, 0.2, 0.0]))
def test_any_geometry_with_a_bias_and_an_activation(geometry, dtype, with_bias, slope):
    dy, weight, bias = arrays(geometry, dtype)
    assert phases.pays(geometry, 3, 4)
    expected = naive.convolve_input_gradient(dy.astype("float64"), weight.astype("float64"), geometry)
    if with_bias:
        expected = expected + bias[:, None, None]
    if slope != 1:
        expected = naive.leaky_relu(expected, slope)
    given = bias if with_bias else None
    got = backend.get("cpu").convolve_input_gradient(dy, weight, given, geometry, Epilogue(slope))
    assert got.dtype == dtype
    assert_close(got, expected, dtype)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(strided())
def test_the_phases_are_all_pairs_of_a_pixel_and_a_tap(geometry):
    """Each pair that meets an output pixel stands in one phase, at that output pixel; no other does."""
    for axis in range(2):
        size, before = geometry.input_size[axis], geometry.padding[axis][0]
        kernel, stride = geometry.kernel_size[axis], geometry.stride[axis]
        expected = {
            (a, i, (a + before - i) // stride)
            for a, i in itertools.product(range(size), range(kernel))
            if (a + before - i) % stride == 0
        }
        found = [
            (phase.first + stride * q, tap, phase.start + q + place)
            for phase in phases.phases(geometry, axis)
            for q in range(phase.count)
            for place, tap in enumerate(phase.taps)
        ]
        assert len(found) == len(set(found))
        assert set(found) == expected


def test_fluxs_layer_has_four_phases_of_two_by_two_taps():
    assert phases.phases(FLUX, 0) == (phases.Phase((3, 1), 0, 7, -1), phases.Phase((2, 0), 1, 7, 0))


def test_which_form_runs_follows_from_the_sizes(monkeypatch):
    for attribute, value in (("FEWEST_CHANNELS", 16), ("CHEAPER", 2)):
        monkeypatch.setattr(phases, attribute, value)
    assert phases.pays(FLUX, 64, 128)
    assert not phases.pays(FLUX, 64, 256)  # im2col of dy would be four times as wide
    assert not phases.pays(FLUX, 1, 1)
    assert not phases.pays(ConvGeometry.of_conv((14, 14), (5, 5), 1, 2, 1), 64, 64)  # no stride
    assert not phases.pays(ConvGeometry.of_conv((14, 14), (3, 3), 2, 2, 2), 64, 64)  # dilated
    assert not phases.pays(ConvGeometry.of_conv((14, 14), (1, 3), 2, 1, 1), 64, 64)  # pixels without a tap


def test_gradients_of_both_orders():
    rng = np.random.default_rng(1)
    shapes = (2, 3, 3, 2), (3, 2, 3, 2), (2,)
    inputs = [mg.tensor(rng.standard_normal(shape), requires_grad=True) for shape in shapes]
    assert mg.gradcheck(
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1), inputs, order=2
    )


def test_a_fluxs_layer_is_as_exact_as_the_plain_form(monkeypatch):
    dy, weight, _ = arrays(FLUX, "float32", n=8, c=64, o=128)
    engine = backend.get("cpu")
    exact = Backend.convolve_input_gradient(
        engine, dy.astype("float64"), weight.astype("float64"), None, FLUX
    )
    for cheaper in (2, 0):  # by phases, and not
        monkeypatch.setattr(phases, "CHEAPER", cheaper)
        got = engine.convolve_input_gradient(dy, weight, None, FLUX)
        assert 5e-8 < np.linalg.norm(got - exact) / np.linalg.norm(exact) < 4e-7


def test_a_planted_mistake_of_one_percent_is_caught(monkeypatch):
    right = phases.PhaseForm._kernels

    def wrong(self, weight, geometry):
        for i, (down, across, kernel) in enumerate(right(self, weight, geometry)):
            yield down, across, kernel * 1.01 if i == 3 else kernel

    monkeypatch.setattr(phases.PhaseForm, "_kernels", wrong)
    dy, weight, _ = arrays(FLUX, "float64")
    got = backend.get("cpu").convolve_input_gradient(dy, weight, None, FLUX)
    with pytest.raises(AssertionError):
        assert_close(got, naive.convolve_input_gradient(dy, weight, FLUX), "float64")


def test_the_number_of_threads_changes_no_bit():
    engine = backend.get("cpu")
    dy, weight, bias = arrays(FLUX, "float32", n=32, c=32, o=48)
    before, results = engine.pool.threads, []
    try:
        for threads in (1, 2, 3):
            engine.pool.resize(threads)
            results.append(engine.convolve_input_gradient(dy, weight, bias, FLUX, Epilogue(0.2)).tobytes())
    finally:
        engine.pool.resize(before)
    assert results[0] == results[1] == results[2]
