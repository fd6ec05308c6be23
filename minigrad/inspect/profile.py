"""The time that each operation takes."""

import json
import os
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from .. import backend, observer
from ..markup import bar, html_table, paragraph
from ..serialize import write_whole
from ..tables import in_bytes, table
from ..tensor import Tensor
from .limits import Limits, limits, occupy
from .names import Names, Networks
from .products import flop
from .traffic import moved

HEADS = ("operation", "phase", "calls", "ms", "share", "GFLOP", "GFLOP/s", "results")
LIMIT_HEADS = ("of limit", "moved", "GB/s", "of limit")  # further columns, of a device with limits
ALIGN = "<<>"
SHARE = HEADS.index("share")
HEAD_START = 0.05  # seconds that the host has before a device that works through a queue


@dataclass
class Event:
    """An operation's forward or backward, or an optimizer's step, that ran once.

    Attributes:
        name: of the operation, such as "convolve", or of the optimizer.
        phase: "forward", "backward" or "step".
        layer: the name of the layer with its description, or "" outside of any.
        start, seconds: when it began, after the profile did, and how long it took.
        depth: 0, or 1 where it is a part of a backward rule.
        flop: the operations of its products, with those of its parts; a multiply-add is two.
        bytes: of its results.
        moved: bytes that it reads and writes, with those of its parts; see `traffic.moved`.
    """

    name: str
    phase: str
    layer: str
    start: float
    depth: int
    seconds: float = 0.0
    flop: int = 0
    bytes: int = 0
    moved: int = 0


@dataclass(frozen=True)
class Line:
    """All events of one operation and phase; parts of backward rules are counted with the rules."""

    name: str
    phase: str
    calls: int
    seconds: float
    flop: int
    bytes: int
    moved: int


