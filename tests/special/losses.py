"""Losses at special values."""

from decimal import Decimal

import numpy as np

import minigrad.functional as F
from minigrad.ops import OPERATIONS

from .numbers import (
    NAN,
    NOTHING,
    ONE,
    ZERO,
    each,
    exact,
    flat,
    log,
    negative,
    on_device,
    ones,
    sigmoid,
    sigmoid_slope,
    softplus,
    unary,
)
from .rows import Row, elementwise


def logits_and_labels(dtype):
    x = np.array([v for v in unary(dtype) if np.isfinite(v)] + [np.nan], dtype)
    return tuple(a.reshape(-1) for a in np.meshgrid(x, np.array([0.0, 1.0, 0.25], dtype)))


def modest_logits(dtype):
    """Return those of which the sum does not overflow."""
    x, t = logits_and_labels(dtype)
    return tuple(a[np.abs(x) < np.finfo(dtype).max / 1e4] for a in (x, t))


def logit_loss(x, t):
    return (ONE - t) * softplus(x) + t * softplus(-x)


def logit_slope(x, t):
    return (ONE - t) * sigmoid(x) - t * sigmoid(-x)


LOGIT_SLOPES = [logit_slope, lambda x, t: -x]
# The sum of sigmoid(x) and sigmoid(-x) is 1, and NaN where x is.
LOGIT_CURVATURES = [[lambda x, t: sigmoid_slope(x), lambda x, t: x - x - ONE], [flat(-ONE), None]]


def logit_room(x, t):
    """Return the slack: labels between 0 and 1 subtract two shares of 1."""
    return 0 if t in (0, 1) else 4


def mean_logit_second(x, t):
    n = len(x)
    return [[each(sigmoid_slope)(x) / n, -ones(n) / n], [-ones(n) / n, None]]


FLOOR, LEAST = Decimal(-100), Decimal("1e-12")  # PyTorch's constants of BCELoss


def floored(logarithm):
    return FLOOR if logarithm < FLOOR else logarithm


def floored_log(p):
    return FLOOR if p <= 0 else floored(log(p))


def floored_log_complement(p):
    """Return the same of 1 - p; of a small p by the first terms of the series."""
    if p >= 1:
        return FLOOR
    return -p - p * p / 2 if p.copy_abs() < Decimal("1e-20") else floored(log(ONE - p))


def bounded_inverse(p):
    return ONE / (LEAST if p < LEAST else p)


def bounded_curvature(p):
    return negative(ONE / p) / p if p >= LEAST else NOTHING


def probabilities_and_labels(dtype):
    p = np.array([v for v in unary(dtype) if 0 <= v <= 1 or np.isnan(v)], dtype)
    return tuple(a.reshape(-1) for a in np.meshgrid(p, np.array([0.0, 1.0, 0.25], dtype)))


def probability_loss(p, t):
    return negative(t * floored_log(p) + (ONE - t) * floored_log_complement(p))


def probability_slope(p, t):
    return negative(t * bounded_inverse(p) - (ONE - t) * bounded_inverse(ONE - p))


def probability_curvature(p, t):
    sides = ((t, p), (ONE - t, ONE - p))
    return sum((-share * bounded_curvature(q) for share, q in sides if q >= LEAST), ZERO)


def probability_mixed(p, t):
    return negative(bounded_inverse(p) + bounded_inverse(ONE - p))


def known_probabilities(dtype):
    """Return those that are numbers: NaN would make the mean NaN."""
    p, t = probabilities_and_labels(dtype)
    return p[p == p], t[p == p]


def mean_probability_second(p, t):
    mixed = each(probability_mixed)(p, t) / len(p)
    return [[each(probability_curvature)(p, t) / len(p), mixed], [mixed, None]]


def log_odds(p):
    return floored_log(p) - floored_log_complement(p)


