"""Sums, means, variances and largest values of special values: each row of a matrix is an example."""

import decimal
from decimal import Decimal

import numpy as np

import minigrad.functional as F

from .numbers import EXACT, NAN, exact, zeros
from .rows import Row, rounded


def rows_to_add(dtype):
    info = np.finfo(dtype)
    largest, least = float(info.max), float(info.smallest_subnormal)
    examples = [
        [np.inf, -np.inf, 1],
        [np.inf, 1, np.inf],
        [np.nan, 1, 2],
        [largest, largest, 1],
        [-largest, -largest / 2, 0],
        [largest, -largest, 0],
        [least, least, -least],
        [0.0, -0.0, -0.0],
        [1, float(info.eps) / 4, -1],
        [np.inf, np.nan, -np.inf],
    ]
    if dtype == "float32":  # it is added up in float64, where this does not overflow
        examples.append([largest, largest, -largest])
    else:  # and here in float64 itself
        examples = [e for e in examples if e[0] != 1]
    return (np.array(examples, dtype),)


def spread(dy, x):
    return np.broadcast_to(dy[:, None], x.shape)


def dtype_of(x):
    """Return the dtype whose largest number is among the examples x."""
    return "float32" if max(v for v in x.reshape(-1) if v.is_finite()) < Decimal("1e39") else "float64"


def mean(x):
    """Return the sum of three, rounded, over 3: it overflows where the sum does, as in PyTorch."""
    return exact(rounded(x.sum(1), dtype_of(x))) / 3


def rows_to_compare(dtype):
    info = np.finfo(dtype)
    examples = [
        [1, np.nan, 2],
        [np.nan, 3, np.nan],
        [2, 2, 1],
        [np.inf, np.inf, 1],
        [-np.inf, -np.inf, -np.inf],
        [0.0, -0.0, -1],
        [np.inf, np.nan, -np.inf],
        [info.smallest_subnormal, -info.smallest_subnormal, 0],
        [info.max, info.max, -info.max],
    ]
    return (np.array(examples, dtype),)


def largest(x):
    return np.array([NAN if any(v.is_nan() for v in line) else max(line) for line in x], object)


def shares(dy, x):
    """Return dy for the largest of each row, shared equally; NaN counts as the largest."""
    found = zeros(x.shape)
    for i, line in enumerate(x):
        top = [v.is_nan() for v in line] if any(v.is_nan() for v in line) else [v == max(line) for v in line]
        for j in np.flatnonzero(top):
            found[i, j] = dy[i] / sum(top)
    return (found,)


def rows_to_spread(dtype):
    info = np.finfo(dtype)
    large = float(info.max) ** 0.48
    examples = [
        [1, 2, 4],
        [large, -large, 0],
        [5, 5, 5],
        [1, np.inf, 1],
        [1, np.nan, 1],
        [info.max / 4, info.max / 4, info.max / 4],
        [info.tiny, -info.tiny, 0],
    ]
    return (np.array(examples, dtype),)


def centred(x):
    with decimal.localcontext(EXACT) as context:
        context.prec = 1000  # so that the sum is exact, and nothing is left of numbers that are the same
        return x - (x.sum(1) / x.shape[1])[:, None]


def variance(x):
    return (centred(x) * centred(x)).sum(1) / x.shape[1]


REDUCTIONS = [
    Row("sum", lambda x: F.sum(x, 1), rows_to_add, lambda x: x.sum(1), lambda dy, x: (spread(dy, x),)),
    Row(
        "mean",
        lambda x: F.mean(x, 1),
        lambda dtype: (rows_to_add(dtype)[0][:10],),
        mean,
        lambda dy, x: (spread(dy / 3, x),),
    ),
    Row(
        "sum",
        lambda x: F.var(x, 1),
        rows_to_spread,
        variance,
        lambda dy, x: (centred(dy[:, None] * centred(x)) * 2 / x.shape[1],),  # by the mean of x, too
        label="var",
        above=(1.0, np.nan),
    ),
    Row("max", lambda x: F.max(x, 1), rows_to_compare, largest, shares),
]

ROWS = REDUCTIONS
