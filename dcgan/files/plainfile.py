"""Files of a run that somebody else may have made: read, and replaced, only if they lie in the run itself."""

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path

# No link is followed, no pipe waited for, and Windows changes no end of a line.
SAFELY = sum(getattr(os, flag, 0) for flag in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))


def check(path: Path, within: Path) -> None:
    """Check that a path is a regular file of a directory, to which no symbolic link inside of it leads.

    A link could name any file of the reader's, and a pipe would wait for its other end. The directory itself
    may be a link. Raises ValueError for anything else, and if there is no such file.
    """
    steps = [*reversed(path.relative_to(within).parents[:-1]), path.relative_to(within)]
    try:
        modes = {within / step: (within / step).lstat().st_mode for step in steps}
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError("no such file") from None
    for step, mode in modes.items():
        if stat.S_ISLNK(mode):
            raise ValueError(f"{step.name} is a symbolic link, which is not followed")
    if not stat.S_ISREG(modes[path]):
        raise ValueError("not a plain file")


def to_write(path: Path) -> Path:
    """Return the path of a file of a run that is to be written, if it is no symbolic link.

    `write_whole` writes what a link leads to, which is right where the user named it, but not where a run has
    it: it could name any file of the writer's. Raises OSError for a link.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, f"{os.strerror(errno.ELOOP)}: none is followed here", str(path))
    return path


def append(path: Path, content: bytes, end: Callable[[FileIO], int]) -> None:
    """Add bytes to a file: all of them, or none if that fails (OSError). It is made if there is none.

    Args:
        end: returns the offset in the open file where what is complete ends. Anything after it is cut off
            first: a killed process left it half-written.
    """
    with FileIO(os.open(path, os.O_RDWR | os.O_CREAT | SAFELY, 0o666), "r+") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        before = end(file)
        try:
            file.truncate(before)
            file.seek(before)
            if file.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError as error:
            with suppress(OSError):  # the next call does it, then
                file.truncate(before)
            raise OSError(error.errno, error.strerror, str(path)) from error


def entries(folder: Path) -> list[Path]:
    """Return the paths in a folder; none if there is no such folder."""
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError):
        return []
