"""Arithmetic and powers at special values."""

from decimal import Decimal

import numpy as np

from .numbers import INFINITY, NOTHING, ONE, TWO, ZERO, flat, log, negative, power, some, unary
from .rows import elementwise


def extreme_divisor(a, b):
    """Return whether 1 / b may be infinite or 0, and a is 0 or infinite: the order of the factors decides."""
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
    elementwise(
        "multiply", lambda x: x * x, lambda x: x * x, [lambda x: x + x], [[flat(TWO)]], label="square"
    ),
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
    elementwise(
        "divide",
        lambda x: x / 0.0,
        lambda x: x / ZERO,
        [flat(INFINITY)],
        label="by 0",
        signed=True,
    ),
]


def powers(dtype):
    """Return bases and exponents; 1 less than an exponent is a float, too."""
    return tuple(v.reshape(-1) for v in np.meshgrid(some(dtype), *exponents(dtype), indexing="ij"))


def exponents(dtype):
    values = [0.0, -0.0, 0.25, 0.5, 1, -1, 1.5, 2, 3, -3, 101, 5000, -5000, np.inf, -np.inf, np.nan]
    return (np.array(values, dtype),)


def power_first(a, b):
    """Return b a^(b - 1): nothing flows to the base of a^0, which is constant."""
    return NOTHING if b == 0 else b * power(a, b - 1)


def power_second(a, b):
    """Return a^b log(a): nothing flows to the exponent of 0^b for b >= 0, constant for b > 0."""
    return NOTHING if a == 0 and b >= 0 else power(a, b) * log(a)


def power_aa(a, b):
    return NOTHING if b in (0, 1) else b * ((b - 1) * power(a, b - 2))


def power_ab(a, b):
    """Return the derivative by a, then by b: of a = 0 without the logarithm, a^(b - 1) alone."""
    if b == 0 and (a == 0 or a.is_nan()):
        return NOTHING
    if a == 0 and b >= 1:
        return power(a, b - 1)
    return power(a, b - 1) + b * (power(a, b - 1) * log(a))


def power_ba(a, b):
    """Return the derivative by b, then by a: at a = 0 the gradient is constant."""
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
    """Return whether a factor (a^-1 for b = 0, a^b in a^b / a) overflows or vanishes before the product."""
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

ROWS = [*ARITHMETIC, *POWERS]
