"""Products and convolutions of special values: a product of 0 and infinity is NaN."""

from itertools import product

import numpy as np

import minigrad.functional as F
from minigrad.backend.epilogue import Epilogue
from minigrad.backend.geometry import ConvGeometry
from minigrad.ops import OPERATIONS

from .functions import activation
from .numbers import ONE, ones, some, times, zeros
from .rows import Row


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
    """Return what makes an array of small numbers, with special values at flat places: at3=value."""

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
        lambda x, w, b: OPERATIONS["convolve"](GEOMETRY, Epilogue(slope))(x, w, b),
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

ROWS = [*PRODUCTS, *CONVOLUTIONS]
