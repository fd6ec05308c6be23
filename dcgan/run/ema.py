"""A running average of the generator's weights: steadier pictures than the last step's."""

import copy

import minigrad as mg
from minigrad import nn


class WeightAverage:
    """average = decay * average + (1 - decay) * weights, after each step; buffers too.

    At first, when there is little to average, the decay is smaller: (1 + step) / (10 + step).
    Source: Yazici et al., "The unusual effectiveness of averaging in GAN training" (2019).

    Args:
        source: the module that is trained.
        decay: 0 <= decay < 1.

    Attributes:
        average: a module like it, which holds the averages; it starts as a copy.
        steps: how many steps' weights were taken in.
    """

    def __init__(self, source: nn.Module, decay: float) -> None:
        self.source, self.average, self.decay = source, copy.deepcopy(source), decay
        self.steps = 0

    def restart(self) -> None:
        """Forget the averages: the source has other weights now."""
        self.average.load_state_dict(self.source.state_dict())
        self.steps = 0

    def update(self) -> None:
        """Take in the weights after a step, in place: as a part of a captured step, too."""
        mg.each_time(self._count)
        kept, new = _tensors(self.average), _tensors(self.source)
        pairs = [(average.data, weights.data) for average, weights in zip(kept, new, strict=True)]
        kept[0].backend.average_updates(pairs, self._weights)
        for tensor in kept:
            tensor.mark_changed()

    def _count(self) -> None:
        self.steps += 1

    def _weights(self) -> tuple[float, float]:
        """Return the weights of the average and of the new values, in the step that is counted now."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        return decay, 1 - decay


def _tensors(module: nn.Module) -> list[mg.Tensor]:
    return [*module.parameters(), *(buffer for _, buffer in module.named_buffers())]
