"""A running average of the generator's weights: steadier pictures than the last step's."""

import copy

import minigrad as mg
from minigrad import nn
from minigrad.backend.ieee import ieee


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, after each step; buffers too.

    At first, when there is little to average, the decay is smaller: (1 + step) / (10 + step).
    Source: Yazici et al., "The unusual effectiveness of averaging in GAN training" (2019).

    Args:
        source: the module that is trained.
        decay: 0 <= decay < 1.

    Attributes:
        average: a module like it, which holds the averages; it starts as a copy.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.source, self.average, self.decay = source, copy.deepcopy(source), decay

    @ieee()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for kept, new in zip(_tensors(self.average), _tensors(self.source), strict=True):
            kept.data = kept.data * decay + new.data * (1 - decay)


def _tensors(module: nn.Module) -> list[mg.Tensor]:
    return [*module.parameters(), *(buffer for _, buffer in module.named_buffers())]
