"""Tensors in files: the safetensors format, never pickle."""

import errno
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from . import backend as backends
from .backend.base import Array
from .tensor import Tensor

MOST_HEADER = 2**23  # bytes: tens of thousands of tensors
# Of the files that `write_whole` has not completed yet; nobody else names files so.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".minigrad-", ".partial"


def save(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors or arrays to a safetensors file.

    At `path` there is either what was there before or all of the new, whatever happens. Equal content
    makes equal files.

    Args:
        tensors: by name.
        metadata: text by name, kept in the file's header.
    """
    write_whole(path, encode(tensors, metadata))


def encode(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of the file that `save` writes. Raises ValueError or TypeError for bad tensors."""
    if "__metadata__" in tensors:
        raise ValueError("save: the format keeps the name '__metadata__' for itself")
    cpu = backends.get("cpu")
    arrays = {
        name: cpu.xp.asarray(value.numpy() if isinstance(value, Tensor) else value, order="C")
        for name, value in tensors.items()
    }
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise TypeError(f"save: {name!r} is {array.dtype}: expected floats, integers or booleans")
    return _in_order(to_bytes(arrays, metadata=None if metadata is None else dict(metadata)))


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under a temporary name in its directory, sync it and rename it.

    At `path` there is either the old file or all of the new one. Raises OSError, which names `path`, if the
    file can't be written.
    """
    path = Path(path)
    temporary = path  # until there is one
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=TEMPORARY_PREFIX, suffix=TEMPORARY_SUFFIX)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary != path:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def is_temporary(name: str) -> bool:
    """Whether a file name is one that `write_whole` gives to a file until it is complete."""
    return name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX)


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header's keys sorted: the library leaves metadata in a random order.

    The format: eight bytes with the header's length, the header in JSON, the tensors.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # keeps the tensors aligned
    return len(header).to_bytes(8, "little") + header + content[start:]


def load(path: str | os.PathLike[str]) -> dict[str, Array]:
    """The arrays of a safetensors file, by name, on the host.

    Raises FileNotFoundError if there is no such file, OSError if it can't be opened or read, and ValueError
    if it is damaged or not a safetensors file.
    """
    return read(path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that `save` was given as metadata. Raises as `load` does."""
    return read(path)[1]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """What `load` and `load_metadata` give, of one file, though another may take its place meanwhile.

    Raises as they do.
    """
    if not os.path.isfile(path):  # unlike Path's, it takes names that no file can have
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        _check_header(path)
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
            metadata = file.metadata() or {}
    except (SafetensorError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} can't be read as a safetensors file: {error}") from error
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":  # kinds of numbers that other packages have taught NumPy
            raise ValueError(
                f"{str(path)!r} can't be read: {name!r:.80} is {array.dtype}, not a kind of NumPy"
            )
    return arrays, metadata


def _check_header(path: str | os.PathLike[str]) -> None:
    """ValueError where the header is longer than any of ours: it would be parsed before it is checked."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"its header says {length} bytes: expected {MOST_HEADER} at most")


def _umask() -> int:
    """The process's mask for new files (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
