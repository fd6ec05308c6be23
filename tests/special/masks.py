"""What is selected at special values, by a mask or an activation: what is left out is 0 whatever it is."""

from decimal import Decimal

import numpy as np

import minigrad.functional as F
from minigrad import naive
from minigrad.ops import OPERATIONS

from .numbers import NAN, NOTHING, ONE, TWO, ZERO, on_device, pairs, times, unary
from .rows import Row


def alternating(count):
    return np.arange(count) % 3 != 1


def masked(operation, call, factors, label=""):
    """Return the row of what multiplies x (M,) by `factors(M)`: decimals, NOTHING where x is left out."""
    return Row(
        operation,
        call,
        lambda dtype: (unary(dtype),),
        lambda x: times(x, factors(len(x))),
        None,
        label=label,
        factors=lambda x: (factors(len(x)),),
    )


def signs(count):
    """Return results of an activation, by which its gradient goes."""
    return np.resize([1.0, -2.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-37], count)


def leaky_factors(slope, mask=None, scale=1):
    def factors(count):
        kept = np.ones(count, bool) if mask is None else mask(count)
        down = Decimal(slope) if slope else NOTHING
        rates = [ONE if y > 0 else down for y in signs(count)]
        found = [NOTHING if not k or r is NOTHING else r * scale for k, r in zip(kept, rates, strict=True)]
        return np.array(found, object)

    return factors


PLACE = 0.5, (5, 7), (0, 3, 0, 0)


def leaky_gradient(slope):
    def call(dy):
        return OPERATIONS["leaky_relu_gradient"](slope, on_device(dy, signs(dy.size), dy.dtype))(dy)

    return masked("leaky_relu_gradient", call, leaky_factors(slope), f"slope {slope}")


def leaky_dropout_gradient(slope):
    def call(dy):
        y, mask = on_device(dy, signs(dy.size), dy.dtype), on_device(dy, alternating(dy.size))
        return OPERATIONS["leaky_dropout_gradient"](slope, y, mask, 1.25)(dy)

    return masked(
        "leaky_dropout_gradient", call, leaky_factors(slope, alternating, Decimal("1.25")), f"slope {slope}"
    )


def where_rows():
    size = len(pairs("float32")[0])
    condition = alternating(size)

    def call(a, b):
        return F.where(on_device(a, condition), a, b)

    def first(dy, a, b):
        return np.where(condition, dy, ZERO), np.where(condition, ZERO, dy)

    yield Row("where", call, pairs, lambda a, b: np.where(condition, a, b), first, signed=True)
    yield Row(
        "where",
        lambda x: F.where(on_device(x, alternating(x.size)), x, float("nan")),
        lambda dtype: (unary(dtype),),
        lambda x: np.where(alternating(len(x)), x, NAN),
        lambda dy, x: (np.where(alternating(len(x)), dy, ZERO),),
        label="or NaN",
    )


def kept_factors(scale, mask):
    return lambda count: np.array([scale if k else NOTHING for k in mask(count)], object)


MASKS = [
    *where_rows(),
    leaky_gradient(0.0),
    leaky_gradient(0.25),
    leaky_dropout_gradient(0.0),
    leaky_dropout_gradient(0.25),
    masked(
        "mask_scale",
        lambda x: OPERATIONS["mask_scale"](on_device(x, alternating(x.size)), 1.25)(x),
        kept_factors(Decimal("1.25"), alternating),
    ),
    masked(
        "dropout",
        lambda x: OPERATIONS["dropout"](*PLACE)(x),
        kept_factors(TWO, lambda count: naive.dropout_mask(count, *PLACE)),
    ),
]

ROWS = MASKS
