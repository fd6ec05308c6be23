"""When a checkpoint is due: every so many steps or minutes, at little cost."""

import argparse
import re
import time
from dataclasses import dataclass, field

COST = 0.01  # share of the time that checkpoints may take where nobody says how often
MIN_INTERVAL = 60.0  # seconds between two, then


@dataclass
class Cadence:
    """Says when.

    Args:
        steps: between two checkpoints; 0 for no such rule.
        seconds: between two; 0 for no such rule. Without either a checkpoint is due after MIN_INTERVAL
            seconds, or later, where writing one takes so long that it would cost more than COST of the time.
    """

    steps: int = 0
    seconds: float = 0.0
    _last: float = field(default_factory=lambda: time.monotonic())
    _took: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "Cadence":
        """ "500" (steps), "10min" or "30s"; argparse.ArgumentTypeError for anything else."""
        match = re.fullmatch(r"0*([1-9]\d{0,8})(s|min)?", text)
        if match is None:
            raise argparse.ArgumentTypeError(
                f"expected steps, such as 500, or minutes or seconds, such as 10min or 30s; got {text!r}"
            )
        count, unit = int(match[1]), match[2]
        return cls(steps=count) if unit is None else cls(seconds=count * (60.0 if unit == "min" else 1.0))

    def is_due(self, step: int) -> bool:
        """Whether there should be one after this step."""
        if self.steps:
            return step % self.steps == 0
        return time.monotonic() - self._last >= (self.seconds or max(MIN_INTERVAL, self._took / COST))

    def written(self, seconds: float) -> None:
        """There is one now, which took so long to write."""
        self._last, self._took = time.monotonic(), seconds
