"""Numbers and pictures as text inside a page."""

import base64
import hashlib
import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .markup import Markup, tag

if TYPE_CHECKING:
    from .charts import Chart

Array = np.ndarray[Any, Any]
MOST_PIXELS, MOST_BYTES = 2**24, 2**25  # of one picture
SIDE = 384  # pixels that small pictures are shown on, about
MOST_TIMES = 24  # that they are enlarged: a few numbers are no reason for a large picture


class Data:
    """What the page's script draws: charts and their numbers, each array once, and the frames."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, bytes], int] = {}
        self._charts: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []

    def chart(self, chart: "Chart") -> Markup:
        """Take a chart in; where the page has its place."""
        drawn = asdict(chart)
        for line, given in zip(drawn["lines"], chart.lines, strict=True):
            line["steps"], line["values"] = self._index(given.steps, "<i4"), self._index(given.values, "<f4")
        self._charts.append(drawn)
        said = tag("figcaption", tag("h3", chart.title), tag("p", chart.about))
        return tag("figure", said, class_="chart", data_chart=len(self._charts) - 1)

    def _index(self, values: Array, kind: str) -> int:
        with np.errstate(over="ignore"):  # infinity, which is drawn as a gap
            content = np.asarray(values).astype(kind).tobytes()
        return self._arrays.setdefault((kind, content), len(self._arrays))

    def to_json(self) -> str:
        """JSON that may stand in a <script>: no "<" of it ends the element or begins a comment."""
        arrays = [
            {"kind": "int32" if kind == "<i4" else "float32", "base64": base64.b64encode(content).decode()}
            for kind, content in self._arrays
        ]
        whole = {"arrays": arrays, "charts": self._charts, "frames": self.frames}
        return json.dumps(whole, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def url(png: bytes) -> str:
    """A PNG file's content as the address of a picture."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def policy_hash(content: str) -> str:
    """What a Content-Security-Policy calls a script or a style of this content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def png_of(path: Path) -> bytes:
    """The content of a PNG file. Raises ValueError where it is none, is damaged or too large."""
    try:
        if not path.is_file():  # a pipe would wait for its other end
            raise ValueError("no such file" if not path.exists() else "not a plain file")
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        content = path.read_bytes()
        file = io.BytesIO(content)
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=["PNG"]) as image:
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels: more than {MOST_PIXELS}")
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
    times = min(MOST_TIMES, max(1, side // max(wide, high)))
    return tag("img", src=url(content), alt=alt, width=times * wide, height=times * high, id=id_)
