"""The CPU's kernels in C against the reference forms: BatchNorm, activations, dropout, losses, sums, updates.

Around every array that is made meanwhile lie bytes that nobody may write, and it is full of NaN at first.
"""

from unittest import mock

import numpy as np
import pytest
from accuracy import ACCURACY, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st
from poisoned import guarded

from minigrad import naive
from minigrad.backend.base import Backend
from minigrad.backend.cpu import native
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.calls import order_of
from minigrad.backend.cpu.native import address
from minigrad.backend.epilogue import Epilogue

pytestmark = pytest.mark.native
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
SLOPES = pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
PLACE = (5, 2**64 - 7), (2**64 - 3, 2**64 - 1, 2**64 - 1, 9)  # the counter soon overflows into its last word
PIECE = 1 << 14  # numbers of a call that are one piece
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, -1e-45, 1e-40]


class Plain(Backend):
    """The reference forms, on NumPy."""

    device, xp = "plain", np


PLAIN = Plain()


@pytest.fixture
def engine():
    made = CPUBackend(native.kernels())
    yield made
    made.pool.resize(made.pool.threads)


def own():
    return CPUBackend(native.kernels())


def numbers(seed, shape, dtype, shift=0.0):
    return (np.random.default_rng(seed).standard_normal(shape) + shift).astype(dtype)


def images(seed, shape, dtype, shift=0.0):
    """(N, C, H, W) with the channels innermost in memory, or (N, C)."""
    if len(shape) == 2:
        return numbers(seed, shape, dtype, shift)
    n, c, h, w = shape
    return numbers(seed, (n, h, w, c), dtype, shift).transpose(0, 3, 1, 2)


def as_doubles(*arrays):
    return [a.astype(np.float64) for a in arrays]


shapes = st.one_of(
    st.tuples(st.integers(1, 150), st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 257, 300, 520]))),
    st.tuples(st.integers(1, 5), st.integers(1, 70), st.integers(1, 7), st.integers(1, 7)),
)
# Of several pieces, with borders inside of lines.
LARGE = [
    (5461, 3),
    (70_001, 3),
    (16_385, 1),
    (1100, 33),
    (65, 700),
    (129, 513),
    (3, 64, 37, 11),
    (9, 1, 70, 61),
]


# -- batch normalisation -------------------------------------------------------------------------------


def check_batch_norm(shape, dtype, slope, shift):
    engine, epilogue = own(), Epilogue(slope)
    x, dy = images(0, shape, dtype, shift), images(1, shape, dtype)
    weight, bias = (numbers(seed, shape[1:2], dtype) for seed in (2, 3))
    with guarded():
        mean, variance = engine.moments(x)
        y = engine.normalize(x, mean, variance, 1e-3, weight, bias, epilogue)
        found = engine.normalize_backward(dy, x, y, mean, variance, 1e-3, weight, epilogue)
    right = PLAIN.moments(x.astype(np.float64))
    assert_close(mean, right[0])
    assert np.linalg.norm(variance - right[1]) <= 1e-9 * np.linalg.norm(right[1]) + 1e-12 * (
        1 + shift * shift
    )
    doubles = as_doubles(x, weight, bias)
    expected = PLAIN.normalize(doubles[0], mean, variance, 1e-3, *doubles[1:], epilogue)
    assert_close(y, expected, dtype)
    doubles = as_doubles(dy, x, y)
    expected = PLAIN.normalize_backward(*doubles, mean, variance, 1e-3, weight.astype(np.float64), epilogue)
    # With few values a channel dx is nearly 0: the rounding is of the terms that cancel in it.
    scale = np.linalg.norm(dy * (weight / np.sqrt(variance + 1e-3)).reshape((-1,) + (1,) * (x.ndim - 2)))
    for result, oracle, size in zip(found, expected, (scale, 0, 0), strict=True):
        assert result.dtype == dtype
        assert np.linalg.norm(result - oracle) <= ACCURACY[dtype] * max(np.linalg.norm(oracle), size)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shapes, st.sampled_from(["float32", "float64"]), st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from([0, 3])
)
def test_batch_norm(shape, dtype, slope, shift):
    check_batch_norm(shape, dtype, slope, shift)


