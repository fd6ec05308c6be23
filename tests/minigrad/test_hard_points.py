"""Values and gradients at the points where a formula that is right elsewhere fails.

Those are zeros, ties, infinities, values that are no number, and the ends of the range of float32. The right
values are worked out by hand.
"""

import itertools
import math

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad.backend.base import Backend
from minigrad.ops import elementwise
from minigrad.ops.loss import FlooredLog, FlooredLogComplement

EVERY_DEVICE = True

INF, NAN = math.inf, math.nan
SMALLEST = 2.0**-126  # of float32; CuPy compiles its kernels to take what is smaller for 0
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


def leaf(values, dtype="float32"):
    return mg.tensor(values, dtype, requires_grad=True)


def equal(found, expected):
    """The same numbers, one that is no number counting as itself, and the same shape."""
    expected = np.asarray(expected, found.numpy().dtype)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.shape == expected.shape


# -- sums over tensors of more than four axes ------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize(
    "shape", [(2, 3, 2, 2, 2), (2, 3, 2, 4, 5), (3, 2, 1, 2, 1, 2), (2, 3, 2, 4), (2, 0, 3, 2)]
)
def test_sums_along_the_axes_of_a_channel_s_statistics(dtype, shape):
    values = np.random.default_rng(1).integers(-8, 8, shape).astype(dtype)
    count = shape[0] * shape[2] * shape[3]
    kept = (shape[1], *shape[4:])
    sums, squares = np.zeros(kept), np.zeros(kept)
    for n, i, j in itertools.product(range(shape[0]), range(shape[2]), range(shape[3])):
        sums += values[n, :, i, j]
        squares += values[n, :, i, j].astype("float64") ** 2
    x = leaf(values, dtype)
    equal(x.sum((0, 2, 3)), sums)
    np.testing.assert_allclose(x.mean((0, 2, 3)).numpy(), sums / count, rtol=1e-6)
    variance = squares / count - (sums / count) ** 2
    np.testing.assert_allclose(x.var((0, 2, 3)).numpy(), variance, rtol=1e-5)
    weights = np.arange(sums.size, dtype=dtype).reshape(kept)
    (x.sum((0, 2, 3)) * mg.tensor(weights)).sum().backward()
    equal(x.grad, np.broadcast_to(weights[None, :, None, None], shape))


# -- quotients at the ends of the range ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "db", "dbb", "dab"),
    # -a / b^2, 2 a / b^3 and -1 / b^2, of which the last two underflow or overflow where they must.
    [
        (1e20, 1e20, -1e-20, 2e-40, -1e-40),
        (1e-25, 1e-25, -1e25, INF, -INF),
        (1e-30, 1e-18, -1e6, 2e24, -1e36),
        (1e30, 1e18, -1e-6, 2e-24, -1e-36),
    ],
)
def test_a_quotient_of_large_or_small_numbers(a, b, db, dbb, dab):
    x, y = leaf([a]), leaf([b])
    with np.errstate(over="ignore"):
        (first,) = mg.grad(x / y, y, create_graph=True)
        second = mg.grad(first, [y, x])
        equal(mg.grad(2.0 / y, y)[0], mg.grad(leaf([2.0]) / y, y)[0].numpy())
    np.testing.assert_allclose(first.numpy(), [db], rtol=1e-6)
    for found, expected in zip(second, (dbb, dab), strict=True):
        np.testing.assert_allclose(found.numpy(), np.float32([expected]), rtol=1e-5, atol=SMALLEST)


# -- a dropped gradient is 0, whatever comes from above --------------------------------------------------

LAYOUTS = {
    "as made": lambda x: x,
    "channels innermost": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "transposed": lambda x: np.ascontiguousarray(x.T).T,
}
ABOVE = [INF, -INF, NAN, 3.0]


def spread(values, dtype):
    """The values over and over: (2, 3, 4, 4)."""
    return np.resize(np.array(values, dtype), (2, 3, 4, 4))


