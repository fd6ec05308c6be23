"""The sources of images that --data names: the package's digits, a folder or archive, or a file of many."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import UserError
from . import archive, arrays, cifar, folder, idx, mnist, names, scale, sets
from .channels import NAMES, conversion
from .fit import MAX_ASPECT_RATIO, fit_array
from .kinds import ending
from .limits import MAX_PIXELS
from .names import DIGITS, FASHION
from .scale import Range
from .sets import FoundSet

MAX_IMAGES = 2**25  # of a file
SHOWN = 5  # sets in a message
ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")  # that are not read in place


@dataclass(frozen=True)
class ImageSet:
    """A set of images, ready for a recipe.

    Attributes:
        images: bytes (H, W, C) each, the shorter side of the recipe's size; C is the recipe's, or
            1, to be repeated.
        notes: how they became so, for people.
        value_range: the numbers (low, high) that were taken as black and white; None for sets whose files
            hold 8-bit images by their format: MNIST, Fashion-MNIST, and folders and archives if no range was
            given.
    """

    images: Sequence[NDArray[Any]] | NDArray[Any]
    notes: list[str]
    value_range: Range | None = None


def check_range(name: str, value_range: Range | None) -> None:
    """Raise UserError if the set that `name` says can't be read with a range, or it is none."""
    if value_range is None:
        return
    try:
        low, high = scale.checked(value_range)
    except ValueError as error:
        raise UserError(f"--range {error}") from error
    name = names.canonical(name)
    if name == DIGITS or name.startswith(FASHION):
        instead = "" if name == DIGITS else f", or name the directory alone ({name.removeprefix(FASHION)})"
        raise UserError(
            f"--range {low:.15g},{high:.15g} with --data {name}: its bytes go from 0 to 255; leave --range "
            f"out{instead}"
        )


def load(name: str, size: int, channels: int, value_range: Range | None = None) -> ImageSet:
    """The images that `name` says, fitted to a recipe's size and channels.

    Args:
        name: "mnist"; "fashion-mnist:DIR", a directory with Fashion-MNIST's IDX files or others of
            their names; a folder of images, or of such IDX files, or of CIFAR's binary files; a .zip of
            images; an .npy or .npz file, or "FILE.npz:ARRAY"; a binary file of CIFAR; an IDX file, or two,
            images and labels, joined by a comma. The first two are taken in any case.
        value_range: the numbers (low, high) that stand for black and white. By default, those that
            the numbers' type and extremes tell (`scale.to_bytes`).

    Raises UserError where there is nothing of the kind, it can't be read, its numbers do not tell their
    range, or it takes no range (`check_range`).
    """
    check_range(name, value_range)
    name = names.canonical(name)
    if name == DIGITS:
        return _digits(size, channels)
    if name.startswith(FASHION):
        found = _fashion(name, Path(name.removeprefix(FASHION)), size, channels)
        return replace(found, value_range=None)
    path = Path(name)
    if os.path.isdir(path):  # unlike Path's, it takes names that no file can have
        return _folder(name, path, size, channels, value_range)
    if "," in name and not os.path.exists(path):
        first, second = name.split(",", 1)
        images, labels = Path(first), Path(second)
        return _pair_of_idx(name, images.name, images, labels, size, channels, value_range)
    return _file(name, size, channels, value_range)


def of_array(images: NDArray[Any], size: int, channels: int, value_range: Range | None = None) -> ImageSet:
    """The images of an array, fitted to a recipe's size and channels.

    Args:
        images: (n, H, W), (n, H, W, C) or (n, C, H, W), C from 1 to 4, of numbers.
        value_range: the numbers (low, high) that stand for black and white. By default, those that the
            numbers' type and extremes tell (`scale.to_bytes`).

    Raises UserError for other shapes, and if the numbers do not tell their range.
    """
    try:
        value_range = None if value_range is None else scale.checked(value_range)
        return _fitted(arrays.channels_last(images), "the array", size, channels, value_range)
    except ValueError as error:
        raise UserError(f"the array of images: {error}") from error


