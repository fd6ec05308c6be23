"""Images in .npy and .npz files."""

import textwrap
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from . import idx

Array = np.ndarray[Any, Any]
LIKELY = ("images", "x_train", "train_images", "data", "x", "arr_0")  # names of images in .npz files
MOST_HEADER = 10_000  # bytes, as NumPy has it


def read(path: Path, key: str = "") -> tuple[Array, str]:
    """The images of a file as bytes (n, H, W, C), and how its numbers were taken, for people.

    Args:
        path: (n, H, W), (n, H, W, C) or (n, C, H, W), C from 1 to 4, of bytes, 16-bit integers,
            booleans or floats.
        key: the array's name in an .npz file; without it, the only one, or one with a likely name.

    Raises ValueError for anything else. Nothing in the file is run (no pickle), and what its header
    says is compared with its size first.
    """
    array = _from_npz(path, key) if path.suffix.lower() == ".npz" else open_npy(path)
    return to_bytes(array)


def to_bytes(array: Array) -> tuple[Array, str]:
    """Images as bytes (n, H, W, C), and how the numbers were taken. Raises ValueError for what is none."""
    array = _channels_last(array)
    if not len(array):
        raise ValueError("it holds no image")
    if array.dtype == np.uint8:
        return array, "bytes"
    if array.nbytes > idx.MOST:
        raise ValueError(
            f"{array.nbytes} bytes of {array.dtype}: expected {idx.MOST} at most; save it as uint8"
        )
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), "false as black, true as white"
    if array.dtype.kind == "u" and array.dtype.itemsize == 2 and array.max() > 255:
        return np.rint(array / np.float32(257)).astype(np.uint8), "0 as black, 65535 as white"
    if array.dtype.kind in "iu":
        return _scaled(array, 0, 255)
    if array.dtype.kind != "f":
        raise ValueError(f"its numbers are {array.dtype}: expected bytes or floats")
    if not np.isfinite(array).all():
        raise ValueError("it holds numbers that are not finite")
    low, high = float(array.min()), float(array.max())
    if low < 0:
        return _scaled(array, -1, 1)
    return _scaled(array, 0, 1 if high <= 1 else 255)


def _scaled(array: Array, black: float, white: float) -> tuple[Array, str]:
    low, high = float(array.min()), float(array.max())
    if low < black or high > white:
        raise ValueError(
            f"its numbers go from {low:g} to {high:g}: expected bytes, or 0 to 1, -1 to 1 or 0 to 255"
        )
    scaled = (array.astype(np.float32) - np.float32(black)) * np.float32(255 / (white - black))
    return np.rint(scaled).astype(np.uint8), f"{black} as black, {white} as white"


def _channels_last(array: Array) -> Array:
    """(n, H, W), (n, H, W, C) or (n, C, H, W) as (n, H, W, C)."""
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4 and array.shape[3] > 4 >= array.shape[1]:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape[1:]:
        raise ValueError(
            f"its shape is {array.shape}: expected (n, H, W), (n, H, W, C) or (n, C, H, W), C from 1 to 4"
        )
    return array


def open_npy(path: Path) -> Array:
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
    if length > MOST_HEADER:
        raise ValueError(f"its header says {length} bytes: expected {MOST_HEADER} at most")


def _from_npz(path: Path, key: str) -> Array:
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


def _member(archive: zipfile.ZipFile, name: str) -> Array:
    """One array of the archive, once its header agrees with its size."""
    entry = archive.getinfo(name)
    if entry.file_size > idx.room(entry.compress_size):
        raise ValueError(
            f"{name} unpacks to {entry.file_size} bytes, {idx.MOST_TIMES} times its size and more"
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