@pytest.mark.parametrize("function", [F.relu, lambda x: x.clip(0), lambda x: F.maximum(x, 0)])
@pytest.mark.parametrize(
    ("behind", "slope"),
    [(F.sqrt, 0.25), (F.log, 0.25), (lambda y: 1 / y, -1 / 16), (lambda y: y**-0.5, -1 / 16)],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_relu_drops_stays_dropped_before_a_function_of_infinite_slope(function, behind, slope):
    x = leaf([-1.0, 4.0])
    behind(function(x)).sum().backward()
    equal(x.grad, [0.0, slope])


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", [1, 2])
def test_relu_drops_infinite_gradients(dtype, layout, order):
    x = mg.tensor(LAYOUTS[layout](spread([1.0, -1.0, 0.0, -0.0, 2.0], dtype)), requires_grad=True)
    above = LAYOUTS[layout](spread(ABOVE, dtype))
    expected = np.zeros(x.shape, dtype)
    for place in np.ndindex(x.shape):
        expected[place] = above[place] if x.numpy()[place] > 0 else 0
    if order == 1:
        return equal(mg.grad(F.relu(x), x, mg.tensor(above))[0], expected)
    # The gradient is linear in what comes from above, and its own transpose.
    start = leaf(np.ones(x.shape, dtype), dtype)
    (first,) = mg.grad(F.relu(x), x, start, create_graph=True)
    return equal(mg.grad(first, start, mg.tensor(above))[0], expected)


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,)])
def test_relu_without_axes_and_without_elements(shape):
    x = leaf(np.full(shape, -1.0, "float32"))
    equal(mg.grad(F.relu(x), x, mg.tensor(np.full(shape, INF, "float32")))[0], np.zeros(shape))


def test_relu_over_many_slices_drops_infinite_gradients():
    values = np.tile(np.float32([1, -1, 0, -2, 3]), 800_000)
    x = leaf(values)
    above = np.tile(np.float32([INF, 2, -INF, NAN]), 1_000_000)
    (found,) = mg.grad(F.relu(x), x, mg.tensor(above))
    equal(found, np.where(values > 0, above, np.float32(0)))


@DTYPES
def test_relu_taken_in_the_pass_of_a_convolution_or_a_normalisation(dtype):
    x = leaf([[[[-1.0]], [[4.0]]]], dtype)  # (1, 2, 1, 1)
    one = mg.tensor(np.eye(2)[:, :, None, None], dtype)
    above = mg.tensor([[[[INF]], [[2.0]]]], dtype)
    for y in (
        F.conv2d(x, one, epilogue=mg.Epilogue(0.0)),
        F.conv_transpose2d(x, one, epilogue=mg.Epilogue(0.0)),
    ):
        equal(y, [[[[0.0]], [[4.0]]]])
        bias_free = mg.grad(y.sum((2, 3)), x, mg.tensor([[3.0, 2.0]], dtype))[0]
        equal(bias_free, [[[[0.0]], [[2.0]]]])
    weight, bias = leaf([1.0, 1.0], dtype), leaf([0.0, 0.0], dtype)
    zeros, ones = mg.tensor([0.0, 0.0], dtype), mg.tensor([1.0, 1.0], dtype)
    y = F.batch_norm(x, zeros, ones, weight, bias, eps=0.0, epilogue=mg.Epilogue(0.0))
    found = mg.grad(y, [x, weight, bias], above)
    for gradient, expected in zip(found, ([[[[0.0]], [[2.0]]]], [0.0, 8.0], [0.0, 2.0]), strict=True):
        equal(gradient, expected)


@DTYPES
@pytest.mark.parametrize("create_graph", [False, True])
def test_relu_in_the_pass_of_batch_norm_drops_infinite_gradients(dtype, create_graph):
    # x - mean is -1, -1, 1, 1; the second channel is there to be infinite without touching the first.
    x = leaf([[1.0, 1.0], [1.0, 1.0], [3.0, 3.0], [3.0, 3.0]], dtype)
    weight, bias = leaf([1.0, 1.0], dtype), leaf([0.0, 0.0], dtype)
    y = F.batch_norm(x, None, None, weight, bias, training=True, eps=0.0, epilogue=mg.Epilogue(0.0))
    above = mg.tensor([[INF, 1.0], [-INF, 1.0], [2.0, 2.0], [4.0, 4.0]], dtype)
    dx, dweight, dbias = mg.grad(y, [x, weight, bias], above, create_graph=create_graph)
    # dy back through the ReLU is 0, 0, 2, 4: mean(dy) and mean(dy xhat) are 1.5.
    equal(dx, [[0.0, 0.0], [0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]])
    equal(dweight, [6.0, 6.0])
    equal(dbias, [6.0, 6.0])


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_dropout_drops_is_0_whatever_it_was(dtype, layout):
    ones = mg.tensor(LAYOUTS[layout](np.ones((2, 3, 4, 4), dtype)))
    kept = F.dropout(ones, 0.5, generator=mg.random.Generator(3)).numpy() > 0
    assert 0 < kept.sum() < kept.size
    values = LAYOUTS[layout](spread(ABOVE, dtype))
    expected = np.zeros(values.shape, dtype)
    expected[kept] = values[kept] * 2
    x = mg.tensor(values, requires_grad=True)
    equal(F.dropout(x, 0.5, generator=mg.random.Generator(3)), expected)
    y = F.dropout(leaf(np.ones_like(values), dtype), 0.5, generator=mg.random.Generator(3))
    start = leaf(np.ones(values.shape, dtype), dtype)
    (source,) = y.node.edges
    (first,) = mg.grad(y, source, start, create_graph=True)
    equal(mg.grad(y, source, mg.tensor(values), retain_graph=True)[0], expected)
    equal(mg.grad(first, start, mg.tensor(values))[0], expected)


