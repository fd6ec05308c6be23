"""Both networks at work: what the filters of every layer look like, and what they make of a picture."""

import io
import math
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minigrad import nn

from ..data.channels import MODES
from ..errors import UserError
from ..markup import Markup, paragraph, section, table, tag
from ..pictures import to_bytes
from ..recipe.preset import Preset
from ..run.trained import load_discriminator, load_generator
from .charts import nice
from .embedded import picture, png, png_of
from .heatmaps import heatmap, limit_of, square, strip, tiled
from .looking import Look, first_real, fixed_z, look_at_discriminator, look_at_generator, words
from .reading import Reading

MAX_MAPS = 64  # channels of an activation: 64 of 8 to 80 pixels a side,
MAX_WIDTH = 640  # fewer of larger ones, so that a page of 256 x 256 images can still be sent around
MAX_KERNELS, MAX_ROWS = 256, 16  # of a weight, and of its rows where it has rows and columns
MAX_NUMBERS = 4096  # of a vector
MAX_SIDE = 256  # of a matrix


def networks(reading: Reading) -> Markup:
    """The section with every layer."""
    title = ("layers", "Inside the networks")
    if reading.state is None:
        return section(*title, paragraph(reading.stateless))
    try:
        generator = load_generator(reading.state, reading.weights)
    except UserError as error:
        if reading.weights is not None:
            raise
        return section(*title, paragraph(f"{error}."))
    preset, z = reading.state.preset, fixed_z(reading.state)
    looks = look_at_generator(generator, preset, z)
    parts = [paragraph(_about(reading)), paragraph(_COLOURS)]
    parts += [
        tag("h3", "The generator"),
        paragraph("On the first of the fixed noises."),
        _pictures_of([looks[-1]]),
    ]
    parts += _layers(looks, ["what it makes"])
    parts.append(tag("h3", "The discriminator"))
    try:
        discriminator = load_discriminator(reading.state)
    except UserError as error:
        return section(*title, *parts, paragraph(f"{error}."))
    names, images, notes = ["generated picture"], [looks[-1].made], []
    try:
        images.append(_real(reading, preset))
        names.append("real picture")
    except ValueError as error:
        notes.append(paragraph(f"No real picture to show it: {error}."))
    judged = look_at_discriminator(discriminator, np.concatenate(images))
    likely = " and ".join(
        f"{p:.3f} for the {name}" for p, name in zip(words(preset, judged), names, strict=True)
    )
    parts += [*notes, paragraph(f"It runs in eval mode. How likely it finds them to be real: {likely}.")]
    return section(*title, *parts, _shown(images, names), *_layers(judged, names))


_COLOURS = Markup(
    'Colours: <span class="below">blue</span> is below 0, white is 0, <span class="above">red</span> is '
    "above. Under each picture stands the number of full colour: 99.5% of a picture's are no larger."
)


def _about(reading: Reading) -> str:
    assert reading.state is not None
    preset = reading.state.preset
    weights = reading.weights or ("ema" if preset.ema_decay else "last")
    statistics = (
        "BatchNorm normalises by the statistics of all fixed noises together"
        if preset.statistics == "batch"
        else "BatchNorm uses its running statistics"
    )
    step = reading.state.position["step"]
    return f'After step {step:,}, with the weights "{weights}" of G; in G {statistics}.'


def _real(reading: Reading, preset: Preset) -> NDArray[Any]:
    """A real image (1, C, H, W). ValueError where the run has none that can be taken out of its picture."""
    content = png_of(reading.directory / preset.real_name, reading.directory)
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode != MODES[preset.channels]:
            raise ValueError(f"{preset.real_name} is {image.mode}, and the recipe's images are not")
        return first_real(preset, np.atleast_3d(np.asarray(image)))


def _pictures_of(looks: list[Look]) -> Markup:
    return _shown([looks[-1].made], ["the generated picture"])


