"""Charts and their numbers, as the page's script draws them."""

import base64
import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..markup import Markup, tag


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        steps, values: (N,) each, by rising steps; NaN where there is no number.
        colour: its name in page.css; "" for one by its place among the others, as of layers.
        thinned: of how many points these are the extremes; 0 where none is left out.
    """

    name: str
    steps: NDArray[Any]
    values: NDArray[Any]
    colour: str = ""
    thinned: int = 0


@dataclass(frozen=True)
class Chart:
    """Lines over the steps.

    Attributes:
        about: what it shows, in a sentence.
        log: whether the axis of values is logarithmic at first.
        low, high: what the axis shows of a share, before anyone zooms; None for what the lines need.
        smooth: whether a mean over steps makes sense of it.
    """

    title: str
    about: str
    lines: tuple[Line, ...]
    log: bool = False
    low: float | None = None
    high: float | None = None
    smooth: bool = False


class Data:
    """The data of the page's script: charts and their numbers, each array once, and the frames."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, bytes], int] = {}
        self._charts: list[dict[str, Any]] = []
        self.frames: list[dict[str, Any]] = []

    def chart(self, chart: Chart) -> Markup:
        """Take a chart in; where the page has its place."""
        drawn = asdict(chart)
        for line, given in zip(drawn["lines"], chart.lines, strict=True):
            line["steps"], line["values"] = self._index(given.steps, "<i4"), self._index(given.values, "<f4")
        self._charts.append(drawn)
        said = tag("figcaption", tag("h3", chart.title), tag("p", chart.about))
        return tag("figure", said, class_="chart", data_chart=len(self._charts) - 1)

    def _index(self, values: NDArray[Any], kind: str) -> int:
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