@DTYPES
@pytest.mark.parametrize("slope", [0.0, 0.5])
def test_relu_and_dropout_in_the_pass_of_a_convolution_drop_infinite_gradients(dtype, slope):
    mg.manual_seed(5)
    x = leaf(spread([1.0, -1.0, 2.0, -2.0, 1.0], dtype), dtype)
    one = mg.tensor(np.eye(3)[:, :, None, None], dtype)
    bias = leaf(np.zeros(3), dtype)
    y = F.conv2d(x, one, bias, epilogue=mg.Epilogue(slope, 0.5))
    above = np.where(y.numpy() != 0, 3.0, INF).astype(dtype)
    expected = np.zeros(x.shape, dtype)
    for place in np.ndindex(x.shape):
        if y.numpy()[place] != 0:
            expected[place] = 6.0 if x.numpy()[place] > 0 else 6.0 * slope
    dx, db = mg.grad(y, [x, bias], mg.tensor(above))
    equal(dx, expected)
    equal(db, expected.sum((0, 2, 3)))


def test_other_operations_that_drop_a_gradient():
    above = mg.tensor(np.float32(ABOVE))
    x = leaf([0.0, -0.0, 0.0, 0.0])
    equal(mg.grad(x.abs(), x, above)[0], [0.0] * 4)
    x = leaf([-1.0, 3.0, 5.0, 1.0])
    equal(mg.grad(x.clip(0, 2), x, above)[0], [0.0, 0.0, 0.0, 3.0])
    equal(mg.grad(F.maximum(x, 9.0), x, above)[0], [0.0] * 4)
    equal(mg.grad(F.where([True, False, False, True], 0.0, x), x, above)[0], [0.0, -INF, NAN, 0.0])
    equal(mg.grad(F.where([True, False, False, True], x, 0.0), x, above)[0], [INF, 0.0, 0.0, 3.0])
    equal(mg.grad(x.max(), x, mg.tensor(INF))[0], [0.0, 0.0, INF, 0.0])


# -- the largest of values that are no numbers -----------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([1, NAN, 2], [0, 1, 0]),
        ([NAN, 5, NAN], [0.5, 0, 0.5]),
        ([INF, 1, INF], [0.5, 0, 0.5]),
        ([-INF, -INF, -INF], [1 / 3] * 3),
        ([0.0, -0.0, -1.0], [0.5, 0.5, 0]),
    ],
)
def test_the_gradient_of_the_largest(values, share):
    x = leaf(values)
    (first,) = mg.grad(x.max(), x, create_graph=True)
    equal(first, np.float32(share))
    rows = leaf([values, [3, 2, 1]])
    equal(mg.grad(rows.max(1).sum(), rows)[0], np.float32([share, [1, 0, 0]]))
    columns = leaf(np.transpose([values, [3, 2, 1]]))
    equal(
        mg.grad(columns.max(0, keepdims=True).sum(), columns)[0], np.transpose(np.float32([share, [1, 0, 0]]))
    )


@pytest.mark.parametrize(
    ("a", "b", "y", "da"),
    [
        (NAN, 2, NAN, 1),
        (2, NAN, NAN, 0),
        (NAN, NAN, NAN, 0.5),
        (INF, INF, INF, 0.5),
        (0.0, -0.0, 0, 0.5),
        (1, 2, 2, 0),
    ],
)
def test_the_gradient_of_the_larger(a, b, y, da):
    x, z = leaf([a]), leaf([b])
    found = F.maximum(x, z)
    equal(found, [y])
    first = mg.grad(found, [x, z], create_graph=True)
    for gradient, expected in zip(first, (da, 1 - da), strict=True):
        equal(gradient, [expected])
    equal(mg.grad(F.maximum(x, b), x)[0], [da])
    equal(mg.grad(F.maximum(a, z), z)[0], [1 - da])


