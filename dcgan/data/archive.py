"""The image files in a .zip archive, read where they are: nothing is extracted to a disk.

An archive may come from anybody. Its members are read one by one, each of them only as far as the archive
says that it goes, and their names never become paths. Format: PKWARE, "APPNOTE.TXT".
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

from ..errors import UserError, reason
from . import idx, imagefiles
from .budget import Budget
from .decoded import Decoded
from .fit import Range
from .kinds import ending, endings, is_hidden
from .limits import MAX_BYTES

LINKS = "symbolic links"
OUTSIDE = "names that lead out of the archive"
REPEATED = "files whose names come again later"
LEFT_OUT = {
    LINKS: "not followed: put the files themselves into it",
    OUTSIDE: "left out: they begin with / or a drive, or hold ..",
    REPEATED: "left out: the last of each name counts",
}
MAX_DIRECTORY_BYTES = 2**28  # of the archive's list of members, which is read whole: about two million
HELD = 2**28  # bytes of members, packed and unpacked, that all threads hold at once
LOCAL_HEADER = struct.Struct("<4s22xHH")  # its signature, and the lengths of the name and the rest after it
SIGNATURE = b"PK\3\4"
ENCRYPTED, UTF8_NAME = 0x1, 0x800  # flags
DOS = 0  # the system that an archive says it was made on
IS_FOLDER = 0x10  # an attribute of DOS, which other systems set too
RAW_DEFLATE = -zlib.MAX_WBITS


class _Bounded(io.BufferedReader):
    """A file of which no more than the longest list of members is read at once."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > MAX_DIRECTORY_BYTES:
            raise ValueError(f"a list of members of {size} bytes: expected {MAX_DIRECTORY_BYTES} at most")
        return super().read(size)


class Archive:
    """An open .zip file, whose members several threads may read at once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = Lock()
        self.room = Budget(HELD)

    def content(self, entry: zipfile.ZipInfo) -> bytes:
        """Return the content of a member. Raise ValueError if it is not what the archive says."""
        _check(entry)
        packed = self._packed(entry)
        if len(packed) < entry.compress_size:
            raise ValueError(f"it says {entry.compress_size} packed bytes and holds {len(packed)}")
        content = packed if entry.compress_type == zipfile.ZIP_STORED else _inflated(packed, entry.file_size)
        if len(content) != entry.file_size:
            more = "more" if len(content) > entry.file_size else str(len(content))
            raise ValueError(f"it says {entry.file_size} bytes and holds {more}")
        if zlib.crc32(content) != entry.CRC:
            raise ValueError("damaged: its checksum is another one")
        return content

    def _packed(self, entry: zipfile.ZipInfo) -> bytes:
        with self._lock:
            self._file.seek(max(0, entry.header_offset))
            header = self._file.read(LOCAL_HEADER.size)
            if len(header) < LOCAL_HEADER.size or header[:4] != SIGNATURE:
                raise ValueError("damaged: it is not where the archive says")
            _, name, extra = LOCAL_HEADER.unpack(header)
            self._file.seek(name + extra, os.SEEK_CUR)
            return self._file.read(entry.compress_size)


def _check(entry: zipfile.ZipInfo) -> None:
    """ValueError for a member that is not read, whatever it holds."""
    if entry.flag_bits & ENCRYPTED:
        raise ValueError("encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Others pack a thousand times as much into a byte, and may ask for any amount of memory.
        raise ValueError(f"packed by method {entry.compress_type}: expected 0 (stored) or 8 (deflate)")
    most = min(MAX_BYTES, idx.room(entry.compress_size))
    if max(entry.file_size, entry.compress_size) > most:
        size = f"{entry.compress_size} bytes that unpack to {entry.file_size}"
        raise ValueError(f"{size}: expected {most} at most")


def _inflated(packed: bytes, size: int) -> bytes:
    """Return what a stream of deflate unpacks to, but no more than one byte over the size."""
    stream = zlib.decompressobj(RAW_DEFLATE)
    try:
        content = stream.decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(f"damaged: {error}") from error
    if len(content) <= size and not stream.eof:
        raise ValueError("damaged: its packed bytes end too early")
    if stream.unused_data:
        raise ValueError(f"damaged: {len(stream.unused_data)} bytes after its packed ones")
    return content


@dataclass(frozen=True)
class Member:
    """An image file in an archive.

    Attributes:
        name: its path in the archive.
    """

    archive: Archive
    entry: zipfile.ZipInfo
    name: str

    def size(self) -> int:
        """Return the bytes that the archive says it holds."""
        return self.entry.file_size

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Give its content, unpacked in memory."""
        with self.archive.room.take(self.entry.compress_size + self.entry.file_size):
            yield io.BytesIO(self.archive.content(self.entry))


