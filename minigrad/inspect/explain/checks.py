"""Two ways to the same numbers, compared; all of them, or as many as a slow way can make quickly."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ... import naive
from ..compare import TOLERANCE, measure
from .explanation import Check
from .look import Host

MAX_PRODUCTS = 30_000  # of single numbers, that the loops of one check may take
MIN_PLACES, MAX_PLACES = 8, 1000  # places that are looked at, whatever they cost
STEPS = "the steps"

Place = tuple[int, ...]


def check(
    what: str, expected_by: str, got: Host, expected: Host, *, size: Host | None = None, by: str = STEPS
) -> Check:
    """Compare arrays of one shape.

    Args:
        what: the symbol of the numbers.
        expected_by: the other way, in words.
        size: how large the numbers are where the terms that they are summed of do not cancel. Where they
            do, rounding is relative to this.
        by: the way that gave `got`.

    The tolerance is that of the dtype of `got`; whole numbers and masks must be the same.
    """
    error, _ = measure(got, expected)
    if size is not None and np.isfinite(error):
        norm, terms = (float(np.linalg.norm(np.asarray(a, np.float64))) for a in (expected, size))
        error *= (norm or 1.0) / max(norm, terms, np.finfo(np.float64).tiny)
    return Check(what, by, expected_by, got.size, error, TOLERANCE.get(str(got.dtype), 0.0))


def check_places(
    what: str,
    values: Host,
    value_at: Callable[[Place], float],
    size_at: Callable[[Place], float],
    products: int,
    seed: int,
) -> Check:
    """Compare an array with a loop that gives one of its numbers at a time, at as many places as stay quick.

    Args:
        value_at: the number at a place, a sum.
        size_at: how large that sum is as a rule: the root of the sum of its terms' squares. It is asked for
            where the numbers differ by more than rounding, which is relative to what was added up.
        products: of single numbers, that one of them takes.
        seed: chooses the places, where they are not all.
    """
    places = chosen(values.size, products, seed)
    at = [tuple(int(i) for i in np.unravel_index(place, values.shape)) for place in places]
    by, got = where(len(at), values.size), values.reshape(-1)[places]
    expected = np.array([value_at(place) for place in at])
    found = check(what, by, got, expected)
    return found if found.equal else check(what, by, got, expected, size=np.array([*map(size_at, at)]))


def chosen(count: int, products: int, seed: int) -> Host:
    """Choose which of `count` things to check, each of so many products: sorted, all if that is quick."""
    most = min(MAX_PLACES, max(MIN_PLACES, MAX_PRODUCTS // max(products, 1)))
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def where(looked_at: int, count: int) -> str:
    """In words."""
    return "the loop" if looked_at == count else f"the loop, at {looked_at:,} of {count:,} places"


def check_sums(what: str, values: Host, terms: Host, seed: int) -> Check:
    """Compare the sums of each channel of (N, C) or (N, C, H, W) with a loop over its terms."""
    return check_places(
        what,
        values,
        lambda place: float(naive.sum(terms[:, place[0]])),
        lambda place: float(np.linalg.norm(terms[:, place[0]])),
        terms[:, 0].size,
        seed,
    )


def norms(terms: Host) -> Host:
    """The root of the sum of squares of each channel of (N, C) or (N, C, H, W): (C,) in float64."""
    squares = np.asarray(terms, np.float64) ** 2
    return np.asarray(np.sqrt(squares.sum(axis=(0, 2, 3)[: terms.ndim - 1])))


def double(*arrays: Any) -> list[Any]:
    """The arrays in float64, as the loops want them; None stays."""
    return [None if a is None else np.asarray(a, np.float64) for a in arrays]