# -- powers ----------------------------------------------------------------------------------------------

# a, b, a^b, da, db, then the derivatives of da with respect to a and b: by hand, and by PyTorch's choices.
POWERS = [
    (0.0, 0.0, 1, 0, 0, 0, None),
    (-0.0, 0.0, 1, 0, 0, 0, None),
    (0.0, 1.0, 0, 1, 0, 0, 1),
    (0.0, 2.0, 0, 0, 0, 2, 0),
    (0.0, 3.0, 0, 0, 0, 0, 0),
    (2.0, 0.0, 1, 0, math.log(2), 0, 0.5),
    (2.0, 1.0, 2, 1, 2 * math.log(2), 0, 1 + math.log(2)),
    (2.0, 3.0, 8, 12, 8 * math.log(2), 12, 4 + 12 * math.log(2)),
    (-2.0, 0.0, 1, 0, NAN, 0, NAN),
    (-2.0, 1.0, -2, 1, NAN, 0, NAN),
    (-2.0, 2.0, 4, -4, NAN, 2, NAN),
    (-2.0, -1.0, -0.5, -0.25, NAN, -0.25, NAN),
    (0.0, 0.5, 0, INF, 0, -INF, None),
    (0.0, -1.0, INF, -INF, -INF, INF, None),
    (INF, 0.0, 1, 0, INF, 0, None),
    (INF, 1.0, INF, 1, INF, 0, INF),
    (NAN, 0.0, 1, 0, NAN, 0, None),
    (1e-40, 0.0, 1, 0, math.log(1e-40), 0, None),
]


@DTYPES
@pytest.mark.parametrize(("a", "b", "y", "da", "db", "daa", "dab"), POWERS)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value", "ignore:overflow")
def test_powers_at_their_special_points(dtype, a, b, y, da, db, daa, dab):
    base, exponent = leaf([a], dtype), leaf([b], dtype)
    found = base**exponent
    equal(found, [y])
    first = mg.grad(found, [base, exponent], create_graph=True)
    second = mg.grad(first[0], [base, exponent])
    subnormal = 0 < abs(a) < 1e-38 and dtype == "float32"  # taken for 0 on the GPU
    for gradient, expected in ((first[0], da), (first[1], db), (second[0], daa), (second[1], dab)):
        if expected is not None and not (subnormal and expected == db):
            np.testing.assert_allclose(gradient.numpy(), [expected], rtol=1e-6)
    (number_first,) = mg.grad(base**b, base, create_graph=True)
    equal(number_first, [da])
    if not math.isinf(da) and b not in (0, 1):  # constant from there on
        np.testing.assert_allclose(mg.grad(number_first, base)[0].numpy(), [daa], rtol=1e-6)
    if not subnormal:
        np.testing.assert_allclose(mg.grad(a**exponent, exponent)[0].numpy(), [db], rtol=1e-6)


@pytest.mark.parametrize("exponent", [0, 0.0, [0.0]])
def test_a_power_of_0_drops_what_comes_from_above(exponent):
    exponent = mg.tensor(exponent) if isinstance(exponent, list) else exponent
    x = leaf([0.0, 2.0, -3.0, 1.0])
    equal(mg.grad(x**exponent, x, mg.tensor(np.float32(ABOVE)))[0], [0.0] * 4)


@pytest.mark.parametrize("exponent", [3, 3.0, [3.0], [[3.0], [3.0]]])
def test_all_derivatives_of_a_cube_at_0_and_below(exponent):
    exponent = mg.tensor(exponent) if isinstance(exponent, list) else exponent
    x = leaf([0.0, -2.0])
    rows = len(exponent) if isinstance(exponent, mg.Tensor) else 1
    derivative = (x**exponent).sum()
    for expected in ([0, 12], [0, -12], [6, 6], [0, 0]):
        (found,) = mg.grad(derivative, x, create_graph=True)
        equal(found, np.multiply(rows, expected))
        derivative = found.sum()


def test_the_exponent_s_gradient_where_the_base_is_a_number():
    x = leaf([0.0, 2.0])
    equal(mg.grad((0.0**x).sum(), x)[0], [0.0, 0.0])
    equal(mg.grad((0**x).sum(), x)[0], [0.0, 0.0])
    np.testing.assert_allclose(mg.grad((2**x).sum(), x)[0].numpy(), [math.log(2), 4 * math.log(2)], rtol=1e-6)


