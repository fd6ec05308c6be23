"""The image files in a folder."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError, reason
from . import imagefiles
from .decoded import Decoded
from .fit import Range
from .kinds import ending, endings, is_hidden

LINKED = "symbolic links to folders"
OUTSIDE = "symbolic links to files outside of the folder"
NOT_FOLLOWED = {
    LINKED: "not followed: name the folders themselves",
    OUTSIDE: "not followed: put the files themselves into it",
}


@dataclass(frozen=True)
class PathFile:
    """An image file in a folder.

    Attributes:
        path: where it lies.
        name: its path from the folder on.
    """

    path: Path
    name: str

    def size(self) -> int:
        """Return the bytes that it holds."""
        return self.path.stat().st_size

    def open(self) -> BinaryIO:
        """Return its content, to be read and closed."""
        return self.path.open("rb")


def read(
    folder: Path, size: int, channels: int, value_range: Range | None = None
) -> tuple[Decoded, list[str]]:
    """Return all images of a folder, and notes, as `imagefiles.read` does, with its errors."""
    files, others = find(folder)
    images = [PathFile(path, str(path.relative_to(folder))) for path in files]
    return imagefiles.read(str(folder), images, others, NOT_FOLLOWED, size, channels, value_range)


def find(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The image files under a folder, at any depth, in the order of their names; and the endings of the rest.

    What counts is the ending of the name; hidden files and folders (".name") are passed over. Links to
    folders, and to files outside of this one, are counted, not followed: a folder that somebody else made
    names no other file of yours. Raises UserError where a folder can't be read.
    """
    known = endings()
    root, found, others = os.path.realpath(folder), [], Counter[str]()
    for directory, names, files in os.walk(folder, onerror=_unreadable_folder):
        names[:] = sorted(name for name in names if not is_hidden(name))
        others[LINKED] += sum(Path(directory, name).is_symlink() for name in names)
        for name in sorted(files):
            if is_hidden(name):
                continue
            path = Path(directory, name)
            if leaves(path, root):
                others[OUTSIDE] += 1
            elif ending(name) in known and (path.is_file() or not path.exists()):  # no pipe
                found.append(path)
            else:
                others[ending(name) or "no ending"] += 1
    return found, +others


def leaves(path: Path, root: str) -> bool:
    """Whether a path is a link to something that does not lie under `root`, itself a path without links."""
    return path.is_symlink() and os.path.commonpath([root, os.path.realpath(path)]) != root


def _unreadable_folder(error: OSError) -> None:
    raise UserError(f"--data: {error.filename} can't be read: {reason(error)}") from error
