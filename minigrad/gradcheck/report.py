"""The results of gradient checks; the error of a failed check holds them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Element:
    """One element of a gradient, by the rule and by differences.

    Attributes:
        order: 1 for an element of a gradient, 2 for one of a gradient's gradient.
        input: the number of the input. At order 2 the gradients that come from above follow the inputs.
        index: where in the input; () for one without axes.
        analytic: what the backward rule gives.
        numeric: what differences of the values give.
        error: of the whole gradient of which it is the worst element, relative; see `Report`.
    """

    order: int
    input: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float


@dataclass(frozen=True)
class Report:
    """The results of finite differences, over one or several checks.

    Attributes:
        error: the largest relative error: |analytic - numeric| / max(|analytic|, |numeric|, 1e-3), in norms
            over one gradient, or of the rates along a random direction u, where the divisor is at least
            1e-3 |analytic gradients| |u| too.
        element: of the gradient with the largest error the one that is off most, held against its own size;
            None where there were only directions.
        left_out: how many elements stand on kinks and were not compared, over both orders.
    """

    error: float = 0.0
    element: Element | None = None
    left_out: int = 0

    def __or__(self, other: "Report") -> "Report":
        """Both in one: the worse error, the worse element, and all that was left out."""
        elements = [e for e in (self.element, other.element) if e is not None]
        return Report(
            max(self.error, other.error),
            max(elements, key=lambda e: e.error, default=None),
            self.left_out + other.left_out,
        )


@dataclass(frozen=True)
class Adjoint:
    """The result of the adjoint test.

    Attributes:
        error: the largest |<A x, y> - <x, A^T y>| beside the product of the norms.
        linear: the inputs in which the function is linear, by number: for these A was the function itself.
    """

    error: float = 0.0
    linear: tuple[int, ...] = ()


class GradcheckError(AssertionError):
    """A gradient that is wrong, or can't be checked; the message says which and where to look.

    Attributes:
        found: what was measured of it: a `Report` of differences, an `Adjoint`, or None for neither.
    """

    def __init__(self, message: str, found: Report | Adjoint | None = None) -> None:
        super().__init__(message)
        self.found = found