# -- the loss of probabilities ---------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize(
    ("target", "p", "loss", "gradient", "second"),
    # -log(1 - p), 1 / (1 - p), its square for the label 0; -log(p), -1 / p and 1 / p^2 for the label 1.
    [
        (0, 1e-7, 1.00000005e-7, 1, 1),
        (0, 1e-8, 1.000000005e-8, 1, 1),
        (0, 1e-30, 1e-30, 1, 1),
        (0, 0.0, 0, 1, 1),
        (0, 0.5, math.log(2), 2, 4),
        (0, 1.0, 100, 1e12, 0),
        (1, 1e-7, 7 * math.log(10), -1e7, 1e14),
        (1, 2.0**-60, 60 * math.log(2), -1e12, 0),
        (1, 0.0, 100, -1e12, 0),
        (1, 1.0, 0, -1, 1),
        (0.25, 0.5, math.log(2), 1, 4),
    ],
)
def test_the_probability_loss_of_small_and_large_probabilities(dtype, target, p, loss, gradient, second):
    p = leaf([p], dtype)
    found = F.binary_cross_entropy(p, target)
    tolerance = 2e-7 if dtype == "float32" else 2e-13
    np.testing.assert_allclose(found.numpy(), loss, rtol=tolerance)
    (first,) = mg.grad(found, p, create_graph=True)
    np.testing.assert_allclose(first.numpy(), [gradient], rtol=max(tolerance, 2e-7))  # 1 - p is 1 to 1e-7
    np.testing.assert_allclose(mg.grad(first, p)[0].numpy(), [second], rtol=3e-7)


@pytest.mark.cpu_only("CuPy compiles its kernels to take numbers as small as these for 0")
def test_the_probability_loss_of_the_smallest_probabilities():
    for p, loss in ((1e-40, 92.10341), (1.4e-45, 100.0), (1e-43, 99.0112)):
        value = np.float32(p)
        if loss < 100:
            loss = -math.log(float(value))
        np.testing.assert_allclose(F.binary_cross_entropy(leaf([value]), 1).numpy(), loss, rtol=1e-6)
        equal(F.binary_cross_entropy(leaf([value]), 0), value)


def test_the_probability_loss_lets_through_what_is_no_number():
    for logarithm in (FlooredLog, FlooredLogComplement):
        equal(logarithm()(leaf([NAN])), [NAN])
    for target in (0, 1, 0.5):
        p = leaf([0.5, NAN])
        found = F.binary_cross_entropy(p, target, "none")
        equal(found[1], NAN)
        assert np.isnan(mg.grad(found.sum(), p)[0].numpy()).tolist() == [False, True]


# -- integers beside floats ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda i: i.clip(0.5, None), [0.5, 1, 2]),
        (lambda i: i.clip(None, np.float64(1.5)), [0, 1, 1.5]),
        (lambda i: F.where([True, False, True], i, 0.5), [0, 0.5, 2]),
        (lambda i: F.where([True, False, True], 0.5, i), [0.5, 1, 0.5]),
        (lambda i: F.maximum(i, 0.5), [0.5, 1, 2]),
        (lambda i: F.pad(i, [(1, 0)], 0.5), [0.5, 0, 1, 2]),
        (lambda i: i * 0.5, [0, 0.5, 1]),
        (lambda i: 0.5 - i, [0.5, -0.5, -1.5]),
        (lambda i: i / 2, [0, 0.5, 1]),
        (lambda i: i / (i + 1), [0, 0.5, 2 / 3]),
        (lambda i: i**2.0, [0, 1, 4]),
        (lambda i: 2.0**i, [1, 2, 4]),
        (lambda i: (i + 1) ** -1.0, [1, 0.5, 1 / 3]),
    ],
)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_integers_beside_a_float_become_float32(call, expected, dtype):
    found = call(mg.tensor(np.arange(3), dtype))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found.numpy(), np.float32(expected), rtol=1e-6)


def test_booleans_beside_a_float_become_float32():
    b = mg.tensor(np.array([True, False]))
    for found, expected in ((b.clip(0.25, 0.5), [0.5, 0.25]), (F.where([True, True], b, 0.5), [1, 0])):
        assert found.dtype == "float32"
        equal(found, expected)


