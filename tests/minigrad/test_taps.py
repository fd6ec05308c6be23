"""Weights in the order of their taps: against NumPy's own transposes, number for number."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigrad import backend
from minigrad.backend.cpu import taps

pytestmark = pytest.mark.cpu_only("a part of the CPU's alone")
QUICK = settings(max_examples=40, deadline=None, derandomize=True)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 20), st.integers(1, 4), st.integers(1, 4))


def numbers(shape, dtype="float64"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture(scope="module", params=[1, 700, taps.NEAR], autouse=True)
def near(request):
    """Parts of one channel, of some, and of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taps, "NEAR", request.param)
        yield


@QUICK
@given(shapes, st.sampled_from(["float32", "float64"]))
def test_a_weight_in_both_orders(shape, dtype):
    weight, order = numbers(shape, dtype), backend.get("cpu").taps
    o, c, kh, kw = shape
    assert np.array_equal(order.matrix(weight), weight.transpose(2, 3, 1, 0).reshape(kh * kw * c, o))
    assert np.array_equal(order.by_tap(weight), weight.transpose(2, 3, 0, 1))
    turned = weight.transpose(1, 0, 2, 3)  # does not lie in memory in its order
    assert np.array_equal(order.matrix(turned), turned.transpose(2, 3, 1, 0).reshape(kh * kw * o, c))


@QUICK
@given(shapes, st.integers(1, 4))
def test_sums_of_matrices_as_a_weight(shape, count):
    o, c, kh, kw = shape
    matrices = numbers((count, kh * kw * c, o))
    expected = matrices.sum(axis=0).reshape(kh, kw, c, o).transpose(3, 2, 0, 1)
    found = backend.get("cpu").taps.summed(matrices, shape)
    assert found.flags.c_contiguous
    assert np.allclose(found, expected, rtol=1e-14, atol=1e-14)


def test_large_weights_on_any_number_of_threads():
    engine = backend.get("cpu")
    weight, before = numbers((256, 64, 4, 4), "float32"), engine.pool.threads
    try:
        for threads in (1, 2, 3):
            engine.pool.resize(threads)
            expected = weight.transpose(2, 3, 1, 0).reshape(-1, 256)
            assert np.array_equal(engine.taps.matrix(weight), expected)
            assert np.array_equal(engine.taps.summed(expected[None], weight.shape), weight)
            assert np.array_equal(engine.taps.by_tap(weight), weight.transpose(2, 3, 0, 1))
    finally:
        engine.pool.resize(before)
