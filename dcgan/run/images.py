"""The images of a run: loaded as its recipe wants them, and cut into batches."""

from typing import Any

from numpy.typing import NDArray

import minigrad as mg

from ..console import tell
from ..data import names, sources
from ..data.batches import Batches
from ..data.scale import Range
from ..data.sources import ImageSet
from ..errors import UserError
from ..recipe.plan import check_batches
from ..recipe.preset import Preset
from .learner import DATA_STREAM


def load_images(
    preset: Preset, data: str | NDArray[Any] | None, value_range: Range | None = None
) -> ImageSet:
    """The images that --data names, as the recipe wants them; what was done to them is printed.

    Args:
        data: their name, or an array as `sources.of_array` takes it; None for MNIST.
        value_range: the values of black and white in them; None to follow from their type.

    Raises UserError if there are none, or they can't be batches of the recipe.
    """
    if isinstance(data, str) and not data:
        raise UserError(
            "--data: an empty name; expected mnist, a folder or .zip of images, or a file of many"
        )
    if data is None and preset.channels > 1:
        tell(f"No --data is given: {preset.name} trains on MNIST; --data FOLDER trains it on your pictures.")
    size, channels = preset.image_size, preset.channels
    if data is None or isinstance(data, str):
        loaded = sources.load(data or names.DIGITS, size, channels, value_range)
    else:
        loaded = sources.of_array(data, size, channels, value_range)
    for note in loaded.notes:
        tell(note)
    check_batches(preset, len(loaded.images))
    return loaded


def batches_of(preset: Preset, loaded: ImageSet) -> Batches:
    """The batches of a run: what the recipe makes of a set of images."""
    return Batches(
        loaded.images,
        preset.batch_size,
        mg.Generator(preset.seed, DATA_STREAM),
        channels=preset.channels,
        crop=preset.crop,
        flip=preset.flip,
        shuffle=preset.shuffle,
    )