def test_integers_beside_integers_stay():
    i = mg.tensor(np.arange(3))
    for found, expected in (
        (i.clip(1, None), [1, 1, 2]),
        (F.where([True, False, True], i, 7), [0, 7, 2]),
        (F.pad(i, [(0, 1)]), [0, 1, 2, 0]),
        (F.pad(i, [(0, 1)], 9), [0, 1, 2, 9]),
        (i**2, [0, 1, 4]),
    ):
        assert found.dtype == "int64"
        equal(found, expected)
    with pytest.raises(
        ValueError, match=r"power: int64 to the power of -1 is no integer: use a float, as in x \*\* -1.0"
    ):
        i**-1
    with pytest.raises(TypeError, match="clip: expected numbers as bounds"):
        i.clip(mg.tensor([0.5]))
    with pytest.raises(TypeError, match=r"pad: expected a number as value, got a tensor of shape \(1,\)"):
        F.pad(i, [(0, 1)], mg.tensor([0.5]))


# -- sizes, axes and conditions --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(-2, 3), (2, -3), (-1, -2), (3, -2, -1), (-6,)])
def test_reshape_takes_no_negative_size_but_minus_1(shape):
    with pytest.raises(ValueError, match="reshape: expected sizes of 0 or more, and -1 once at the most"):
        mg.tensor(np.ones((2, 3))).reshape(shape)
    with pytest.raises(ValueError, match="reshape: 6 elements"):
        mg.tensor(np.ones((2, 3))).reshape(-1, -1)


