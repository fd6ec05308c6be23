"""One step of a recipe, for a person who learns how a GAN is trained: in words, and as a table."""

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from minigrad.tables import table

from .. import notebook
from ..errors import UserError
from ..losses import LOSSES
from ..markup import Markup, paragraph, tag
from ..notebook import CELL, PlainText, standalone
from ..recipe.preset import Preset
from .ledger import AND, Cost, Differentiated, Drawn, Event, Ran, Updated, watch

WIDTH = 100  # characters a line
COLUMNS = ("half", "G ran on", "D ran on", "parameters moved", "running statistics moved")


@dataclass(frozen=True, repr=False)
class Ledger(PlainText):
    """One step of a recipe, watched as it happened: in words by `str()`, and in a table in a notebook.

    Attributes:
        preset: the recipe.
        events: what happened, in order (ledger.py).

    Raises UserError if the step updates no network.
    """

    preset: Preset
    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        _halves(self.events)

    def __repr__(self) -> str:
        return f"<Ledger of {self.preset.name}: {len(self.events)} events of one step>"

    def __str__(self) -> str:
        halves = _halves(self.events)
        text = [_introduction(self.preset)]
        number = 0
        for title, half in zip(_titles(halves), halves, strict=True):
            text += ["", title]
            for event in half:
                number += 1
                text.append(f"{number:3}. {_sentence(event, self.preset)}")
        text += ["", *table(_summary(halves), "<").splitlines(), "", *_notes(self.preset)]
        return "\n".join(
            textwrap.fill(line, WIDTH, subsequent_indent=" " * 5 * line.startswith(" ")) for line in text
        )

    def _repr_html_(self) -> str:
        halves = _halves(self.events)
        heads, *rows = _summary(halves)
        return standalone(
            paragraph(_introduction(self.preset)),
            _events(halves, self.preset),
            notebook.table(heads, rows, "the step in short", "In short"),
            *map(paragraph, _notes(self.preset)),
        )


def ledger(preset: Preset) -> Ledger:
    """Run one step of a recipe on a few random images, and return what happened in it.

    Nothing is written, and no run is changed. Raises UserError if the recipe's layers do not fit together, or
    if the step updates no network.
    """
    return Ledger(preset, tuple(watch(preset)))


def explain(preset: Preset) -> str:
    """Return the description of a step: draws, forward passes, cuts of the graph, gradients and updates."""
    return str(ledger(preset))


def _introduction(preset: Preset) -> str:
    return (
        f"One step of {preset.name}. x is a batch of {preset.batch_size} real images, G the generator, D the "
        f"discriminator. The loss of D's word is {LOSSES[preset.loss].formula}, averaged over the batch; "
        "real is 1, fake is 0. After an update a network carries a prime: G', D'."
    )


def _notes(preset: Preset) -> list[str]:
    if not preset.ema_decay:
        return [_UNUSED]
    averaged = f"After each step the averaged weights of G take in the new ones ({preset.ema_decay} old)."
    return [_UNUSED, averaged]


_UNUSED = (
    "Here only the gradients that an update uses are made. Code that calls backward() on everything makes "
    "those of the other network too, and throws them away at the next zero_grad()."
)
_PLAYERS = {"G": "the generator", "D": "the discriminator"}


def _titles(halves: Sequence[Sequence[Event]]) -> list[str]:
    """Return the titles of a step's parts; rules of plugins may update more than twice."""
    two = ("First half", "Second half")
    names = two if len(halves) == 2 else [f"Part {i + 1}" for i in range(len(halves))]
    return [f"{name}: {_PLAYERS[_learner(half)]} learns" for name, half in zip(names, halves, strict=True)]


def _halves(events: Sequence[Event]) -> list[list[Event]]:
    """The events, cut after each update but the last. UserError if nothing is updated."""
    last = max((i for i, event in enumerate(events) if isinstance(event, Updated)), default=-1)
    if last < 0:
        raise UserError("the step updates no network")
    halves: list[list[Event]] = [[]]
    for i, event in enumerate(events):
        halves[-1].append(event)
        if isinstance(event, Updated) and i < last:
            halves.append([])
    return halves


def _learner(half: Sequence[Event]) -> str:
    return next(event.network for event in half if isinstance(event, Updated))