@DTYPES
@pytest.mark.parametrize("shape", LARGE)
def test_batch_norm_of_many_pieces(shape, dtype):
    check_batch_norm(shape, dtype, 0.2, 1.5)


@DTYPES
def test_batch_norm_of_what_is_far_from_0(dtype):
    check_batch_norm((3000, 5), dtype, 0.2, 1e4)  # what float32 can't hold of a mean is 5e-4


@DTYPES
def test_a_large_mean_and_a_first_value_far_off_do_not_cancel(engine, dtype):
    x = numbers(0, (20_000, 2), dtype, 1e4)
    x[0] = [-1e6, 1e6]
    mean, variance = engine.moments(x)
    values = x.astype(np.float64)
    assert_close(mean, values.mean(0))
    assert_close(variance, values.var(0))


@DTYPES
def test_moments_of_infinite_values_and_of_nan(engine, dtype):
    x = numbers(0, (40, 6), dtype)
    x[0, 0] = x[7, 1] = np.inf
    x[0, 2], x[9, 2] = np.inf, -np.inf
    x[0, 3] = x[8, 4] = np.nan
    x[:3, 5] = [np.finfo(dtype).max, -np.finfo(dtype).max, 1]
    found = engine.moments(x)
    with np.errstate(all="ignore"):
        right = PLAIN.moments(x)
    for a, b in zip(found, right, strict=True):
        assert np.array_equal(np.isfinite(a), np.isfinite(b))
        assert np.array_equal(a[~np.isfinite(b)], b[~np.isfinite(b)], equal_nan=True)


def test_images_in_channel_order_and_running_statistics_in_float32(engine):
    shape = 5, 33, 6, 7
    x, dy = numbers(0, shape, "float32"), numbers(1, shape, "float32")  # C order
    weight, bias, mean, variance = (
        numbers(2, 33, "float32"),
        numbers(3, 33, "float32"),
        numbers(4, 33, "float32"),
        None,
    )
    variance = np.square(numbers(5, 33, "float32"))
    with guarded():
        y = engine.normalize(x, mean, variance, 1e-5, weight, bias, Epilogue(0.2))
        found = engine.normalize_backward(dy, x, y, *engine.moments(x), 1e-5, weight, Epilogue(0.2))
    doubles = as_doubles(x, mean, variance, weight, bias)
    x64, m64, v64, w64, b64 = doubles
    assert_close(y, PLAIN.normalize(x64, m64, v64, 1e-5, w64, b64, Epilogue(0.2)), "float32")
    expected = PLAIN.normalize_backward(*as_doubles(dy, x, y), *PLAIN.moments(x64), 1e-5, w64, Epilogue(0.2))
    for result, oracle in zip(found, expected, strict=True):
        assert_close(result, oracle, "float32")


# -- element by element ----------------------------------------------------------------------------------


def pairs_of_specials(dtype):
    """Two arrays with all pairs of special values, longer than a vector and no multiple of one."""
    with np.errstate(over="ignore"):
        values = np.array(SPECIAL, dtype)
    return np.repeat(values, len(values)), np.tile(values, len(values))


@DTYPES
@SLOPES
def test_special_values_go_through_activations_as_through_the_references(engine, dtype, slope):
    a, b = pairs_of_specials(dtype)
    mask = np.arange(len(a)) % 3 > 0
    with np.errstate(all="ignore"), guarded():
        for name, arrays in (
            ("leaky_relu", (a, slope)),
            ("leaky_relu_backward", (a, b, slope)),
            ("mask_scale", (a, mask, 1.25)),
            ("leaky_dropout_backward", (a, b, mask, slope, 1.25)),
            ("tanh_backward", (a, b)),
            ("sigmoid_backward", (a, b)),
            ("add", (np.tile(a, 300), np.tile(b, 300))),
        ):
            found, right = (getattr(backend, name)(*arrays) for backend in (engine, PLAIN))
            assert found.dtype == dtype
            if "leaky" in name or "mask" in name or name == "add":
                assert np.array_equal(found, right, equal_nan=True), name
            else:
                assert np.allclose(found, right, rtol=1e-6, atol=0, equal_nan=True), name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes, st.sampled_from(["float32", "float64"]), st.sampled_from([0.0, 0.2]))
def test_activations(shape, dtype, slope):
    check_activations(shape, dtype, slope)


