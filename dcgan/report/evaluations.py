"""The section on the samples' quality: during training, and as `dcgan.evaluate` measured it."""

from typing import Any

from ..evaluation.show import MEASURES
from ..markup import Markup, paragraph, section, table, tag
from .charts import drawn, line, nice
from .drawing import Chart, Data
from .embedded import picture, png_of
from .reading import Lines, Reading, json_file, number


def evaluation(reading: Reading, data: Data) -> Markup:
    """Return the section of the evaluations."""
    parts = [*_measured(reading), *_on_the_way(reading.evaluations, data)]
    if not parts:
        parts = [
            paragraph(
                "Nothing was measured: ",
                tag("code", "dcgan evaluate RUN"),
                " does it at the end, ",
                tag("code", "--every STEPS"),
                " of dcgan.train on the way.",
            )
        ]
    return section("evaluation", "Evaluation", *parts)


def _measured(reading: Reading) -> list[Markup]:
    """Return the content of evaluation.json, with its picture; nothing if there is none."""
    found = json_file(reading, "evaluation.json")
    ours, floor = (_object(found.get(key)) for key in ("samples", "floor"))
    if not ours:
        return []
    said = (
        f"After step {found.get('step')}: {found.get('count')} samples ({found.get('weights')} weights, "
        f"{found.get('statistics')} statistics) against {found.get('about')}, by {found.get('features')}."
    )
    rows = [
        (name, _cell(ours, key, factor, form), _cell(floor, key, factor, form), meaning)
        for name, key, factor, form, meaning in MEASURES
    ]
    rows = [row for row in rows if row[1] != "-"]
    parts = [tag("h3", "By dcgan.evaluate"), paragraph(said[:500])]
    parts.append(
        table(("", "samples", "real", "what it says"), rows, "figures of samples and of real images")
    )
    shares, real = _shares(ours), _shares(floor)
    if shares:
        heads = ("digit", *range(len(shares)))
        lines = [("share of samples, %", *shares)] + ([("share of real, %", *real)] if real else [])
        parts.append(table(heads, lines, "shares of the digits", "how often each digit was drawn"))
    try:
        content = png_of(reading.directory / "evaluation.png", reading.directory)
    except ValueError:
        return parts
    return [
        *parts,
        picture(content, "samples, figures, and samples beside the training images nearest to them"),
    ]


def _on_the_way(evaluations: Lines, data: Data) -> list[Markup]:
    """Return the evaluations while it trained, as curves and in a table."""
    if not evaluations:
        return []
    real = [{"step": one["step"], **_object(one.get("floor"))} for one in evaluations]

    def both(key: str) -> tuple[Any, Any]:
        return line("samples", evaluations, key, "generator"), line("real images", real, key, "discriminator")

    charts = drawn(
        data,
        [
            Chart(
                "Fréchet distance",
                "How far samples are from real images; less is better.",
                both("frechet"),
                log=True,
            ),
            Chart("Score", "1 to 10: sure digits, and all of them.", both("score")),
            Chart(
                "Precision and recall",
                "How many samples lie among real images, and the other way round.",
                (
                    line("precision", evaluations, "precision", "generator"),
                    line("recall", evaluations, "recall", "second"),
                ),
                low=0,
                high=1,
            ),
        ],
    )
    measures = [(name, key, factor, form) for name, key, factor, form, _ in MEASURES]
    measures = [m for m in measures if any(_cell(one, *m[1:]) != "-" for one in evaluations)]
    distances = [number(one.get("frechet")) for one in evaluations]
    best = min((d for d in distances if d == d), default=None)
    rows = [
        (f"{one['step']:,}{' (best)' if distance == best else ''}", *(_cell(one, *m[1:]) for m in measures))
        for one, distance in zip(evaluations, distances, strict=True)
    ]
    shown = table(("step", *(m[0] for m in measures)), rows, "the evaluations on the way")
    return [
        tag("h3", "On the way"),
        tag("div", *charts, class_="charts"),
        tag("details", tag("summary", "All figures"), shown, open=len(rows) <= 12),
    ]


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _cell(result: dict[str, Any], key: str, factor: float, form: str) -> str:
    """Return a measure for people; "-" where there is none. The rarest digit follows from the shares."""
    value = min(_numbers(result), default=None) if key == "rarest" else result.get(key)
    known = number(value)
    return format(factor * known, form) if known == known else "-"


def _numbers(result: dict[str, Any]) -> list[float]:
    shares = result.get("shares")
    return [number(share) for share in shares] if isinstance(shares, list) and len(shares) <= 100 else []


def _shares(result: dict[str, Any]) -> list[str]:
    return [nice(round(100 * share, 1)) for share in _numbers(result)]
