"""Sizes of a recipe's layers, worked out before any array exists: shapes, weights, geometries."""

import math

from ..errors import UserError
from ..losses import LOSSES
from . import layers
from .layer import Layer, Shape, Sizes
from .preset import Preset

MAX_WEIGHTS = 2**29  # of a network: 2 GiB
MAX_VALUES = 2**24  # that a layer makes of one image
MAX_SIZE = 2**40  # number in a layer: products of larger ones could not even be printed


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


def of_layers(
    specs: tuple[Layer, ...], shape: Shape, network: str, most: int = MAX_WEIGHTS
) -> tuple[Sizes, ...]:
    """Return the sizes of layers that follow each other, the first on items of `shape`.

    Raises UserError, which names the network and the layer, if one does not fit.
    """
    found: list[Sizes] = []
    weights = 0
    for place, spec in enumerate(specs):
        try:
            _check_numbers(spec)
            sizes = spec.sizes(shape)
            weights += sizes.weight
            if weights > most:
                raise ValueError(f"with this layer there are {weights} weights; expected {most} at most")
            if math.prod(sizes.made) > MAX_VALUES:
                raise ValueError(f"it makes {sizes.made} of one image: expected {MAX_VALUES} numbers at most")
        except (ValueError, TypeError) as error:
            raise misfit(network, place, spec, shape, error) from error
        found.append(sizes)
        shape = sizes.made
    return tuple(found)


def misfit(network: str, place: int, spec: Layer, shape: Shape, error: Exception) -> UserError:
    """Return the error of a layer that can't be made, or not for items of `shape`."""
    return UserError(f"{network}, layer {place} ({spec!s:.200}), on {shape}: {error}")


def parameters(network: tuple[Sizes, ...]) -> int:
    """Return how many numbers a network learns."""
    return sum(layer.parameters for layer in network)


def _check_numbers(spec: Layer) -> None:
    """Raise ValueError if a whole number of a layer is out of all proportion."""
    for name, value in vars(spec).items():
        if isinstance(value, int) and abs(value) > MAX_SIZE:
            raise ValueError(f"{name} is beyond {MAX_SIZE}")
