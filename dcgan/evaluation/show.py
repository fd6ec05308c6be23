"""An evaluation for people: a table, and a picture."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.figures import drawn_figure, saved_figure
from minigrad.serialize import make_folder_of

from .. import markup, notebook, pictures
from ..errors import UserError, os_errors_as
from ..markup import Markup, paragraph, tag
from ..notebook import PlainText, standalone
from .comparison import EvaluationResult

SIZE = (12, 8.2)  # inches


@dataclass(frozen=True)
class Evaluation(PlainText):
    """Everything that is known of a run's samples.

    `str()` gives a table of the measures; a notebook shows it with the picture that `save` writes.

    Attributes:
        recipe, step, epoch, weights, statistics: what made the samples; `count` of them.
        about: the real images that they are held against, and `features` what describes both.
        accuracy: of the classifier on MNIST's test images, where there is one.
        samples: their result; `floor`: that of other real images in their place.
        grid: some samples, bytes (n, H, W, C).
        looked_up, found: some samples, and the training image nearest to each.
    """

    recipe: str
    step: int
    epoch: int
    weights: str
    statistics: str
    count: int
    about: str
    features: str
    accuracy: float | None
    samples: EvaluationResult
    floor: EvaluationResult
    grid: NDArray[Any] = field(repr=False)
    looked_up: NDArray[Any] = field(repr=False)
    found: NDArray[Any] = field(repr=False)

    def __str__(self) -> str:
        return table(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture to a PNG file: the measures, the classes, samples, and their nearest images.

        A folder that is missing is made. Raises UserError if the path does not end in .png, or if the file
        can't be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise UserError(f"{path}: expected a file name that ends in .png")
        with os_errors_as(str(path)):
            make_folder_of(path)
            draw(self, Path(path))

    def _repr_html_(self) -> str:
        about = "the measures, samples, and samples above the training images nearest to them"
        return standalone(*_described(self), tag("img", src=markup.png_url(png(self)), alt=about))

    def to_json(self) -> dict[str, Any]:
        """All but the images, as JSON values."""
        images = ("grid", "looked_up", "found")
        data = {name: value for name, value in vars(self).items() if name not in images}
        return {**data, "samples": self.samples.to_json(), "floor": self.floor.to_json()}


# Of each measure: its name for people, its attribute, a factor, its format, and what it says.
MEASURES = (
    ("score", "score", 1, ".2f", "exp(E KL), 1 to 10: sure digits, all of them"),
    ("Fréchet distance", "frechet", 1, ".2f", "of features; 0 for equal ones, less is better"),
    ("kernel distance x 1000", "kernel", 1000, ".3f", "of features; 0 for equal ones, less is better"),
    ("precision", "precision", 1, ".3f", "samples that lie among real images"),
    ("recall", "recall", 1, ".3f", "real images that lie among samples"),
    ("nearest training image", "nearest", 1, ".2f", "median distance; far below real: memorised"),
    ("rarest digit, %", "rarest", 100, ".1f", "of all samples; 10 where all are alike"),
)


def table(evaluation: Evaluation) -> str:
    """Return the measures in lines, the samples' beside the floor's, each with what it means."""
    made = evaluation
    lines = [
        f"{_samples_of(made)},",
        _judged_by(made),
        "",
        f"{'':26}{'samples':>10}{'real':>10}   what it says",
    ]
    lines += [f"{name:26}{ours:>10}{floor:>10}   {meaning}" for name, ours, floor, meaning in rows(made)]
    if digits := share_rows(made):
        lines.append("")
        lines += [f"{name:26}" + "".join(f"{cell:>7}" for cell in cells) for name, *cells in digits]
    return "\n".join(lines)


def rows(evaluation: Evaluation) -> list[tuple[str, str, str, str]]:
    """Return (name, of the samples, of real images, meaning) for each measure that the samples have."""
    return [
        (
            name,
            _cell(evaluation.samples, attribute, factor, form),
            _cell(evaluation.floor, attribute, factor, form),
            meaning,
        )
        for name, attribute, factor, form, meaning in MEASURES
        if getattr(evaluation.samples, attribute) is not None
    ]


def share_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return the digits, and their shares of samples and of real images, in rows; none if there are none."""
    if evaluation.samples.shares is None:
        return []
    digits = [str(digit) for digit in range(len(evaluation.samples.shares))]
    both = (("share of samples, %", evaluation.samples), ("share of real, %", evaluation.floor))
    shares = [[name, *(f"{100 * share:.1f}" for share in result.shares or ())] for name, result in both]
    return [["digit", *digits], *shares]