def class_logits(dtype):
    largest = float(np.finfo(dtype).max)
    rows = [
        [1, 2, 3],
        [np.inf, 0, 1],
        [-np.inf, 0, 1],
        [0, -np.inf, 1],
        [np.nan, 0, 1],
        [-np.inf, -np.inf, -np.inf],
        [largest / 4, -largest / 4, 0],
        [-largest, 0, largest],
        [1000, 0, 0],
        [0, 0, 0],
    ]
    return (np.array(rows, dtype),)


LABELS = [0, 1, 1, 1, 1, 0, 1, 0, 0, 2]


def shifted(x):
    return x - np.array([[NAN if any(v.is_nan() for v in line) else max(line)] for line in x], object)


def cross_entropy(x):
    s = shifted(x)
    return each(log)(each(Decimal.exp)(s).sum(1)) - s[np.arange(len(x)), LABELS]


def cross_entropy_factors(x):
    e = each(Decimal.exp)(shifted(x))
    return (e / e.sum(1)[:, None] - exact(np.eye(3)[LABELS]),)


def cross_entropy_second(x):
    """Return 0, the derivative of the sum of softmax, which is 1; NaN where that is no number."""
    return [[cross_entropy_factors(x)[0] * ZERO]]


LOSSES = [
    elementwise(
        "logit_binary_cross_entropy",
        lambda x, t: OPERATIONS["logit_binary_cross_entropy"]()(x, t),
        logit_loss,
        LOGIT_SLOPES,
        LOGIT_CURVATURES,
        logits_and_labels,
        slack=each(logit_room),
        slack2=each(lambda x, t: 4),
    ),
    Row(
        "mean_logit_binary_cross_entropy",
        lambda x, t: OPERATIONS["mean_logit_binary_cross_entropy"]()(x, t),
        modest_logits,
        lambda x, t: each(logit_loss)(x, t).sum() / len(x),
        lambda dl, x, t: (dl * each(logit_slope)(x, t) / len(x), -(dl * x) / len(x)),
        mean_logit_second,
        slack=each(logit_room),
        slack2=flat(4),
        above=(1.0, np.nan),
    ),
    elementwise(
        "floored_log",
        lambda p: OPERATIONS["floored_log"]()(p),
        floored_log,
        [bounded_inverse],
        [[bounded_curvature]],
    ),
    elementwise(
        "floored_log_complement",
        lambda p: OPERATIONS["floored_log_complement"]()(p),
        floored_log_complement,
        [lambda p: negative(bounded_inverse(ONE - p))],
        [[lambda p: bounded_curvature(ONE - p)]],
    ),
    elementwise(
        "floored_log",
        lambda p, t: F.binary_cross_entropy(p, t, "none"),
        probability_loss,
        [probability_slope, lambda p, t: negative(log_odds(p))],
        [[probability_curvature, probability_mixed], [probability_mixed, None]],
        inputs=probabilities_and_labels,
        label="binary_cross_entropy",
        slack=each(lambda p, t: 8),
        above=(1.0, np.nan),
    ),
    Row(
        "mean_binary_cross_entropy",
        lambda p, t: OPERATIONS["mean_binary_cross_entropy"]()(p, t),
        known_probabilities,
        lambda p, t: each(probability_loss)(p, t).sum() / len(p),
        lambda dl, p, t: (
            dl * each(probability_slope)(p, t) / len(p),
            dl * each(lambda p, t: negative(log_odds(p)))(p, t) / len(p),
        ),
        mean_probability_second,
        slack=each(lambda p, t: 8),
        slack2=each(lambda p, t: 8),
        above=(1.0, np.nan),
    ),
    Row(
        "cross_entropy",
        lambda x: OPERATIONS["cross_entropy"](on_device(x, LABELS))(x),
        class_logits,
        cross_entropy,
        None,
        cross_entropy_second,
        slack=flat(4),
        slack2=flat(16),
        factors=cross_entropy_factors,
    ),
]

ROWS = LOSSES
