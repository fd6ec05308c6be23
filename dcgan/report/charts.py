"""The curves of a run: which there are, and the numbers of each."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.tables import printable

from ..markup import Markup, paragraph, section, tag
from ..pictures import CURVES
from .drawing import Chart, Data, Line
from .reading import Lines, Reading, number

MAX_POINTS = 100_000  # points of a line in the page


def thinned(steps: NDArray[Any], values: NDArray[Any], most: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """At most `most` points of a line, 4 or more: each stretch's smallest and largest value.

    So spikes stay, however short. The first and the last point stay too, and of a stretch without a number
    one NaN, so that a gap stays a gap.
    """
    if len(steps) <= most:
        return steps, values
    edges = np.linspace(0, len(values), (most - 2) // 2 + 1).astype(int)
    kept = {0, len(values) - 1}
    for begin, end in itertools.pairwise(edges):
        part = values[begin:end]
        known = np.flatnonzero(np.isfinite(part))
        if not known.size:
            kept.add(int(begin))
            continue
        kept |= {int(begin + known[part[known].argmin()]), int(begin + known[part[known].argmax()])}
    places = sorted(kept)
    return steps[places], values[places]


def line(name: str, lines: Iterable[dict[str, Any]], key: str, colour: str = "") -> Line:
    """The values of a key over the steps of a file's lines."""
    points = [(one["step"], number(one.get(key))) for one in lines if key in one]
    return _line(name, points, colour)


def _line(name: str, points: Sequence[tuple[int, float]], colour: str = "") -> Line:
    steps = np.array([step for step, _ in points], np.int64)
    values = np.array([value for _, value in points], np.float64)
    few = thinned(steps, values, MAX_POINTS)
    return Line(printable(name), *few, colour, len(steps) if len(few[0]) < len(steps) else 0)


def has_numbers(one: Line) -> bool:
    """Whether there is anything to draw."""
    return bool(np.isfinite(one.values).any())


def of_metrics(metrics: Lines, timing: Lines) -> list[Chart]:
    """Losses, D's words, and speed."""
    names = dict(CURVES)

    def lines(**colours: str) -> tuple[Line, ...]:
        return tuple(line(names[key], metrics, key, colour) for key, colour in colours.items())

    return [
        Chart(
            "Losses",
            "What D and G are trained to make small, at each step.",
            lines(loss_d="discriminator", loss_g="generator"),
            smooth=True,
        ),
        Chart(
            "D(x) and D(G(z))",
            "How likely D finds real and generated images to be real, on average: at 0.5 it can't tell.",
            lines(d_x="discriminator", d_g_z1="generator", d_g_z2="second"),
            low=0,
            high=1,
            smooth=True,
        ),
        Chart(
            "Images per second",
            "How fast it trained, block by block.",
            (line("images per second", timing, "images_per_second", "third"),),
        ),
    ]


LAYER_SIGNS = (
    ("gradient_norm", "Gradient norms", "The length of the gradient of each layer's parameters.", True),
    (
        "update_ratio",
        "Update ratios",
        "How far a step moves each layer's parameters, as a share of their length; about 0.001 is usual.",
        True,
    ),
    (
        "dead",
        "Dead units",
        "The share of each activation's units that are off for every image of the batch.",
        False,
    ),
    ("saturated", "Saturation", "The share of each activation's outputs within 0.01 of a limit.", False),
)


def of_vitals(vitals: Lines) -> list[Chart]:
    """The signs of each layer by network, the spread, and the gap of BatchNorm's statistics."""
    charts = [
        Chart(
            f"{title}, {network}",
            about,
            tuple(_by_layer(vitals, network, key)),
            log=log,
            low=None if log else 0,
            high=None if log else 1,
        )
        for key, title, about, log in LAYER_SIGNS
        for network in ("generator", "discriminator")
    ]
    spread = line("spread", vitals, "spread", "generator")
    charts.append(
        Chart(
            "Spread",
            "How much generated images differ from each other, as a share of how much real "
            "ones do: 0 where all are alike.",
            (spread,),
            low=0,
        )
    )
    gaps: dict[str, list[tuple[int, float]]] = {}
    for one, gap in _entries(vitals, "batch_norm_gap"):
        gaps.setdefault(str(gap.get("name"))[:60], []).append((one["step"], number(gap.get("gap"))))
    charts.append(
        Chart(
            "BatchNorm gap, discriminator",
            "How far the statistics of the real batch are from those "
            "of the generated one, in standard deviations.",
            tuple(_line(k, v) for k, v in gaps.items()),
            low=0,
        )
    )
    return charts


