"""Limits of the work and memory that decoding one image file takes, checked before its pixels are decoded."""

import io
import math
from typing import Any, BinaryIO

from PIL import Image

from . import jpeg

MAX_PIXELS = 89_000_000  # of one file: beyond, it is taken for a decompression bomb (by Pillow as well)
MAX_BYTES = 2**28  # of one file: some kinds are read whole before their size is known
MAX_SCANNED_PIXELS = 24 * MAX_PIXELS  # pixels times scans: JPEG files have 18 scans at most, most of them 10
MAX_TILES = 2**17  # of one image: each takes a call in Python
MAX_COMMENTS = 1000  # in a plain PPM file: Pillow copies what follows for each of them
# Kinds that are decoded whole, beside the image: 14 to 26 bytes a pixel, of others 5 to 12.
WEIGHTS = {"AVIF": 2, "WEBP": 2, "JPEG2000": 3}
IN_PYTHON = 16  # weight of a pixel that a decoder written in Python decodes, at 1 to 2 microseconds
CONTAINERS = {"CUR", "ICNS", "ICO"}  # hold images of other kinds, whose size is known once they are decoded
TILE_WIDTH, TILE_HEIGHT, COMPRESSION, JPEG_COMPRESSION = 322, 323, 259, 7  # of TIFF
PLACES, LENGTHS = (324, 273), (325, 279)  # of tiles, else of strips


def weigh(file: BinaryIO, image: Any) -> int:
    """Return the pixels that an opened image file counts as while it is decoded.

    They are its own, more for kinds whose decoder takes more memory or time. Raise ValueError if that is
    too much: the reason says how much, and how much is expected.

    Args:
        file: the content that `image` was opened from; it is left at its place.
    """
    place = file.tell()
    try:
        return _weight(file, image)
    finally:
        file.seek(place)


def _weight(file: BinaryIO, image: Any) -> int:
    pixels = image.width * image.height
    tiles = image.tile or []
    if len(tiles) > MAX_TILES:
        raise ValueError(f"{len(tiles)} tiles or strips: more than {MAX_TILES}")
    if image.format in CONTAINERS:
        return MAX_PIXELS
    if image.format == "TIFF":
        return _weigh_tiff(file, image)
    if image.format in ("JPEG", "MPO"):
        return _weigh_jpeg(file, image)
    weight = WEIGHTS.get(image.format, 1)
    if any(tile[0] in Image.DECODERS for tile in tiles):
        weight = IN_PYTHON
        _check_content(file, image)
    if pixels * weight > MAX_PIXELS:
        raise ValueError(
            f"{image.width} x {image.height} pixels of {image.format}: more than {MAX_PIXELS // weight}"
        )
    return pixels * weight


def _weigh_jpeg(file: BinaryIO, image: Any) -> int:
    """The pixels at the size that the image is decoded at; all of them if it has several scans."""
    file.seek(0)
    scanned = jpeg.work(file)
    _check_scans(scanned)
    whole = image.width * image.height
    return whole if scanned > whole else 0


def _check_scans(scanned: int) -> None:
    if scanned > MAX_SCANNED_PIXELS:
        raise ValueError(f"{scanned} pixels in all scans of JPEG: more than {MAX_SCANNED_PIXELS}")


def _check_content(file: BinaryIO, image: Any) -> None:
    """Raise ValueError if a decoder written in Python would take long with little."""
    if image.format == "BLP":  # holds JPEG in some cases
        pixels = image.width * image.height
        _check_scans(_content(file).count(b"\xff\xda") * (pixels + jpeg.PER_SCAN))
    if image.tile[0][0] == "ppm_plain" and (comments := _content(file).count(b"#")) > MAX_COMMENTS:
        raise ValueError(f"{comments} comments: more than {MAX_COMMENTS}")


def _content(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


def _weigh_tiff(file: BinaryIO, image: Any) -> int:
    """The pixels with what tiles hold beyond the image's edges."""
    tags = image.tag_v2
    pixels = image.width * image.height
    if TILE_WIDTH in tags and TILE_HEIGHT in tags:
        width, height = max(1, tags[TILE_WIDTH]), max(1, tags[TILE_HEIGHT])
        pixels = math.ceil(image.width / width) * width * math.ceil(image.height / height) * height
    if pixels > MAX_PIXELS:
        raise ValueError(f"{pixels} pixels in tiles: more than {MAX_PIXELS}")
    places, lengths = (_numbers(tags, kinds) for kinds in (PLACES, LENGTHS))
    if (held := sum(lengths)) > MAX_BYTES:  # they may overlap
        raise ValueError(f"{held} bytes in tiles or strips: more than {MAX_BYTES}")
    if tags.get(COMPRESSION) == JPEG_COMPRESSION:
        _check_scans(_scanned_in_tiff(file, places, lengths))
    return pixels


def _numbers(tags: Any, kinds: tuple[int, int]) -> tuple[int, ...]:
    """The values of the first of two tags that is there."""
    value = next((tags[kind] for kind in kinds if kind in tags), ())
    return tuple(max(0, int(one)) for one in (value if isinstance(value, tuple) else (value,)))


def _scanned_in_tiff(file: BinaryIO, places: tuple[int, ...], lengths: tuple[int, ...]) -> int:
    if len(lengths) < len(places) or 0 in lengths:
        raise ValueError("tiles or strips of JPEG without a length")
    scanned = 0
    for place, length in zip(places, lengths, strict=False):
        file.seek(place)
        scanned += jpeg.work(io.BytesIO(file.read(length)))
    return scanned
