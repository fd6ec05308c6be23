"""Sizes of layers that follow each other, and the errors of those that do not fit."""

import math
from collections.abc import Iterator

from ..errors import UserError
from .layer import Layer, Shape, Sizes

MAX_WEIGHTS = 2**29  # of a network: 2 GiB
MAX_VALUES = 2**24  # that a layer makes of one image
MAX_SIZE = 2**40  # number in a layer: products of larger ones could not even be printed


def of_layers(
    specs: tuple[Layer, ...], shape: Shape, network: str, most: int = MAX_WEIGHTS
) -> tuple[Sizes, ...]:
    """Return the sizes of layers that follow each other, the first on items of `shape`.

    Raises UserError, which names the network and the layer, if one does not fit.
    """
    return tuple(each_of_layers(specs, shape, network, most))


def each_of_layers(
    specs: tuple[Layer, ...], shape: Shape, network: str, most: int = MAX_WEIGHTS
) -> Iterator[Sizes]:
    """Give the sizes of one layer after another, up to the first that does not fit.

    There it raises as `of_layers` does.
    """
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
        yield sizes
        shape = sizes.made


def misfit(network: str, place: int, spec: Layer, shape: Shape, error: Exception) -> UserError:
    """Return the error of a layer that can't be made, or not for items of `shape`."""
    return UserError(f"{network}, layer {place} ({spec!s:.200}), on {shape}: {error}")


def _check_numbers(spec: Layer) -> None:
    """Raise ValueError if a whole number of a layer is out of all proportion."""
    for name, value in vars(spec).items():
        if isinstance(value, int) and abs(value) > MAX_SIZE:
            raise ValueError(f"{name} is beyond {MAX_SIZE}")
