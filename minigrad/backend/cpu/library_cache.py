"""Compiled libraries in the user's cache directory.

A library is called KEY-SUM.so. KEY is a digest of all that it depends on, SUM a checksum of its bytes, which
shows damage. It is written under another name and then renamed, so that a process finds either all of it or
nothing, and several processes may write the same library at once.

A library is code that will be run. So it is loaded only if the directory and the file belong to the user and
nobody else can write to them.
"""

import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

KEPT = 8  # libraries that are kept, those used last: of other versions, compilers and processors
MOST_SECONDS = 86400  # age at which a folder of an unfinished compilation is removed
FOLDER = "making-"  # how such a folder's name begins


class CacheError(Exception):
    """The cache can't be used; the message says which directory and why."""


def directory() -> Path:
    """Return the directory: minigrad in $XDG_CACHE_HOME, or in the system's usual place for caches.

    Raises CacheError if there is none: no HOME is set, and the user has none.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # the XDG Base Directory Specification ignores relative paths
        return Path(named, "minigrad")
    try:
        home = Path.home()
    except RuntimeError:
        raise CacheError("there is no home directory for a cache: set HOME or XDG_CACHE_HOME") from None
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "minigrad"


def find(key: str) -> Path | None:
    """Return the library of a key, or None if there is none. Damaged ones are removed.

    Raises CacheError if somebody else can write to it or to the directory.
    """
    place = directory()
    try:
        if not place.is_dir():
            return None
        _check(place, place.stat())
        for path in sorted(place.glob(f"{key}-*.so")):
            _check(path, path.lstat())
            if path.name == _name(key, path):
                with suppress(OSError):
                    os.utime(path)  # the time of its last use, for `_tidy`
                return path
            remove(path)
    except OSError as error:
        raise CacheError(f"{place} can't be read: {error.strerror or error}") from None
    return None


def store(key: str, make: Callable[[Path], Path]) -> Path:
    """Let `make(folder)` write a library in an empty folder, keep it under a key, and return its path.

    Raises CacheError if it can't be kept, and whatever `make` raises.
    """
    place = directory()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check(place, place.stat())
        folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=place))
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        made = make(folder)
        made.chmod(0o700)  # whatever the umask is
        path = place / _name(key, made)
        os.replace(made, path)
    except OSError as error:
        raise _unwritable(place, error) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _tidy(place)
    return path


def remove(path: Path) -> None:
    """Remove a library. Processes that have loaded it can still use it."""
    with suppress(OSError):
        path.unlink()


def _name(key: str, path: Path) -> str:
    with open(path, "rb") as file:
        return f"{key}-{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}.so"


def _check(path: Path, found: os.stat_result) -> None:
    """Raise CacheError unless a directory or a file belongs to the user and nobody else can write to it."""
    if not (stat.S_ISDIR(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise CacheError(f"{path} is no plain file: remove it")
    if found.st_uid != os.geteuid():
        raise CacheError(f"{path} belongs to another user: set XDG_CACHE_HOME to a directory of your own")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise CacheError(f"others can write to {path}: chmod go-w {path}")


def _unwritable(place: Path, error: OSError) -> CacheError:
    return CacheError(f"{place} can't be written to: {error.strerror or error}")


def _tidy(place: Path) -> None:
    """Remove all libraries but the KEPT used last, and folders of compilations that were killed."""
    with suppress(OSError):
        found = [(path.stat().st_mtime, path) for path in place.glob("*.so")]
        for _, path in sorted(found, reverse=True)[KEPT:]:
            remove(path)
        for path in place.glob(f"{FOLDER}*"):
            if time.time() - path.stat().st_mtime > MOST_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
