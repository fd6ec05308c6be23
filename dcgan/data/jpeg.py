"""The work in a JPEG stream, counted from its markers."""

import re
from collections.abc import Iterator
from typing import BinaryIO

PER_SCAN = 2**16  # pixels whose decoding takes as long as the start of a scan
MAX_SEGMENTS = 2**17  # of one stream
SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start of frame: SOF0 to SOF15
PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
START, END, SCAN, TEM = 0xD8, 0xD9, 0xDA, 0x01
MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # no stuffed byte, filling or restart
BLOCK = 2**16  # bytes read at once in search of a marker


def work(file: BinaryIO) -> int:
    """Return the pixels that a decoder of the JPEG stream goes through: all of them, once a scan.

    A baseline image has one scan, a progressive one about 10; but the format sets no limit. Of a stream
    with a single scan it is the number of its pixels, at least; 0 if it has no size.

    Raise ValueError if the stream has more than MAX_SEGMENTS segments.
    """
    pixels = components = scans = 0
    progressive = False
    for marker, content in _segments(file):
        if marker in SIZES and len(content) >= 6:
            pixels = int.from_bytes(content[1:3]) * int.from_bytes(content[3:5])
            components, progressive = content[5], marker in PROGRESSIVE
        elif marker == SCAN:
            if not progressive and content[:1] == bytes([components]):
                return pixels  # all components at once: decoders read no further
            scans += 1
    return pixels if scans < 2 else scans * (pixels + PER_SCAN)


def _segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield each marker up to the end of the image, and the content of its segment."""
    for _ in range(MAX_SEGMENTS):
        marker = _next_marker(file)
        if marker in (None, END):
            return
        if marker in (START, TEM):
            continue
        length = int.from_bytes(file.read(2))
        yield marker, file.read(max(0, length - 2))
    raise ValueError(f"more than {MAX_SEGMENTS} segments of JPEG")


def _next_marker(file: BinaryIO) -> int | None:
    """Return the next marker and place the file after it; None at the end of the file."""
    block, size = b"", 16  # most often it follows at once
    while more := file.read(size):
        block = block[-1:] + more
        if found := MARKER.search(block):
            file.seek(found.end() - len(block), 1)
            return found[0][1]
        size = min(2 * size, BLOCK)
    return None
