"""Pictures as text inside a page."""

import base64
import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import plainfile
from ..markup import Markup, png_url, tag

MAX_PIXELS, MAX_BYTES = 2**24, 2**25  # of one picture
SIDE = 384  # pixels that small pictures are shown on, about
MAX_SCALE = 24  # that they are enlarged: a few numbers are no reason for a large picture


def policy_hash(content: str) -> str:
    """Return the name of a script or a style of this content in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def png_of(path: Path, run: Path) -> bytes:
    """The content of a PNG file of a run.

    Raises ValueError where it is none, is damaged or too large, or lies behind a symbolic link in the run: a
    page that is sent around must not hold a picture from elsewhere.
    """
    try:
        plainfile.check(path, run)
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        content = path.read_bytes()
        file = io.BytesIO(content)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: more than {MAX_PIXELS}")
            image.verify()
    except Exception as error:  # damaged files raise all kinds: SyntaxError, struct.error, ...
        raise ValueError(f"{path.name} can't be shown: {error!s:.200}") from error
    return content


def size_of(png: bytes) -> tuple[int, int]:
    """The width and the height of a PNG file, pixels."""
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return image.width, image.height


def png(image: Image.Image, **options: Any) -> bytes:
    """An image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **options)
    return buffer.getvalue()


def picture(content: bytes, alt: str, side: int = SIDE, id_: str | None = None) -> Markup:
    """A PNG file in the page; a small one is enlarged a whole number of times, to `side` pixels at most."""
    wide, high = size_of(content)
    times = min(MAX_SCALE, max(1, side // max(wide, high)))
    return tag("img", src=png_url(content), alt=alt, width=times * wide, height=times * high, id=id_)
