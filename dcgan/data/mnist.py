"""MNIST: 60,000 training and 10,000 test digits, which come with the package."""

import hashlib
import lzma
from importlib import resources
from typing import Any

from numpy.typing import NDArray

from ..errors import UserError
from . import idx

# Of the uncompressed IDX files, as the database's authors published them.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def images(split: str = "train") -> NDArray[Any]:
    """The images of "train" (60000, 28, 28) or "test" (10000, 28, 28) as uint8, 255 is white ink."""
    return _read(f"{_prefix(split)}-images-idx3-ubyte")


def labels(split: str = "train") -> NDArray[Any]:
    """The digits 0 to 9 that the images of `split` show, as uint8."""
    return _read(f"{_prefix(split)}-labels-idx1-ubyte")


def _prefix(split: str) -> str:
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ValueError(f'mnist: expected the split "train" or "test", got {split!r}')
    return prefixes[split]


def _read(name: str) -> NDArray[Any]:
    """One file of the package, unpacked, checked and parsed."""
    file = resources.files(__package__) / "mnist_files" / f"{name}.xz"
    try:
        content = lzma.decompress(file.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise UserError(f"MNIST: {file} can't be read ({error}): install dcgan again") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[name]:
        raise UserError(f"MNIST: {file} is not what its checksum says: install dcgan again")
    return idx.parse(content)