def test_numpy_s_integers_are_sizes_and_axes():
    x = mg.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    values = x.numpy()
    zero, one, two, three = (np.int64(n) for n in range(4))
    for found, expected in (
        (x.reshape(three, two), values.reshape(3, 2)),
        (x.reshape((np.uint8(6),)), values.reshape(6)),
        (x.reshape(np.int8(-1)), values.reshape(6)),
        (x.transpose(one, zero), values.T),
        (F.broadcast_to(x, (two, two, three)), np.stack([values, values])),
        (F.broadcast_to(x, [2, 3]), values),
        (F.concatenate([x, x], one), np.hstack([values, values])),
        (F.stack([x, x], two), np.stack([values, values], 2)),
        (F.pad(x, [(zero, one), (one, zero)]), np.pad(values, [(0, 1), (1, 0)])),
        (F.pad(x, np.array([[0, 1], [1, 0]])), np.pad(values, [(0, 1), (1, 0)])),
        (x.sum(one), values.sum(1)),
        (x.sum(np.array([0, 1])), values.sum()),
        (x.max((zero,), keepdims=True), values.max(0, keepdims=True)),
        (x[one, np.int32(2)], values[1, 2]),
    ):
        equal(found, expected)
        assert all(type(n) is int for n in found.shape)
        mg.grad(found.sum(), x)
    equal(mg.grad(x[one, np.int32(2)], x)[0], [[0, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("reshape", lambda x: x.reshape(2.0, 3)),
        ("reshape", lambda x: x.reshape(None)),
        ("transpose", lambda x: x.transpose(1.0, 0)),
        ("broadcast_to", lambda x: F.broadcast_to(x, (2.0, 3))),
        ("concatenate", lambda x: F.concatenate([x, x], 1.0)),
        ("stack", lambda x: F.stack([x, x], "0")),
        ("sum", lambda x: x.sum(1.0)),
        ("max", lambda x: x.max((0.0, 1))),
    ],
)
def test_sizes_and_axes_that_are_no_ints_are_told(name, call):
    with pytest.raises(TypeError, match=f"^{name}: expected ints, got "):
        call(mg.tensor(np.ones((2, 3))))


@pytest.mark.parametrize("shape", [(2,), (3, 3), (-1, 3), (2, 3, 1)])
def test_broadcast_to_a_shape_that_does_not_fit_is_told(shape):
    with pytest.raises(ValueError, match=r"broadcast_to: a tensor of shape \(2, 3\) can't be stretched to"):
        F.broadcast_to(mg.tensor(np.ones((2, 3))), shape)
    with pytest.raises(ValueError, match=r"can't be stretched to \(-1, 3\)"):
        F.broadcast_to(mg.tensor(np.ones((1, 3))), (-1, 3))


def test_a_single_boolean_is_a_condition():
    a, b = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    for condition, chosen, left in ((True, a, b), (False, b, a)):
        for given in (condition, np.bool_(condition), mg.tensor(np.array(condition))):
            found = F.where(given, a, b)
            equal(found, chosen.numpy())
            gradients = mg.grad(found.sum(), [chosen, left])
            equal(gradients[0], [1, 1])
            equal(gradients[1], [0, 0])


# -- constants that are changed between forward and backward ----------------------------------------------


def test_labels_changed_after_the_forward_do_not_count(default_device):
    def gradient(change):
        x = leaf([[0.0, 0.0], [0.0, 0.0]])
        labels = mg.tensor(np.array([0, 1]))
        loss = F.cross_entropy(x, change[0](labels), "sum")
        change[1](labels)
        return mg.grad(loss, x, create_graph=True)[0]

    def in_place(labels):
        labels.data[0] = 1

    def marked(labels):
        labels.data[0] = 1
        labels.mark_changed()

    for given in (lambda t: t, lambda t: t.data):
        for change in (in_place, marked):
            equal(gradient((given, change)), [[-0.5, 0.5], [0.5, -0.5]])


def test_conditions_indices_and_operands_changed_after_the_forward_do_not_count():
    x = leaf([1.0, 2.0])
    condition, index, factor = (mg.tensor(np.array(v)) for v in ([True, False], [0, 0], np.float32([3, 5])))
    numbers = [0, 0]
    results = [
        F.where(condition, x, 0.0), F.where(condition.data, x, 0.0), x[condition], x[index], x[index.data],
        x[numbers], x * factor.data, x / factor.data, x**factor.data,
    ]  # fmt: skip
    condition.data[:], index.data[:], factor.data[:] = (condition.data != condition.data), 1, 7
    numbers[:] = 1, 1
    expected = [[1, 0], [1, 0], [1, 0], [2, 0], [2, 0], [2, 0], [3, 5], [1 / 3, 0.2], [3, 80]]
    for y, gradient in zip(results, expected, strict=True):
        np.testing.assert_allclose(mg.grad(y.sum(), x)[0].numpy(), np.float32(gradient), rtol=1e-6)


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_running_statistics_changed_after_the_forward_do_not_count(slope):
    x, weight, bias = leaf([[3.0], [5.0]]), leaf([2.0]), leaf([0.0])
    mean, variance = mg.tensor([1.0]), mg.tensor([4.0])
    y = F.batch_norm(x, mean, variance, weight, bias, eps=0.0, epilogue=mg.Epilogue(slope))
    mean.data[:], variance.data[:] = 100.0, 100.0
    for found, expected in zip(mg.grad(y.sum(), [x, weight, bias]), ([[1], [1]], [3], [2]), strict=True):
        equal(found, expected)


def test_constants_are_copied_only_where_a_graph_is_recorded(monkeypatch):
    x, condition = leaf([1.0, 2.0]), mg.tensor(np.array([True, False])).data
    kept = []
    operation = elementwise.Where
    monkeypatch.setattr(elementwise, "Where", lambda mask: kept.append(mask) or operation(mask))
    with mg.no_grad():
        F.where(condition, x, 0.0)
    F.where(condition, x.detach(), 0.0)
    assert [mask is condition for mask in kept] == [True, True]
    F.where(condition, x, 0.0)
    assert kept[2] is not condition


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.leaky_relu(x, 0.5),
        F.relu,
        lambda x: F.conv2d(x, mg.tensor(np.ones((1, 1, 1, 1), "f")), epilogue=mg.Epilogue(0.5)),
        lambda x: F.conv2d(x, mg.tensor(np.ones((1, 1, 1, 1), "f")), epilogue=mg.Epilogue(0.5, 0.5)),
        lambda x: F.conv_transpose2d(x, mg.tensor(np.ones((1, 1, 1, 1), "f")), epilogue=mg.Epilogue(0.5)),
        lambda x: F.batch_norm(
            x,
            mg.tensor([0.0]),
            mg.tensor([1.0]),
            mg.tensor([1.0]),
            mg.tensor([0.0]),
            epilogue=mg.Epilogue(0.5),
        ),
        lambda x: F.batch_norm(
            x, None, None, mg.tensor([1.0]), mg.tensor([0.0]), training=True, epilogue=mg.Epilogue(0.5)
        ),
    ],
)
def test_a_result_changed_before_the_second_backward_is_told(call):
    x = leaf([[[[1.0]]], [[[-1.0]]]])
    y = call(x)
    start = leaf(np.ones(y.shape))
    (first,) = mg.grad(y, x, start, create_graph=True)
    y.data[...] *= -1
    y.mark_changed()
    with pytest.raises(RuntimeError, match="its result was changed in place"):
        mg.grad(first.sum(), start)


