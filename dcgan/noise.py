"""The generator's input: random numbers of the recipe's shape and distribution."""

import minigrad as mg

from .preset import Preset


def draw(preset: Preset, count: int, generator: mg.Generator, device: str = "cpu") -> mg.Tensor:
    """z for `count` images, (count, *z_shape), float32.

    Drawn on the host, so that every device sees the same numbers.
    """
    shape = (count, *preset.z_shape)
    if preset.z_distribution == "normal":
        numbers = generator.normal(shape)
    else:
        numbers = generator.uniform(shape, -1.0, 1.0)
    return mg.tensor(numbers, device=device)
