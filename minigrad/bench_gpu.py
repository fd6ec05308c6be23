"""Timing several ways of running a step on a GPU, with what the card does at most beside them.

All run in one process, in turn, each in float32 and with products in TensorFloat-32. CUDA events on the
current stream give the times: PyTorch works on the same stream, so they time its steps too.
"""

import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .backend.base import Backend
from .backend.measuring import Peak
from .inspect.limits import Limits
from .serialize import write_whole
from .tables import in_bytes, table_row

Work = Callable[[], Any]
WARM_UP = 5  # runs before any is timed: kernels are compiled, memory is taken, steps are captured
RUNS = 8  # of each in a turn that are counted
HOST_RUNS = 2  # of each in a turn whose calls are timed on the host
PRECISIONS = {False: "float32", True: "TF32"}  # by whether TF32 is allowed
HEADS = (  # in two lines
    ("", ""),
    *(
        head
        for name in PRECISIONS.values()
        for head in ((name, "ms"), ("", "min"), ("", "images/s"), ("of", "product"), ("of", "copy"))
    ),
    ("host", "ms"),
    ("", "MiB"),
)
WIDTHS = (21, 7, 5, 8, 7, 4, 5, 5, 8, 7, 4, 5, 6)


@dataclass(frozen=True)
class Way:
    """A way of running a step.

    Attributes:
        name: in the table.
        make: prepares the step and returns it, under the precision that is set at the time.
        memory_peak: a context that counts the memory in use.
    """

    name: str
    make: Callable[[], Work]
    memory_peak: Callable[[], AbstractContextManager[Peak]]


@dataclass(frozen=True)
class Row:
    """One way in one precision.

    Attributes:
        way: its name.
        tf32: whether products are in TensorFloat-32.
        median, minimum: seconds a run, from one run's end to the next one's.
        host: mean seconds that a call takes while the device has nothing to do.
        memory: the most bytes in use while the way was prepared and ran for the first time; None if unknown.
        failure: why it did not run, "" where it did; then the others are 0 or None.
    """

    way: str
    tf32: bool
    median: float = 0.0
    minimum: float = 0.0
    host: float = 0.0
    memory: int | None = None
    failure: str = ""


@dataclass(frozen=True)
class Step:
    """A step, and the rows of all ways to run it.

    Attributes:
        name: of the step.
        images: that it takes.
        gflop: of its products as plain matrix products, 1e9 operations; None if they were not counted.
        launches, products: of kernels and of matrix products, uncaptured; None if they were not counted.
        moved: bytes that these launches and products read and write: the sum over them of the sizes of their
            arrays, so that an array counts once in each of them; None if they were not counted.
        rows: the ways, in each precision.
        counted: the ways that consist of these launches. `moved` says nothing of others, which do the same
            arithmetic, but may pass over the memory more or less often.
    """

    name: str
    images: int
    gflop: float | None
    launches: int | None
    products: int | None
    moved: int | None
    rows: tuple[Row, ...]
    counted: tuple[str, ...] = ()

    def row(self, way: str, tf32: bool) -> Row | None:
        """Return the row of a way in a precision, None where it did not run."""
        found = (row for row in self.rows if (row.way, row.tf32, row.failure) == (way, tf32, ""))
        return next(found, None)


class _Running:
    """A way that was prepared in one precision, and its times so far."""

    def __init__(self, engine: Backend, way: Way, tf32: bool) -> None:
        self.engine, self.way, self.tf32 = engine, way, tf32
        self.times: list[float] = []
        self.host: list[float] = []
        with way.memory_peak() as peak:
            self.work = way.make()
            for _ in range(WARM_UP):
                self.work()
            engine.synchronize()
        self.memory = peak.bytes

    def take_turn(self) -> None:
        """Run a few times more. The first is not counted: it finds the device without work."""
        timer = self.engine.timer()
        self.work()
        marks = [timer.mark()]
        for _ in range(RUNS):
            self.work()
            marks.append(timer.mark())
        self.times += [timer.seconds(begin, end) for begin, end in itertools.pairwise(marks)]
        for _ in range(HOST_RUNS):
            self.engine.synchronize()
            started = time.perf_counter()
            self.work()
            self.host.append(time.perf_counter() - started)
        self.engine.synchronize()

    def row(self) -> Row:
        median, minimum = statistics.median(self.times), min(self.times)
        return Row(self.way.name, self.tf32, median, minimum, statistics.fmean(self.host), self.memory)


