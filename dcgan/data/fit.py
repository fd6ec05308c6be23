"""From an image of any size and mode to one of a recipe's size and channels."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .budget import Budget, in_threads
from .channels import MODES

Range = tuple[float, float]  # the values of black and white
Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels
MAX_ASPECT_RATIO = 16  # longer sides are cut to so many times the shorter one, their middle kept
WORKERS = 8  # threads; Pillow frees the interpreter while it decodes and resizes
LARGE = 2**22  # pixels: images with more are made smaller block by block, before anything is copied
BLOCK = 512  # pixels on the side of a block
GAP = 3.0  # an image is averaged to so many times the size that is wanted, then resized
UNIT, SIXTEEN_BITS = (0.0, 1.0), (0.0, 65535.0)
UNIT_TOLERANCE = (np.float32(-0.05), np.float32(1.05))  # floats within count as 0 to 1: a resize overshoots
HELD_IN_32 = {"PNG", "PPM"}  # files whose 16 bits Pillow holds in 32, at the full range
FIRST = {"LAB": "RGB", "La": "LA"}  # modes that are converted to another before all else


def fit_image(image: Image.Image, size: int, channels: int, value_range: Range | None = None) -> NDArray[Any]:
    """The image with its shorter side resized to `size`: bytes (H, W, C).

    The resize is bilinear over all pixels that fall into one, as torchvision's on Pillow images;
    the longer side is rounded down. Alpha is laid on white where `channels` has no place for it.

    Args:
        image: of any mode that Pillow knows.
        size: the shorter side of the result, in pixels.
        channels: 1 to 4, of the result.
        value_range: the values of black and white in images of more than 8 bits a channel (modes "I",
            "I;16" and "F"); values beyond are clipped. By default 0 and 65535 in images of 16 bits, 0 and 1
            in floats that lie within [-0.05, 1.05]. Values that are not a number are black.

    Raise ValueError if the values of black and white are needed and not given: for other floats, and
    integers of 32 bits.
    """
    scale = _scale(image, value_range)
    rows, columns = _shape(image, size)
    box = _middle(image)
    if image.width * image.height > LARGE:
        left, top, right, bottom = box
        whole = (math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom))
        x, y = int((right - left) / columns / GAP) or 1, int((bottom - top) / rows / GAP) or 1
        image = _in_blocks(image, whole, channels, scale, (x, y))
        box = ((left - whole[0]) / x, (top - whole[1]) / y, (right - whole[0]) / x, (bottom - whole[1]) / y)
    elif scale:
        image = _in_blocks(image, (0, 0, *image.size), channels, scale, (1, 1))
    else:
        image = _with_channels(image, channels, None)
    if image.size != (columns, rows):
        image = image.resize((columns, rows), Image.Resampling.BILINEAR, box=box, reducing_gap=GAP)
    return np.asarray(image).reshape(rows, columns, channels)


def fit_array(images: NDArray[Any], size: int, channels: int) -> NDArray[Any]:
    """Bytes (n, H, W, C), all as `fit_image` would.

    Grey images stay grey where RGB is wanted: batches repeat them.
    """
    given = images.shape[3]
    same = given == channels or (given, channels) == (1, 3)
    if same and min(images.shape[1:3]) == size and max(images.shape[1:3]) <= MAX_ASPECT_RATIO * size:
        return images
    kept = given if same else channels

    def fit(image: NDArray[Any], budget: Budget) -> NDArray[Any]:
        with budget.take(image.shape[0] * image.shape[1]):
            return fit_image(_image(image), size, kept)

    return np.stack(list(in_threads(fit, list(images), WORKERS)))


def _image(pixels: NDArray[Any]) -> Image.Image:
    """Bytes (H, W, C) as an image."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _in_blocks(
    image: Image.Image,
    box: tuple[int, int, int, int],
    channels: int,
    scale: Range | None,
    factors: tuple[int, int],
) -> Image.Image:
    """Return what lies in the box with the wanted channels, each `factors` of pixels averaged to one.

    Only a block is held in another form than the image and the result.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    x, y = factors
    result = Image.new(MODES[channels], (math.ceil(width / x), math.ceil(height / y)))
    steps = (max(1, BLOCK // x) * x, max(1, BLOCK // y) * y)  # so that no average crosses two blocks
    for column, row, end, last in _blocks((width, height), steps):
        block = image.crop((left + column, top + row, left + end, top + last))
        block = _with_channels(block, channels, scale)
        if factors != (1, 1):
            block = block.reduce(factors)
        result.paste(block, (column // x, row // y))
    return result


def _blocks(size: tuple[int, int], steps: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    """Yield the boxes of steps that cover an image of the size (width, height)."""
    for row in range(0, size[1], steps[1]):
        for column in range(0, size[0], steps[0]):
            yield column, row, min(column + steps[0], size[0]), min(row + steps[1], size[1])


def _with_channels(image: Image.Image, channels: int, scale: Range | None) -> Image.Image:
    if scale:
        image = _eight_bits(image, scale)
    if image.mode in FIRST:
        image = image.convert(FIRST[image.mode])
    if channels in (2, 4):
        return image.convert("RGBA").convert(MODES[channels])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(MODES[channels])


def _scale(image: Image.Image, value_range: Range | None) -> Range | None:
    """The values of black and white of an image of more than 8 bits a channel; None for others."""
    if image.mode != "F" and not image.mode.startswith("I"):
        return None
    if value_range:
        return value_range
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in HELD_IN_32):
        return SIXTEEN_BITS
    low, high = _extremes(image)
    if image.mode == "F" and low >= UNIT_TOLERANCE[0] and high <= UNIT_TOLERANCE[1]:
        return UNIT
    kind = "floats from 0 to 1" if image.mode == "F" else "8 or 16 bits"
    raise ValueError(
        f"its numbers go from {low:g} to {high:g}: expected {kind}; "
        "give the values of black and white as --range LOW,HIGH"
    )


def _extremes(image: Image.Image) -> Range:
    """The least and the greatest value of the image, those left out that are not a number."""
    low, high = math.inf, -math.inf
    for box in _blocks(image.size, (BLOCK, BLOCK)):
        values = np.asarray(image.crop(box))
        numbers = values[~np.isnan(values)]
        if numbers.size:
            low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
    return low, high


def _eight_bits(image: Image.Image, scale: Range) -> Image.Image:
    """An image of more than 8 bits a channel as one of 8: `scale` becomes 0 and 255."""
    low, high = scale
    values = np.asarray(image)
    transparent = values == image.info.get("transparency", -1)  # one grey of PNG files may be
    if scale != UNIT:
        values = values.astype(np.float64)
    values = np.where(np.isnan(values), low, values).clip(low, high)
    grey = Image.fromarray(np.rint((values - low) * 255 / (high - low)).astype(np.uint8))
    if image.has_transparency_data:
        grey.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
    return grey


def _shape(image: Image.Image, size: int) -> tuple[int, int]:
    """Height and width after the resize."""
    width, height = image.size
    longer, shorter = max(width, height), min(width, height)
    long_side = min(int(size * longer / shorter), MAX_ASPECT_RATIO * size)
    return (size, long_side) if width >= height else (long_side, size)


def _middle(image: Image.Image) -> Box:
    """The part of the image that is kept: all of it, but for the ends of long ones."""
    width, height = image.size
    most = MAX_ASPECT_RATIO * min(width, height)
    cut_x, cut_y = max(0, width - most) / 2, max(0, height - most) / 2
    return cut_x, cut_y, width - cut_x, height - cut_y
