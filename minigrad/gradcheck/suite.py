"""The checks of one operation on all of its cases: differences of both orders, and the adjoint test."""

import inspect
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from ..creation import tensor
from ..ops import Case, Operation
from ..tensor import Tensor
from .adjoint import check_adjoint
from .check import measure
from .report import Adjoint, Element, GradcheckError, Report

SEED = 7  # of the cases' inputs


@dataclass
class Row:
    """The results for one operation.

    Attributes:
        name: of the operation.
        cases: how many it has.
        report: of the differences over all cases; None where none got so far.
        element: the worst element in words, as of `element_in_words`, or "".
        adjoint: the worst error of the adjoint test; None where none got so far.
        linear: the names of the inputs in which the operation is linear in some case, each once.
        failures: for each thing that is wrong the case's label and the message.
        seconds: how long it took.
    """

    name: str
    cases: int = 0
    report: Report | None = None
    element: str = ""
    adjoint: float | None = None
    linear: list[str] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0

    def note_differences(self, report: Report, names: list[str]) -> None:
        """Count what the differences of one case found."""
        self.report = (self.report or Report()) | report
        if report.element is not None and self.report.element is report.element:
            self.element = element_in_words(report.element, names)

    def note_adjoint(self, found: Adjoint, names: list[str]) -> None:
        """Count what the adjoint test of one case found."""
        self.adjoint = max(self.adjoint or 0.0, found.error)
        self.linear += [names[i] for i in found.linear if names[i] not in self.linear]


def check_operation(operation: type[Operation], device: str) -> Row:
    """Check every case of an operation; whatever is wrong, errors of its own too, stands in the row."""
    row = Row(operation.name)
    started = time.perf_counter()
    with _failures_noted(row, operation, "cases"):
        cases = list(operation.cases())
        row.cases = len(cases)
        if not cases:
            raise GradcheckError("there are none, so nothing was checked: yield one from `cases`")
        for case in cases:
            _check_case(row, operation, case, device)
    row.seconds = time.perf_counter() - started
    return row


def _check_case(row: Row, operation: type[Operation], case: Case, device: str) -> None:
    label = case.label or "plain"
    with _failures_noted(row, operation, label):
        arrays = case.inputs(np.random.default_rng(SEED))
        inputs = [tensor(np.asarray(a), device=device, requires_grad=True) for a in arrays]
        names = input_names(case, len(inputs))
        with _failures_noted(row, operation, label):
            _check_differences(row, case, inputs, names)
        _check_adjoint(row, case, inputs, names)


def _check_differences(row: Row, case: Case, inputs: list[Tensor], names: list[str]) -> None:
    try:
        row.note_differences(measure(case.call, inputs, order=2), names)
    except GradcheckError as error:
        if isinstance(error.found, Report):
            row.note_differences(error.found, names)
        raise


def _check_adjoint(row: Row, case: Case, inputs: list[Tensor], names: list[str]) -> None:
    try:
        row.note_adjoint(check_adjoint(case.call, inputs), names)
    except GradcheckError as error:
        if isinstance(error.found, Adjoint):
            row.note_adjoint(error.found, names)
        raise


@contextmanager
def _failures_noted(row: Row, operation: type[Operation], label: str) -> Iterator[None]:
    """Whatever is raised inside becomes a failure in the row, and does not end the other checks."""
    try:
        yield
    except Exception as error:
        failure = (label, _in_words(error, operation))
        if failure not in row.failures:  # both checks meet an error of the operation's own
            row.failures.append(failure)


def _in_words(error: Exception, operation: type[Operation]) -> str:
    """The message; of an error that is no GradcheckError its type and its place in the operation's file."""
    if isinstance(error, GradcheckError):
        return str(error)
    file = getattr(sys.modules.get(operation.__module__), "__file__", None)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    place = f" ({file}, line {frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


def input_names(case: Case, count: int) -> list[str]:
    """Return the names that the case's call gives its inputs; "input 0" for one without a name."""
    names = [f"input {i}" for i in range(count)]
    try:
        parameters = list(inspect.signature(case.call).parameters.values())
    except (TypeError, ValueError):  # a builtin
        return names
    for i, parameter in enumerate(parameters[:count]):
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            break
        names[i] = parameter.name
    return names


def element_in_words(element: Element, names: list[str]) -> str:
    """ "weight[0, 2]: 1.5 / 1.5", analytic before numeric; "2nd" before one of second order.

    At second order the gradient that comes from above is called dy.
    """
    name = names[element.input] if element.input < len(names) else "dy"
    index = ", ".join(map(str, element.index))
    place = f"{name}[{index}]" if element.index else name
    order = "2nd " if element.order == 2 else ""
    return f"{order}{place}: {element.analytic:.7g} / {element.numeric:.7g}"
