"""Functions of one number at special values, smooth ones, and those that are linear piece by piece."""

from decimal import Decimal

import numpy as np

import minigrad.functional as F

from .numbers import (
    HALF,
    NAN,
    NOTHING,
    ONE,
    ZERO,
    each,
    flat,
    log,
    negative,
    selected,
    sigmoid,
    sigmoid_slope,
    softplus,
    tanh,
    tanh_slope,
    unary,
)
from .rows import Row, elementwise


def sqrt_slope(x):
    return HALF / x.sqrt()


def tanh_curvature(x):
    return -2 * tanh(x) * tanh_slope(x)


def sigmoid_curvature(x):
    return sigmoid_slope(x) * tanh(negative(x) / 2)


def above(bound):
    """Return the slack of what is made of 1 - y, where y rounds to 1: above a bound."""
    return each(lambda x: 4 if x > bound else 0)


def logged(dtype):
    """Return all but negative subnormals, some of which CUDA's logarithm takes for -0."""
    x = unary(dtype)
    return (x[~((x < 0) & (x > -np.finfo(dtype).tiny))],)


FUNCTIONS = [
    elementwise("exp", F.exp, Decimal.exp, [Decimal.exp], [[Decimal.exp]]),
    elementwise("log", F.log, log, [lambda x: ONE / x], [[lambda x: negative(ONE / x) / x]], logged),
    # Of -0 the root is -0 and the gradient -inf: 1 / (2 y) by IEEE 754's rules, as in PyTorch.
    elementwise(
        "sqrt",
        F.sqrt,
        Decimal.sqrt,
        [sqrt_slope],
        [[lambda x: negative(ONE / (4 * x.sqrt() * x.sqrt() * x.sqrt()))]],
        signed=True,
    ),
    elementwise(
        "tanh",
        F.tanh,
        tanh,
        [tanh_slope],
        [[tanh_curvature]],
        slack=flat(4),
        slack2=each(lambda x: 8 if x.copy_abs() > HALF else 0),
        signed=True,
    ),
    elementwise(
        "sigmoid",
        F.sigmoid,
        sigmoid,
        [sigmoid_slope],
        [[sigmoid_curvature]],
        slack=above(0),
        slack2=above(-1),
    ),
    elementwise("softplus", F.softplus, softplus, [sigmoid], [[sigmoid_slope]], slack2=above(0)),
]


def sign(x):
    return NOTHING if x == 0 else x if x.is_nan() else ONE.copy_sign(x)


def clipped(low, high):
    def value(x):
        return low if low is not None and x < low else high if high is not None and x > high else x

    def inside(x):
        return (low is None or x >= low) and (high is None or x <= high) and not x.is_nan()

    def call(x):
        return F.clip(x, *(None if v is None else float(v) for v in (low, high)))

    return elementwise("clip", call, value, [selected(inside)], label=f"{low} to {high}")


def larger(a, b):
    return NAN if a.is_nan() or b.is_nan() else a if a >= b else b


def share(a, b):
    """Return what a gets of the gradient of max(a, b): all if it is larger or NaN, half if both are."""
    if a == b or (a.is_nan() and b.is_nan()):
        return HALF
    return ONE if a > b or a.is_nan() else NOTHING


def activation(slope):
    """Return (value, rate) of a leaky ReLU, functions of arrays. NaN counts as not above 0."""
    rate = Decimal(slope)
    down = rate if slope else NOTHING
    return (
        each(lambda x: x if x > 0 or x.is_nan() else x * rate if slope else ZERO),
        each(lambda x: ONE if x > 0 else down),
    )


def leaky(slope):
    value, rate = activation(slope)
    return Row(
        "leaky_relu",
        lambda x: F.leaky_relu(x, slope),
        lambda dtype: (unary(dtype),),
        value,
        None,
        label=f"slope {slope}",
        factors=lambda x: (rate(x),),
    )


PIECES = [
    elementwise("abs", abs, Decimal.copy_abs, [sign], signed=True),
    clipped(None, ONE),
    clipped(Decimal(-1), None),
    clipped(Decimal(-1), ONE),
    clipped(ZERO, Decimal("Infinity")),
    elementwise("maximum", F.maximum, larger, [share, lambda a, b: share(b, a)]),
    elementwise(
        "maximum",
        lambda x: F.maximum(x, 0.0),
        lambda x: larger(x, ZERO),
        [lambda x: share(x, ZERO)],
        label="0",
    ),
    *(leaky(slope) for slope in (0.0, 0.25, 1.0)),
]

ROWS = [*FUNCTIONS, *PIECES]