def _sentence(event: Event, preset: Preset) -> str:
    match event:
        case Drawn():
            size = " x ".join(map(str, preset.z_shape))
            source = "N(0, 1)" if preset.z_distribution == "normal" else "U(-1, 1)"
            return f"{event.z} is drawn: {preset.batch_size} times {size} numbers from {source}."
        case Ran():
            return _of_run(event)
        case Cost(graph=False):
            return f"The loss of {_against(event.judged, event.label)} is only written down."
        case Cost():
            return f"The loss of {_against(event.judged, event.label)} is taken."
        case Differentiated():
            costs = " and ".join(_against(*cost) for cost in event.costs)
            other = "D" if event.network == "G" else "G"
            how = "are added to those already there" if event.added else "are made"
            return (
                f"Backward from {costs}: gradients of {event.network}'s {len(event.parameters)} parameter "
                f"tensors {how}, and none of {other}'s."
            )
        case Updated():
            return f"Adam moves {event.network}'s {len(event.moved)} parameter tensors, and nothing else."


def _against(judged: str, label: float | None) -> str:
    return f"{judged} for G" if label is None else f"{judged} against {label:.0f}"


def _of_run(event: Ran) -> str:
    batch_norm = {
        "batch": "BatchNorm uses this batch's own statistics",
        "running": "BatchNorm uses its running statistics (eval mode)",
        "none": "there is no BatchNorm in it",
    }[event.statistics]
    dropout = ", Dropout drops" if event.dropout else ""
    if event.network.startswith("G"):
        graph = "the graph is kept" if event.graph else "no graph is kept: no gradient can reach G from here"
        made = f"{event.network} runs on {event.on} and makes the images {event.gave}"
        return f"{made}; {batch_norm}{dropout}; {graph}."
    if event.on == "x":
        cut = "the graph reaches D's parameters"
    elif event.through:
        cut = "the graph leads through D into G"
    elif AND in event.on:
        cut = "the graph reaches D's parameters, and the fakes are cut off from G's"
    else:
        cut = "the images are cut off from G's graph: gradients stop at them"
    at_once = " at once" if AND in event.on else ""
    return f"{event.network} runs on {event.on}{at_once} and says {event.gave}; {batch_norm}{dropout}; {cut}."


def _summary(halves: Sequence[Sequence[Event]]) -> list[tuple[str, ...]]:
    """Each half in a row: who ran on what, whose parameters and whose running statistics moved."""
    rows: list[tuple[str, ...]] = [COLUMNS if len(halves) == 2 else ("part", *COLUMNS[1:])]
    for half in halves:
        runs = [event for event in half if isinstance(event, Ran)]
        ran = ["; ".join(run.on for run in runs if run.network[0] == name) or "-" for name in "GD"]
        moved = {key[0] for event in half if isinstance(event, Updated) for key in event.moved}
        buffers = {run.network[0] for run in runs if run.buffers}
        rows.append((f"{_learner(half)}'s", *ran, " ".join(sorted(moved)), " ".join(sorted(buffers)) or "-"))
    return rows


# -- as HTML ---------------------------------------------------------------------------------------------

HEADS = ("", "network", "runs on", "parameter tensors moved", "running statistics moved", "in words")


def _events(halves: Sequence[Sequence[Event]], preset: Preset) -> Markup:
    """Return a table of the events, numbered, with a heading for each half."""
    number = itertools.count(1)
    top = tag("tr", *(tag("th", head, scope="col", style=CELL) for head in HEADS))
    bodies = [
        tag(
            "tbody",
            tag("tr", tag("th", title, colspan=len(HEADS), scope="rowgroup", style=CELL)),
            *(_row(next(number), event, preset) for event in half),
        )
        for title, half in zip(_titles(halves), halves, strict=True)
    ]
    about = {"role": "region", "aria_label": "the events of the step", "tabindex": 0}
    return tag("div", tag("table", tag("thead", top), *bodies), class_="wide", **about)


def _row(number: int, event: Event, preset: Preset) -> Markup:
    cells = (*_cells(event), _sentence(event, preset))
    shown = (tag("td", cell, style=CELL) for cell in cells)
    return tag("tr", tag("th", number, scope="row", style=CELL), *shown)


def _cells(event: Event) -> tuple[str, str, str, str]:
    """Return the network, what it ran on, and how many parameter tensors and running statistics moved."""
    match event:
        case Ran():
            return event.network, event.on, "", _counted(event.buffers, event.network[0])
        case Updated():
            moved = [(name, [key for key in event.moved if key[0] == name]) for name in "GD"]
            return event.network, "", ", ".join(_counted(keys, name) for name, keys in moved if keys), ""
        case Differentiated():
            return event.network, "", "", ""
        case _:
            return "", "", "", ""


def _counted(keys: Sequence[str], network: str) -> str:
    return f"{len(keys)} of {network}" if keys else ""
