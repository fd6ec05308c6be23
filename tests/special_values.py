"""Special floating-point values, exact arithmetic for what is right at them, and the comparison.

The arithmetic is that of `decimal`, with 60 digits and without traps. It has infinities, NaN, signed zeros and
IEEE 754's rules for them, and its range is so large that nothing finite overflows or underflows: a right value
is exact until it is rounded to the dtype, once. Arrays of decimals are NumPy's of objects.
"""

import decimal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

EXACT = decimal.Context(prec=60, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX, traps=[])
ZERO, ONE, TWO, HALF = Decimal(0), Decimal(1), Decimal(2), Decimal("0.5")
NAN, INFINITY = Decimal("NaN"), Decimal("Infinity")
STEP = Decimal("1e-20")  # of differences: their error is some 1e-40


class Nothing:
    """A derivative by selection: the gradient is 0, whatever comes from above (NaN and infinities too)."""


NOTHING = Nothing()


def unary(dtype: str) -> Any:
    """Return about a hundred values, (M,): zeros, subnormals, the largest, infinities, NaN, bounds of ranges."""
    info = np.finfo(dtype)
    least, tiny, eps, largest = (
        float(v) for v in (info.smallest_subnormal, info.tiny, info.eps, info.max)
    )
    around_one = (1 - eps / 2, 1.0, 1 + eps)
    small = (0.0, least, 3 * least, tiny / 2, tiny - least, tiny, 4 * tiny, tiny**0.5, eps**2, eps / 2, eps)
    middle = (1e-10, 1e-5, 1e-3, 0.1, 0.25, 0.5, *around_one, 1.5, 2.0, 2.718281828, 3.0, 7.5, 9.5)
    # Where exponentials round to 0 or overflow, and 1 + exp(-x) to 1, in float32 and in float64.
    ranges = (16.7, 18.0, 33.0, 37.0, 80.0, 87.4, 88.8, 100.0, 104.0, 708.0, 710.0, 745.0, 746.0, 1000.0)
    large = (1e5, 1e10, largest**0.25, largest**0.5, 2 * largest**0.5, largest**0.75, largest / 2, largest)
    positive = np.array([*small, *middle, *ranges, *large, np.inf])
    return np.concatenate([positive, -positive, [np.nan]]).astype(dtype)


def some(dtype: str) -> Any:
    """Return the values whose pairs are tried, (16,); the squares of some overflow, those of others vanish."""
    info = np.finfo(dtype)
    large, small = float(info.max) ** 0.52, float(info.tiny) ** 0.65
    values = [0.0, -0.0, info.smallest_subnormal, -info.tiny / 2, small, -large, large, 0.5, 1.0, -1.0, 2.0, -3.0]
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
    """Return a^b by the rules of IEEE 754 (9.2.1), which are C's: 1 for b = 0 and for a = 1, even with NaN."""
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