@DTYPES
@pytest.mark.parametrize("shape", [(PIECE,), (PIECE + 1,), (), (3, 5, 7), (3, 7, 50, 60)])
def test_activations_of_any_axes(shape, dtype):
    check_activations(shape, dtype, 0.2)


def check_activations(shape, dtype, slope):
    engine = own()
    make = images if len(shape) == 4 else numbers
    x, y = make(0, shape, dtype), make(1, shape, dtype)
    if not shape:
        x, y = np.asarray(x), np.asarray(y)
    mask = make(2, shape, "float64") > 0
    with guarded():
        found = [
            engine.leaky_relu(x, slope),
            engine.leaky_relu_backward(x, y, slope),
            engine.mask_scale(x, np.asarray(mask), 1.25),
            engine.leaky_dropout_backward(x, y, np.asarray(mask), slope, 1.25),
            engine.tanh_backward(x, y),
            engine.sigmoid_backward(x, y),
        ]
    right = [
        PLAIN.leaky_relu(x, slope),
        PLAIN.leaky_relu_backward(x, y, slope),
        PLAIN.mask_scale(x, mask, 1.25),
        PLAIN.leaky_dropout_backward(x, y, mask, slope, 1.25),
    ]
    for a, b in zip(found[:4], right, strict=True):
        assert order_of(a) == order_of(x)
        assert np.array_equal(a, b)
        assert a.dtype == dtype
    for a, b in zip(
        found[4:], (x * (1.0 - y.astype("f8") * y), x * (y * (1.0 - y.astype("f8")))), strict=True
    ):
        assert_close(a, b, dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(2 * PIECE,), (4 * PIECE + 1,), (3, 7, 50, 60), (2, 2, PIECE)])
def test_a_sum_of_two_arrays(shape, dtype):
    make = images if len(shape) == 4 else numbers
    x, y = make(0, shape, dtype), make(1, shape, dtype)
    with guarded():
        total, twice, beside = own().add(x, y), own().add(x, x), own().add(x, 2.5)
        across = own().add(x.T, np.ascontiguousarray(y.T))  # in two memory orders
    assert order_of(total) == order_of(x)
    for found, right in ((total, x + y), (twice, 2 * x), (beside, x + 2.5), (across, (x + y).T)):
        assert found.dtype == dtype
        assert np.array_equal(found, right)


# -- dropout -------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("p", [0.0, 0.3, 0.99999, 1 - 2**-18])
@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (3, 5, 6, 4), (2, 3, 23, 11), (3, 1, 9, 7), (4, 30, 1, 1)])
def test_dropout_has_the_bits_of_the_written_out_generator(shape, p, dtype):
    engine = own()
    x = images(0, shape, dtype)
    kept = np.array(naive.dropout_mask(x.size, p, *PLACE))
    if len(shape) == 4:
        n, c, h, w = shape
        kept = kept.reshape(n, h, w, c).transpose(0, 3, 1, 2)
    kept = kept.reshape(shape)
    with guarded():
        y, mask = engine.dropout(x, p, *PLACE)
        alone = engine.dropout_mask(shape, p, *PLACE)
    assert np.array_equal(mask, kept)
    assert np.array_equal(alone, kept)
    assert np.array_equal(y, np.where(kept, x * (1 / (1 - p)), 0).astype(dtype))


@DTYPES
@SLOPES
@pytest.mark.parametrize("shape", [(9, 5, 7, 3), (40, 1000), (2, 64, 20, 30)])
def test_an_activation_and_a_dropout_in_one_pass(shape, slope, dtype):
    x = images(0, shape, dtype)
    epilogue = Epilogue(slope, 0.4).drawn(*PLACE)
    with guarded():
        y, mask = own().apply_epilogue(x, epilogue)
    expected, kept = PLAIN.apply_epilogue(x, epilogue)
    assert np.array_equal(mask, kept)
    assert np.array_equal(y, expected)


def test_what_is_dropped_is_0_whatever_it_was(engine):
    x = np.full((64, 3), np.nan, "f")
    x[::2] = np.inf
    y, mask = engine.dropout(x, 0.5, *PLACE)
    assert 0 < mask.sum() < mask.size
    assert (y[~mask] == 0).all()
    assert not np.isfinite(y[mask]).any()


