"""Gradient checks: are the gradients of a function what its values say they are?

`gradcheck` holds them against differences of the values, `check_adjoint` against the transpose of what the
function does. `measure` is `gradcheck` that gives its numbers. All operations at once:

    python -m minigrad.gradcheck
"""

from .adjoint import ADJOINT_TOLERANCES, check_adjoint
from .check import TOLERANCES, gradcheck, measure
from .report import Adjoint, Element, GradcheckError, Report

__all__ = [
    "ADJOINT_TOLERANCES",
    "TOLERANCES",
    "Adjoint",
    "Element",
    "GradcheckError",
    "Report",
    "check_adjoint",
    "gradcheck",
    "measure",
]
