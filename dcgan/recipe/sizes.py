"""Sizes of a recipe's layers, worked out before any array exists: shapes, weights, geometries."""

from ..errors import UserError
from ..losses import LOSSES
from . import layers
from .chain import MAX_WEIGHTS, of_layers
from .layer import Sizes
from .preset import Preset


def of_generator(preset: Preset, most: int = MAX_WEIGHTS) -> tuple[Sizes, ...]:
    """Return the sizes of the generator's layers.

    Raises UserError if a layer does not fit the one before it, if the layers make no images of the recipe's
    size, or if they have more than `most` weights.
    """
    image = (preset.channels, preset.image_size, preset.image_size)
    found = of_layers(preset.generator, preset.z_shape, "generator", most)
    made = found[-1].made if found else preset.z_shape
    if made != image:
        raise UserError(
            f"preset {preset.name!r}: the generator makes images of {made}, not {image} (C, H, W); "
            "image_size and channels are free in the presets flowers and pytorch"
        )
    return found


def of_discriminator(preset: Preset, most: int = MAX_WEIGHTS) -> tuple[Sizes, ...]:
    """Return the sizes of the discriminator's layers.

    Raises UserError if a layer does not fit the one before it, if the layers make no single number of an
    image, if the last one does not fit the loss, or if they have more than `most` weights.
    """
    image = (preset.channels, preset.image_size, preset.image_size)
    found = of_layers(preset.discriminator, image, "discriminator", most)
    judged = found[-1].made if found else image
    if judged != (1,):
        raise UserError(
            f"preset {preset.name!r}: the discriminator gives {judged} for an image, not one number"
        )
    if LOSSES[preset.loss].takes_logits == isinstance(preset.discriminator[-1], layers.Sigmoid):
        takes = "logits, not a Sigmoid's output" if LOSSES[preset.loss].takes_logits else "a Sigmoid's output"
        raise UserError(
            f"loss={preset.loss!r} takes {takes}, and the discriminator of {preset.name!r} ends in "
            f"{preset.discriminator[-1]}: replace one of them"
        )
    return found


def parameters(network: tuple[Sizes, ...]) -> int:
    """Return how many numbers a network learns."""
    return sum(layer.parameters for layer in network)
