"""Sizes of a recipe's layers, worked out before any array exists: shapes, weights, geometries."""

import math
from dataclasses import dataclass

from minigrad.backend.geometry import ConvGeometry

from ..errors import UserError
from ..losses import LOSSES
from . import layers
from .preset import Preset

Shape = tuple[int, ...]  # of one image or one row, without the batch
MAX_WEIGHTS = 2**29  # of a network: 2 GiB
MAX_VALUES = 2**24  # that a layer makes of one image
MAX_SIZE = 2**40  # number in a layer: products of larger ones could not even be printed


@dataclass(frozen=True)
class Sizes:
    """Sizes of one layer.

    Attributes:
        spec: the layer.
        given, made: the shapes of one item of its input and of its output.
        weight: how many numbers its matrix or kernel has.
        parameters: how many numbers it learns: those of the weight, the bias, the scale and the shift.
        buffers: how many numbers its running statistics have.
        geometry: of a convolution, transposed or not; None for other layers.
    """

    spec: layers.Layer
    given: Shape
    made: Shape
    weight: int = 0
    parameters: int = 0
    buffers: int = 0
    geometry: ConvGeometry | None = None


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
    specs: tuple[layers.Layer, ...], shape: Shape, network: str, most: int = MAX_WEIGHTS
) -> tuple[Sizes, ...]:
    """Return the sizes of layers that follow each other, the first on items of `shape`.

    Raises UserError, which names the network and the layer, if one does not fit.
    """
    found: list[Sizes] = []
    weights = 0
    for place, spec in enumerate(specs):
        try:
            sizes = _of_layer(spec, shape)
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


def misfit(network: str, place: int, spec: layers.Layer, shape: Shape, error: Exception) -> UserError:
    """Return the error of a layer that can't be made, or not for items of `shape`."""
    return UserError(f"{network}, layer {place} ({spec!s:.200}), on {shape}: {error}")


def parameters(network: tuple[Sizes, ...]) -> int:
    """Return how many numbers a network learns."""
    return sum(layer.parameters for layer in network)


def _of_layer(spec: layers.Layer, shape: Shape) -> Sizes:
    """Return the sizes of a layer on items of `shape`. Raises ValueError if it does not fit them."""
    _check_numbers(spec)
    match spec:
        case layers.Dense():
            return _of_dense(spec, shape)
        case layers.Conv() | layers.ConvTranspose():
            return _of_convolution(spec, shape)
        case layers.BatchNorm():
            if len(shape) not in (1, 3):
                raise ValueError("expected rows (features,) or images (channels, height, width)")
            return Sizes(spec, shape, shape, parameters=2 * shape[0], buffers=2 * shape[0])
        case layers.Flatten():
            return Sizes(spec, shape, (math.prod(shape),))
        case layers.Reshape():
            made = (spec.channels, spec.height, spec.width)
            if min(made) < 1 or math.prod(made) != math.prod(shape):
                raise ValueError(f"{math.prod(shape)} numbers do not fit into {made}")
            return Sizes(spec, shape, made)
    return Sizes(spec, shape, shape)


def _of_dense(spec: layers.Dense, shape: Shape) -> Sizes:
    if len(shape) != 1:
        raise ValueError("expected rows (features,): put Flatten() before it")
    if spec.features < 1:
        raise ValueError(f"expected out_features to be an int >= 1, got {spec.features}")
    weight = shape[0] * spec.features
    return Sizes(spec, shape, (spec.features,), weight, weight + spec.bias * spec.features)


def _of_convolution(spec: layers.Conv | layers.ConvTranspose, shape: Shape) -> Sizes:
    if len(shape) != 3:
        raise ValueError("expected images (channels, height, width): put Reshape(...) before it")
    if spec.channels < 1 or spec.kernel < 1:
        raise ValueError(f"expected channels and kernel >= 1, got {spec.channels} and {spec.kernel}")
    image, kernel = (shape[1], shape[2]), (spec.kernel, spec.kernel)
    if isinstance(spec, layers.Conv):
        geometry = ConvGeometry.of_conv(image, kernel, spec.stride, spec.padding, 1)
        size = geometry.output_size
    else:
        geometry = ConvGeometry.of_conv_transpose(image, kernel, spec.stride, spec.padding, 0, 1)
        size = geometry.input_size
    weight = shape[0] * spec.channels * geometry.taps
    made = (spec.channels, *size)
    return Sizes(spec, shape, made, weight, weight + spec.bias * spec.channels, geometry=geometry)


def _check_numbers(spec: layers.Layer) -> None:
    """Raise ValueError if a whole number of a layer is out of all proportion."""
    for name, value in vars(spec).items():
        if isinstance(value, int) and abs(value) > MAX_SIZE:
            raise ValueError(f"{name} is beyond {MAX_SIZE}")
