"""The schedule of a run's evaluations, checkpoints and measurements, and the clock of its checkpoints."""

import argparse
import re
import time
from dataclasses import dataclass

COST = 0.01  # share of the time that checkpoints may take where nobody says how often
MIN_INTERVAL = 60.0  # seconds between two, then
KEPT = 2  # checkpoints


@dataclass(frozen=True)
class Interval:
    """The distance between two checkpoints.

    Attributes:
        steps: between two; 0 for no such rule.
        seconds: between two; 0 for no such rule. Without either a checkpoint is due after MIN_INTERVAL
            seconds, or later, where writing one takes so long that it would cost more than COST of the time.
    """

    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """ "500" (steps), "10min" or "30s"; argparse.ArgumentTypeError for anything else."""
        match = re.fullmatch(r"0*([1-9]\d{0,8})(s|min)?", text)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"expected steps, such as 500, or minutes or seconds, such as 10min or 30s; got {text!r}"
            )
        count, unit = int(match[1]), match[2]
        return cls(steps=count) if unit is None else cls(seconds=count * (60.0 if unit == "min" else 1.0))


@dataclass(frozen=True)
class Schedule:
    """The schedule of evaluations, checkpoints and measurements; that of the pictures is the recipe's.

    Attributes:
        evaluate_every: steps between two evaluations of samples; 0 for none.
        checkpoint_every: the distance between two checkpoints, besides those with the recipe's grids and
            at the end.
        keep: how many of the last checkpoints stay.
        vitals_every: steps between two whose vital signs are measured; 0 for none.
    """

    evaluate_every: int = 0
    checkpoint_every: Interval = Interval()
    keep: int = KEPT
    vitals_every: int = 0


class CheckpointTimer:
    """Says when a checkpoint is due; its clock starts when it is made."""

    def __init__(self, interval: Interval) -> None:
        self.interval = interval
        self._last = time.monotonic()
        self._took = 0.0  # seconds, the last one

    def is_due(self, step: int) -> bool:
        """Whether there should be one after this step."""
        if self.interval.steps:
            return step % self.interval.steps == 0
        wanted = self.interval.seconds or max(MIN_INTERVAL, self._took / COST)
        return time.monotonic() - self._last >= wanted

    def written(self, seconds: float) -> None:
        """There is one now, which took so long to write."""
        self._last, self._took = time.monotonic(), seconds
