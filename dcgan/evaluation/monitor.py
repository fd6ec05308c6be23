"""A smaller evaluation now and then while a run trains, to know which of its steps was the best."""

from typing import Any

from minigrad import nn

from ..data import mnist
from ..preset import Preset
from ..rundir import RunDirectory
from . import comparison
from .comparison import Figures, compare, describe, in_chunks, sample

COUNT = 2000  # samples
SEED = 0  # of their noise, which is the same each time


class Monitor:
    """Holds samples of a generator against real images, which are described once.

    Args:
        preset: the recipe.
        data: what --data says.
        images: the real images, as they were loaded for training.

    Attributes:
        floor: the figures of as many real images; `accuracy`: of the judge, where it knows digits.
        best: the smallest Fréchet distance so far, None at first.
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

    def _accuracy(self) -> float | None:
        """The share of MNIST's test images, which are the reference then, whose digit the judge finds."""
        if self.reference.probabilities is None:
            return None
        return float((self.reference.probabilities.argmax(axis=1) == mnist.labels("test")).mean())

    def remember(self, run: RunDirectory) -> None:
        """Take the best so far from a run's evaluations.jsonl."""
        distances = (line.get("frechet") for line in run.lines("evaluations.jsonl"))
        self.best = min((d for d in distances if isinstance(d, float)), default=None)

    def measure(self, generator: nn.Module) -> tuple[Figures, bool]:
        """The figures of the generator as it is, which it leaves so; and whether they are the best so far."""
        samples = sample(generator, self.preset, self.preset.statistics, self.count, SEED)
        figures = compare(describe(self.judge, samples), self.reference)
        better = self.best is None or figures.frechet < self.best
        if better:
            self.best = figures.frechet
        return figures, better
