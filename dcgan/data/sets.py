"""Sets of images that are known by the names of their files, in folders as their archives leave them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import cifar
from .folder import leaves
from .kinds import is_hidden

MAX_DEPTH = 3  # folders below the one that is named
# MNIST's names, as its authors have them, and as they are found elsewhere.
IMAGES = ("train-images-idx3-ubyte", "train-images.idx3-ubyte")
LABELS = ("train-labels-idx1-ubyte", "train-labels.idx1-ubyte")
PICKLES = {*cifar.PICKLES, cifar.TRAINING_100_PICKLE}
KNOWN = {
    *(f"{name}{ending}" for name in IMAGES + LABELS for ending in ("", ".gz")),
    *cifar.TRAINING,
    cifar.TRAINING_100,
    *PICKLES,
}


@dataclass(frozen=True)
class FoundSet:
    """The files of a set.

    Attributes:
        directory: the folder that they lie in.
        images: an IDX file, or CIFAR's files in their order.
        labels: an IDX file of the labels, if there is one.
        is_cifar: whether the images are CIFAR's.
    """

    directory: Path
    images: tuple[Path, ...]
    labels: Path | None = None
    is_cifar: bool = False


@dataclass
class Found:
    """The sets of images that a folder holds.

    Attributes:
        sets: those at the smallest depth where there is one.
        pickles: files down to that depth that have names of CIFAR's pickles.
    """

    sets: list[FoundSet] = field(default_factory=list)
    pickles: list[Path] = field(default_factory=list)


def find(folder: Path, with_cifar: bool = True) -> Found:
    """Return the sets in a folder, or in its subfolders down to MAX_DEPTH: those that are nearest to it.

    Links that lead out of the folder are not followed, nor links to folders. A folder that can't be read
    holds nothing.
    """
    root = _real(folder)
    found = Found()
    for level in _levels(folder):
        for directory, names in level:
            here = {name: directory / name for name in names if _is_file(directory / name, root)}
            likely = [path for name, path in here.items() if name in PICKLES]
            found.pickles += filter(cifar.is_pickle, likely)
            known = (_idx(directory, here, root), _cifar(directory, here) if with_cifar else None)
            found.sets += [one for one in known if one]
        if found.sets:
            break
    return found


def _real(folder: Path) -> str:
    try:
        return os.path.realpath(folder)
    except ValueError:  # a name that no folder can have
        return str(folder)


def _levels(folder: Path) -> Iterator[list[tuple[Path, list[str]]]]:
    """Yield the folders at each depth, with the names of sets' files in them."""
    level = [folder]
    for _ in range(MAX_DEPTH + 1):
        entries = [(directory, *_entries(directory)) for directory in level]
        yield [(directory, names) for directory, names, _ in entries]
        level = [directory / name for directory, _, folders in entries for name in folders]


def _entries(directory: Path) -> tuple[list[str], list[str]]:
    """The names in a folder: of files that may belong to a set, and of its subfolders; both sorted."""
    names, folders = [], []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name in KNOWN:
                    names.append(entry.name)
                if not is_hidden(entry.name) and entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
    except (OSError, ValueError):
        return [], []
    return sorted(names), sorted(folders)


def _is_file(path: Path, root: str) -> bool:
    return os.path.isfile(path) and not leaves(path, root)


def _idx(directory: Path, here: dict[str, Path], root: str) -> FoundSet | None:
    """The set whose images are an IDX file in the folder, if there is one."""
    images = _first(here, IMAGES)
    if images is None:
        return None
    labels = _first(here, LABELS)
    if labels is None and directory.name in IMAGES:  # each file in a folder of its own name
        beside = [directory.parent / name / name for name in LABELS]
        labels = next((path for path in beside if _is_file(path, root)), None)
    return FoundSet(directory, (images,), labels)


def _first(here: dict[str, Path], names: tuple[str, ...]) -> Path | None:
    """The file of the first name that is there, as it is or compressed."""
    spelled = (f"{name}{ending}" for name in names for ending in ("", ".gz"))
    return next((here[name] for name in spelled if name in here), None)


def _cifar(directory: Path, here: dict[str, Path]) -> FoundSet | None:
    """The training images of CIFAR-10, or else of CIFAR-100, if the folder has a file of them."""
    if any(name in here for name in cifar.TRAINING):
        files = tuple(here[name] for name in cifar.TRAINING if name in here)
        return FoundSet(directory, files, is_cifar=True)
    hundred = here.get(cifar.TRAINING_100)
    if hundred is not None and cifar.is_record_file(hundred, "CIFAR-100"):
        return FoundSet(directory, (hundred,), is_cifar=True)
    return None
