"""CIFAR-10's and CIFAR-100's binary files.

Records of one size, without a header: the labels, a byte each, then 32 x 32 bytes of red, as many of green,
as many of blue. Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", and the sets'
page. Their other form, for Python, is pickles, which are never opened.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import idx

CHANNELS, SIDE = 3, 32
PIXEL_BYTES = CHANNELS * SIDE * SIDE
LABELS = {"CIFAR-10": (10,), "CIFAR-100": (20, 100)}  # how many values each label before an image has
RECORD_BYTES = {name: len(labels) + PIXEL_BYTES for name, labels in LABELS.items()}
TRAINING = tuple(f"data_batch_{i}.bin" for i in range(1, 6))  # of CIFAR-10
TRAINING_100 = "train.bin"
PICKLES = {
    *(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta", "cifar-10-python.tar.gz",
    "cifar-100-python.tar.gz",
}  # fmt: skip
TRAINING_100_PICKLE = "train"  # a name that other files have, too
NO_PICKLES = (
    "Python pickles are never opened, since they can run anything. Get the binary version of CIFAR-10 "
    "(cifar-10-binary.tar.gz) and name its folder; save other images as .npy or as image files"
)


def read(path: Path) -> NDArray[Any]:
    """Return the images of a file of either set: bytes (n, 32, 32, 3).

    Raises OSError where it can't be read, ValueError where its size or its labels are of neither.
    """
    held = os.path.getsize(path)
    if held > idx.MAX_BYTES:
        raise ValueError(f"{held} bytes: expected {idx.MAX_BYTES} at most")
    names = [name for name in LABELS if is_record_file(path, name)]
    if not names:
        sizes = " or ".join(f"of {size} ({name})" for name, size in RECORD_BYTES.items())
        raise ValueError(
            f"{held} bytes; expected a multiple {sizes}: the labels and {SIDE} x {SIDE} pixels of red, green "
            "and blue"
        )
    complaints = []
    for name in names:
        records = np.fromfile(path, np.uint8).reshape(-1, RECORD_BYTES[name])
        count = len(LABELS[name])
        if not (complaint := _wrong_label(records[:, :count], name)):
            planes = records[:, count:].reshape(-1, CHANNELS, SIDE, SIDE)
            return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        complaints.append(complaint)
    raise ValueError("; ".join(complaints))


def read_training(paths: Sequence[Path]) -> NDArray[Any]:
    """Return the training images of a set, those of its files one after another.

    Raises as `read` does, and ValueError if one of CIFAR-10's five files is missing.
    """
    names = [path.name for path in paths]
    missing = [name for name in TRAINING if name not in names]
    if names != [TRAINING_100] and missing:
        raise ValueError(
            f"no {', '.join(missing)}; expected {TRAINING[0]} to {TRAINING[-1]}, or name one alone"
        )
    images = []
    for path in paths:
        try:
            images.append(read(path))
        except ValueError as error:
            raise ValueError(f"{path.name}: {error}") from error
    return np.concatenate(images)


def is_record_file(path: Path, name: str) -> bool:
    """Whether the size of a file is that of whole records of the set, CIFAR-10 or CIFAR-100."""
    size = os.path.getsize(path)
    return size > 0 and size % RECORD_BYTES[name] == 0


def is_pickle(path: Path) -> bool:
    """Whether a file has the name of one of CIFAR's pickles, or begins as pickles do."""
    if path.name in PICKLES:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except OSError:
        return False
    return start[:1] == b"\x80" and 2 <= start[-1] <= 5


def _wrong_label(labels: NDArray[Any], name: str) -> str:
    """Say which label (n, count) is none of the set's; "" if all are."""
    wrong = np.argwhere(labels >= np.array(LABELS[name]))
    if not len(wrong):
        return ""
    record, place = wrong[0]
    most = LABELS[name][place] - 1
    return f"record {record + 1} has the label {labels[record, place]}; expected 0 to {most} in {name}"