def absolute(name: str) -> str:
    """The name in its canonical form, with paths made absolute: it says the same from any directory."""
    name = names.canonical(name)
    if name == DIGITS:
        return name
    prefix = FASHION if name.startswith(FASHION) else ""
    rest = name.removeprefix(prefix)
    parts = rest.split(",", 1) if "," in rest and not os.path.exists(rest) else [rest]
    return prefix + ",".join(str(Path(part).resolve()) for part in parts)


def _digits(size: int, channels: int) -> ImageSet:
    """MNIST, whose bytes go from 0 to 255, with a note only if they are changed."""
    images = mnist.images("train")[..., None]
    _check_sizes(images.shape, "MNIST", size, channels)
    changes = _changes(images.shape, size, channels)
    notes = [f"{_described(images.shape, 'MNIST')}: {changes}"] if changes else []
    return ImageSet(fit_array(images, size, channels), notes)


def _file(name: str, size: int, channels: int, value_range: Range | None) -> ImageSet:
    path, key = Path(name), ""
    if not os.path.exists(path) and ".npz:" in name:
        before, _, key = name.rpartition(":")
        path = Path(before)
    if not os.path.isfile(path):
        raise UserError(
            f"--data {name}: expected mnist, fashion-mnist:DIR, a folder or .zip of images, an .npy or .npz "
            "file, IDX files, or CIFAR's binary files; there is no file or folder of that name"
            f"{names.similar(name)}"
        )
    if ending(path.name) == ".zip":
        images, notes = archive.read(path, size, channels, value_range)
        return ImageSet(images, notes, value_range)
    try:
        array = _array(path, key)
        if array is not None:
            return _fitted(array, path.name, size, channels, value_range)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"--data {name}: {error}") from error
    instead = "; extract an archive first" if path.name.lower().endswith(ARCHIVES) else ""
    raise UserError(
        f"--data {name}: expected an .npy, .npz, .zip or IDX file of images, one of CIFAR's .bin files, or "
        f"the folder of an image{instead}"
    )


def _array(path: Path, key: str) -> NDArray[Any] | None:
    """The images (n, H, W, C) of a file of many, if it is of a kind that is known."""
    if ending(path.name) in (".npy", ".npz"):
        return arrays.read(path, key)
    if idx.is_idx(path):
        return _images(idx.read(path))
    if ending(path.name) == ".bin":
        return cifar.read(path)
    if cifar.is_pickle(path):
        raise ValueError(cifar.NO_PICKLES)
    return None


def _fashion(name: str, directory: Path, size: int, channels: int) -> ImageSet:
    found = sets.find(directory, with_cifar=False).sets
    if not found:
        expected = " or ".join(sets.IMAGES)
        raise UserError(f"--data {name}: no {expected}, nor one with .gz, in {directory} or its subfolders")
    return _set(name, directory, _only(name, directory, found), size, channels, None)


def _folder(name: str, path: Path, size: int, channels: int, value_range: Range | None) -> ImageSet:
    """The set in a folder that is known by the names of its files, or else the images in it."""
    found = sets.find(path)
    if found.sets:
        chosen = _only(name, path, found.sets)
        if chosen.directory != path and (others := folder.find(path)[0]):
            raise UserError(
                f"--data {name}: it holds {len(others)} image files and also the set "
                f"{chosen.images[0].relative_to(path)}: name the folder of one of them"
            )
        return _set(name, path, chosen, size, channels, value_range)
    if found.pickles and not folder.find(path)[0]:
        raise UserError(f"--data {name}: {found.pickles[0].relative_to(path)}: {cifar.NO_PICKLES}")
    images, notes = folder.read(path, size, channels, value_range)
    return ImageSet(images, notes, value_range)


