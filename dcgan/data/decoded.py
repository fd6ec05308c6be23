"""Decoded images of different sizes: in memory, and beyond its share in a temporary file."""

import math
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError, reason

IN_MEMORY = 2**30  # bytes of decoded images; the rest goes to a temporary file


class Decoded(Sequence[NDArray[Any]]):
    """Images (H, W, C) of different sizes, one after another.

    They are kept in memory, and past `in_memory` bytes in a temporary file without a name, which the
    system reads as it is needed and which is gone when the process ends.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._kept: list[NDArray[Any]] = []
        self._room = in_memory
        self._file: Any = None
        self._places: list[tuple[int, tuple[int, ...]]] = []  # of those in the file: offset, shape
        self._bytes: NDArray[Any] | None = None  # the file's, once it is read

    def append(self, image: NDArray[Any]) -> None:
        """Add one image, bytes (H, W, C)."""
        if image.nbytes <= self._room and self._file is None:
            self._room -= image.nbytes
            self._kept.append(image)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the images
            weakref.finalize(self, self._file.close)
        self._places.append((self._file.tell(), image.shape))
        self._file.write(image.tobytes())
        self._file.flush()  # a full disk is reported here
        self._bytes = None

    def __len__(self) -> int:
        return len(self._kept) + len(self._places)

    def __getitem__(self, i: Any) -> Any:
        if not -len(self) <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        i %= len(self)
        if i < len(self._kept):
            return self._kept[i]
        if self._bytes is None:
            self._bytes = np.memmap(self._file, np.uint8, "r")
        offset, shape = self._places[i - len(self._kept)]
        return self._bytes[offset : offset + math.prod(shape)].reshape(shape)


def keep(images: Decoded, image: NDArray[Any]) -> None:
    """Add one image. Raise UserError if there is no room for it."""
    try:
        images.append(image)
    except OSError as error:
        raise UserError(
            f"the decoded images do not fit into {tempfile.gettempdir()} ({reason(error)}): "
            "free some room there, or name another directory in TMPDIR"
        ) from error
