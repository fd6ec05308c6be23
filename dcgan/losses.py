"""The losses of the recipes: what D's output costs where a label was wanted.

A recipe whose D ends in a sigmoid has its loss on probabilities, one whose D gives logits has it on
logits. The two are equal only until float32's sigmoid saturates: at logit 17 against label 0 the
first costs 100 (its logarithm's floor), the second 17.
"""

from collections.abc import Callable
from dataclasses import dataclass

import minigrad as mg
import minigrad.functional as F

EPSILON = 1e-12  # the TensorFlow document's


@dataclass(frozen=True)
class Loss:
    """One loss.

    Attributes:
        cost: D's outputs (N, 1) and the label, 0.0 or 1.0, to the mean over the batch.
        probability: D's outputs to the probability of being real.
        takes_logits: whether D's outputs are logits; else they are probabilities.
        formula: of the cost, for people; p is the probability, l the logit.
        generator_cost: D's outputs on fakes to G's mean cost, if it is not the cost of the label 1.
    """

    cost: Callable[[mg.Tensor, float], mg.Tensor]
    probability: Callable[[mg.Tensor], mg.Tensor]
    takes_logits: bool
    formula: str
    generator_cost: Callable[[mg.Tensor], mg.Tensor] | None = None

    def of_generator(self, judged: mg.Tensor) -> mg.Tensor:
        """Return G's cost of what D said of its images: they should be taken for real."""
        return self.cost(judged, 1.0) if self.generator_cost is None else self.generator_cost(judged)


def bce_epsilon(probability: mg.Tensor, label: float) -> mg.Tensor:
    """-mean log(p + 1e-12) for label 1, -mean log(1 - p + 1e-12) for label 0."""
    return F.binary_cross_entropy(probability, label, epsilon=EPSILON)


LOSSES = {
    "bce_with_logits": Loss(
        F.binary_cross_entropy_with_logits,
        F.sigmoid,
        True,
        "log(1 + exp(-l)) of the logit l for label 1, log(1 + exp(l)) for label 0",
    ),
    "bce": Loss(
        F.binary_cross_entropy, lambda p: p, False, "-log p for label 1, -log(1 - p) for label 0, at most 100"
    ),
    "bce_epsilon": Loss(
        bce_epsilon, lambda p: p, False, "-log(p + 1e-12) for label 1, -log(1 - p + 1e-12) for label 0"
    ),
}
