"""A folder of image files, decoded once, before training, by threads."""

import math
import os
import sys
import tempfile
import warnings
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

from ..console import QuietStream, is_terminal
from ..errors import UserError, printable, reason
from .budget import Budget, in_threads
from .channels import NAMES, conversion
from .fit import WORKERS, Range, fit_image
from .limits import MAX_BYTES, MAX_PIXELS, weigh

# Pillow knows these, but can't decode them, or only by another program (Ghostscript); IPTC files hold others.
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # what makes an image of an EXIF orientation upright
MAX_UNREADABLE_SHARE = 0.1  # of all image files
IN_MEMORY = 2**30  # bytes of decoded images; the rest goes to a temporary file
SHOWN = 5  # names in a message
LINKED = "symbolic links to folders"
OUTSIDE = "symbolic links to files outside of the folder"
BLOCK = 2**26  # bytes that Pillow takes at once: so many, and those of a large image go back to the system


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


def find(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The image files under a folder, at any depth, in the order of their names; and the endings of the rest.

    What counts is the ending of the name; hidden files and folders (".name") are passed over. Links to
    folders, and to files outside of this one, are counted, not followed: a folder that somebody else made
    names no other file of yours. Raises UserError where a folder can't be read.
    """
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in _kinds()}
    root, found, others = os.path.realpath(folder), [], Counter[str]()
    for directory, names, files in os.walk(folder, onerror=_unreadable_folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        others[LINKED] += sum(Path(directory, name).is_symlink() for name in names)
        for name in sorted(files):
            if name.startswith("."):
                continue
            path = Path(directory, name)
            if _leaves(path, root):
                others[OUTSIDE] += 1
            elif path.suffix.lower() in endings and (path.is_file() or not path.exists()):  # no pipe
                found.append(path)
            else:
                others[path.suffix.lower() or "no ending"] += 1
    return found, +others


def _leaves(path: Path, root: str) -> bool:
    """Whether it is a link to something that does not lie under `root`."""
    return path.is_symlink() and os.path.commonpath([root, os.path.realpath(path)]) != root


def _unreadable_folder(error: OSError) -> None:
    raise UserError(f"--data: {error.filename} can't be read: {reason(error)}") from error


def read(
    folder: Path, size: int, channels: int, value_range: Range | None = None
) -> tuple[Decoded, list[str]]:
    """All images of a folder, their shorter side resized to `size`, and what there is to say about them.

    Args:
        value_range: the values of black and white, as `fit_image` takes them.

    Raises UserError where there is none, or more than a tenth can't be read.
    """
    files, others = find(folder)
    if not files:
        raise UserError(f"--data {folder}: no image in it or in its subfolders{_instead(others)}")
    images, kinds, unreadable = Decoded(), Counter[int](), []
    for file, result in zip(files, _decoded(files, size, channels, value_range), strict=True):
        if isinstance(result, str):
            unreadable.append(f"{file.relative_to(folder)} ({result})")
            continue
        image, given = result
        kinds[given] += 1
        _keep(images, image)
    if len(unreadable) > MAX_UNREADABLE_SHARE * len(files):
        raise UserError(
            f"--data {folder}: {len(unreadable)} of {len(files)} images can't be read: {_some(unreadable)}. "
            "Remove or repair them"
        )
    notes = [_kind(kind, count, channels) for kind, count in sorted(kinds.items())]
    if others[LINKED]:
        notes.append(f"{others[LINKED]} {LINKED} not followed: name the folders themselves")
    if others[OUTSIDE]:
        notes.append(f"{others[OUTSIDE]} {OUTSIDE} not followed: put the files themselves into it")
    if unreadable:
        notes.append(
            f"{len(unreadable)} of {len(files)} images can't be read and are left out: {_some(unreadable)}"
        )
    return images, notes


def decode(
    file: Path,
    size: int,
    channels: int,
    value_range: Range | None = None,
    budget: Budget | None = None,
) -> tuple[NDArray[Any], int]:
    """One image file as bytes (H, W, C), its shorter side `size`, and how many channels it had itself.

    Turned as its EXIF orientation says; the first frame of those with several.

    Args:
        value_range: the values of black and white, as `fit_image` takes them.
        budget: what the pixels are taken from while they are held; by default one of its own.

    Raise OSError or ValueError if the file can't be read, is larger than MAX_PIXELS or MAX_BYTES, or takes
    more work or memory than `limits.weigh` allows.
    """
    if (held := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{held} bytes: more than {MAX_BYTES}")
    with Image.open(file, formats=_kinds()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels: more than {MAX_PIXELS}")
        pixels = weigh(file, image)
        # A JPEG file can be decoded at an eighth of its size and more, in less time.
        times = 3 * size / min(image.size)
        image.draft(None, (math.ceil(image.width * times), math.ceil(image.height * times)))
        with (budget or Budget()).take(max(pixels, image.width * image.height)):
            upright = _upright(image)
            return fit_image(upright, size, channels, value_range), channels_of(upright)


def channels_of(image: Image.Image) -> int:
    """1 for grey, 3 for colour, one more where there is alpha; a palette counts as colour."""
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    return (1 if grey else 3) + image.has_transparency_data


def _kinds() -> list[str]:
    """The kinds of files that are taken for images, by Pillow's names."""
    Image.init()
    return [kind for kind in Image.OPEN if kind not in NO_PICTURES]


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; damaged EXIF data says nothing."""
    image.load()  # TIFF files are turned by it, and say so no more
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as for damaged images
        turn = None
    return image if turn is None else image.transpose(turn)


def _decoded(
    files: list[Path], size: int, channels: int, value_range: Range | None = None
) -> Iterator[tuple[NDArray[Any], int] | str]:
    """Of each file in turn: what `decode` gives, or why it can't be read."""

    def attempt(file: Path, budget: Budget) -> tuple[NDArray[Any], int] | str:
        try:
            return decode(file, size, channels, value_range, budget)
        except UnidentifiedImageError:
            return "no image"
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"more than {MAX_PIXELS} pixels"
        except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
            return str(error).removesuffix(f": '{file}'") or type(error).__name__

    Image.core.set_block_size(BLOCK)
    results = in_threads(attempt, files, WORKERS)
    with warnings.catch_warnings(), closing(results):
        warnings.simplefilter("ignore")  # of EXIF data and the like
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        hidden = len(files) < 1000 or not is_terminal(sys.stderr)
        bar = None if hidden else QuietStream(sys.stderr)
        yield from tqdm(results, "decoding", len(files), leave=False, disable=hidden, file=bar)


def _keep(images: Decoded, image: NDArray[Any]) -> None:
    try:
        images.append(image)
    except OSError as error:
        raise UserError(
            f"the decoded images do not fit into {tempfile.gettempdir()} ({reason(error)}): "
            "free some room there, or name another directory in TMPDIR"
        ) from error


def _kind(given: int, count: int, channels: int) -> str:
    """ "12 images are grey: made RGB (three equal channels)"."""
    how = conversion(given, channels)
    return f"{count} image{' is' if count == 1 else 's are'} {NAMES[given]}{how and f': {how}'}"


def _instead(others: Counter[str]) -> str:
    if not others:
        return ", which hold no file"
    endings = ", ".join(f"{count} {ending}" for ending, count in others.most_common(SHOWN))
    return f", but other files ({endings}). Expected files such as .jpg, .png, .webp, .gif, .bmp or .tif"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    shown = printable(", ".join(names[:SHOWN]), keep="")  # names needn't be text
    return shown + (f" and {more} more" if more > 0 else "")
