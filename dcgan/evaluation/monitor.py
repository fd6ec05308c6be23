"""A smaller evaluation now and then while a run trains, to know which of its steps was the best."""

import math
from collections.abc import Sequence
from typing import Any

from minigrad import nn

from ..data import mnist
from ..recipe.preset import Preset
from . import comparison
from .comparison import EvaluationResult, compare, describe, in_chunks, sample
from .line import EvaluationLine

COUNT = 2000  # samples
SEED = 0  # of their noise, which is the same each time


class Monitor:
    """Holds samples of a generator against real images, which are described once.

    Args:
        preset: the recipe.
        data: what --data says.
        images: the real images, as they were loaded for training.

    Attributes:
        floor: the result of as many real images; `accuracy`: of the judge, where it knows digits.
        best: the smallest Fréchet distance so far, None at first.
        last: the step of the last evaluation, 0 at first.
    """

    def __init__(self, preset: Preset, data: str, images: Any) -> None:
        self.preset = preset
        self.judge = comparison.judge_of(data)
        real = comparison.real_images(data, preset, images)
        self.reference = describe(self.judge, in_chunks(real.reference))
        self.count = COUNT if self.judge.classes else min(COUNT, len(self.reference))
        self.floor = compare(describe(self.judge, in_chunks(real.floor[: self.count])), self.reference)
        self.accuracy = self._accuracy()
        self.best: float | None = None
        self.last = 0

    def _accuracy(self) -> float | None:
        """The share of MNIST's test images, which are the reference then, whose digit the judge finds."""
        if self.reference.probabilities is None:
            return None
        return float((self.reference.probabilities.argmax(axis=1) == mnist.labels("test")).mean())

    def remember(self, lines: Sequence[EvaluationLine], has_best: bool) -> None:
        """Take the last evaluation, and the best one, from the lines of an earlier part of the run.

        Args:
            has_best: whether the checkpoint of the best one is kept; without it the next evaluation is the
                best that there is.
        """
        self.last = max((line.step for line in lines), default=0)
        distances = [line.samples.frechet for line in lines if not math.isnan(line.samples.frechet)]
        self.best = min(distances, default=None) if has_best else None

    def measure(self, generator: nn.Module, step: int) -> tuple[EvaluationResult, bool]:
        """Return the result of the generator after `step`, and whether it is the best so far.

        The generator is left as it was.
        """
        samples = sample(generator, self.preset, self.preset.statistics, self.count, SEED)
        result = compare(describe(self.judge, samples), self.reference)
        self.last = step
        better = self.best is None or result.frechet < self.best
        if better:
            self.best = result.frechet
        return result, better
