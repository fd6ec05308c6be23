"""The table of what is right at special values, for operations over whole arrays: moves, sums, products, losses."""

import decimal
from decimal import Decimal
from itertools import product

import numpy as np
from special_values import (
    EXACT,
    NAN,
    NOTHING,
    ONE,
    ZERO,
    Row,
    by_differences,
    each,
    elementwise,
    exact,
    log,
    rounded,
    sigmoid,
    sigmoid_slope,
    softplus,
    some,
    times,
    unary,
)

import minigrad.functional as F
from minigrad.backend.geometry import ConvGeometry
from minigrad.ops import OPERATIONS


def flat(value):
    return lambda *inputs: value


def on_device(x, values):
    return x.backend.asarray(values)


def zeros(shape):
    return exact(np.zeros(shape))


def ones(shape):
    return exact(np.ones(shape))


# -- moves: the same values elsewhere, to the sign of a zero and to the last bit -------------------


def box(dtype):
    return (np.resize(unary(dtype), (4, 5, 5)),)


def taken(x, index):
    return x[index]


def put(dy, index, shape):
    """Zeros of a shape with dy added at the index, element by element."""
    places = np.arange(int(np.prod(shape))).reshape(shape)[index]
    found = zeros(shape).reshape(-1)
    for place, value in zip(places.reshape(-1), dy.reshape(-1), strict=True):
        found[place] = value if found[place] == 0 and not found[place].is_nan() else found[place] + value
    return found.reshape(shape)


def move(operation, call, value, first, label="", inputs=box):
    return Row(operation, call, inputs, value, first, label=label, signed=True, ulps=0)


def read(index, label):
    return move(
        "get_item", lambda x: x[index], lambda x: x[index], lambda dy, x: (put(dy, index, x.shape),), label
    )


def cast_target(dtype):
    return "float64" if dtype == "float32" else "float32"


BORDER = ((1, 0), (0, 2), (0, 0))

MOVES = [
    move("reshape", lambda x: x.reshape(20, 5), lambda x: x.reshape(20, 5), lambda dy, x: (dy.reshape(x.shape),)),
    move(
        "transpose",
        lambda x: x.transpose(2, 0, 1),
        lambda x: x.transpose(2, 0, 1),
        lambda dy, x: (dy.transpose(1, 2, 0),),
    ),
    Row(
        "broadcast_to",
        lambda x: F.broadcast_to(x, (3, 4, 5, 5)),
        box,
        lambda x: np.broadcast_to(x, (3, 4, 5, 5)),
        lambda dy, x: (dy[0] + dy[1] + dy[2],),
        signed=True,
    ),
    read((slice(1, None), slice(None, None, -2)), "slices"),
    read([0, 2, 0], "a row twice"),
    move(
        "put_item",
        lambda x: OPERATIONS["put_item"](slice(1, 5), (6, 5, 5))(x),
        lambda x: put(x, slice(1, 5), (6, 5, 5)),
        lambda dy, x: (dy[1:5],),
    ),
    Row(
        "put_item",
        lambda x: OPERATIONS["put_item"]([1, 1, 0, 2], (3, 5, 5))(x),
        box,
        lambda x: np.stack([x[2], x[0] + x[1], x[3]]),
        lambda dy, x: (dy[[1, 1, 0, 2]],),
        label="a row twice",
    ),
    move(
        "concatenate",
        lambda a, b: F.concatenate([a, b], 1),
        lambda a, b: np.concatenate([a, b], 1),
        lambda dy, a, b: (dy[:, :5], dy[:, 5:]),
        inputs=lambda dtype: (*box(dtype), box(dtype)[0][:, 1:3]),
    ),
    *(
        move(
            "pad",
            lambda x, v=value: F.pad(x, BORDER, v),
            lambda x, v=value: np.pad(x, BORDER, constant_values=Decimal(v)),
            lambda dy, x: (dy[1:, :5],),
            label=str(value),
        )
        for value in (0.25, float("inf"), float("nan"))
    ),
    move("cast", lambda x: x.to(cast_target(str(x.dtype))), lambda x: x, lambda dy, x: (dy,)),
    move(
        "to_device",
        lambda x: OPERATIONS["to_device"](x.backend, x.backend)(x),
        lambda x: x,
        lambda dy, x: (dy,),
    ),
    move("tell", lambda x: OPERATIONS["tell"](lambda dy: None)(x), lambda x: x, lambda dy, x: (dy,)),
]

# -- reductions: each row of a matrix is an example ------------------------------------------------


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
    """The dtype whose largest number is in the example x."""
    return "float32" if max(v for v in x.reshape(-1) if v.is_finite()) < Decimal("1e39") else "float64"


def mean(x):
    """The sum of three, rounded, over 3: it overflows where the sum does, as in PyTorch."""
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
    """dy to the largest of each row, equally; NaN counts as the largest."""
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
        "sum",
        lambda x: F.mean(x, 1),
        lambda dtype: (rows_to_add(dtype)[0][:10],),
        mean,
        lambda dy, x: (spread(dy / 3, x),),
        label="mean",
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