def _described(evaluation: Evaluation) -> list[Markup]:
    """Return the table of measures as HTML."""
    parts = [
        paragraph(f"{_samples_of(evaluation)}, {_judged_by(evaluation)}."),
        notebook.table(
            ("", "samples", "real", "what it says"),
            rows(evaluation),
            "measures of samples and of real images",
        ),
    ]
    if digits := share_rows(evaluation):
        heads, *shares = digits
        parts.append(notebook.table(heads, shares, "shares of the digits"))
    return parts


def _samples_of(made: Evaluation) -> str:
    return (
        f"{made.recipe} after step {made.step}: {made.count} samples ({made.weights} weights, "
        f"{made.statistics} statistics) against {made.about}"
    )


def _cell(result: EvaluationResult, attribute: str, factor: int, form: str) -> str:
    value = getattr(result, attribute)
    return "-" if value is None else format(factor * value, form)


def _judged_by(evaluation: Evaluation) -> str:
    if evaluation.accuracy is None:
        return f"by {evaluation.features}"
    return f"by {evaluation.features}, which finds {100 * evaluation.accuracy:.2f}% of the test digits"


def draw(evaluation: Evaluation, path: Path) -> None:
    """Draw the measures, the classes, a grid of samples, and some beside their nearest training images."""
    with saved_figure(path, SIZE) as figure:
        _draw_in(figure, evaluation)


def png(evaluation: Evaluation) -> bytes:
    """Return the content of the PNG file that `draw` writes."""
    with drawn_figure(SIZE) as (figure, content):
        _draw_in(figure, evaluation)
    return content.getvalue()


def _draw_in(figure: Any, evaluation: Evaluation) -> None:
    title = (
        f"{evaluation.recipe} after step {evaluation.step}: {evaluation.count} samples against "
        f"{evaluation.about}"
    )
    # A path can hold dollar signs that enclose no formula, and bytes that are no text.
    figure.suptitle(title.encode(errors="replace").decode(), parse_math=False)
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(2.6, 1))[:, 0]
    left, right = above.subfigures(1, 2, squeeze=False)[0]
    side = int(np.sqrt(len(evaluation.grid)))
    pictures.show(left.subplots(), pictures.grid(evaluation.grid, side, side), "samples")
    _draw_measures(right, evaluation)
    strip = np.concatenate([evaluation.looked_up, evaluation.found])
    pictures.show(
        below.subplots(),
        pictures.grid(strip, 2, len(evaluation.found)),
        "samples, and below each the training image nearest to it",
    )


def _draw_measures(place: Any, evaluation: Evaluation) -> None:
    shares = evaluation.samples.shares is not None
    axes = place.subplots(2 if shares else 1, 1, squeeze=False)[:, 0]
    axes[0].axis("off")
    cells = [[name, ours, real] for name, ours, real, _ in rows(evaluation)]
    drawn = axes[0].table(
        cells, colLabels=["", "samples", "real"], loc="center", colWidths=[0.5, 0.2, 0.2], edges="horizontal"
    )
    drawn.scale(1, 1.5)
    axes[0].set_title(_judged_by(evaluation), fontsize="small")
    if not shares:
        return
    digits = np.arange(len(evaluation.samples.shares or ()))
    for shift, result, name in ((-0.2, evaluation.samples, "samples"), (0.2, evaluation.floor, "real")):
        axes[1].bar(digits + shift, 100 * np.asarray(result.shares), 0.4, label=name)
    axes[1].set_xticks(digits)
    axes[1].set_xlabel("digit")
    axes[1].set_ylabel("%")
    axes[1].legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
