"""Our side of `dcgan.bench`: a recipe's networks and its step, on images of noise."""

from collections.abc import Callable
from functools import partial

import minigrad as mg

from .. import latent, models
from ..recipe.preset import Preset
from ..steps import RULES, Gan, StepResult


def title(preset: Preset) -> str:
    """Return the name of a recipe's step."""
    return f"{preset.name}, batch {preset.batch_size}"


def gan(preset: Preset, device: str = "cpu") -> tuple[Gan, mg.Tensor]:
    """Return a recipe's networks on a device, from its seed, and a batch of noise for real images."""
    mg.manual_seed(preset.seed)
    generator, discriminator = (network.to(device) for network in models.build(preset))
    z = mg.Generator(preset.seed, 1)
    shape = (preset.batch_size, preset.channels, preset.image_size, preset.image_size)
    real = mg.tensor(mg.Generator(preset.seed, 2).uniform(shape, -1.0, 1.0), device=device)
    return Gan.of(preset, generator, discriminator, lambda n: latent.draw(preset, n, z, device)), real


def our_step(preset: Preset, device: str = "cpu", captured: bool = False) -> Callable[[], StepResult]:
    """Return one training step of a recipe in this engine.

    Args:
        captured: whether it is replayed as one graph, see `minigrad.capture`.
    """
    made, real = gan(preset, device)
    step: Callable[[mg.Tensor], StepResult] = partial(RULES[preset.step], made)
    return partial(mg.capture(step) if captured else step, real)
