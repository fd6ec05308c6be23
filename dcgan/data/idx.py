"""IDX files, the form of MNIST and of the sets made after it (Fashion-MNIST, KMNIST, EMNIST, ...).

Two zero bytes, the type (8: bytes), the number of axes, the size of each axis as a big-endian 32-bit
number, the values. Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits".
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

BYTES = 8  # the type code
MAX_BYTES = 4 * 2**30  # bytes that a file may say it holds
PIECE = 2**24  # bytes that are read at once
MAX_UNPACKED_BYTES, MAX_RATIO = 2**26, 200  # bytes that any file may unpack to; times its size, beyond


def is_idx(path: Path) -> bool:
    """Whether the file begins as one of images does, compressed or not."""
    try:
        with _opened(path) as file:
            return file.read(4) == bytes([0, 0, BYTES, 3])
    except (OSError, EOFError, zlib.error):
        return False


def read(path: Path) -> NDArray[Any]:
    """The array of a file, gzip-compressed or not, as uint8.

    Raises ValueError where it is none, is cut short, or holds more or less than it says.
    """
    try:
        with _opened(path) as file:
            return _read(file, room(path.stat().st_size))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"damaged gzip file: {error}") from error


def parse(content: bytes) -> NDArray[Any]:
    """The array of a file's content. Raises as `read` does."""
    shape, start = _header(content[:4], content[4 : 4 + 4 * 255])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"it says {math.prod(shape)} values {shape} and holds {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def room(packed: int) -> int:
    """Return the bytes that so many compressed ones may unpack to. More is taken for a decompression bomb."""
    return max(MAX_UNPACKED_BYTES, MAX_RATIO * packed)


def _read(file: BinaryIO, room: int) -> NDArray[Any]:
    magic = file.read(4)
    sizes = file.read(4 * magic[3]) if len(magic) == 4 else b""
    shape, _ = _header(magic, sizes)
    # One byte more than it says would be one too many; memory grows with what is there, not with the header.
    content, most = bytearray(), math.prod(shape) + 1
    while piece := file.read(min(PIECE, most - len(content))):
        content += piece
        if len(content) > room:
            raise ValueError(f"it unpacks to more than {room} bytes, {MAX_RATIO} times its size: no images")
    if len(content) != math.prod(shape):
        more = "more" if len(content) > math.prod(shape) else str(len(content))
        raise ValueError(f"it says {math.prod(shape)} values {shape} and holds {more}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _header(magic: bytes, sizes: bytes) -> tuple[tuple[int, ...], int]:
    """The shape, and where the values begin."""
    if len(magic) < 4 or magic[:2] != b"\0\0" or not 1 <= magic[3] <= 4:
        raise ValueError(f"no IDX file: it begins with {magic!r}")
    if magic[2] != BYTES:
        raise ValueError(f"an IDX file of type {magic[2]:#x}: expected bytes ({BYTES:#x})")
    axes = magic[3]
    if len(sizes) < 4 * axes:
        raise ValueError("an IDX file that ends in its header")
    shape = struct.unpack_from(f">{axes}I", sizes)
    if math.prod(shape) > MAX_BYTES:
        raise ValueError(f"it says {math.prod(shape)} values {shape}: expected {MAX_BYTES} at most")
    return shape, 4 + 4 * axes


def _opened(path: Path) -> Any:
    plain = os.path.isfile(path) or os.path.isdir(path)
    if os.path.exists(path) and not plain:  # a pipe would wait for its other end
        raise OSError(f"{path} is no plain file")
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else open(path, "rb")
