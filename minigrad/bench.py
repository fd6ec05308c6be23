"""`python -m minigrad.bench`: how fast layers run, beside PyTorch where it is installed.

Both run in one process, in turn, many times: machines are noisy, and what disturbs one disturbs the other.
Look at the ratios and at the minima. PyTorch is only ever measured; nothing here needs it.
"""

import argparse
import importlib.util
import json
import math
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import backend, nn, tables
from minigrad.backend.environment import BadEnvironment
from minigrad.inspect.products import Products
from minigrad.machine import described, machine
from minigrad.serialize import make_folder_of, write_whole

Work = Callable[[], Any]
PAUSE = 0.3  # seconds
RUNS = 2  # of each in a turn that are counted


@dataclass(frozen=True)
class Timing:
    """Seconds of one thing that was run several times."""

    median: float
    minimum: float

    @classmethod
    def of(cls, times: Sequence[float]) -> "Timing":
        return cls(statistics.median(times), min(times))


@dataclass(frozen=True)
class Row:
    """One line of a benchmark.

    Attributes:
        name: what ran.
        gflop: of its products as plain matrix products, whatever way they are computed; 1e9 operations.
        ours, theirs: our time and PyTorch's, None where it is not there.
        share: our speed (gflop over the median) as a share of the machine's matrix products. It can exceed
            1 where fewer operations are done than counted.
    """

    name: str
    gflop: float
    ours: Timing
    theirs: Timing | None
    share: float


def in_turn(works: Mapping[str, Work], rounds: int) -> dict[str, Timing]:
    """The times of several things, each run a few times in every round.

    Before its turn comes a pause, since threads of the one before may go on waiting for work for a while, and
    keep a core busy with that; and one run that is not counted.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            time.sleep(PAUSE if len(works) > 1 else 0)
            work()
            for _ in range(RUNS):
                started = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - started)
    return {name: Timing.of(measured) for name, measured in times.items()}


def product_limit(rounds: int = 5, size: int = 1536) -> float:
    """The most that this machine's matrix products do here and now, in GFLOP/s (float32, all threads)."""
    engine = backend.get("cpu")
    a = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    timing = in_turn({"product": lambda: engine.matmul(a, a)}, rounds)["product"]
    return 2 * size**3 / timing.minimum / 1e9


def peak_memory() -> float:
    """The most memory that this process has had so far, in MiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def gflop(work: Work) -> float:
    """The operations of what `work` runs on this engine, in 1e9."""
    with Products() as products:
        work()
    assert isinstance(products, Products)
    return products.flop / 1e9


def measure(name: str, ours: Work, theirs: Work | None, rounds: int, limit: float) -> Row:
    """One line: our work and, where it is there, PyTorch's, in turn."""
    operations = gflop(ours)
    timings = in_turn({"ours": ours} | ({"theirs": theirs} if theirs else {}), rounds)
    share = operations / timings["ours"].median / limit
    return Row(name, operations, timings["ours"], timings.get("theirs"), share)


def table(rows: Sequence[Row], limit: float) -> str:
    """The lines of a benchmark, for people."""
    heads = (
        "",
        "GFLOP",
        "ours ms",
        "min",
        "GFLOP/s",
        "of limit",
        "PyTorch ms",
        "min",
        "ours/theirs",
        "by minima",
    )
    lines: list[tuple[str, ...]] = [heads]
    for row in rows:
        ours, theirs = row.ours, row.theirs
        cells = (
            row.name,
            f"{row.gflop:.2f}",
            in_ms(ours.median),
            in_ms(ours.minimum),
            f"{row.gflop / ours.median:.0f}",
            f"{row.share:.0%}",
        )
        if theirs is None:
            lines.append((*cells, "-", "-", "-", "-"))
            continue
        ratios = (f"{ours.median / theirs.median:.2f}", f"{ours.minimum / theirs.minimum:.2f}")
        lines.append((*cells, in_ms(theirs.median), in_ms(theirs.minimum), *ratios))
    text = [tables.table(lines, "<>")]
    means = [row.ours.median / row.theirs.median for row in rows if row.theirs]
    if means:
        text.append(f"geometric mean of ours/theirs: {math.exp(statistics.fmean(map(math.log, means))):.2f}")
    text.append(limit_in_a_line(limit))
    return "\n".join(text)


def limit_in_a_line(limit: float) -> str:
    """Return a line with the machine's limit in GFLOP/s."""
    return f"limit: {limit:.0f} GFLOP/s, matrix products of this machine, float32"