def _shown(images: list[NDArray[Any]], names: list[str]) -> Markup:
    """Images (1, C, H, W) as they are, side by side."""
    figures = []
    for image, name in zip(images, names, strict=True):
        pixels = to_bytes(image)[0]  # (H, W, C)
        content = png(Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
        figures.append(tag("figure", picture(content, name, 160), tag("figcaption", name)))
    return tag("div", *figures, class_="pair")


def _layers(looks: list[Look], names: list[str]) -> list[Markup]:
    """A card for every layer, in the order in which they run."""
    return [_card(looks, i, names) for i in range(len(looks))]


def _card(looks: list[Look], i: int, names: list[str]) -> Markup:
    one = looks[i]
    title = tag("h4", tag("span", one.name, class_="place"), f" {one.layer.describe()}")
    shapes = f"{_shape(one.given)} to {_shape(one.made)}"
    parts = [*_weights(looks, i), *_activations(one.made, names)]
    return tag(
        "article",
        title,
        paragraph(shapes, class_="shape"),
        tag("div", *parts, class_="figures"),
        class_="layer",
    )


def _shape(batch: NDArray[Any]) -> str:
    return " x ".join(map(str, batch.shape[1:]))


# -- what it makes ---------------------------------------------------------------------------------


def _activations(made: NDArray[Any], names: list[str]) -> Iterator[Markup]:
    """Return a layer's outputs for each picture (N, ...), in one scale of colours."""
    limit = limit_of(made)
    for values, name in zip(made, names, strict=True):
        yield _figure(*_activation(values), limit, name, values)


def _activation(values: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """The output for one picture as a matrix to be coloured, and what it is."""
    if values.ndim == 3 and values.shape[1:] != (1, 1):
        most = min(MAX_MAPS, max(2, MAX_WIDTH // max(values.shape[1:])) ** 2)
        return square(values[:most]), _of(len(values), most, "channel")
    flat = values.ravel()
    return strip(flat[:MAX_NUMBERS]), _of(flat.size, MAX_NUMBERS, "number") + ", row by row"


def _of(count: int, most: int, what: str) -> str:
    if count > most:
        return f"the first {most:,} of {count:,} {what}s"
    return f"{count:,} {what}{'s' * (count != 1)}"


def _figure(matrix: NDArray[Any], what: str, limit: float, name: str, values: NDArray[Any]) -> Markup:
    """A picture of numbers, with their smallest, mean and largest value."""
    least, mean, most = map(nice, _range(values))
    numbers = f"full colour at ±{nice(limit)}; min {least}, mean {mean}, max {most}"
    said = tag("strong", name), f": {what}; {numbers}"
    alt = f"{name}: {what}, as colours"
    return tag("figure", picture(heatmap(matrix, limit), alt), tag("figcaption", *said))


def _range(values: NDArray[Any]) -> tuple[float, float, float]:
    """The smallest, mean and largest number."""
    wide = values.astype(np.float64)
    return float(wide.min()), float(wide.mean()), float(wide.max())


# -- what it is made of ----------------------------------------------------------------------------


def _weights(looks: list[Look], i: int) -> list[Markup]:
    """Filters of a convolution, the matrix of a Dense, the numbers of a BatchNorm; words for others."""
    layer = looks[i].layer
    if isinstance(layer, nn.Conv2d):
        return [_kernels(layer.weight.numpy(), "filters", "output channel", "input channel")]
    if isinstance(layer, nn.ConvTranspose2d):
        return [_kernels(layer.weight.numpy(), "filters", "input channel", "output channel")]
    if isinstance(layer, nn.Dense):
        return [_dense(layer.weight.numpy(), looks, i)]
    if isinstance(layer, nn.BatchNorm):
        rows = [(name, *map(nice, _range(tensor.numpy()))) for name, tensor in layer.state_dict().items()]
        return [table(("", "min", "mean", "max"), rows, "parameters and running statistics", _OVER)]
    return [paragraph("It has no weights.", class_="none")]


_OVER = "parameters and running statistics, over the channels"


def _kernels(weight: NDArray[Any], name: str, of_rows: str, of_columns: str) -> Markup:
    """Kernels (rows, columns, H, W): a square of them where there is one row or column, else a table.

    The fewer are down, the more across, since wide pictures fit a page better than high ones.
    """
    limit = limit_of(weight)
    kernels = weight
    if len(weight) > weight.shape[1]:
        kernels, of_rows, of_columns = weight.swapaxes(0, 1), of_columns, of_rows
    rows, columns = kernels.shape[:2]
    if rows == 1:
        return _figure(square(kernels[0, :MAX_MAPS]), _of(columns, MAX_MAPS, of_columns), limit, name, weight)
    high = min(rows, MAX_ROWS)
    wide = min(columns, MAX_KERNELS // high, MAX_MAPS)
    what = f"{_of(rows, high, of_rows)} down, {_of(columns, wide, of_columns)} across"
    shown = kernels[:high, :wide].reshape(-1, *kernels.shape[2:])  # (high * wide, H, W)
    return _figure(tiled(shown, wide), what, limit, name, weight)


def _dense(weight: NDArray[Any], looks: list[Look], i: int) -> Markup:
    """The weight (outputs, inputs) of a Dense: as pictures where one side of it is one, else as a matrix."""
    outputs, inputs = weight.shape
    if (shape := _shape_before(looks, i)) is not None:
        return _kernels(
            weight.reshape(outputs, *shape), "weights", "output", "input channel"
        )  # (outputs, C, H, W)
    if (shape := _shape_after(looks, i)) is not None:
        return _kernels(
            weight.T.reshape(inputs, *shape), "weights", "input", "output channel"
        )  # (inputs, C, H, W)
    limit = limit_of(weight)
    if min(outputs, inputs) == 1:
        return _figure(
            strip(weight.ravel()[:MAX_NUMBERS]),
            _of(weight.size, MAX_NUMBERS, "weight"),
            limit,
            "weights",
            weight,
        )
    down, across, matrix = (outputs, "output"), (inputs, "input"), weight
    if outputs > inputs:  # as in _kernels
        down, across, matrix = across, down, weight.T
    what = f"{_of(down[0], MAX_SIDE, down[1])} down, {_of(across[0], MAX_SIDE, across[1])} across"
    return _figure(matrix[:MAX_SIDE, :MAX_SIDE], what, limit, "weights", weight)


def _shape_before(looks: list[Look], i: int) -> tuple[int, ...] | None:
    """(C, H, W) of the images that a Dense takes flattened; None where it takes something else."""
    before = looks[i - 1] if i else None
    if before is None or not isinstance(before.layer, nn.Flatten) or not _is_image(before.given):
        return None
    return before.given.shape[1:]


def _shape_after(looks: list[Look], i: int) -> tuple[int, ...] | None:
    """(C, H, W) of the images that a Dense's outputs become, by layers that leave their order; else None."""
    size = looks[i].made[0].size
    for after in looks[i + 1 :]:
        if isinstance(after.layer, nn.Reshape) and after.made[0].size == size and _is_image(after.made):
            return after.made.shape[1:]
        if isinstance(after.layer, nn.Dense) or after.made.shape != after.given.shape:
            return None
    return None


def _is_image(batch: NDArray[Any]) -> bool:
    return batch.ndim == 4 and math.prod(batch.shape[2:]) > 1
