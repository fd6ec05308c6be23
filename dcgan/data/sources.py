"""What --data names: digits that come with the package, a folder of images, or a file of many."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from . import arrays, folder, idx, mnist
from .channels import NAMES, conversion
from .fit import MOST_ELONGATED, fit_array

Array = np.ndarray[Any, Any]
MOST_IMAGES = 2**25  # of a file
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@dataclass(frozen=True)
class ImageSet:
    """A set of images, ready for a recipe.

    Attributes:
        images: bytes (H, W, C) each, the shorter side of the recipe's size; C is the recipe's, or
            1, to be repeated.
        notes: how they became so, for people.
    """

    images: Sequence[Array] | Array
    notes: list[str]
    value_range: tuple[float, float] | None = None


def parse_range(text):
    return tuple(map(float, text.split(",")))


def load(name: str, size: int, channels: int, value_range=None) -> ImageSet:
    """The images that `name` says, fitted to a recipe's size and channels.

    Args:
        name: "mnist"; "fashion-mnist:DIR", a directory with Fashion-MNIST's IDX files or others of
            their names; a folder of images; an .npy or .npz file, or "FILE.npz:ARRAY"; an IDX file, or
            two, images and labels, joined by a comma.

    Raises UserError where there is nothing of the kind, or it can't be read.
    """
    if name == "mnist":
        return _fitted(mnist.images("train"), "MNIST", size, channels)
    if name.startswith("fashion-mnist:"):
        return _directory_of_idx(name, Path(name.removeprefix("fashion-mnist:")), size, channels)
    path = Path(name)
    if os.path.isdir(path):  # unlike Path's, it takes names that no file can have
        if _beside(path, TRAIN_IMAGES):
            return _directory_of_idx(name, path, size, channels)
        images, notes = folder.read(path, size, channels)
        return ImageSet(images, notes)
    if "," in name and not os.path.exists(path):
        first, second = name.split(",", 1)
        return _pair_of_idx(name, Path(first), Path(second), size, channels)
    return _file(name, size, channels)


def absolute(name: str) -> str:
    """The name with paths made absolute, so that it says the same from any directory."""
    if name == "mnist":
        return name
    prefix = "fashion-mnist:" if name.startswith("fashion-mnist:") else ""
    rest = name.removeprefix(prefix)
    parts = rest.split(",", 1) if "," in rest and not os.path.exists(rest) else [rest]
    return prefix + ",".join(str(Path(part).resolve()) for part in parts)


def _file(name: str, size: int, channels: int) -> ImageSet:
    path, key = Path(name), ""
    if not os.path.exists(path) and ".npz:" in name:
        before, _, key = name.rpartition(":")
        path = Path(before)
    if not os.path.isfile(path):
        raise UserError(
            f"--data {name}: expected mnist, fashion-mnist:DIR, a folder of images, an .npy or .npz file, or "
            "IDX files; there is no file or folder of that name"
        )
    try:
        if path.suffix.lower() in (".npy", ".npz"):
            images, taken = arrays.read(path, key)
            return _fitted(images, path.name, size, channels, f", {taken}")
        if idx.is_idx(path):
            return _fitted(_images(idx.read(path)), path.name, size, channels)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"--data {name}: {error}") from error
    raise UserError(f"--data {name}: expected an .npy, .npz or IDX file of images, or the folder of an image")


def _directory_of_idx(name: str, directory: Path, size: int, channels: int) -> ImageSet:
    images = _beside(directory, TRAIN_IMAGES)
    if images is None:
        raise UserError(f"--data {name}: no {TRAIN_IMAGES} or {TRAIN_IMAGES}.gz in {directory}")
    return _pair_of_idx(name, images, _beside(directory, TRAIN_LABELS), size, channels)


def _pair_of_idx(name: str, images: Path, labels: Path | None, size: int, channels: int) -> ImageSet:
    """Images, and labels that are only held against them: as many."""
    reading = images
    try:
        found = _images(idx.read(images))
        if labels is not None:
            reading = labels
            if len(idx.read(labels)) != len(found):
                raise ValueError(f"another number of labels than the {len(found)} images of {images.name}")
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"--data {name}: {reading.name}: {error}") from error
    return _fitted(found, images.name, size, channels)


def _images(array: Array) -> Array:
    """The content of an IDX file, which must be images (n, H, W)."""
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"it holds {array.shape}: expected images (n, height, width)")
    return array


def _beside(directory: Path, name: str) -> Path | None:
    """The file in the directory, as it is or compressed."""
    found = (directory / name, directory / f"{name}.gz")
    return next((path for path in found if os.path.isfile(path)), None)


def _check_sizes(shape: tuple[int, ...], what: str, size: int, channels: int) -> None:
    """UserError where what becomes of images (n, H, W, C) would not fit in memory."""
    n, height, width, _ = shape
    if height * width > folder.MOST_PIXELS:
        raise UserError(f"{what}: {height} x {width} pixels an image; expected {folder.MOST_PIXELS} at most")
    longer, shorter = max(height, width), min(height, width)
    fitted = n * channels * size**2 * min(longer / shorter, MOST_ELONGATED)
    if (shorter != size and fitted > idx.MOST) or n > MOST_IMAGES:
        raise UserError(
            f"{what}: {n} images of {height} x {width} would take {fitted:.3g} bytes; expected {idx.MOST} "
            f"bytes and {MOST_IMAGES} images at most: make it smaller"
        )


def _fitted(images: Array, what: str, size: int, channels: int, taken: str = "") -> ImageSet:
    """An array (n, H, W) or (n, H, W, C) for a recipe, with a note where it is not as it was."""
    images = images if images.ndim == 4 else images[..., None]
    n, height, width, given = images.shape
    _check_sizes(images.shape, what, size, channels)
    changes = [f"resized, {size} on the shorter side"] if min(height, width) != size else []
    changes += [how] if (how := conversion(given, channels)) else []
    if not changes and not taken:
        return ImageSet(images, [])
    note = f"{n} images of {what}, {height} x {width} {NAMES[given]}{taken}"
    return ImageSet(fit_array(images, size, channels), [f"{note}: {', '.join(changes)}" if changes else note])
