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
