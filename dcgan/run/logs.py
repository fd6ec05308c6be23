"""The logs of a run as values: the scalars of its steps, and its vital signs."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from minigrad.tables import table

from .. import pictures
from ..errors import did_you_mean
from ..notebook import PlainText
from ..steps import StepLine
from ..vitals import picture
from ..vitals.line import VitalsLine

Line = TypeVar("Line", StepLine, VitalsLine)
COLUMNS = tuple(field.name for field in fields(StepLine))
WHOLE = ("step", "epoch")  # columns of integers
SHOWN = 5  # lines at the end of the text
WIDTH = 100  # characters of a line of text


class _Log(PlainText, Sequence[Line], Generic[Line]):
    """Lines of a log in their order. Logs are equal if their lines are."""

    _unit: ClassVar[str]  # a line is of one

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self._lines: tuple[Line, ...] = tuple(lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __eq__(self, other: object) -> bool:
        return self._lines == other._lines if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._lines)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._span()}>"

    def _span(self) -> str:
        """Return "5 steps, 1 to 5", and the like."""
        if not self._lines:
            return f"no {self._unit}s"
        first, last = self._lines[0].step, self._lines[-1].step
        return (
            f"{len(self)} {self._unit}s, {first} to {last}" if len(self) > 1 else f"1 {self._unit}, {first}"
        )


class Metrics(_Log[StepLine]):
    """The losses and D's judgements at every step of a run: a sequence of lines, and columns by name.

    `str()` gives the last lines. A notebook shows the curves, as losses.png does.

    Args:
        lines: of metrics.jsonl, in their order.

    >>> metrics = Metrics([StepLine(1, 1, loss_d=1.5), StepLine(2, 1, loss_d=1.25), StepLine(3, 1)])
    >>> len(metrics), metrics[-1].step
    (3, 3)
    >>> metrics["loss_d"]
    array([1.5 , 1.25,  nan])
    >>> metrics[:2]
    <Metrics of 2 steps, 1 to 2>
    """

    _unit = "step"

    @overload
    def __getitem__(self, key: int) -> StepLine: ...
    @overload
    def __getitem__(self, key: slice) -> "Metrics": ...
    @overload
    def __getitem__(self, key: str) -> NDArray[Any]: ...
    def __getitem__(self, key: int | slice | str) -> "StepLine | Metrics | NDArray[Any]":
        """Return a line by its place from 0, a part of the log by a slice, or a column by its name.

        A column is an array (steps,). "step" and "epoch" are int64, with epoch 0 if it is not known.
        "loss_d", "loss_g", "d_x", "d_g_z1" and "d_g_z2" are float64, with NaN for a number that is not finite
        or not known.

        Raises IndexError if there is no line at this place, KeyError if there is no such column.
        """
        if isinstance(key, str):
            return self._column(key)
        return Metrics(self._lines[key]) if isinstance(key, slice) else self._lines[key]

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """All columns by their names, as `metrics[name]` gives them: `pandas.DataFrame(metrics.columns)`."""
        return {name: self._column(name) for name in COLUMNS}

    def __str__(self) -> str:
        if not self._lines:
            return "The log has no steps."
        rows = [COLUMNS, *([_cell(getattr(line, name)) for name in COLUMNS] for line in self._lines[-SHOWN:])]
        last = f" The last {SHOWN}:" if len(self) > SHOWN else ""
        return f"{self._span()}.{last}\n\n{table(rows, '>')}"

    def _repr_png_(self) -> bytes | None:
        return pictures.losses_png(self._lines) if self._lines else None

    def _column(self, name: str) -> NDArray[Any]:
        if name not in COLUMNS:
            near = did_you_mean(name, COLUMNS).replace(":", ";", 1)
            raise KeyError(f"no column {name!r:.60}: expected one of {', '.join(COLUMNS)}{near}")
        values = [getattr(line, name) for line in self._lines]
        if name in WHOLE:
            return np.array([value or 0 for value in values], np.int64)
        return np.array(values, np.float64)  # None is NaN


@dataclass(frozen=True)
class Episode:
    """A sign of trouble that was found at measured steps one after another.

    Attributes:
        sign: its name in vitals.jsonl, such as "generator-wins".
        first, last: the first and the last of these steps.
        sentence: what was wrong at the last of them; `remedy`: what people do.
    """

    sign: str
    first: int
    last: int
    sentence: str
    remedy: str


class Vitals(_Log[VitalsLine]):
    """The vital signs of a run: a sequence of its measured steps, and the signs of trouble in them.

    `str()` gives the findings with their remedies. A notebook shows the curves, as vitals.png does, if there
    are two measured steps or more.

    Args:
        lines: of vitals.jsonl, in their order.
    """

    _unit = "measured step"

    @overload
    def __getitem__(self, key: int) -> VitalsLine: ...
    @overload
    def __getitem__(self, key: slice) -> "Vitals": ...
    def __getitem__(self, key: int | slice) -> "VitalsLine | Vitals":
        """Return a line by its place from 0, or a part of the log by a slice."""
        return Vitals(self._lines[key]) if isinstance(key, slice) else self._lines[key]

    @property
    def findings(self) -> tuple[Episode, ...]:
        """The signs of trouble over the steps, by the steps at which they began.

        A sign that is gone at a measured step and comes back later is there twice.
        """
        episodes: dict[tuple[str, int], Episode] = {}
        began: dict[str, int] = {}  # the signs of the line before, and the steps at which they began
        for line in self._lines:
            began = {found.sign: began.get(found.sign, line.step) for found in line.findings}
            for found in line.findings:
                first = began[found.sign]
                episodes[found.sign, first] = Episode(
                    found.sign, first, line.step, found.sentence, found.remedy
                )
        return tuple(episodes.values())

    def __str__(self) -> str:
        if not self._lines:
            return "The log has no measured steps."
        found = self.findings
        said = "no sign of trouble" if not found else f"{len(found)} finding{'s' * (len(found) > 1)}"
        return "\n".join([f"{self._span()}: {said}.", *map(self._told, found)])

    def _repr_png_(self) -> bytes | None:
        return picture.png(self._lines) if len(self) > 1 else None

    def _told(self, episode: Episode) -> str:
        first, last = episode.first, episode.last
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        still = " (the last one measured)" if last == self._lines[-1].step else ""
        said = f"{episode.sign}, {when}{still}: {episode.sentence} {episode.remedy}"
        return textwrap.fill(said, WIDTH, initial_indent="- ", subsequent_indent="  ")


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