def measure(
    engine: Backend, ways: Sequence[Way], set_tf32: Callable[[bool], None], rounds: int
) -> tuple[Row, ...]:
    """Return the rows of several ways, each run a few times in every round.

    A way that raises has a row with its failure, and the others go on.

    Args:
        set_tf32: allows TF32 to all of them, or forbids it; in the end it is forbidden.
    """
    rows: dict[tuple[str, bool], Row] = {}
    running: list[_Running] = []

    def attempt(way: Way, tf32: bool, work: Callable[[], Any]) -> Any:
        try:
            set_tf32(tf32)
            return work()
        except Exception as error:
            rows[way.name, tf32] = Row(way.name, tf32, failure=in_a_line(error))
            return None

    keys = list(itertools.product(ways, PRECISIONS))
    for way, tf32 in keys:
        made = attempt(way, tf32, partial(_Running, engine, way, tf32))
        running += [made] if made else []
    for _ in range(rounds):
        for one in running:
            if (one.way.name, one.tf32) not in rows:
                attempt(one.way, one.tf32, one.take_turn)
    set_tf32(False)
    for one in running:
        if (one.way.name, one.tf32) not in rows:
            rows[one.way.name, one.tf32] = one.row()
    return tuple(rows[way.name, tf32] for way, tf32 in keys)


def in_a_line(error: Exception) -> str:
    """Return the kind of an error and its message, shortened, in one line."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:150]}" if said else type(error).__name__


# -- for people, and as JSON -------------------------------------------------------------------------


def heads() -> str:
    """Return the two lines above the rows of all steps."""
    return "\n".join(_line(cells) for cells in zip(*HEADS, strict=True))


def lines(step: Step, limits: Mapping[bool, Limits]) -> str:
    """Return the lines of a step: its name and work, its ways, and why one of them did not run.

    Args:
        limits: of the card, by whether TF32 is allowed.
    """
    work = [] if step.gflop is None else [f"{step.gflop:.1f} GFLOP"]
    counts = ((step.launches, "launches"), (step.products, "products"))
    work += [f"{count} {what}" for count, what in counts if count is not None]
    work += [] if step.moved is None else [f"{in_bytes(step.moved)} read and written"]
    found = [f"{step.name}{': ' if work else ''}{', '.join(work)}"]
    failures: dict[tuple[str, str], list[str]] = {}  # by the way and what it said: the precisions
    for way in dict.fromkeys(row.way for row in step.rows):
        rows = {row.tf32: row for row in step.rows if row.way == way}
        cells = itertools.chain.from_iterable(_figures(rows[tf32], step, limits[tf32]) for tf32 in rows)
        plain = rows[False]
        memory = "-" if plain.memory is None else f"{plain.memory / 2**20:,.0f}"
        last = ("-", "-") if plain.failure else (_ms(plain.host), memory)
        found.append(_line((f"  {way}", *cells, *last)))
        for tf32, row in rows.items():
            if row.failure:
                failures.setdefault((way, row.failure), []).append(PRECISIONS[tf32])
    found += [f"    {way}, {' and '.join(names)}: {said}" for (way, said), names in failures.items()]
    return "\n".join(found)


def _figures(row: Row, step: Step, limits: Limits) -> tuple[str, ...]:
    if row.failure:
        return ("-",) * 5
    moved = step.moved if row.way in step.counted else None
    of_product = "-" if step.gflop is None else f"{step.gflop / row.median / limits.product:.0%}"
    of_copy = "-" if moved is None else f"{moved / 1e9 / row.median / limits.copy:.0%}"
    return _ms(row.median), _ms(row.minimum), f"{step.images / row.median:,.0f}", of_product, of_copy


def _line(cells: Sequence[str]) -> str:
    return table_row(cells, WIDTHS, "<>")


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.{3 if ms < 1 else 2 if ms < 100 else 0}f}"


def ratios(steps: Sequence[Step], ours: str, theirs: str) -> str:
    """Return a line with the geometric means of one way's times over another's; "" without a step of both."""
    means = []
    for tf32, name in PRECISIONS.items():
        pairs = [(step.row(ours, tf32), step.row(theirs, tf32)) for step in steps]
        logs = [math.log(a.median / b.median) for a, b in pairs if a and b]
        means += [f"{math.exp(statistics.fmean(logs)):.2f} ({name})"] if logs else []
    return f"{ours} / {theirs}, geometric mean: {', '.join(means)}" if means else ""


def card(engine: Backend, limits: Mapping[bool, Limits], versions: Iterable[str] = ()) -> str:
    """Return lines about the card: its name, the versions of what runs it, its limits."""
    products = ", ".join(f"{limits[tf32].product:,.0f} in {name}" for tf32, name in PRECISIONS.items())
    copy = f"{limits[False].copy:,.0f}"
    return (
        f"{', '.join((engine.describe(), *versions))}\n"
        f"limits: a large matrix product, GFLOP/s: {products}; a large copy, GB/s: {copy}\n"
        '"ms": median; "of product": share of the first limit, by the operations of the step\n'
        '"of copy": share of the second limit, by the bytes of our launches, so for our ways alone\n'
        '"host ms" and "MiB": in float32'
    )


def write(path: Path, engine: Backend, limits: Mapping[bool, Limits], steps: Sequence[Step]) -> None:
    """Write all figures as JSON: seconds, bytes, 1e9 operations."""
    content = {
        "device": engine.describe(),
        "limits": {name: asdict(limits[tf32]) for tf32, name in PRECISIONS.items()},
        "steps": [asdict(step) for step in steps],
    }
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())