# -- losses --------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("shape", [(1, 1), (33, 1), (7, 2, 3, 5)])
@pytest.mark.parametrize("labels", [0, 1.0, 0.9, "an array"])
def test_losses(shape, labels, dtype):
    engine = own()
    x, p = numbers(0, shape, dtype) * 20, np.random.default_rng(1).uniform(size=shape).astype(dtype)
    target = np.random.default_rng(2).uniform(size=shape).astype(dtype) if labels == "an array" else labels
    t64 = target.astype(np.float64) if labels == "an array" else float(np.dtype(dtype).type(target))
    with guarded():
        found = [engine.logit_bce(x, target), engine.bce(p, target, None), engine.bce(p, target, 1e-3)]
    right = [
        PLAIN.logit_bce(x.astype(np.float64), t64),
        PLAIN.bce(p.astype(np.float64), t64, None),
        PLAIN.bce(p.astype(np.float64), t64, float(np.dtype(dtype).type(1e-3))),
    ]
    for (loss, gradient), (right_loss, right_gradient) in zip(found, right, strict=True):
        assert_close(loss, right_loss, dtype)
        assert_close(gradient, right_gradient, dtype)


@DTYPES
def test_probabilities_of_0_and_1_and_large_logits(engine, dtype):
    p = np.array([0, 1, 0.5, 1e-30, 1, 0], dtype)
    t = np.array([1, 0, 0.5, 0.25, 1, 0], dtype)
    x = np.array([90, -90, 0, -0.0, 1000, -1000], dtype)
    with np.errstate(all="ignore"):
        for found, right in (
            (engine.bce(p, t, None), PLAIN.bce(*as_doubles(p, t), None)),
            (engine.logit_bce(x, t), PLAIN.logit_bce(*as_doubles(x, t))),
        ):
            assert np.allclose(found[0], right[0], rtol=1e-6)
            assert np.allclose(found[1], right[1], rtol=1e-5, atol=0)


# -- sums, moves ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(shapes, st.sampled_from(["float32", "float64"]), st.booleans(), st.booleans())
def test_sums(shape, dtype, keepdims, over_all):
    check_sums(shape, dtype, keepdims, over_all)


@DTYPES
@pytest.mark.parametrize("over_all", [False, True])
@pytest.mark.parametrize("shape", LARGE)
def test_sums_of_many_pieces(shape, dtype, over_all):
    check_sums(shape, dtype, False, over_all)


def check_sums(shape, dtype, keepdims, over_all):
    x = images(0, shape, dtype, 100)
    axes = tuple(range(x.ndim)) if over_all else (0, 2, 3)[: x.ndim - 1]
    with mock.patch("minigrad.backend.cpu.elementwise.MIN_SUMMED", 0), guarded():
        found = own().sum(x, axes, keepdims)
    right = x.astype(np.float64).sum(axes, keepdims=keepdims)
    assert found.shape == right.shape
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    assert np.all(np.abs(found - right) <= (1 if dtype == "float32" else 50) * eps * np.abs(right))


@DTYPES
@pytest.mark.parametrize("rows", [1, 255, 257, 70_000])
def test_numpys_sums_are_as_near(rows, dtype):
    x = numbers(0, (rows, 3, 1, 1), dtype, 1000)
    for found in (CPUBackend().sum(x, (0, 2, 3)), CPUBackend().moments(x)[0] * rows):
        assert np.allclose(
            found, x.astype(np.float64).sum((0, 2, 3)), rtol=1e-7 if dtype == "float32" else 1e-13
        )


@DTYPES
@pytest.mark.parametrize("shape", [(1, 2, 3, 5), (3, 17, 5, 7), (2, 130, 20, 15), (70, 16, 4, 4)])
def test_channels_go_outwards_when_images_are_flattened(engine, shape, dtype):
    x = images(0, shape, dtype)
    with guarded():
        flat = engine.reshape(x, (shape[0], int(np.prod(shape[1:]))))
    assert np.array_equal(flat, np.ascontiguousarray(x).reshape(flat.shape))
    assert flat.flags.c_contiguous
    with pytest.raises(ValueError, match="reshape"):
        engine.reshape(x, (shape[0], 10**6))


# -- updates -------------------------------------------------------------------------------------------

