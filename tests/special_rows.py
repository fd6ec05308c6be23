"""The table of what is right at special values, for operations element by element."""

from decimal import Decimal

import numpy as np
from special_values import (
    HALF,
    NAN,
    NOTHING,
    ONE,
    TWO,
    ZERO,
    Row,
    each,
    elementwise,
    log,
    power,
    sigmoid,
    sigmoid_slope,
    softplus,
    some,
    pairs,
    tanh,
    tanh_slope,
    times,
    unary,
)

import minigrad.functional as F
from minigrad import naive
from minigrad.ops import OPERATIONS


def negative(x):
    return x.copy_negate()


def flat(value):
    return lambda *inputs: value


def selected(condition):
    """The derivative of what selects: 1 where the condition holds, and nothing flows elsewhere."""
    return lambda *inputs: ONE if condition(*inputs) else NOTHING


# -- arithmetic ------------------------------------------------------------------------------------


def extreme_divisor(a, b):
    """Where 1 / b may be infinite or 0, and a is 0 or infinite: it depends on the order of the factors."""
    return (a == 0 or a.is_infinite()) and not Decimal("1e-37") < b.copy_abs() < Decimal("1e37")


ARITHMETIC = [
    elementwise("add", lambda a, b: a + b, lambda a, b: a + b, [flat(ONE)] * 2, signed=True),
    elementwise("add", lambda x: x + 0.0, lambda x: x + ZERO, [flat(ONE)], label="0", signed=True),
    elementwise("subtract", lambda a, b: a - b, lambda a, b: a - b, [flat(ONE), flat(-ONE)], signed=True),
    elementwise("negate", lambda x: -x, negative, [flat(-ONE)], signed=True),
    elementwise(
        "multiply",
        lambda a, b: a * b,
        lambda a, b: a * b,
        [lambda a, b: b, lambda a, b: a],
        [[None, flat(ONE)], [flat(ONE), None]],
        signed=True,
    ),
    elementwise("multiply", lambda x: x * x, lambda x: x * x, [lambda x: x + x], [[flat(TWO)]], label="square"),
    elementwise("multiply", lambda x: x * 0.0, lambda x: x * ZERO, [flat(ZERO)], label="by 0", signed=True),
    elementwise(
        "divide",
        lambda a, b: a / b,
        lambda a, b: a / b,
        [lambda a, b: ONE / b, lambda a, b: negative(a / b) / b],
        [
            [None, lambda a, b: negative(ONE / b) / b],
            [lambda a, b: negative(ONE / b) / b, lambda a, b: TWO * (a / b) / b / b],
        ],
        signed=True,
        unclear=extreme_divisor,
    ),
    elementwise(
        "divide",
        lambda x: 1 / x,
        lambda x: ONE / x,
        [lambda x: negative(ONE / x) / x],
        [[lambda x: TWO * (ONE / x) / x / x]],
        label="reciprocal",
        signed=True,
    ),
    elementwise("divide", lambda x: x / 0.0, lambda x: x / ZERO, [flat(ONE / 3 * 0 + Decimal("Infinity"))], label="by 0", signed=True),
]


def powers(dtype):
    """Bases and exponents; 1 less than an exponent is a float, too."""
    return tuple(v.reshape(-1) for v in np.meshgrid(some(dtype), *exponents(dtype), indexing="ij"))


def exponents(dtype):
    values = [0.0, -0.0, 0.25, 0.5, 1, -1, 1.5, 2, 3, -3, 101, 5000, -5000, np.inf, -np.inf, np.nan]
    return (np.array(values, dtype),)


def power_first(a, b):
    """b a^(b - 1): nothing flows to the base of a^0, which is constant."""
    return NOTHING if b == 0 else b * power(a, b - 1)


def power_second(a, b):
    """a^b log(a): nothing flows to the exponent of 0^b for b >= 0, which is constant for b > 0."""
    return NOTHING if a == 0 and b >= 0 else power(a, b) * log(a)


def power_aa(a, b):
    return NOTHING if b in (0, 1) else b * ((b - 1) * power(a, b - 2))


def power_ab(a, b):
    """By a, then by b. At a = 0 the logarithm is left out, as in `power_second`: what is left is a^(b - 1)."""
    if b == 0 and (a == 0 or a.is_nan()):
        return NOTHING
    if a == 0 and b >= 1:
        return power(a, b - 1)
    return power(a, b - 1) + b * (power(a, b - 1) * log(a))


def power_ba(a, b):
    """By b, then by a: at a = 0 the gradient is constant."""
    if a == 0 and b >= 0:
        return NOTHING
    return ONE / a if b == 0 else power_ab(a, b)


def power_bb(a, b):
    return NOTHING if a == 0 and b >= 0 else power(a, b) * log(a) * log(a)


def with_number(b):
    exponent = Decimal(b)

    def inputs(dtype):
        # NumPy takes x**0.5 as the root of x, which differs from the power at -inf alone (PyTorch does, too).
        x = unary(dtype)
        return (x if b == int(b) else x[x != -np.inf],)

    return elementwise(
        "power",
        lambda x: x**b,
        lambda x: power(x, exponent),
        [lambda x: power_first(x, exponent)],
        [[lambda x: power_aa(x, exponent)]],
        inputs,
        label=f"to the {b}",
        ulps=16,
    )