# -- products --------------------------------------------------------------------------------------


def matrices(dtype):
    big = float(np.finfo(dtype).max) ** 0.52
    a = [[1, 0, 2], [np.inf, 0, 1], [big, 1, 0], [np.nan, 1, 1], [-0.0, 0, 0]]
    b = [[1, 0, np.inf], [2, big, 0], [-1, 3, 1]]
    return np.array(a, dtype), np.array(b, dtype)


def column_and_row(dtype):
    return some(dtype)[:, None], some(dtype)[None, :]


def product_first(dy, a, b):
    return dy @ b.T, a.T @ dy


def product_second(a, b):
    above = ones((len(a), b.shape[1]))
    return [[None, ones(a.shape).T @ above], [above @ ones(b.shape).T, None]]


PRODUCTS = [
    Row("matmul", lambda a, b: a @ b, matrices, lambda a, b: a @ b, product_first, product_second),
    Row(
        "matmul",
        lambda a, b: a @ b,
        column_and_row,
        lambda a, b: a @ b,
        product_first,
        product_second,
        label="a column times a row",
        above=(np.nan,),
    ),
    Row(
        "dense",
        F.dense,
        lambda dtype: (matrices(dtype)[0], matrices(dtype)[1].T.copy()),
        lambda x, w: x @ w.T,
        lambda dy, x, w: (dy @ w, dy.T @ x),
        lambda x, w: [
            [None, ones((len(x), len(w))).T @ ones(x.shape)],
            [ones((len(x), len(w))) @ ones(w.shape), None],
        ],
    ),
]

# -- convolutions: one triple sum, seen from each of its three operands ----------------------------

GEOMETRY = ConvGeometry.of_conv((4, 3), (2, 2), (2, 1), 0, 1)
X, W, Y = (2, 2, 4, 3), (3, 2, 2, 2), (2, 3, 2, 2)  # (N, C, H, W), (O, C, kh, kw), (N, O, oh, ow)


def triples():
    """Yield the places (in x, in w, in y) of all products of which a convolution is the sum."""
    for n, o, c, p, q, i, j in product(range(2), range(3), range(2), range(2), range(2), range(2), range(2)):
        yield (n, c, 2 * p + i, q + j), (o, c, i, j), (n, o, p, q)


def convolved(x, w):
    y = zeros(Y)
    for at_x, at_w, at_y in triples():
        y[at_y] += x[at_x] * w[at_w]
    return y


def laid(y, w):
    x = zeros(X)
    for at_x, at_w, at_y in triples():
        x[at_x] += y[at_y] * w[at_w]
    return x


def weighed(x, y):
    w = zeros(W)
    for at_x, at_w, at_y in triples():
        w[at_w] += x[at_x] * y[at_y]
    return w


def operand(shape, **specials):
    """An array of small numbers, with special ones at some places: a name is of the place, flat, and its value."""

    def make(dtype):
        values = np.arange(1.0, 1 + np.prod(shape)) % 7 - 3
        for place, value in specials.items():
            values[int(place[2:])] = value
        return values.reshape(shape).astype(dtype)

    return make


SPECIAL_X = operand(X, at0=np.inf, at30=np.nan, at40=-np.inf)
SPECIAL_Y = operand(Y, at3=np.inf, at20=np.nan)
SPECIAL_W = operand(W, at5=np.inf, at14=0.0)
PLAIN_W = operand(W, at2=0.0)
BIAS = operand((3,), at1=np.nan)


def of_both(first, second):
    return lambda dtype: (first(dtype), second(dtype))


def activation(slope):
    """(value, rate) of a leaky ReLU behind a convolution, of a decimal."""
    rate = Decimal(slope)
    down = rate if slope else NOTHING
    return (
        each(lambda v: v if v > 0 or v.is_nan() else v * rate if slope else ZERO),
        each(lambda v: ONE if v > 0 else down),
    )


def activated_convolution(slope):
    apply, rates = activation(slope)

    def before(x, w, b):
        return convolved(x, w) + b.reshape(-1, 1, 1)

    def first(dy, x, w, b):
        d = times(dy, rates(before(x, w, b)))
        return laid(d, w), weighed(x, d), d.sum((0, 2, 3))

    def second(x, w, b):
        d = times(ONE, rates(before(x, w, b)))
        return [[None, weighed(ones(X), d), None], [laid(d, ones(W)), None, None], [None] * 3]

    return Row(
        "convolve",
        lambda x, w, b: OPERATIONS["convolve"](GEOMETRY, slope)(x, w, b),
        lambda dtype: (SPECIAL_X(dtype), PLAIN_W(dtype), BIAS(dtype)),
        lambda x, w, b: apply(before(x, w, b)),
        first,
        second,
        label=f"bias, slope {slope}",
    )


