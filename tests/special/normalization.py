"""Normalisation of special values."""

from decimal import Decimal

import numpy as np

from minigrad.backend.epilogue import Epilogue
from minigrad.ops import OPERATIONS

from .functions import activation
from .numbers import ONE, each, exact, flat, ones, times
from .rows import Row, by_differences

EPS = 0.25


def channels(dtype):
    """Return columns: regular, constant, large and small numbers (whose squares fit), infinity, NaN."""
    info = np.finfo(dtype)
    large, small = float(info.max) ** 0.45, float(info.tiny) ** 0.7
    columns = [[1, 2, 4], [5, 5, 5], [large, -large, 0], [small, -small, 0], [1, np.inf, 2], [1, np.nan, 2]]
    x = np.array(columns, dtype).T
    return x, np.array([1, 2, -1, 3, 1, 1], dtype), np.array([0, 0.5, 1, 2, 3, 4], dtype)


def standardized(x):
    """Return (xhat, 1 / std) of the columns of x."""
    middle = x - x.sum(0) / len(x)
    inverse = each(lambda v: ONE / (v + Decimal(EPS)).sqrt())((middle * middle).sum(0) / len(x))
    return middle * inverse, inverse


def batch_norm(x, weight, bias):
    return standardized(x)[0] * weight + bias


def batch_norm_first(dy, x, weight, bias):
    xhat, inverse = standardized(x)
    dx = (dy - dy.sum(0) / len(x) - xhat * ((dy * xhat).sum(0) / len(x))) * (inverse * weight)
    return dx, (dy * xhat).sum(0), dy.sum(0)


def batch_norm_second(x, weight, bias):
    """Return differences, channel by channel: what is no number in one would spread to all."""
    parts = []
    for c in range(x.shape[1]):
        column = x[:, c : c + 1], weight[c : c + 1], bias[c : c + 1]
        parts.append(by_differences(batch_norm_first, column))
    found = [[np.concatenate([p[i][j] for p in parts], -1) for j in range(3)] for i in range(3)]
    return [[found[0][0], found[0][1], None], [found[1][0], None, None], [None] * 3]  # dx has no bias in it


def normalized(slope):
    apply, rates = activation(slope)
    means = exact([0.5, -1.0, 0.0, 2.0])
    variances = np.array([0.0, 3.75, 0.75, np.inf])
    inverse = each(lambda v: ONE / (v + Decimal(EPS)).sqrt())(exact(variances))

    def call(x, w, b):
        m, v = (x.backend.asarray(values, x.dtype) for values in ([0.5, -1.0, 0.0, 2.0], variances))
        return OPERATIONS["normalize"](m, v, EPS, Epilogue(slope))(x, w, b)

    def inputs(dtype):
        x = np.resize([0.5, -1.0, 3.0, 2.0, np.inf, 0.0, -np.inf, 1.0, np.nan, 1e10, -0.0], (9, 4))
        return x.astype(dtype), np.array([1, 0, -2, 1], dtype), np.array([0, 1, 1, 2], dtype)

    def xhat(x):
        return (x - means) * inverse

    def back(dy, x, w, b):
        return dy if slope == 1 else times(dy, rates(xhat(x) * w + b))

    def first(dy, x, w, b):
        d = back(dy, x, w, b)
        return d * (inverse * w), (d * xhat(x)).sum(0), d.sum(0)

    def second(x, w, b):
        d = back(ones(x.shape), x, w, b)
        return [[None, (d * inverse).sum(0), None], [d * inverse, None, None], [None] * 3]

    return Row(
        "normalize",
        call,
        inputs,
        lambda x, w, b: xhat(x) * w + b if slope == 1 else apply(xhat(x) * w + b),
        first,
        second,
        label=f"slope {slope}",
    )


NORMALIZATIONS = [
    Row(
        "batch_norm",
        lambda x, w, b: OPERATIONS["batch_norm"](EPS)(x, w, b),
        channels,
        batch_norm,
        batch_norm_first,
        batch_norm_second,
        ulps=64,
        slack=flat(4),
        slack2=flat(64),
    ),
    normalized(1.0),
    normalized(0.0),
    normalized(0.25),
]

ROWS = NORMALIZATIONS