def in_ms(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{seconds * 1e3:.2f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def pytorch(wanted: bool = True) -> Any:
    """The module torch, held to as many threads as ours; None where it is not installed or not wanted."""
    if not wanted or importlib.util.find_spec("torch") is None:
        return None
    import torch

    torch.set_num_threads(backend.num_threads())
    return torch


def write(path: Path, rows: Sequence[Row], limit: float, torch: Any) -> None:
    """The lines as JSON, with what they were measured on."""
    content = {
        "limit_gflops": limit,
        **machine(torch),
        "peak_memory_mib": peak_memory(),
        "rows": [asdict(row) for row in rows],
    }
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


# -- layers ------------------------------------------------------------------------------------------

# Name, the input's shape, and how the layer is made in either engine (`nn` is minigrad.nn or torch.nn).
LAYERS: list[tuple[str, tuple[int, ...], Callable[[Any], Any]]] = [
    ("Conv2d 1-64, 4x4 stride 2, 28x28", (128, 1, 28, 28), lambda n: n.Conv2d(1, 64, 4, 2, 1)),
    ("Conv2d 64-128, 4x4 stride 2, 14x14", (128, 64, 14, 14), lambda n: n.Conv2d(64, 128, 4, 2, 1)),
    ("Conv2d 64-128, 3x3, 16x16", (128, 64, 16, 16), lambda n: n.Conv2d(64, 128, 3, 1, 1)),
    ("Conv2d 128-256, 4x4 stride 2, 16x16", (128, 128, 16, 16), lambda n: n.Conv2d(128, 256, 4, 2, 1)),
    ("ConvTranspose2d 256-128, 5x5, 7x7", (128, 256, 7, 7), lambda n: n.ConvTranspose2d(256, 128, 5, 1, 2)),
    (
        "ConvTranspose2d 128-64, 4x4 stride 2, 7x7",
        (128, 128, 7, 7),
        lambda n: n.ConvTranspose2d(128, 64, 4, 2, 1),
    ),
    (
        "ConvTranspose2d 64-1, 4x4 stride 2, 14x14",
        (128, 64, 14, 14),
        lambda n: n.ConvTranspose2d(64, 1, 4, 2, 1),
    ),
    ("BatchNorm 128, 7x7", (128, 128, 7, 7), lambda n: _norm(n, 128)),
    ("BatchNorm 64, 14x14", (128, 64, 14, 14), lambda n: _norm(n, 64)),
    ("Dropout, 64 x 14x14", (128, 64, 14, 14), lambda n: n.Dropout(0.3)),
    ("LeakyReLU, 64 x 14x14", (128, 64, 14, 14), lambda n: n.LeakyReLU(0.2)),
    ("Dense 100-12544", (128, 100), lambda n: (n.Dense if n is nn else n.Linear)(100, 12544)),
]


def _norm(module: Any, channels: int) -> Any:
    return nn.BatchNorm(channels) if module is nn else module.BatchNorm2d(channels)


def _our_layer(shape: tuple[int, ...], make: Callable[[Any], Any]) -> Work:
    """Forward and backward of a layer of ours, from a batch as the layer before would leave it in memory."""
    mg.manual_seed(0)
    layer = make(nn)
    x = mg.tensor(_as_in_a_network(mg.Generator(0).normal(shape)), requires_grad=True)
    start = mg.tensor(_as_in_a_network(np.ones(layer(x).shape, np.float32)))

    def work() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(start)

    return work


def _as_in_a_network(x: Any) -> Any:
    """Images with the channels innermost."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if x.ndim == 4 else x


def _their_layer(torch: Any, shape: tuple[int, ...], make: Callable[[Any], Any]) -> Work:
    layer = make(torch.nn)
    x = torch.randn(*shape, requires_grad=True)
    start = torch.ones_like(layer(x))

    def work() -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(start)

    return work


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that benchmarks share; `check_options` checks them."""
    parser.add_argument("--rounds", type=int, default=10, help="turns of each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--no-pytorch", action="store_true", help="ours alone")


def check_options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the program with exit code 2 if an option or the environment can't be used.

    Makes the folder of --json, if it is missing.
    """
    if given.rounds < 1:
        parser.error(f"--rounds {given.rounds}: expected at least 1")
    if given.json and (problem := _unwritable(given.json)):
        parser.error(f"--json {given.json}: {problem}")
    try:
        backend.get("cpu")
        backend.cpu_kernels()
    except BadEnvironment as error:
        parser.error(str(error))


def _unwritable(path: Path) -> str:
    """Return why `write_whole` could not write a file, "" if it could. Leaves the file as it is.

    Makes its folder, if that is missing.
    """
    if path.exists() and not path.is_file():
        return "it is there, and no plain file"
    try:
        make_folder_of(path)
        with tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.bench",
        description="Forward and backward of layers, ours and PyTorch's in turn.",
    )
    add_options(parser)
    given = parser.parse_args(argv)
    check_options(parser, given)
    torch, limit = pytorch(not given.no_pytorch), product_limit()
    print(described(machine(torch)))
    rows = []
    for name, shape, make in LAYERS:
        theirs = _their_layer(torch, shape, make) if torch else None
        rows.append(measure(name, _our_layer(shape, make), theirs, given.rounds, limit))
    print(table(rows, limit))
    if given.json:
        write(given.json, rows, limit, torch)
    return 0


if __name__ == "__main__":
    sys.exit(main())