class Profile(observer.Observer):
    """The operations that ran while it was entered, with their times. See `profile`.

    Attributes:
        limits: of the device, where it works through a queue; else None.
    """

    def __init__(self, names: Names, device: str) -> None:
        super().__init__()
        self.names, self.device = names, device
        self.limits: Limits | None = None
        self._timer = backend.get(device).timer()
        self._layers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._events: list[Event] = []
        self._running: list[tuple[Event, Any]] = []  # with the mark of its begin
        self._marks: list[tuple[Event, Any, Any]] = []  # of the events whose times were not asked for yet
        self._begin: Any = None
        self._end: Any = None

    def __enter__(self) -> "Profile":
        if self._begin is None:
            if self._timer.runs_later:
                self.limits = limits(self.device)
                occupy(self.device, self.limits, HEAD_START)
            self._begin = self._timer.mark()
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._end = self._timer.mark()
        self._running.clear()  # where another observer raised, nobody is notified of an end

    def begin(self, subject: Any, phase: str) -> None:
        if self._running:
            layer = self._running[-1][0].layer
        else:
            layer = self._layers.get(subject, "") or self.names.of(self.modules)
        if phase == observer.FORWARD:
            self._layers[subject] = layer
        name = getattr(subject, "name", type(subject).__name__)
        event = Event(name, phase, layer, 0.0, len(self._running))
        self._events.append(event)
        self._running.append((event, self._timer.mark()))  # last, so that this is no part of it

    def abort(self, subject: Any, phase: str) -> None:
        self._stop(self._timer.mark())

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        now = self._timer.mark()
        if phase == observer.UPDATE:
            return  # a part of BatchNorm's forward, without a begin
        event = self._stop(now)
        event.flop += flop(subject, phase, inputs, outputs)
        event.bytes = sum(t.data.nbytes for t in outputs if isinstance(t, Tensor))
        event.moved = event.moved or moved(subject, phase, inputs, outputs)
        if self._running:
            rule = self._running[-1][0]
            rule.flop += event.flop
            rule.moved += event.moved

    def _stop(self, mark: Any) -> Event:
        """End the innermost event that runs, at a mark."""
        event, begin = self._running.pop()
        self._marks.append((event, begin, mark))
        return event

    @property
    def events(self) -> list[Event]:
        """In the order in which they began. Waits until the device has done them."""
        for event, begin, end in self._marks:
            event.start = self._timer.seconds(self._begin, begin)
            event.seconds = self._timer.seconds(begin, end)
        self._marks.clear()
        return self._events

    @property
    def seconds(self) -> float:
        """From the first entry to the last exit of the context."""
        return 0.0 if self._end is None else self._timer.seconds(self._begin, self._end)

    @property
    def lines(self) -> tuple[Line, ...]:
        """By operation and phase, what took longest first."""
        grouped: dict[tuple[str, str], list[Event]] = {}
        for event in self.events:
            if not event.depth:
                grouped.setdefault((event.name, event.phase), []).append(event)
        lines = [
            Line(
                *key,
                len(events),
                sum(e.seconds for e in events),
                sum(e.flop for e in events),
                sum(e.bytes for e in events),
                sum(e.moved for e in events),
            )
            for key, events in grouped.items()
        ]
        return tuple(sorted(lines, key=lambda line: -line.seconds))

    def __str__(self) -> str:
        """`lines` for people; the share is of all time between the begin and the end of the profile."""
        rows, _ = self._rows()
        text = table(rows, ALIGN)
        return text if self.limits is None else f"{text}\nlimits: {self.limits}"

    def _repr_html_(self) -> str:
        (heads, *rows), shares = self._rows()
        barred = [
            (*row[:SHARE], bar(share, row[SHARE]), *row[SHARE + 1 :])
            for row, share in zip(rows, shares, strict=True)
        ]
        text = html_table([heads, *barred], ALIGN, foot=1)
        return text if self.limits is None else text + paragraph(f"limits: {self.limits}")

    def _rows(self) -> tuple[list[tuple[str, ...]], list[float]]:
        """The cells of the table, and each row's share of the time, without the heads."""
        total = self.seconds or 1.0
        lines = self.lines
        rest = self.seconds - sum(line.seconds for line in lines)
        rows = [
            HEADS if self.limits is None else (*HEADS, *LIMIT_HEADS),
            *(self._row(line, total) for line in lines),
        ]
        for name, seconds in (("(between operations)", rest), ("all", self.seconds)):
            cells = (name, "", "", f"{seconds * 1e3:.2f}", f"{seconds / total:.1%}")
            rows.append((*cells, *("" for _ in rows[0][len(cells) :])))
        shares = [seconds / total for seconds in (*(line.seconds for line in lines), rest, self.seconds)]
        return rows, shares

    def _row(self, line: Line, total: float) -> tuple[str, ...]:
        """Return the cells of a line; those of LIMIT_HEADS too if the device has limits."""
        work = line.flop / 1e9
        rate = work / line.seconds if line.seconds else 0.0
        cells = (
            line.name,
            line.phase,
            f"{line.calls:,}",
            f"{line.seconds * 1e3:.2f}",
            f"{line.seconds / total:.1%}",
            f"{work:.3f}" if work else "-",
            f"{rate:.1f}" if work else "-",
            in_bytes(line.bytes),
        )
        if self.limits is None:
            return cells
        flow = line.moved / 1e9 / line.seconds if line.seconds else 0.0
        return (
            *cells,
            f"{rate / self.limits.product:.0%}" if work else "-",
            in_bytes(line.moved),
            f"{flow:.0f}" if line.moved else "-",
            f"{flow / self.limits.copy:.0%}" if line.moved else "-",
        )

    def chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Write the events as JSON for chrome://tracing or ui.perfetto.dev: there whole, or not at all.

        The Trace Event Format: complete events, `ts` and `dur` in microseconds. What a backward rule is
        made of is nested in it. Source: Google, "Trace Event Format".
        """
        events = [
            {
                "name": event.name if event.phase == observer.STEP else f"{event.name} {event.phase}",
                "cat": event.phase,
                "ph": "X",
                "ts": event.start * 1e6,
                "dur": event.seconds * 1e6,
                "pid": 1,
                "tid": 1,
                "args": {"layer": event.layer, "gflop": event.flop / 1e9, "bytes": event.bytes},
            }
            for event in self.events
        ]
        content = {"traceEvents": events, "displayTimeUnit": "ms"}
        write_whole(path, (json.dumps(content) + "\n").encode())


def profile(model: Networks = None, device: str | None = None) -> Profile:
    """A context that measures all operations, forward and backward, and optimizers' steps.

        with inspect.profile(model) as found:
            loss(model(x)).backward()
            optimizer.step()
        print(found)
        found.chrome_trace("trace.json")

    Watching takes some microseconds an operation, which small ones notice. On a GPU the times are the
    device's own, by CUDA events, and nothing waits for them until they are asked for. The table then also
    has the bytes that each operation must move, and the shares of what the device does at most (see `limits`;
    measured when the context is first entered, with TF32 if that is allowed). The device is kept busy for the
    first 50 ms, so that it finds the operations of a step or two ready. From when it must wait for Python,
    and so after a value was read, the times hold that wait too.

    Args:
        model: whose layers are to be named in the trace; or several, by name.
        device: whose work is timed: "cpu" or "gpu"; by default that of the first parameter of the model, or
            of new tensors where there is none.
    """
    names = Names(model)
    parameters = (p for network in names.networks.values() for p in network.parameters())
    first = next(parameters, None)
    return Profile(names, backend.get(device or (first.device if first is not None else None)).device)
