"""Special floating-point values, and exact arithmetic for what is right at them.

The arithmetic is that of `decimal`, with 60 digits and without traps. It has infinities, NaN, signed zeros
and IEEE 754's rules for them, and its range is so large that nothing finite overflows or underflows: a right
value is exact until it is rounded to the dtype, once. Arrays of decimals are NumPy's, of objects.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np

EXACT = decimal.Context(prec=60, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[])
ZERO, ONE, TWO, HALF = Decimal(0), Decimal(1), Decimal(2), Decimal("0.5")
NAN, INFINITY = Decimal("NaN"), Decimal("Infinity")


class Nothing:
    """A derivative by selection: the gradient is 0, whatever comes from above (NaN and infinities too)."""


NOTHING = Nothing()


def unary(dtype: str) -> Any:
    """Return about a hundred values, (M,): zeros, subnormals, the largest, infinities, NaN."""
    info = np.finfo(dtype)
    least, tiny, eps, largest = (float(v) for v in (info.smallest_subnormal, info.tiny, info.eps, info.max))
    around_one = (1 - eps / 2, 1.0, 1 + eps)
    small = (0.0, least, 3 * least, tiny / 2, tiny - least, tiny, 4 * tiny, tiny**0.5, eps**2, eps / 2, eps)
    middle = (1e-10, 1e-5, 1e-3, 0.1, 0.25, 0.5, *around_one, 1.5, 2.0, 2.718281828, 3.0, 7.5, 9.5)
    # Where exponentials round to 0 or overflow, and 1 + exp(-x) to 1, in float32 and in float64.
    ranges = (16.7, 18.0, 33.0, 37.0, 80.0, 87.4, 88.8, 100.0, 104.0, 708.0, 710.0, 745.0, 746.0, 1000.0)
    large = (1e5, 1e10, largest**0.25, largest**0.5, 2 * largest**0.5, largest**0.75, largest / 2, largest)
    positive = np.array([*small, *middle, *ranges, *large, np.inf])
    return np.concatenate([positive, -positive, [np.nan]]).astype(dtype)


def some(dtype: str) -> Any:
    """Return the values whose pairs are tried, (16,): squares of some overflow or vanish."""
    info = np.finfo(dtype)
    large, small = float(info.max) ** 0.52, float(info.tiny) ** 0.65
    values = [
        0.0,
        -0.0,
        info.smallest_subnormal,
        -info.tiny / 2,
        small,
        -large,
        large,
        0.5,
        1.0,
        -1.0,
        2.0,
        -3.0,
    ]
    return np.array([*values, info.max, np.inf, -np.inf, np.nan], dtype)


def pairs(dtype: str) -> tuple[Any, Any]:
    """Return each of `some` with each, ties included, in both orders: two arrays (256,)."""
    a, b = np.meshgrid(some(dtype), some(dtype), indexing="ij")
    return a.reshape(-1), b.reshape(-1)


def exact(array: Any) -> Any:
    """Return floats as decimals, in an array of the same shape."""
    return each(lambda v: Decimal(float(v)))(np.asarray(array))


def each(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of numbers one of arrays of objects, element by element, with broadcasting."""
    return lambda *arrays: np.asarray(np.frompyfunc(function, len(arrays), 1)(*arrays), object)


def times(dy: Any, factor: Any) -> Any:
    """Return dy * factor, an array of decimals; 0 where the factor is `NOTHING`."""
    return each(lambda d, f: ZERO if f is NOTHING else d * f)(dy, factor)


# -- functions, by rules at their special points ---------------------------------------------------


def power(a: Decimal, b: Decimal) -> Decimal:
    """Return a^b by the rules of IEEE 754 (9.2.1): 1 for b = 0 and for a = 1, even with NaN."""
    if b == 0 or a == 1:
        return ONE
    if a.is_nan() or b.is_nan():
        return NAN
    size = a.copy_abs()
    if size == 1 and b.is_infinite():
        return ONE
    if size == 0 or size.is_infinite() or b.is_infinite():
        grows = (size > 1) == (b > 0)
        magnitude = INFINITY if grows else ZERO
    else:
        magnitude = (b * size.ln()).exp()
    if not a.is_signed():
        return magnitude
    whole = b.is_infinite() or b == b.to_integral_value()
    if not whole and a.is_finite() and a != 0:
        return NAN
    odd = not b.is_infinite() and whole and b % 2 != 0
    return magnitude.copy_negate() if odd else magnitude


def log(x: Decimal) -> Decimal:
    return x.ln() if x != 0 else -INFINITY


def sigmoid(x: Decimal) -> Decimal:
    return ONE / (ONE + x.copy_negate().exp())


def sigmoid_slope(x: Decimal) -> Decimal:
    return ONE / ((ONE + x.exp()) * (ONE + x.copy_negate().exp()))


def softplus(x: Decimal) -> Decimal:
    """Return log(1 + exp(x)); far from 0 by the first terms of its series."""
    if x > 50:
        return x + softplus(x.copy_negate())
    e = x.exp()
    return e - e * e / 2 if x < -50 else (ONE + e).ln()


def tanh(x: Decimal) -> Decimal:
    if x.is_nan() or x.copy_abs() < Decimal("1e-15"):
        return x - x * x * x / 3 if x != 0 else x
    if x.is_infinite():
        return ONE.copy_sign(x)
    return (ONE - (-2 * x).exp()) / (ONE + (-2 * x).exp()) if x > 0 else -tanh(-x)


def tanh_slope(x: Decimal) -> Decimal:
    return 4 * sigmoid_slope(2 * x)


# -- small helpers of the table -------------------------------------------------------------


def negative(x):
    return x.copy_negate()


def flat(value):
    return lambda *inputs: value


def selected(condition):
    """Return the derivative of what selects: 1 where the condition holds, and nothing flows elsewhere."""
    return lambda *inputs: ONE if condition(*inputs) else NOTHING


def on_device(x, values, dtype=None):
    """Return values as an array of the device that the tensor x is on."""
    return x.backend.asarray(values, dtype)


def zeros(shape):
    return exact(np.zeros(shape))


def ones(shape):
    return exact(np.ones(shape))