# -- tensors without axes, without elements, of every layout ----------------------------------------------

PIECEWISE = {
    "relu": (F.relu, lambda v: float(v > 0)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.5), lambda v: 1.0 if v > 0 else 0.5),
    "abs": (abs, lambda v: float(np.sign(v))),
    "clip": (lambda x: x.clip(-1, 1), lambda v: float(-1 <= v <= 1)),
    "maximum": (lambda x: F.maximum(x, 0), lambda v: 0.5 if v == 0 else float(v > 0)),
    "where": (lambda x: F.where(x > 0, x, 3.0), lambda v: float(v > 0)),
    "power": (lambda x: x ** mg.tensor(np.array(2.0, x.dtype)), lambda v: 2.0 * v),
    "quotient": (lambda x: 1 / (x + 4), lambda v: -1 / (v + 4) ** 2),
}


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PIECEWISE)
def test_gradients_of_every_layout(name, layout, dtype):
    call, slope = PIECEWISE[name]
    x = mg.tensor(LAYOUTS[layout](spread([1.0, -1.0, 0.0, 2.0, -3.0], dtype)), requires_grad=True)
    above = spread([1.0, 2.0, -3.0], dtype)
    expected = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        expected[place] = above[place] * slope(x.numpy()[place])
    (found,) = mg.grad(call(x), x, mg.tensor(LAYOUTS[layout](above)))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    row = mg.tensor(np.array([2.0], dtype))  # a gradient that was stretched
    (found,) = mg.grad((call(x) * row).sum(), x)
    np.testing.assert_allclose(found.numpy(), 2 * expected / above, rtol=1e-6)


@pytest.mark.parametrize("name", PIECEWISE)
def test_gradients_of_no_axes_and_of_no_elements(name):
    call, slope = PIECEWISE[name]
    for value in (1.0, -1.0, 0.0):
        x = leaf(value)
        (first,) = mg.grad(call(x), x, create_graph=True)
        equal(first, np.float32(slope(value)))
    for shape in ((0,), (2, 0), (0, 3, 2, 2)):
        x = leaf(np.zeros(shape))
        equal(mg.grad(call(x).sum(), x)[0], np.zeros(shape))


def test_the_largest_of_no_axes():
    for value in (3.0, NAN):
        x = leaf(value)
        equal(mg.grad(x.max(), x, create_graph=True)[0], 1.0)
    with pytest.raises(ValueError, match="max: no values"):
        leaf(np.zeros((2, 0))).max(1)


def test_dropout_of_no_axes_and_of_no_elements():
    for shape in ((), (0,), (2, 0, 3, 3)):
        x = leaf(np.full(shape, INF))
        y = F.dropout(x, 0.5, generator=mg.random.Generator(1))
        kept = np.isinf(y.numpy())
        equal(y, np.where(kept, INF, 0.0))
        equal(mg.grad(y, x, mg.tensor(np.full(shape, NAN, "float32")))[0], np.where(kept, NAN, 0.0))


@pytest.mark.cpu_only("the reference forms, over NumPy")
def test_the_reference_drops_what_its_faster_forms_drop():
    class Reference(Backend):
        device, xp = "reference", np

    above, y = np.float32(ABOVE), np.float32([-1, 0, 0, 1])
    mask, reference = np.array([False, False, True, True]), Reference()
    np.testing.assert_array_equal(reference.leaky_relu_backward(above, y, 0.0), [0, 0, 0, 3])
    np.testing.assert_array_equal(reference.mask_scale(above, mask, 2.0), [0, 0, NAN, 6])
    np.testing.assert_array_equal(reference.leaky_dropout_backward(above, y, mask, 0.0, 2.0), [0, 0, 0, 6])
    assert reference.leaky_relu_backward(above, y, 0.0).dtype == np.float32
    assert reference.mask_scale(above, mask, 2.0).dtype == np.float32


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_a_result_changed_before_the_third_backward_is_told(p):
    x, one = leaf([[[[1.0]], [[-1.0]]]]), mg.tensor(np.eye(2)[:, :, None, None], "float32")
    y = F.conv2d(x, one, epilogue=mg.Epilogue(0.5, p))
    start, above = leaf(np.ones(y.shape)), leaf(np.ones(x.shape))
    (first,) = mg.grad(y, x, start, create_graph=True)
    (second,) = mg.grad(first, start, above, create_graph=True)
    y.mark_changed()
    with pytest.raises(RuntimeError, match="its result was changed in place"):
        mg.grad(second.sum(), above)