def extreme_power(a, b):
    """Where a factor overflows or vanishes (a^-1 for b = 0, a^b in a^b / a) though the product does not."""
    ordinary = a == 0 or a.is_nan() or Decimal("1e-19") < a.copy_abs() < Decimal("1e19")
    return b.is_infinite() or (not ordinary and (b == 0 or b.copy_abs() >= 1))


def of_number(a):
    base = Decimal(a)
    return elementwise(
        "power",
        lambda x: a**x,
        lambda x: power(base, x),
        [lambda x: power_second(base, x)],
        [[lambda x: power_bb(base, x)]],
        exponents,
        label=f"of {a}",
        ulps=64,
    )


POWERS = [
    elementwise(
        "power",
        lambda a, b: a**b,
        power,
        [power_first, power_second],
        [[power_aa, power_ab], [power_ba, power_bb]],
        powers,
        ulps=16,
        unclear=extreme_power,
    ),
    *(with_number(b) for b in (0, 1, 2, 3, -1, 0.5, -0.5, 1.5)),
    *(of_number(a) for a in (2.0, 0.5, 1.0, 0.0, -1.0)),
]

# -- functions of one number -----------------------------------------------------------------------


def sqrt_slope(x):
    return HALF / x.sqrt()


def tanh_curvature(x):
    return -2 * tanh(x) * tanh_slope(x)


def sigmoid_curvature(x):
    return sigmoid_slope(x) * tanh(negative(x) / 2)


def above(bound):
    """Half-open room for what is made of 1 - y, where y rounds to 1."""
    return each(lambda x: 4 if x > bound else 0)


def logged(dtype):
    """All but negative subnormals, some of which CUDA's logarithm takes for -0."""
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
    elementwise("tanh", F.tanh, tanh, [tanh_slope], [[tanh_curvature]], slack=flat(4), slack2=each(lambda x: 8 if x.copy_abs() > HALF else 0), signed=True),
    elementwise(
        "sigmoid", F.sigmoid, sigmoid, [sigmoid_slope], [[sigmoid_curvature]], slack=above(0), slack2=above(-1)
    ),
    elementwise("softplus", F.softplus, softplus, [sigmoid], [[sigmoid_slope]], slack2=above(0)),
]

# -- what is linear piece by piece -----------------------------------------------------------------


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
    """What a gets of the gradient of max(a, b): all if it is larger or NaN, half if both are."""
    if a == b or (a.is_nan() and b.is_nan()):
        return HALF
    return ONE if a > b or a.is_nan() else NOTHING


def leaky(slope):
    rate = Decimal(slope)
    down = rate if slope else NOTHING  # NaN counts as not above 0, here and in PyTorch's leaky ReLU

    def value(x):
        return x if x > 0 or x.is_nan() else x * rate if slope else ZERO

    return elementwise(
        "leaky_relu",
        lambda x: F.leaky_relu(x, slope),
        value,
        [lambda x: ONE if x > 0 else down],
        label=f"slope {slope}",
    )


PIECES = [
    elementwise("abs", abs, Decimal.copy_abs, [sign], signed=True),
    clipped(None, ONE),
    clipped(Decimal(-1), None),
    clipped(Decimal(-1), ONE),
    clipped(ZERO, Decimal("Infinity")),
    elementwise("maximum", F.maximum, larger, [share, lambda a, b: share(b, a)]),
    elementwise("maximum", lambda x: F.maximum(x, 0.0), lambda x: larger(x, ZERO), [lambda x: share(x, ZERO)], label="0"),
    *(leaky(slope) for slope in (0.0, 0.25, 1.0)),
]


# -- by a mask: what is left out is 0 whatever it is -----------------------------------------------


def alternating(count):
    return np.arange(count) % 3 != 1


def chosen(condition, a, b):
    """NumPy's `where` moves objects as well as numbers."""
    return np.where(condition, a, b)


def masked(operation, call, factors, label=""):
    """A row of what multiplies x (M,) by `factors(M)`: decimals, and NOTHING where x is left out."""

    def first(dy, x):
        return (times(dy, factors(len(x))),)

    return Row(operation, call, lambda dtype: (unary(dtype),), lambda x: times(x, factors(len(x))), first, label=label)


def signs(count):
    """Results of an activation, by which it finds its way back."""
    return np.resize([1.0, -2.0, 0.0, -0.0, np.inf, -np.inf, np.nan, 1e-37], count)


def leaky_factors(slope, mask=None, scale=1):
    def factors(count):
        kept = np.ones(count, bool) if mask is None else mask(count)
        down = Decimal(slope) if slope else NOTHING
        rates = [ONE if y > 0 else down for y in signs(count)]
        found = [NOTHING if not k or r is NOTHING else r * scale for k, r in zip(kept, rates, strict=True)]
        return np.array(found, object)

    return factors


def on_device(x, values, dtype=None):
    return x.backend.asarray(values, dtype)


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
        return chosen(condition, dy, ZERO), chosen(condition, ZERO, dy)

    yield Row("where", call, pairs, lambda a, b: chosen(condition, a, b), first, signed=True)
    yield Row(
        "where",
        lambda x: F.where(on_device(x, alternating(x.size)), x, float("nan")),
        lambda dtype: (unary(dtype),),
        lambda x: chosen(alternating(len(x)), x, NAN),
        lambda dy, x: (chosen(alternating(len(x)), dy, ZERO),),
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

ROWS = [*ARITHMETIC, *POWERS, *FUNCTIONS, *PIECES, *MASKS]