CONVOLUTIONS = [
    *(
        Row(
            "convolve",
            lambda x, w: OPERATIONS["convolve"](GEOMETRY)(x, w),
            of_both(SPECIAL_X, w),
            convolved,
            lambda dy, x, w: (laid(dy, w), weighed(x, dy)),
            lambda x, w: [[None, weighed(ones(X), ones(Y))], [laid(ones(Y), ones(W)), None]],
            label=label,
        )
        for w, label in ((PLAIN_W, "special image"), (SPECIAL_W, "special kernel"))
    ),
    activated_convolution(0.0),
    activated_convolution(0.25),
    Row(
        "convolve_input_gradient",
        lambda y, w: OPERATIONS["convolve_input_gradient"](GEOMETRY)(y, w),
        of_both(SPECIAL_Y, SPECIAL_W),
        laid,
        lambda dx, y, w: (convolved(dx, w), weighed(dx, y)),
        lambda y, w: [[None, weighed(ones(X), ones(Y))], [convolved(ones(X), ones(W)), None]],
    ),
    Row(
        "convolve_weight_gradient",
        lambda x, y: OPERATIONS["convolve_weight_gradient"](GEOMETRY)(x, y),
        of_both(SPECIAL_X, SPECIAL_Y),
        weighed,
        lambda dw, x, y: (laid(y, dw), convolved(x, dw)),
        lambda x, y: [[None, convolved(ones(X), ones(W))], [laid(ones(Y), ones(W)), None]],
    ),
]

# -- normalisation ---------------------------------------------------------------------------------

EPS = 0.25


def channels(dtype):
    """Columns: regular, constant, large and small numbers (of which the squares fit), infinity, NaN."""
    info = np.finfo(dtype)
    large, small = float(info.max) ** 0.45, float(info.tiny) ** 0.7
    columns = [[1, 2, 4], [5, 5, 5], [large, -large, 0], [small, -small, 0], [1, np.inf, 2], [1, np.nan, 2]]
    x = np.array(columns, dtype).T
    return x, np.array([1, 2, -1, 3, 1, 1], dtype), np.array([0, 0.5, 1, 2, 3, 4], dtype)


def standardized(x):
    """(xhat, 1 / std) of the columns of x."""
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
    """By differences, channel by channel: what is no number in one would spread to all."""
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
        return OPERATIONS["normalize"](m, v, EPS, slope)(x, w, b)

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

# -- losses ----------------------------------------------------------------------------------------


def logits_and_labels(dtype):
    x = np.array([v for v in unary(dtype) if np.isfinite(v)] + [np.nan], dtype)
    return tuple(a.reshape(-1) for a in np.meshgrid(x, np.array([0.0, 1.0, 0.25], dtype)))


def modest_logits(dtype):
    """Those of which the sum does not overflow."""
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
    """Labels between 0 and 1 subtract two shares of 1."""
    return 0 if t in (0, 1) else 4


def mean_logit_second(x, t):
    n = len(x)
    return [[each(sigmoid_slope)(x) / n, -ones(n) / n], [-ones(n) / n, None]]


FLOOR, LEAST = Decimal(-100), Decimal(1e-12)  # PyTorch's constants of BCELoss


def floored(logarithm):
    return FLOOR if logarithm < FLOOR else logarithm


def floored_log(p):
    return FLOOR if p <= 0 else floored(log(p))


def floored_log_complement(p):
    """The same of 1 - p; of a small p by the first terms of the series."""
    if p >= 1:
        return FLOOR
    return -p - p * p / 2 if p.copy_abs() < Decimal("1e-20") else floored(log(ONE - p))


def bounded_inverse(p):
    return ONE / (LEAST if p < LEAST else p)


def bounded_curvature(p):
    return negative(ONE / p) / p if p >= LEAST else NOTHING


def negative(x):
    return x.copy_negate()


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


def cross_entropy_first(dl, x):
    e = each(Decimal.exp)(shifted(x))
    return (dl[:, None] * (e / e.sum(1)[:, None] - exact(np.eye(3)[LABELS])),)


def cross_entropy_second(x):
    """The sum of softmax is 1: its derivative is 0, but where it is no number."""
    return [[cross_entropy_first(ones(len(x)), x)[0] * ZERO]]


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
        "floored_log", lambda p: OPERATIONS["floored_log"]()(p), floored_log, [bounded_inverse], [[bounded_curvature]]
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
        "cross_entropy",
        lambda x: OPERATIONS["cross_entropy"](on_device(x, LABELS))(x),
        class_logits,
        cross_entropy,
        cross_entropy_first,
        cross_entropy_second,
        slack=flat(4),
        slack2=flat(16),
        pointwise=True,
    ),
]

ROWS = [*MOVES, *REDUCTIONS, *PRODUCTS, *CONVOLUTIONS, *NORMALIZATIONS, *LOSSES]