SIZES = [(3,), (), (5, 7), (PIECE,), (PIECE + 1,), (2, 3, 4, 4), (3 * PIECE - 5,), (1, 1)]


def updates(dtypes):
    """A parameter, its gradient and its moments, of each size."""
    made = []
    for i, (shape, dtype) in enumerate(zip(SIZES, dtypes, strict=True)):
        *others, second = (np.array(numbers(4 * i + j, shape, dtype)) for j in range(4))
        made.append((*others, np.array(np.square(second))))
    return made


@pytest.mark.parametrize("dtypes", [["float32"] * 8, ["float64"] * 8, ["float32", "float64"] * 4])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adam_of_many_parameters(engine, dtypes, weight_decay):
    given = updates(dtypes)
    strided = tuple(np.repeat(a, 2)[::2] for a in given[0])  # goes to NumPy's form
    ours = [*given, strided]
    factors = [(0.01 * (i + 1), 1 / (i + 2)) for i in range(len(ours))]
    constants = {"betas": (0.37, 0.93), "eps": 1e-3, "weight_decay": weight_decay}
    theirs = [as_doubles(*arrays) for arrays in ours]
    gradients = [arrays[1].copy() for arrays in ours]
    engine.adam_updates(ours, lambda: factors, **constants)
    PLAIN.adam_updates(theirs, lambda: factors, **constants)
    for found, right, gradient in zip(ours, theirs, gradients, strict=True):
        assert np.array_equal(found[1], gradient)
        for i in (0, 2, 3):
            assert_close(found[i], right[i], str(found[i].dtype))


