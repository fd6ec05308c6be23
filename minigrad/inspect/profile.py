"""The time that each operation takes."""

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from .. import observer
from ..serialize import write_whole
from ..tables import in_bytes, table
from ..tensor import Tensor
from .names import Names, Networks
from .products import flop

HEADS = ("operation", "phase", "calls", "ms", "share", "GFLOP", "GFLOP/s", "results")


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
    """

    name: str
    phase: str
    layer: str
    start: float
    depth: int
    seconds: float = 0.0
    flop: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Line:
    """All events of one operation and phase; parts of backward rules are counted with the rules."""

    name: str
    phase: str
    calls: int
    seconds: float
    flop: int
    bytes: int


@dataclass
class Profile(observer.Observer):
    """The operations that ran while it was entered, with their times. See `profile`.

    Attributes:
        events: in the order in which they began.
        seconds: from the first entry to the last exit of the context.
    """

    names: Names = field(repr=False)
    events: list[Event] = field(default_factory=list, repr=False)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()
        self._layers: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._running: list[Event] = []
        self._origin: float | None = None

    def __enter__(self) -> "Profile":
        self._origin = time.perf_counter() if self._origin is None else self._origin
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.seconds = self._now()
        self._running.clear()  # where another observer raised, nobody is notified of an end

    def _now(self) -> float:
        assert self._origin is not None
        return time.perf_counter() - self._origin

    def begin(self, subject: Any, phase: str) -> None:
        if self._running:
            layer = self._running[-1].layer
        else:
            layer = self._layers.get(subject, "") or self.names.of(self.modules)
        if phase == observer.FORWARD:
            self._layers[subject] = layer
        name = getattr(subject, "name", type(subject).__name__)
        event = Event(name, phase, layer, 0.0, len(self._running))
        self.events.append(event)
        self._running.append(event)
        event.start = self._now()  # last, so that this is no part of it

    def abort(self, subject: Any, phase: str) -> None:
        event = self._running.pop()
        event.seconds = self._now() - event.start

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        now = self._now()
        if phase == observer.UPDATE:
            return  # a part of BatchNorm's forward, without a begin
        event = self._running.pop()
        event.seconds = now - event.start
        event.flop += flop(subject, phase, inputs, outputs)
        event.bytes = sum(t.data.nbytes for t in outputs if isinstance(t, Tensor))
        if self._running:
            self._running[-1].flop += event.flop

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
            )
            for key, events in grouped.items()
        ]
        return tuple(sorted(lines, key=lambda line: -line.seconds))

    def __str__(self) -> str:
        """`lines` for people; the share is of all time between the begin and the end of the profile."""
        total = self.seconds or 1.0
        rows = [HEADS]
        for line in self.lines:
            work, rate = line.flop / 1e9, line.flop / 1e9 / line.seconds if line.seconds else 0.0
            rows.append(
                (
                    line.name,
                    line.phase,
                    f"{line.calls:,}",
                    f"{line.seconds * 1e3:.2f}",
                    f"{line.seconds / total:.1%}",
                    f"{work:.3f}" if work else "-",
                    f"{rate:.1f}" if work else "-",
                    in_bytes(line.bytes),
                )
            )
        rest = self.seconds - sum(line.seconds for line in self.lines)
        for name, seconds in (("(between operations)", rest), ("all", self.seconds)):
            rows.append((name, "", "", f"{seconds * 1e3:.2f}", f"{seconds / total:.1%}", "", "", ""))
        return table(rows, "<<>")

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


def profile(model: Networks = None) -> Profile:
    """A context that measures all operations, forward and backward, and optimizers' steps.

        with inspect.profile(model) as found:
            loss(model(x)).backward()
            optimizer.step()
        print(found)
        found.chrome_trace("trace.json")

    Watching takes some microseconds an operation, which small ones notice. On a GPU work goes on after
    an operation has returned: there the times are those that it takes to give it its work.

    Args:
        model: whose layers are to be named in the trace; or several, by name.
    """
    return Profile(Names(model))
