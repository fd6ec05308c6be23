"""Images from a generator, without a graph, in batches that fit in memory."""

from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn

Array = np.ndarray[Any, Any]


def generate(generator: nn.Module, z: mg.Tensor, statistics: str, batch_size: int = 256) -> Array:
    """Images (N, C, H, W) from -1 to 1, on the host; the generator is left as it was.

    Args:
        statistics: what BatchNorm uses: "running", so that each image depends on its own z alone,
            or "batch", so that all of z is one batch. One image alone has no statistics of
            its own, and uses the running ones.
    """
    if len(z) == 1:
        statistics = "running"
    saved, training = generator.state_dict(), generator.training
    generator.train(statistics == "batch")
    size = len(z) if statistics == "batch" else batch_size
    with mg.no_grad():
        parts = [generator(z[i : i + size]).numpy() for i in range(0, len(z), size)]
    generator.train(training)
    if statistics == "batch":
        generator.load_state_dict(saved)  # the running statistics have moved
    return np.concatenate(parts)
