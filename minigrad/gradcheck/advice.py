"""Advice on a wrong gradient: what mistake looks like this one."""

import numpy as np

from .vectors import Array


def advice(analytic: Array, numeric: Array) -> str:
    """Return a sentence on the usual cause of a wrong gradient that differs from the right one like this.

    Args:
        analytic: what the backward rule gives for one input.
        numeric: what differences give, of the same shape.
    """
    if not np.isfinite(analytic).all():
        return "Look for a division by 0 or an overflow in the backward rule."
    wrong = np.abs(analytic - numeric) > 1e-5 * max(np.abs(numeric).max(), 1e-8)
    if not analytic[wrong].any():
        return "Look for an input whose gradient is not computed (None, a mask, or a detach)."
    if not numeric[wrong].any():
        return "Look for a gradient that is passed on where the values do not depend on the input."
    ratio = analytic[wrong] / np.where(numeric[wrong] == 0, np.nan, numeric[wrong])
    where = _concentrated(wrong)
    if np.nanmax(ratio) - np.nanmin(ratio) < 1e-4 * abs(np.nanmean(ratio)):
        factor = f"{np.nanmean(ratio):.6g}"
        return f"Every wrong element{where} is off by the same factor {factor}: look for a constant."
    if where:
        return f"All wrong elements lie{where}: look at how that part is sliced or summed."
    if analytic.ndim > 1 and np.allclose(np.sort(analytic, None), np.sort(numeric, None), 1e-4, 1e-8):
        return "The right numbers in the wrong places: look for a transpose or a reshape in another order."
    return "Look at the term of the rule that this element alone would need."


def _concentrated(wrong: Array) -> str:
    """Return " at index i of axis a" if all wrong elements share it and right ones lie elsewhere; else ""."""
    for axis, size in enumerate(wrong.shape):
        touched = np.flatnonzero(wrong.any(axis=tuple(i for i in range(wrong.ndim) if i != axis)))
        if size > 1 and len(touched) == 1:
            return f" at index {int(touched[0])} of axis {axis}"
    return ""