def read(path: Path, size: int, channels: int, value_range: Range | None = None) -> tuple[Decoded, list[str]]:
    """Return all images of an archive, and notes, as `imagefiles.read` does, with its errors.

    They are the same ones, in the same order, as of a folder that the archive was made of.
    """
    try:
        file = _Bounded(io.FileIO(path))
    except OSError as error:
        raise UserError(f"--data {path}: {reason(error)}") from error
    with file:
        files, others = find(path, file)
        if not files:
            told = imagefiles.no_image(str(path), others)
            raise UserError(f"{told}. If it holds files of many images, extract it and name those")
        return imagefiles.read(str(path), files, others, LEFT_OUT, size, channels, value_range)


def find(path: Path, file: BinaryIO) -> tuple[list[Member], Counter[str]]:
    """The image files of an archive, in the order of `folder.find`; and the endings of the rest.

    Hidden names are passed over. Symbolic links, names that lead out of the archive, and all but the last
    file of a name are counted. Raises UserError if it is no archive, or one whose members overlap.
    """
    try:
        with zipfile.ZipFile(file) as opened:
            entries = opened.infolist()
    except Exception as error:  # damaged archives raise all kinds: BadZipFile, struct.error, ...
        raise UserError(
            f"--data {path}: it can't be read as a .zip archive ({error!s:.200}): copy or download it again"
        ) from error
    if sum(entry.compress_size for entry in entries) > os.fstat(file.fileno()).st_size:
        raise UserError(f"--data {path}: its members hold more bytes than the archive: they overlap")
    archive, known = Archive(file), endings()
    found, others = dict[tuple[str, ...], Member](), Counter[str]()
    for entry in entries:
        parts = _parts(entry)
        folder = entry.filename.endswith("/") or entry.external_attr & IS_FOLDER
        if folder or any(is_hidden(part) for part in parts if part != ".."):
            continue
        kind = _kind(entry, parts, known)
        if kind:
            others[kind] += 1
            continue
        others[REPEATED] += parts in found
        found[parts] = Member(archive, entry, "/".join(parts))
    return [found[parts] for parts in sorted(found, key=_order)], +others


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The parts of a member's name; the first is "/" if it begins so."""
    name = entry.filename
    if not entry.flag_bits & UTF8_NAME and entry.create_system != DOS:
        # Archives made on macOS and Linux hold UTF-8 without saying so; zipfile takes it for DOS's letters.
        name = _as_utf8(name)
    if entry.create_system == DOS:
        name = name.replace("\\", "/")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    return ("/", *parts) if name.startswith("/") else parts


def _as_utf8(name: str) -> str:
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _kind(entry: zipfile.ZipInfo, parts: tuple[str, ...], known: set[str]) -> str:
    """Return what a member counts as, if it is not taken for an image; "" if it is."""
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode == stat.S_IFLNK:
        return LINKS
    if parts[:1] == ("/",) or ".." in parts or (parts and parts[0][1:2] == ":"):
        return OUTSIDE
    last = ending(parts[-1]) if parts else ""
    taken = last in known and mode in (0, stat.S_IFREG)
    return "" if taken else last or "no ending"


def _order(parts: tuple[str, ...]) -> tuple[tuple[bool, str], ...]:
    """The place of a file in the order of `folder.find`: those of a folder come before its subfolders."""
    return (*((True, part) for part in parts[:-1]), (False, parts[-1]))
