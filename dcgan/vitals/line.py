"""A line of vitals.jsonl."""

from dataclasses import dataclass, field

from .diagnosis import Finding
from .values import StepVitals


@dataclass(frozen=True)
class VitalsLine(StepVitals):
    """The vital signs of a step, and what is wrong by them and by those of the steps before.

    A field that is added here or to `StepVitals` is written and read with the others.
    """

    findings: tuple[Finding, ...] = field(kw_only=True)  # so that `StepVitals` may have fields with defaults
