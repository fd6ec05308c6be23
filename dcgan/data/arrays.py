"""Images in .npy and .npz files."""

import textwrap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from . import idx

LIKELY = ("images", "x_train", "train_images", "data", "x", "arr_0")  # names of images in .npz files
MAX_HEADER_BYTES = 10_000  # bytes, as NumPy has it


def read(path: Path, key: str = "") -> NDArray[Any]:
    """Return the images of a file, (n, H, W, C), their numbers as they are; of .npy files, memory-mapped.

    Args:
        path: (n, H, W), (n, H, W, C) or (n, C, H, W), C from 1 to 4.
        key: the array's name in an .npz file; without it, the only one, or one with a likely name.

    Raises ValueError for anything else. Nothing in the file is run (no pickle), and what its header
    says is compared with its size first.
    """
    return channels_last(_from_npz(path, key) if path.suffix.lower() == ".npz" else open_npy(path))


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    """Return (n, H, W), (n, H, W, C) or (n, C, H, W) as (n, H, W, C).

    Raises ValueError for any other shape, and if there is no image.
    """
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] > 4 >= array.shape[1]:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape[1:]:
        raise ValueError(
            f"its shape is {array.shape}: expected (n, H, W), (n, H, W, C) or (n, C, H, W), C from 1 to 4"
        )
    if not len(array):
        raise ValueError("it holds no image")
    return array


def open_npy(path: Path) -> NDArray[Any]:
    """The array of an .npy file, read as it is needed. Raises ValueError where it is none."""
    try:
        if not path.is_file():  # a pipe would wait for its other end
            raise ValueError("not a plain file" if path.exists() else "no such file")
        with open(path, "rb") as file:
            _check_header(file.read(12))
        with warnings.catch_warnings(action="ignore"):  # of old headers, and sizes that overflow
            return npy.open_memmap(path, mode="r")  # fails where the file is too short, or holds objects
    except Exception as error:  # damaged headers raise all kinds: TokenError, TypeError, ...
        raise ValueError(f"it can't be read as an .npy file: {error!s:.200}") from error


def _check_header(start: bytes) -> None:
    """ValueError where a file that begins so says it has a long header: NumPy reads it, then refuses."""
    length = int.from_bytes(start[8 : 10 if start[6:7] == b"\1" else 12], "little")
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header says {length} bytes: expected {MAX_HEADER_BYTES} at most")


def _from_npz(path: Path, key: str) -> NDArray[Any]:
    try:
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path) as archive:
            names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
            return _member(archive, f"{_chosen(names, key)}.npy")
    except Exception as error:  # damaged archives raise all kinds: BadZipFile, zlib.error, LZMAError, ...
        if type(error) is ValueError:
            raise
        raise ValueError(f"it can't be read as an .npz file: {error!s:.200}") from error


def _chosen(names: list[str], key: str) -> str:
    shown = textwrap.shorten(", ".join(names), 200, placeholder=" ...") or "none"
    if key and key not in names:
        raise ValueError(f"it holds no array {key!r}: expected one of {shown}")
    if key or len(names) == 1:
        return key or names[0]
    for likely in LIKELY:
        if likely in names:
            return likely
    raise ValueError(f"it holds the arrays {shown}: name one as FILE.npz:NAME")


def _member(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """One array of the archive, once its header agrees with its size."""
    entry = archive.getinfo(name)
    if entry.file_size > idx.room(entry.compress_size):
        raise ValueError(
            f"{name} unpacks to {entry.file_size} bytes, {idx.MAX_RATIO} times its size and more"
        )
    with archive.open(name) as file:
        _check_header(file.read(12))
        file.seek(0)
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        start = file.tell()
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never loaded")
    held = entry.file_size - start
    said = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if held != said:
        raise ValueError(f"{name} says {said} bytes {shape} and holds {held}")
    with archive.open(name) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))
