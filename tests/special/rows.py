"""A row of the table: an operation, its inputs, and what is right there; and the comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from .numbers import ONE, each, pairs, times, unary

STEP = Decimal("1e-20")  # of differences: their error is some 1e-40


@dataclass(frozen=True)
class Row:
    """An operation at special values, and what is right there.

    Args:
        operation: the name of the operation in `minigrad.ops.OPERATIONS`.
        label: the example, if there are several.
        call: the operation on tensors.
        inputs: makes the arrays of floats from the dtype.
        value: the right result, from arrays of decimals.
        first: the right gradients (a tuple), from dy and the inputs; None where there are `factors`.
        second: the right second derivatives, from the inputs: number [i][j] is the gradient of the sum of
            gradient i (for dy = 1) with respect to input j. None stands for zeros.
        above: the values that dy is filled with.
        signed: whether the sign of a zero result counts: in arithmetic and where values are moved. Elsewhere
            0 and -0 are the same, as in the maximum of the two, which IEEE 754 leaves open.
        slack, slack2: how far gradients and second derivatives may be off beyond some units in the last
            place, in machine epsilons, from the inputs: where a rule subtracts from 1 what rounds to 1.
        unclear: from the inputs, where second derivatives are not compared (element by element).
        factors: from the inputs, of gradients that are dy times a factor, element by element (a tuple).
    """

    operation: str
    call: Callable[..., Any]
    inputs: Callable[[str], tuple[Any, ...]]
    value: Callable[..., Any]
    first: Callable[..., tuple[Any, ...]] | None
    second: Callable[..., Sequence[Sequence[Any]]] | None = None
    label: str = ""
    above: tuple[float, ...] = (1.0, np.inf, np.nan, 0.0)
    signed: bool = False
    slack: Callable[..., Any] | None = None
    slack2: Callable[..., Any] | None = None
    unclear: Callable[..., Any] | None = None
    ulps: int = 8
    factors: Callable[..., tuple[Any, ...]] | None = None


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

    def factors(*inputs: Any) -> tuple[Any, ...]:
        return tuple(f(*inputs) for f in many)

    def curvature(*inputs: Any) -> list[list[Any]]:
        return [[f and times(ONE, f(*inputs)) for f in line] for line in again]

    default = (lambda dtype: (unary(dtype),)) if len(first) == 1 else pairs
    return Row(
        operation,
        call,
        inputs or default,
        each(value),
        None,
        curvature if second else None,
        factors=factors,
        **others,
    )


def by_differences(first: Callable[..., tuple[Any, ...]], inputs: Sequence[Any]) -> list[list[Any]]:
    """Return the `Row.second` of smooth gradients by differences, at 60 digits."""
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

    That is where it comes to 0, to a subnormal or to infinity and is none of them: what is right depends on
    the order of a product's factors.
    """
    factors = times(ONE, factors)
    floats, info = np.abs(rounded(factors, dtype)), np.finfo(dtype)
    true = each(lambda v: v.is_finite() and v != 0)(factors).astype(bool)
    ordinary = (floats > info.tiny * 256) & (floats < info.max / 16)
    return true & ~(ordinary & (floats > 16 * np.asarray(slack, float) * info.eps))


def flush(array: Any) -> Any:
    """Return floats with subnormals made 0, as CuPy's kernels take them in float32."""
    subnormal = np.abs(array) < np.finfo(array.dtype).tiny
    return np.where(subnormal, np.copysign(0, array), array).astype(array.dtype)


def wrong_places(
    found: Any, right: Any, ulps: int, slack: Any = 0, signed: bool = False, flushed: bool = False
) -> Any:
    """Return where `found` (floats) isn't right (decimals): a boolean array.

    NaN and infinities must be the same, and zeros, by their sign too where `signed`. All else is within
    `ulps` units in the last place (of which subnormals have few) and `slack` machine epsilons. Where
    `flushed`, subnormals and the smallest others may be 0.
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
