"""The table of the command: a line for each operation, as it is done, and what is to be said under it."""

from collections.abc import Sequence

from ..tables import table_row
from .suite import Row

ELEMENT, ADJOINT = 42, 21  # columns' widths
LEGEND = (
    "worst element: by the rule / by differences; 2nd: of the gradients' gradients, dy comes from above\n"
    "adjoint: of <A x, y> = <x, A^T y>, in the inputs in which a case is linear; J: only by its Jacobian"
)


def head(width: int) -> str:
    """The columns' names; `width` is that of the first."""
    return _line(width, "operation", "cases", "error", "worst element", "adjoint", "s")


def line(row: Row, width: int) -> str:
    """One operation; "-" where nothing could be measured, and a word at the end where something is wrong."""
    error = _power(row.report.error if row.report else None)
    adjoint = _power(row.adjoint)
    if row.adjoint is not None:
        adjoint += f" {', '.join(row.linear) or 'J'}"
    text = _line(width, row.name, str(row.cases), error, row.element or "-", adjoint, f"{row.seconds:.2f}")
    return f"{text}  WRONG" if row.failures else text


def total(rows: Sequence[Row], width: int) -> str:
    """All operations in one line: the sums, and of the errors the worst, with the operation's name."""
    errors = {row.name: row.report.error for row in rows if row.report}
    worst = max(errors, key=errors.__getitem__, default=None)
    adjoints = [row.adjoint for row in rows if row.adjoint is not None]
    return _line(
        width,
        "total",
        str(sum(row.cases for row in rows)),
        _power(errors[worst] if worst else None),
        f"of {worst}" if worst else "-",
        _power(max(adjoints, default=None)),
        f"{sum(row.seconds for row in rows):.2f}",
    )


def notes(rows: Sequence[Row]) -> str:
    """Return the text under the table: the columns' meaning, the omissions, each failure in full."""
    left_out = {row.name: row.report.left_out for row in rows if row.report and row.report.left_out}
    lines = [LEGEND]
    if left_out:
        counts = ", ".join(f"{count} of {name}" for name, count in left_out.items())
        lines.append(f"elements on kinks, left out: {counts}")
    lines += [f"\n{row.name}, {label}:\n  {text}" for row in rows for label, text in row.failures]
    wrong = sum(bool(row.failures) for row in rows)
    lines.append(f"\n{len(rows)} operation{'s' if len(rows) > 1 else ''}, {wrong} wrong")
    return "\n".join(lines)


def _power(error: float | None) -> str:
    """An error in one digit, "3e-10"; 0 without a power, and "-" for none."""
    if error is None:
        return "-"
    return f"{error:.0e}" if error else "0"


def _line(width: int, name: str, cases: str, error: str, element: str, adjoint: str, seconds: str) -> str:
    middle = f"{element:<{ELEMENT}}  {adjoint}"  # a long element takes from the room after a short adjoint
    widths = (width, 5, 5, ELEMENT + 2 + ADJOINT, 5)
    return table_row((name, cases, error, middle, seconds), widths, "<>><>")
