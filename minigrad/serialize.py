"""Tensors in files: the safetensors format, never pickle."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from .backend.arrays import Array, on_host, refuse_masked
from .tensor import Tensor

MAX_HEADER_BYTES = 2**23  # bytes: tens of thousands of tensors
MAX_LINKS = 40  # one behind another, as Linux has it
# Of the files that `write_whole` has not completed yet; nobody else names files so.
TEMPORARY_PREFIX, TEMPORARY_SUFFIX = ".minigrad-", ".partial"


def save(
    tensors: Mapping[str, Any], path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors or arrays to a safetensors file.

    At `path` there is either what was there before or all of the new, whatever happens. Equal content
    makes equal files.

    Args:
        tensors: by name, as `Module.state_dict` gives them.
        path: where to; a symbolic link stays, and what it leads to is replaced.
        metadata: text by name, kept in the file's header.

    Raises TypeError or ValueError for what can't be in such a file, and OSError if it can't be written.
    """
    if isinstance(tensors, str | os.PathLike) and isinstance(path, Mapping):
        raise TypeError("save: expected the tensors first and then the path: save(tensors, path)")
    _check_path("save", path)
    write_whole(path, encode(tensors, metadata))


def encode(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of the file that `save` writes. Raises ValueError or TypeError for bad tensors."""
    _check_text("tensors", tensors)
    if "__metadata__" in tensors:
        raise ValueError("save: the format keeps the name '__metadata__' for itself")
    if metadata is not None:
        _check_text("metadata", metadata)
        for name, text in metadata.items():
            if not isinstance(text, str):
                raise TypeError(f"save: metadata {name!r}: expected a str, got {type(text).__name__}")
    arrays = {name: _array(name, value) for name, value in tensors.items()}
    return _in_order(to_bytes(arrays, metadata=None if metadata is None else dict(metadata)))


def _check_text(what: str, named: Any) -> None:
    """Raise TypeError unless it is a mapping whose keys are texts."""
    if not isinstance(named, Mapping):
        remedy = ": pass its .state_dict()" if hasattr(named, "state_dict") else ""
        raise TypeError(f"save: expected {what} by name, such as a dict, got {type(named).__name__}{remedy}")
    for name in named:
        if not isinstance(name, str):
            raise TypeError(f"save: expected names of {what} as str, got {name!r:.80}")


def _array(name: str, value: Any) -> Array:
    """A tensor's values, or numbers, as an array on the host in C order."""
    refuse_masked(value, f"save: {name!r}")
    try:
        array = on_host(value.numpy() if isinstance(value, Tensor) else value)
    except ValueError:  # lists of unequal lengths
        raise TypeError(f"save: {name!r}: expected a tensor or an array, got {value!r:.80}") from None
    if array.dtype.kind not in "fiub":
        raise TypeError(f"save: {name!r} is {array.dtype}: expected floats, integers or booleans")
    return array


def _check_path(function: str, path: Any) -> None:
    if isinstance(path, str | os.PathLike):
        return
    remedy = ""
    if function != "save" and hasattr(path, "load_state_dict"):
        remedy = ": its .load_state_dict(load(path)) takes the weights of a file"
    raise TypeError(f"{function}: expected a path, a str or os.PathLike, got {type(path).__name__}{remedy}")


def write_whole(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write a file under a temporary name in its directory, sync it and rename it.

    At `path` there is either the old file or all of the new one. A new file follows the umask; one that is
    replaced hands down its permissions, and its group if the process may give it. If `path` is a symbolic
    link, the link stays, and the file that it leads to is replaced, or made. Raises OSError, which names
    `path`, if the file can't be written, or if there is something else than a file.
    """
    path = Path(path)
    temporary = path  # until there is one
    try:
        target = _behind_links(path)
        old = _old_file(target)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY_PREFIX, suffix=TEMPORARY_SUFFIX)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask() if old is None else _mode_after(old, temporary))
        os.replace(temporary, target)
    except BaseException as error:
        if temporary != path:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # it names the temporary file, or none
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


def make_folder_of(path: str | os.PathLike[str]) -> None:
    """Make the folder that a file is to lie in, and those above it, where they are missing.

    Raises OSError, which names `path` and says which folder can't be made, and why.
    """
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        taken = isinstance(error, FileExistsError)
        why = "it is there, and no folder" if taken else error.strerror or str(error)
        raise OSError(error.errno, f"the folder {folder} can't be made: {why}", str(path)) from error


def _behind_links(path: Path) -> Path:
    """Return the path that a link leads to, through others, or `path` if it is none. OSError for a loop."""
    for _ in range(MAX_LINKS):
        try:
            path = path.parent / os.readlink(path)
        except OSError:  # no link, or nothing at all
            return path
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _old_file(path: Path) -> os.stat_result | None:
    """The status of the file that is to be replaced; None if there is none."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):  # a device or a pipe: a rename would put a file in its place
        raise OSError(errno.EINVAL, "not a plain file")
    return found


def _mode_after(old: os.stat_result, path: Path) -> int:
    """Give a file the group of the one that it replaces, and return the mode it should have.

    If the process may not give it that group, the group that it has gets no more than everybody.
    """
    mode = stat.S_IMODE(old.st_mode) & 0o777
    if os.stat(path).st_gid == old.st_gid:
        return mode
    try:
        os.chown(path, -1, old.st_gid)
    except OSError:
        return mode & 0o707 | (mode & 0o007) << 3
    return mode


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

    Raises FileNotFoundError if there is no such file, OSError if it can't be opened or read, ValueError if
    it is damaged or not a safetensors file, and TypeError if `path` is none.
    """
    _check_path("load", path)
    return read(path)[0]


def load_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text that `save` was given as metadata. Raises as `load` does."""
    _check_path("load_metadata", path)
    return read(path)[1]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return what `load` and `load_metadata` give, from one file, though another may take its place.

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
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header says {length} bytes: expected {MAX_HEADER_BYTES} at most")


def _umask() -> int:
    """The process's mask for new files (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
