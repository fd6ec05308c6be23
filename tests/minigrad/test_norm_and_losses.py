"""BatchNorm, activations, losses and dropout against oracles of their own, in both dtypes."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from accuracy import ACCURACY, assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
import minigrad.functional as F
from minigrad import naive
from minigrad.backend import get
from minigrad.backend.base import Backend

EVERY_DEVICE = True
pytestmark = pytest.mark.every_form

DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])
QUICK = settings(max_examples=25, deadline=None, derandomize=True)


def numbers(seed, *shapes, dtype="float64", scale=1.0, shift=0.0):
    rng = np.random.default_rng(seed)
    return [
        mg.tensor((rng.standard_normal(s) * scale + shift).astype(dtype), requires_grad=True) for s in shapes
    ]


def batch_norm_gradients(x, weight, dy, eps):
    """Through the whole Jacobian: d xhat_i / d x_j = (delta_ij - 1/n - xhat_i xhat_j / n) / std."""
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(len(weight)), np.zeros(len(weight))
    for c in range(x.shape[1]):
        values, above = x[:, c].reshape(-1), dy[:, c].reshape(-1)
        n = len(values)
        std = math.sqrt(((values - values.mean()) ** 2).mean() + eps)
        xhat = (values - values.mean()) / std
        jacobian = (np.eye(n) - 1 / n - np.outer(xhat, xhat) / n) / std
        dx[:, c] = (weight[c] * jacobian.T @ above).reshape(x[:, c].shape)
        dweight[c], dbias[c] = math.fsum(above * xhat), math.fsum(above)
    return dx, dweight, dbias


@DTYPES
@given(st.integers(2, 6), st.integers(1, 4), st.one_of(st.just(()), st.tuples(*[st.integers(1, 4)] * 2)))
@QUICK
def test_batch_norm_and_its_gradients(dtype, n, c, image):
    x, weight, bias = numbers(1, (n, c, *image), (c,), (c,), dtype=dtype)
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3)
    arrays = [t.numpy().astype(np.float64) for t in (x, weight, bias)]
    assert_close(y.numpy(), naive.batch_norm(*arrays, eps=1e-3), dtype)
    (above,) = numbers(2, y.shape, dtype=dtype)
    oracles = batch_norm_gradients(*arrays[:2], above.numpy().astype(np.float64), 1e-3)
    gradients = mg.grad(y, [x, weight, bias], above)
    for found, oracle in zip(gradients, oracles, strict=True):
        # With two values a channel dx is nearly 0: the rounding is of the terms that cancel in it.
        scale = np.linalg.norm(above.numpy()) if found is gradients[0] else 0.0
        error = np.linalg.norm(found.numpy() - oracle)
        limit = {"float32": 1e-6, "float64": 1e-10}[dtype]
        assert error <= limit * max(np.linalg.norm(oracle), scale)


@DTYPES
def test_batch_norm_over_more_values_than_one_slice(dtype):
    x, weight, bias = numbers(3, (64, 40, 25, 25), (40,), (40,), dtype=dtype, shift=2.0)
    y = F.batch_norm(x, None, None, weight, bias, training=True)
    values = x.numpy().astype(np.float64)
    mean, var = values.mean((0, 2, 3), keepdims=True), values.var((0, 2, 3), keepdims=True)
    expected = (values - mean) / np.sqrt(var + 1e-5) * weight.numpy().reshape(-1, 1, 1)
    assert_close(y.numpy(), expected + bias.numpy().reshape(-1, 1, 1), dtype)


@pytest.mark.parametrize("shape", [(20_000, 2), (50, 2, 20, 20)])
@pytest.mark.parametrize("reference", [False, True])
def test_nothing_cancels_where_the_mean_is_large(monkeypatch, shape, reference):
    """A mean of 1e4 and a deviation of 1 in float32, in the device's forms and in the reference's."""
    backend = get()
    if reference:
        for name in ("moments", "normalize", "normalize_backward"):
            monkeypatch.setattr(type(backend), name, getattr(Backend, name))
    x = mg.tensor(
        (np.random.default_rng(0).standard_normal(shape) + 1e4).astype(np.float32), requires_grad=True
    )
    above, weight, bias = numbers(7, shape, (2,), (2,), dtype="float32")
    values, axes = x.numpy().astype(np.float64), (0, 2, 3)[: len(shape) - 1]
    mean, variance = map(backend.to_numpy, backend.moments(x.data))
    assert_close(mean, values.mean(axes))
    assert np.abs(variance / values.var(axes) - 1).max() <= ACCURACY["float32"]  # of squares in float32
    y = F.batch_norm(x, None, None, weight, bias, training=True)
    columns = (1, -1) + (1,) * (len(shape) - 2)
    std = np.sqrt(values.var(axes, keepdims=True) + 1e-5)
    xhat = (values - values.mean(axes, keepdims=True)) / std
    assert_close(y.numpy(), xhat * weight.numpy().reshape(columns) + bias.numpy().reshape(columns), "float32")
    dy = above.numpy().astype(np.float64)
    means = dy.mean(axes, keepdims=True) + xhat * (dy * xhat).mean(axes, keepdims=True)
    dx = weight.numpy().reshape(columns) / std * (dy - means)
    for found, oracle in zip(
        mg.grad(y, [x, weight, bias], above), (dx, (dy * xhat).sum(axes), dy.sum(axes)), strict=True
    ):
        assert_close(found.numpy(), oracle, "float32")


@DTYPES
@pytest.mark.parametrize(
    ("function", "forward", "slope"),
    [
        (F.relu, lambda x: max(x, 0.0), lambda x, y: float(x > 0)),
        (
            lambda x: F.leaky_relu(x, 0.2),
            lambda x: x if x > 0 else 0.2 * x,
            lambda x, y: 1.0 if x > 0 else 0.2,
        ),
        (F.tanh, math.tanh, lambda x, y: 1 - y * y),
        (F.sigmoid, lambda x: 1 / (1 + math.exp(-x)), lambda x, y: y * (1 - y)),
    ],
)
def test_activations_and_their_gradients(dtype, function, forward, slope):
    (x,) = numbers(4, (7, 3, 6, 5), dtype=dtype, scale=2.0)
    (above,) = numbers(5, x.shape, dtype=dtype)
    pixels = np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))  # (N, H, W, C)
    channels_last = mg.Tensor(get().asarray(pixels).transpose(0, 3, 1, 2), True)
    values = np.vectorize(forward)(x.numpy().astype(np.float64))
    slopes = np.vectorize(slope)(x.numpy().astype(np.float64), values)
    for t in (x, channels_last):
        y = function(t)
        assert_close(y.numpy(), values, dtype)
        assert_close(mg.grad(y, t, above)[0].numpy(), slopes * above.numpy(), dtype)


@DTYPES
def test_dense_and_its_gradients(dtype):
    x, w, b, above = numbers(6, (9, 40), (33, 40), (33,), (9, 33), dtype=dtype)
    y = F.dense(x, w, b)
    xa, wa, da = (t.numpy().astype(np.float64) for t in (x, w, above))
    assert_close(y.numpy(), naive.matmul(xa, wa.T) + b.numpy(), dtype)
    oracles = (naive.matmul(da, wa), naive.matmul(da.T, xa), da.sum(0))
    for found, oracle in zip(mg.grad(y, [x, w, b], above), oracles, strict=True):
        assert_close(found.numpy(), oracle, dtype)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("needs", [n for n in itertools.product([False, True], repeat=3) if any(n)], ids=str)
def test_a_dense_layer_computes_the_gradients_that_are_needed_and_no_others(monkeypatch, needs, create_graph):
    x, w, b, above = (t.numpy() for t in numbers(6, (3, 4), (2, 4), (2,), (3, 2), dtype="float64"))
    inputs = [mg.tensor(a, requires_grad=needed) for a, needed in zip((x, w, b), needs, strict=True)]
    y = F.dense(*inputs)
    products, sums = (mock.Mock(wraps=getattr(y.backend, name)) for name in ("matmul", "sum"))
    monkeypatch.setattr(y.backend, "matmul", products)
    monkeypatch.setattr(y.backend, "sum", sums)
    wanted = [t for t, needed in zip(inputs, needs, strict=True) if needed]
    found = mg.grad(y, wanted, mg.tensor(above), create_graph=create_graph)
    assert (products.call_count, sums.call_count) == (sum(needs[:2]), needs[2])
    oracles = (naive.matmul(above, w), naive.matmul(above.T, x), above.sum(0))
    expected = [oracle for oracle, needed in zip(oracles, needs, strict=True) if needed]
    for gradient, oracle in zip(found, expected, strict=True):
        assert_close(gradient.numpy(), oracle, "float64")


@DTYPES
@pytest.mark.parametrize("logit", [1e4, -1e4, 88.8, -104.0, 17.0, 0.0])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_the_logit_loss_is_finite_and_exact_far_from_zero(dtype, logit, target):
    x = mg.tensor(np.array([logit], dtype), requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, target)
    loss.backward()
    z = float(x.numpy()[0])
    p = math.exp(-abs(z)) / (1 + math.exp(-abs(z)))  # the smaller of the two probabilities
    expected = max(z, 0.0) - z * target + math.log1p(math.exp(-abs(z)))
    slope = (1 - p if z > 0 else p) - target if z != 0 else 0.5 - target
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=1e-37)
    assert x.grad.item() == pytest.approx(slope, rel=1e-6, abs=1e-37)


def test_no_gradient_of_the_logit_loss_vanishes_by_a_clip():
    x = mg.tensor([-50.0, 50.0, -80.0], requires_grad=True)
    F.binary_cross_entropy_with_logits(x, mg.tensor([0.0, 1.0, 0.0]), "sum").backward()
    assert np.all(x.grad.numpy() != 0)


@DTYPES
def test_the_probability_loss_holds_its_logarithms_above_minus_100(dtype):
    p = mg.tensor(np.array([0.0, 1.0, 0.0, 1.0, 0.25], dtype), requires_grad=True)
    t = mg.tensor(np.array([1.0, 0.0, 0.0, 1.0, 1.0], dtype))
    losses = F.binary_cross_entropy(p, t, "none")
    assert_close(losses.numpy(), [100.0, 100.0, 0.0, 0.0, math.log(4)], dtype)
    losses.sum().backward()
    assert np.isfinite(p.grad.numpy()).all()
    assert p.grad.numpy()[4] == pytest.approx(-4.0)
    assert abs(p.grad.numpy()[0]) > 1e11


@DTYPES
@pytest.mark.parametrize("epsilon", [None, 1e-6])
@pytest.mark.parametrize("label", [0.0, 1.0, 0.3, "a tensor"])
def test_the_mean_probability_loss_has_the_bits_of_its_steps(dtype, epsilon, label):
    rng = np.random.default_rng(0)
    p = mg.tensor(rng.uniform(size=(33, 1)).astype(dtype), requires_grad=True)
    t = mg.tensor(rng.uniform(size=(33, 1)).astype(dtype)) if label == "a tensor" else label
    found, steps = (
        F.binary_cross_entropy(p, t, epsilon=epsilon),
        F.binary_cross_entropy(p, t, "none", epsilon=epsilon).mean(),
    )
    gradients = [mg.grad(loss, p)[0].numpy() for loss in (found, steps)]
    if p.device == "cpu" and getattr(get(), "kernels", None) is None:  # the digests of earlier runs stay
        assert found.item() == steps.item()
        assert np.array_equal(*gradients)
    assert_close(found.numpy(), steps.numpy(), dtype)
    assert_close(*gradients, dtype)


def test_an_epsilon_that_is_no_number_is_told():
    p = mg.tensor([0.5])
    with pytest.raises(TypeError, match="expected None or a number as epsilon, got Tensor"):
        F.binary_cross_entropy(p, 1.0, epsilon=mg.tensor([1e-6]))


def test_a_saturated_sigmoid_costs_100_and_the_logit_17():
    logit = mg.tensor([17.0])
    assert F.binary_cross_entropy(F.sigmoid(logit), 0.0).item() == 100.0
    assert F.binary_cross_entropy_with_logits(logit, 0.0).item() == pytest.approx(17.0)


@DTYPES
def test_the_epsilon_form(dtype):
    p = mg.tensor(np.array([0.0, 0.3, 1.0], dtype), requires_grad=True)
    t = mg.tensor(np.array([1.0, 0.6, 0.0], dtype))
    found = F.binary_cross_entropy(p, t, "none", epsilon=1e-6)
    expected = [
        -t_ * math.log(p_ + 1e-6) - (1 - t_) * math.log(1 - p_ + 1e-6)
        for p_, t_ in zip(p.numpy().astype(np.float64), t.numpy().astype(np.float64), strict=True)
    ]
    # 1 + epsilon is rounded before its logarithm is taken: in float32 that is what limits it.
    assert np.allclose(found.numpy(), expected, rtol=1e-6, atol={"float32": 1.2e-7, "float64": 1e-16}[dtype])
    found.sum().backward()
    assert p.grad.numpy()[0] == pytest.approx(-1e6, rel=1e-6)


@DTYPES
def test_cross_entropy_of_large_logits(dtype):
    x = mg.tensor(np.array([[1e4, 0.0, -1e4], [3.0, 1.0, 2.0]], dtype), requires_grad=True)
    losses = F.cross_entropy(x, [1, 2], "none")
    total = sum(math.exp(v) for v in (3.0, 1.0, 2.0))
    assert_close(losses.numpy(), [1e4, math.log(total) - 2.0], dtype)
    losses.sum().backward()
    softmax = np.exp([3.0, 1.0, 2.0]) / total
    assert_close(x.grad.numpy(), [[1.0, -1.0, 0.0], softmax - [0, 0, 1]], dtype)


@pytest.mark.parametrize("loss", [F.binary_cross_entropy, F.binary_cross_entropy_with_logits])
def test_reductions_and_targets(loss):
    p, t = (mg.tensor(np.random.default_rng(s).uniform(0.1, 0.9, (4, 3))) for s in (1, 2))
    each = loss(p, t, "none").numpy()
    assert each.shape == (4, 3)
    assert loss(p, t).item() == pytest.approx(each.mean())
    assert loss(p, t, "sum").item() == pytest.approx(each.sum())
    assert loss(p, 1.0).item() == pytest.approx(loss(p, mg.tensor(np.ones((4, 3)))).item())


VALUES = pytest.mark.cpu_only("values are looked at on the CPU alone: on a GPU that would wait for it")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda p: F.binary_cross_entropy(p, mg.tensor(np.ones(2))),
            ValueError,
            r"target of shape \(3,\), got \(2,\)",
        ),
        pytest.param(
            lambda p: F.binary_cross_entropy(p * 3, 1.0),
            ValueError,
            r"probabilities in \[0, 1\].*with_logits",
            marks=VALUES,
        ),
        (lambda p: F.binary_cross_entropy(p, 1.0, "avg"), ValueError, "reduction: expected"),
        (lambda p: F.binary_cross_entropy(p, "1"), TypeError, "expected a tensor, a number"),
        pytest.param(
            lambda p: F.cross_entropy(p.reshape(1, 3), [3]),
            ValueError,
            "labels from 0 to 2, got 3 to 3",
            marks=VALUES,
        ),
        (lambda p: F.cross_entropy(p.reshape(1, 3), [0.5]), TypeError, "integer labels, got float64"),
        (lambda p: F.cross_entropy(p, [1]), ValueError, r"logits \(N, K\) and labels \(N,\)"),
        (lambda p: F.dropout(p, 1.0), ValueError, "expected 0 <= p < 1, got 1.0"),
        (lambda p: F.leaky_relu(p, 2.0), ValueError, "negative_slope <= 1, got 2.0"),
        (lambda p: F.tanh(mg.tensor(np.arange(3))), TypeError, "expected float32 or float64, got int64"),
    ],
)
def test_what_does_not_fit_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call(mg.tensor(np.array([0.2, 0.5, 0.9])))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.floats(0.05, 0.95), st.integers(0, 2**32))
@QUICK
def test_dropout_drops_what_the_naive_generator_says(shape, p, seed):
    generator = mg.Generator(seed)
    key, counter = mg.Generator(seed).next_counter()
    x = mg.tensor(np.ones(shape))
    y = F.dropout(x, p, generator=generator).numpy()
    order = y.transpose(0, 2, 3, 1) if y.ndim == 4 else y  # channels innermost
    expected = [k / (1 - p) for k in naive.dropout_mask(y.size, p, key, counter)]
    assert order.reshape(-1).tolist() == pytest.approx(expected)


@pytest.mark.cpu_only("the pool of threads")
def test_a_large_dropout_mask_is_that_of_the_small_pieces():
    """Cut over threads, the stream of numbers stays the same one."""
    key, counter = mg.Generator(3).next_counter()
    cpu = get("cpu")
    large = cpu.dropout_mask((3_000_001,), 0.3, key, counter)
    assert np.array_equal(large, super(type(cpu), cpu).dropout_mask((3_000_001,), 0.3, key, counter))
    assert large.mean() == pytest.approx(0.7, abs=2e-3)