def _only(name: str, path: Path, found: list[FoundSet]) -> FoundSet:
    """The only one of the sets in a folder. UserError where there are several."""
    if len(found) == 1:
        return found[0]
    shown = ", ".join(str(one.images[0].relative_to(path)) for one in found[:SHOWN])
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    raise UserError(
        f"--data {name}: it holds {len(found)} sets ({shown}{more}): name the folder or file of one"
    )


def _set(
    name: str, path: Path, found: FoundSet, size: int, channels: int, value_range: Range | None
) -> ImageSet:
    """The images of a set that lies in a folder, at the path or below it."""
    what = str(found.images[0].relative_to(path))
    if not found.is_cifar:
        return _pair_of_idx(name, what, found.images[0], found.labels, size, channels, value_range)
    try:
        array = cifar.read_training(found.images)
        last = f" to {found.images[-1].name}" if len(found.images) > 1 else ""
        return _fitted(array, f"{what}{last}", size, channels, value_range)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"--data {name}: {error}") from error


def _pair_of_idx(
    name: str,
    what: str,
    images: Path,
    labels: Path | None,
    size: int,
    channels: int,
    value_range: Range | None,
) -> ImageSet:
    """Images, which notes call `what`, and labels that are only held against them: as many."""
    reading = images
    try:
        found = _images(idx.read(images))
        if labels is not None:
            reading = labels
            if len(idx.read(labels)) != len(found):
                raise ValueError(f"another number of labels than the {len(found)} images of {images.name}")
        reading = images
        return _fitted(found, what, size, channels, value_range)
    except (ValueError, OSError, MemoryError) as error:
        raise UserError(f"--data {name}: {reading.name}: {error}") from error


def _images(array: NDArray[Any]) -> NDArray[Any]:
    """The content of an IDX file, which must be images (n, H, W), as (n, H, W, 1)."""
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"it holds {array.shape}: expected images (n, height, width)")
    return array[..., None]


def _check_sizes(shape: tuple[int, ...], what: str, size: int, channels: int) -> None:
    """UserError where what becomes of images (n, H, W, C) would not fit in memory."""
    n, height, width, _ = shape
    if height * width > MAX_PIXELS:
        raise UserError(f"{what}: {height} x {width} pixels an image; expected {MAX_PIXELS} at most")
    longer, shorter = max(height, width), min(height, width)
    fitted = n * channels * size**2 * min(longer / shorter, MAX_ASPECT_RATIO)
    if (shorter != size and fitted > idx.MAX_BYTES) or n > MAX_IMAGES:
        raise UserError(
            f"{what}: {n} images of {height} x {width} would take {fitted:.3g} bytes; expected "
            f"{idx.MAX_BYTES} bytes and {MAX_IMAGES} images at most: make it smaller"
        )


def _fitted(array: NDArray[Any], what: str, size: int, channels: int, value_range: Range | None) -> ImageSet:
    """Numbers (n, H, W, C) as the images of a recipe. Raises ValueError as `scale.to_bytes`."""
    _check_sizes(array.shape, what, size, channels)  # before anything is read of a mapped file
    images, used, taken = scale.to_bytes(array, value_range)
    changes = _changes(array.shape, size, channels)
    note = f"{_described(array.shape, what)}, {taken}"
    return ImageSet(fit_array(images, size, channels), [f"{note}: {changes}" if changes else note], used)


def _described(shape: tuple[int, ...], what: str) -> str:
    n, height, width, channels = shape
    return f"{n} images of {what}, {height} x {width} {NAMES[channels]}"


def _changes(shape: tuple[int, ...], size: int, channels: int) -> str:
    """Return a description of how images (n, H, W, C) are fitted to a recipe; "" for no change."""
    _, height, width, given = shape
    changes = [f"resized, {size} on the shorter side"] if min(height, width) != size else []
    changes += [how] if (how := conversion(given, channels)) else []
    return ", ".join(changes)