def _by_layer(vitals: Lines, network: str, key: str) -> list[Line]:
    """A line for each layer of a network that has the sign at all, from its input to its output."""
    points: dict[str, list[tuple[int, float]]] = {}
    for one, layer in _entries(vitals, "layers"):
        if layer.get("network") == network:
            name = f"{layer.get('name')} {layer.get('kind')}"[:60]
            points.setdefault(name, []).append((one["step"], number(layer.get(key))))
    return [found for name, p in points.items() if has_numbers(found := _line(name, p))]


def _entries(lines: Lines, key: str) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """(line, object) for each object in the lists that the lines have under `key`."""
    for one in lines:
        found = one.get(key)
        yield from (
            (one, entry) for entry in (found if isinstance(found, list) else ()) if type(entry) is dict
        )


def drawn(data: Data, charts: Iterable[Chart]) -> list[Markup]:
    """Charts in the page, without lines that have no number, and without charts that have no line."""
    kept = (replace(chart, lines=tuple(filter(has_numbers, chart.lines))) for chart in charts)
    return [data.chart(chart) for chart in kept if chart.lines]


def curves(reading: Reading, data: Data) -> Markup:
    """The section of the curves."""
    charts = of_metrics(reading.metrics, reading.timing)
    charts += of_vitals(reading.vitals) if reading.vitals else []
    figures = drawn(data, charts)
    if not figures:
        return section("curves", "Curves", paragraph("There are no numbers yet: no step is done."))
    longest = max((one.thinned for chart in charts for one in chart.lines), default=0)
    notes = [paragraph(_NO_VITALS)] if not reading.vitals else []
    if empty := [chart.title for chart in charts if not any(map(has_numbers, chart.lines))]:
        notes.append(paragraph(_not_drawn(empty)))
    if longest:
        notes.append(
            paragraph(
                f"Lines of more than {MAX_POINTS:,} points, the longest has {longest:,}, are here by the "
                "smallest and the largest value of each stretch."
            )
        )
    return section("curves", "Curves", *notes, _CONTROLS, tag("div", *figures, class_="charts"))


def _not_drawn(titles: Sequence[str]) -> str:
    """Return sentences about the charts that have no number to draw."""
    said = f"Not drawn, for want of numbers: {'; '.join(titles)}."
    if any(title.startswith(("Dead units", "Saturation")) for title in titles):
        said += " Dead units are counted of a ReLU, saturated outputs of a Tanh or a Sigmoid."
    return said


_NO_VITALS = "No vital signs were measured in this run: there is no vitals.jsonl in its directory."
_CONTROLS = tag(
    "div",
    tag(
        "label",
        "Mean over ",
        tag(
            "select",
            *(tag("option", f"{n} points" if n else "nothing", value=n) for n in (0, 5, 20, 50, 200, 1000)),
            id="smoothing",
        ),
    ),
    tag("label", tag("input", type="checkbox", id="together"), " zoom all curves together"),
    tag(
        "details",
        tag("summary", "How to zoom"),
        paragraph(
            "Drag across a curve to see that stretch; double click, or Reset, to see all of it. Turn the "
            "wheel with Ctrl held, or after a click on the curve; pinch on a touch screen. Keys, on a curve "
            "that has the focus: + and - zoom, the arrows move the marker, with Shift the stretch, Escape "
            "resets. A name below a curve hides its line."
        ),
    ),
    class_="controls",
)


def nice(value: float) -> str:
    """A number for people: four digits of it, "-" for none."""
    return "-" if math.isnan(value) else f"{value:.4g}"
