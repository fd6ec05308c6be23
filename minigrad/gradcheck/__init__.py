"""Gradient checks: are the gradients of a function what its values say they are?"""

from .check import TOLERANCES, GradcheckError, gradcheck

__all__ = ["TOLERANCES", "GradcheckError", "gradcheck"]
