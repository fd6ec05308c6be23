"""Image files, of a folder or an archive, decoded once, before training, by threads."""

import math
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from typing import Any, BinaryIO, Protocol

from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from tqdm import tqdm

from minigrad.tables import printable

from ..console import QuietStream, shows_progress
from ..errors import UserError
from . import kinds
from .budget import Budget, in_threads
from .channels import NAMES, conversion
from .decoded import Decoded, keep
from .fit import WORKERS, Range, fit_image
from .limits import MAX_BYTES, MAX_PIXELS, weigh

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
SHOWN = 5  # names in a message
BLOCK = 2**26  # bytes that Pillow takes at once: so many, and those of a large image go back to the system


class ImageFile(Protocol):
    """A file of an image, in a folder or in an archive. Several threads may open and read them at once.

    Attributes:
        name: its path from the folder or archive on.
    """

    @property
    def name(self) -> str: ...

    def size(self) -> int:
        """Return the bytes that it says it holds. Raise OSError if it can't be read."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """Return its content, which can be read for the duration of a `with`.

        Raise OSError or ValueError if it can't be read, or if it is not of its size.
        """


def read(
    place: str,
    files: Sequence[ImageFile],
    others: Counter[str],
    left_out: Mapping[str, str],
    size: int,
    channels: int,
    value_range: Range | None = None,
) -> tuple[Decoded, list[str]]:
    """All images of a folder or an archive, their shorter side resized to `size`, and notes about them.

    Args:
        place: the folder or archive, as --data names it.
        files: those that are taken for images, in their order.
        others: what else there is, counted by kind.
        left_out: kinds among `others` that are worth a note, and what it says of them.
        value_range: the values of black and white, as `fit_image` takes them.

    Raises UserError where there is none, or more than a tenth can't be read.
    """
    if not files:
        raise UserError(no_image(place, others))
    images, given, unreadable = Decoded(), Counter[int](), []
    for file, result in zip(files, _decoded(files, size, channels, value_range), strict=True):
        if isinstance(result, str):
            unreadable.append(f"{file.name} ({result})")
            continue
        image, own_channels = result
        given[own_channels] += 1
        keep(images, image)
    if len(unreadable) > MAX_UNREADABLE_SHARE * len(files):
        raise UserError(
            f"--data {place}: {len(unreadable)} of {len(files)} images can't be read: {_some(unreadable)}. "
            "Remove or repair them"
        )
    notes = [_kind(kind, count, channels) for kind, count in sorted(given.items())]
    notes += [f"{others[what]} {what} {how}" for what, how in left_out.items() if others[what]]
    if unreadable:
        notes.append(
            f"{len(unreadable)} of {len(files)} images can't be read and are left out: {_some(unreadable)}"
        )
    return images, notes


def no_image(place: str, others: Counter[str]) -> str:
    """Return the message for a folder or an archive that holds no image, but `others`, counted by kind."""
    start = f"--data {place}: no image in it or in its subfolders"
    if not others:
        return f"{start}, which hold no file"
    kinds_ = printable(", ".join(f"{count} {kind}" for kind, count in others.most_common(SHOWN)), keep="")
    return (
        f"{start}, but other files ({kinds_}). Expected files such as .jpg, .png, .webp, .gif, .bmp or .tif"
    )


def decode(
    file: ImageFile,
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
    if (held := file.size()) > MAX_BYTES:
        raise ValueError(f"{held} bytes: more than {MAX_BYTES}")
    with file.open() as content, Image.open(content, formats=kinds.known()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels: more than {MAX_PIXELS}")
        pixels = weigh(content, image)
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


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; damaged EXIF data says nothing."""
    image.load()  # TIFF files are turned by it, and say so no more
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as for damaged images
        turn = None
    return image if turn is None else image.transpose(turn)


def _decoded(
    files: Sequence[ImageFile], size: int, channels: int, value_range: Range | None = None
) -> Iterator[tuple[NDArray[Any], int] | str]:
    """Of each file in turn: what `decode` gives, or why it can't be read."""

    def attempt(file: ImageFile, budget: Budget) -> tuple[NDArray[Any], int] | str:
        try:
            return decode(file, size, channels, value_range, budget)
        except UnidentifiedImageError:
            return "no image"
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return f"more than {MAX_PIXELS} pixels"
        except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
            path = getattr(error, "filename", None)  # an OSError says it again
            return str(error).removesuffix(f": {path!r}") or type(error).__name__

    Image.core.set_block_size(BLOCK)
    results = in_threads(attempt, files, WORKERS)
    with warnings.catch_warnings(), closing(results):
        warnings.simplefilter("ignore")  # of EXIF data and the like
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        hidden = len(files) < 1000 or not shows_progress()
        bar = None if hidden else QuietStream(sys.stderr)
        yield from tqdm(results, "decoding", len(files), leave=False, disable=hidden, file=bar)


def _kind(given: int, count: int, channels: int) -> str:
    """ "12 images are grey: made RGB (three equal channels)"."""
    how = conversion(given, channels)
    return f"{count} image{' is' if count == 1 else 's are'} {NAMES[given]}{how and f': {how}'}"


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    shown = printable(", ".join(names[:SHOWN]), keep="")  # names needn't be text
    return shown + (f" and {more} more" if more > 0 else "")