# -- rows ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """An operation at special values, and what is right there.

    Args:
        operation: its name in `minigrad.ops.OPERATIONS`.
        label: the example, if there are several.
        call: the operation on tensors.
        inputs: makes the arrays of floats from the dtype.
        value: the right result, from arrays of decimals.
        first: the right gradients (a tuple), from dy and the inputs.
        second: the right second derivatives, from the inputs: number [i][j] is the gradient of the sum of
            gradient i (for dy = 1) with respect to input j. None stands for zeros.
        above: the values that dy is filled with.
        signed: whether the sign of a zero result counts: in arithmetic and where values are moved. Elsewhere
            0 and -0 are the same, as for the maximum of the two, of which IEEE 754 says no more.
        slack, slack2: what gradients and second derivatives may be off beyond some units in the last place, in
            machine epsilons, from the inputs: where a rule subtracts from 1 what rounds to 1.
        unclear: from the inputs, where second derivatives are not compared (element by element).
        pointwise: whether each gradient is dy times a factor of its own.
    """

    operation: str
    call: Callable[..., Any]
    inputs: Callable[[str], tuple[Any, ...]]
    value: Callable[..., Any]
    first: Callable[..., tuple[Any, ...]]
    second: Callable[..., Sequence[Sequence[Any]]] | None = None
    label: str = ""
    above: tuple[float, ...] = (1.0, np.inf, np.nan, 0.0)
    signed: bool = False
    slack: Callable[..., Any] | None = None
    slack2: Callable[..., Any] | None = None
    unclear: Callable[..., Any] | None = None
    ulps: int = 8
    pointwise: bool = False


def elementwise(
    operation: str,
    call: Callable[..., Any],
    value: Callable[..., Any],
    first: Sequence[Callable[..., Any]],
    second: Sequence[Sequence[Any]] | None = None,
    inputs: Callable[[str], tuple[Any, ...]] | None = None,
    **others: Any,
) -> Row:
    """Return a row from functions of numbers: the value, its derivatives, and those again (None for 0)."""
    many = [each(f) for f in first]
    again = [[f and each(f) for f in line] for line in second or ()]

    def gradients(dy: Any, *inputs: Any) -> tuple[Any, ...]:
        return tuple(times(dy, f(*inputs)) for f in many)

    def curvature(*inputs: Any) -> list[list[Any]]:
        return [[f and times(ONE, f(*inputs)) for f in line] for line in again]

    default = (lambda dtype: (unary(dtype),)) if len(first) == 1 else pairs
    return Row(
        operation,
        call,
        inputs or default,
        each(value),
        gradients,
        curvature if second else None,
        pointwise=True,
        **others,
    )


def by_differences(first: Callable[..., tuple[Any, ...]], inputs: Sequence[Any]) -> list[list[Any]]:
    """Return the `Row.second` of smooth gradients by differences, at 60 digits, from one evaluation for each."""
    found = [[np.empty(x.shape, object) for x in inputs] for _ in inputs]
    for j, x in enumerate(inputs):
        for place in np.ndindex(x.shape):
            step = STEP * max(x[place].copy_abs(), Decimal("1e-3"))
            ends = []
            for moved_to in (x[place] + step, x[place] - step):
                moved = [a.copy() for a in inputs]
                moved[j][place] = moved_to
                ends.append([g.sum() for g in first(np.full(inputs[0].shape, ONE), *moved)])
            for i, (high, low) in enumerate(zip(*ends, strict=True)):
                found[i][j][place] = (high - low) / (2 * step)
    return found


# -- comparison ------------------------------------------------------------------------------------


def rounded(right: Any, dtype: str) -> Any:
    """Return decimals rounded to a dtype."""
    floats = np.array([float(v) for v in np.asarray(right, object).reshape(-1)], np.float64)
    with np.errstate(over="ignore"):
        return floats.astype(dtype).reshape(np.shape(right))


def decided_by_rounding(factors: Any, dtype: str, slack: Any = 0) -> Any:
    """Return where an infinity or 0 times a factor depends on how that is rounded, or whether it is at all.

    That is where it comes to 0, to a subnormal or to infinity and is none of them: what is right differs by the
    order of a product's factors.
    """
    floats, info = np.abs(rounded(factors, dtype)), np.finfo(dtype)
    true = each(lambda v: v.is_finite() and v != 0)(factors).astype(bool)
    ordinary = (floats > info.tiny * 256) & (floats < info.max / 16)
    return true & ~(ordinary & (floats > 16 * np.asarray(slack, float) * info.eps))


def flush(array: Any) -> Any:
    """Return floats with subnormals made 0, as CuPy's kernels take them in float32."""
    return np.where(np.abs(array) < np.finfo(array.dtype).tiny, np.copysign(0, array), array).astype(array.dtype)


def wrong_places(
    found: Any, right: Any, ulps: int, slack: Any = 0, signed: bool = False, flushed: bool = False
) -> Any:
    """Return where `found` (floats) isn't right (decimals): a boolean array.

    NaN and infinities must be the same, zeros by their sign too where `signed`; all else is within `ulps` units
    in the last place (of which subnormals have few) and `slack` machine epsilons; where `flushed`, subnormals and
    the smallest others may be 0.
    """
    wanted = rounded(right, str(found.dtype))
    assert found.shape == wanted.shape
    with np.errstate(all="ignore"):
        room = ulps * np.spacing(np.abs(wanted)) + np.asarray(slack, float) * np.finfo(found.dtype).eps
        room += 2**14 * np.finfo(found.dtype).tiny * flushed
        near = np.abs(found - wanted) <= room
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    bad = ~(same | (near & np.isfinite(wanted)))
    if signed:
        bad |= (found == 0) & (wanted == 0) & (np.signbit(found) != np.signbit(wanted))
    return bad
