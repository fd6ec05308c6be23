"""Which images make up which batch: a function of the seed and the step, and of nothing else."""

import math
from typing import Any

import numpy as np

import minigrad as mg

Array = np.ndarray[Any, Any]


class Batches:
    """Batches of a set of images, shuffled anew for each epoch.

    Args:
        images: uint8, (n, H, W) or (n, H, W, C).
        batch_size: images a step; the last batch of an epoch holds what is left.
        generator: its seed and stream fix the order of every epoch.
    """

    def __init__(self, images: Array, batch_size: int, generator: mg.Generator) -> None:
        self.images = images if images.ndim == 4 else images[..., None]  # (n, H, W, C)
        self.batch_size = batch_size
        self._start = generator.state
        self._order: tuple[int, Array] = (-1, np.empty(0, np.int64))

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, the partial one included."""
        return math.ceil(len(self.images) / self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the step (from 1) belongs to."""
        return (step - 1) // self.per_epoch + 1

    def batch(self, step: int) -> Array:
        """The batch of a step (from 1): float32 (n, C, H, W), from -1 (black) to 1 (white)."""
        epoch, place = divmod(step - 1, self.per_epoch)
        chosen = self._permutation(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        pixels = self.images[chosen].astype(np.float32) * np.float32(2 / 255) - np.float32(1)
        return pixels.transpose(0, 3, 1, 2)  # (n, C, H, W)

    def _permutation(self, epoch: int) -> Array:
        if self._order[0] != epoch:
            generator = mg.Generator(self._start["seed"], self._start["stream"])
            generator.state = {**self._start, "calls": self._start["calls"] + epoch}
            self._order = (epoch, generator.permutation(len(self.images)))
        return self._order[1]