def test_a_share_is_rounded_once(engine):
    """1 - 0.999 in float32 is 0.0009999871: that is 1.3e-5 off."""
    p, g, m, v = (np.full(20, value, "f") for value in (0, 1, 0, 0))
    engine.adam_updates([(p, g, m, v)], lambda: [(1.0, 1.0)], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    assert (m == np.float32(1 - 0.9)).all()
    assert (v == np.float32(1 - 0.999)).all()


@pytest.mark.parametrize("dtypes", [["float32"] * 8, ["float32", "float64"] * 4])
def test_averages_of_many_arrays(engine, dtypes):
    pairs = [arrays[:2] for arrays in updates(dtypes)]
    pairs.append(tuple(np.repeat(a, 2)[::2] for a in pairs[0]))
    theirs = [as_doubles(*pair) for pair in pairs]
    engine.average_updates(pairs, lambda: (0.8, 0.3))
    PLAIN.average_updates(theirs, lambda: (0.8, 0.3))
    for found, right in zip(pairs, theirs, strict=True):
        assert_close(found[0], right[0], str(found[0].dtype))
        assert np.array_equal(found[1], right[1].astype(found[1].dtype))


def test_what_may_not_be_written_is_not(engine):
    arrays = [np.ones(5, "f") for _ in range(4)]
    for i in (0, 2, 3):
        arrays[i].flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            engine.adam_updates(
                [tuple(arrays)], lambda: [(1.0, 1.0)], betas=(0.5, 0.9), eps=1e-8, weight_decay=0.0
            )
        arrays[i].flags.writeable = True
    arrays[0].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        engine.average_updates([(arrays[0], arrays[1])], lambda: (0.5, 0.5))


# -- what no kernel takes, and threads -----------------------------------------------------------------


def test_arrays_with_gaps_of_other_orders_and_of_two_dtypes_are_numpys(engine):
    x, y = numbers(0, (6, 8), "float32"), numbers(1, (6, 8), "float32")
    for a, b in (
        (x[:, ::2], y[:, ::2]), (x.T, y.T), (x, y.T.copy().T), (x, y.astype("f8")), (x.astype("f8"), y),
        (np.broadcast_to(x[:1], x.shape), y), (x[:0], y[:0]),
    ):  # fmt: skip
        assert_close(engine.tanh_backward(a, b), PLAIN.tanh_backward(*as_doubles(a, b)), str(b.dtype))
        mask = np.asfortranarray(b > 0)
        assert np.array_equal(engine.mask_scale(b, mask, 2.0), PLAIN.mask_scale(b, mask, 2.0))
    askew = np.frombuffer(bytes(1) + y.tobytes(), "f", offset=1).reshape(y.shape)  # its words are off
    assert np.array_equal(engine.leaky_relu(askew, 0.2), PLAIN.leaky_relu(y, 0.2))


@DTYPES
@pytest.mark.parametrize("turned", ["dy", "y"])
def test_a_gradient_in_another_order_than_the_result(engine, dtype, turned):
    shape = 3, 5, 6, 7
    dy, y, mask = (images(seed, shape, dtype) for seed in range(3))
    mask = mask > 0
    a, b = (np.ascontiguousarray(dy), y) if turned == "dy" else (dy, np.ascontiguousarray(y))
    with guarded():
        found = [
            engine.leaky_relu_backward(a, b, 0.2),
            engine.leaky_dropout_backward(a, b, mask, 0.2, 1.25),
            engine.tanh_backward(a, b),
        ]
    assert np.array_equal(found[0], PLAIN.leaky_relu_backward(dy, y, 0.2))
    assert np.array_equal(found[1], PLAIN.leaky_dropout_backward(dy, y, mask, 0.2, 1.25))
    assert_close(found[2], PLAIN.tanh_backward(*as_doubles(dy, y)), dtype)
    assert turned == "y" or {order_of(x) for x in found} == {order_of(y)}


@pytest.mark.parametrize("mixed", ["dy", "y", "weight", "mean"])
def test_batch_norm_of_two_dtypes_is_numpys(engine, mixed):
    x, dy, y = (images(i, (4, 3, 2, 5), "float32") for i in range(3))
    mean, variance = engine.moments(x)
    given = {
        "dy": dy,
        "x": x,
        "y": y,
        "mean": mean,
        "variance": variance,
        "weight": numbers(3, (3,), "float32"),
    }
    given[mixed] = given[mixed].astype("float32" if mixed == "mean" else "float64")
    found = engine.normalize_backward(**given, eps=1e-3, epilogue=Epilogue(0.2))
    right = PLAIN.normalize_backward(
        **{name: a.astype(np.float64) for name, a in given.items()}, eps=1e-3, epilogue=Epilogue(0.2)
    )
    for a, b in zip(found, right, strict=True):
        assert np.allclose(a, b, rtol=1e-5, atol=1e-5)


def everything(engine):
    """The bytes of the results of all kernels, of several pieces each."""
    x, dy = images(0, (9, 33, 20, 30), "float32"), images(1, (9, 33, 20, 30), "float32")
    weight, bias = numbers(2, 33, "float32"), numbers(3, 33, "float32")
    mean, variance = engine.moments(x)
    y = engine.normalize(x, mean, variance, 1e-3, weight, bias, Epilogue(0.2))
    adam = updates(["float32"] * 8)
    engine.adam_updates(adam, lambda: [(0.1, 0.5)] * 8, betas=(0.5, 0.9), eps=1e-8, weight_decay=0.1)
    dropped, mask = engine.apply_epilogue(x, Epilogue(0.2, 0.4).drawn(*PLACE))
    found = [
        *(mean, variance, y, dropped, mask),
        *engine.normalize_backward(dy, x, y, mean, variance, 1e-3, weight, Epilogue(0.2)),
        engine.leaky_dropout_backward(dy, dropped, mask, 0.2, 1 / 0.6),
        engine.sum(x, (0, 2, 3)),
        engine.reshape(x, (9, 33 * 600)),
        *(array for arrays in adam for array in arrays),
    ]
    return [np.ascontiguousarray(a).tobytes() for a in found]


def test_the_same_bits_on_any_number_of_threads(engine):
    threads, results = engine.pool.threads, []
    for count in (1, 2, 3, 2):
        engine.pool.resize(count)
        results += [everything(engine) for _ in range(5)]
    engine.pool.resize(threads)
    assert all(result == results[0] for result in results)


def test_the_kernels_follow_the_number_of_threads():
    kernels = mock.Mock()
    engine = CPUBackend(kernels)
    engine.pool.resize(3)
    assert [call.args for call in kernels.set_members.call_args_list][1:] == [(3,)]
    assert len(kernels.set_members.call_args_list) == 2


def test_the_address_of_an_array_is_numpys():
    for array in (numbers(0, (3, 4), "float32"), numbers(0, (3, 4), "float64")[1:, 2], np.zeros(())):
        assert address(array) == array.ctypes.data
