"""From an image of any size and mode to one of a recipe's size and channels."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from .channels import MODES

Array = np.ndarray[Any, Any]
MOST_ELONGATED = 16  # longer sides are cut to so many times the shorter one, their middle kept
WORKERS = 8  # threads; Pillow frees the interpreter while it decodes and resizes


def fit_image(image: Image.Image, size: int, channels: int) -> Array:
    """The image with its shorter side resized to `size`: bytes (H, W, C).

    The resize is bilinear over all pixels that fall into one, as torchvision's on Pillow images;
    the longer side is rounded down. Alpha is laid on white where `channels` has no place for it.
    """
    return np.asarray(_resized(_with_channels(image, channels), size)).reshape(*_shape(image, size), channels)


def fit_array(images: Array, size: int, channels: int) -> Array:
    """Bytes (n, H, W, C), all as `fit_image` would.

    Grey images stay grey where RGB is wanted: batches repeat them.
    """
    given = images.shape[3]
    same = given == channels or (given, channels) == (1, 3)
    if same and min(images.shape[1:3]) == size and max(images.shape[1:3]) <= MOST_ELONGATED * size:
        return images
    kept = given if same else channels
    with ThreadPoolExecutor(WORKERS) as pool:
        return np.stack(list(pool.map(lambda image: fit_image(_image(image), size, kept), images)))


def _image(pixels: Array) -> Image.Image:
    """Bytes (H, W, C) as an image."""
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    image = _eight_bits(image)
    if channels in (2, 4):
        return image.convert("RGBA").convert(MODES[channels])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(MODES[channels])


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16 or 32 bits a pixel as one of 8, black and white kept; others as they are."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image)).clip(0, 255)
        return Image.fromarray(np.rint(values * (255 if values.max() <= 1 else 1)).astype(np.uint8))
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        transparent = values == image.info.get("transparency", -1)  # one grey of PNG files may be
        if image.mode != "I" or values.max() > 255:  # 16 bits, which some files hold in 32
            values = np.rint(values / 257)
        grey = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        if image.has_transparency_data:
            grey.putalpha(Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8)))
        return grey
    return image


def _shape(image: Image.Image, size: int) -> tuple[int, int]:
    """Height and width after the resize."""
    width, height = image.size
    longer, shorter = max(width, height), min(width, height)
    long_side = min(int(size * longer / shorter), MOST_ELONGATED * size)
    return (size, long_side) if width >= height else (long_side, size)


def _resized(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    most = MOST_ELONGATED * min(width, height)
    cut_x, cut_y = max(0, width - most) / 2, max(0, height - most) / 2
    box = (cut_x, cut_y, width - cut_x, height - cut_y)
    rows, columns = _shape(image, size)
    if (columns, rows) == image.size:
        return image
    return image.resize((columns, rows), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
