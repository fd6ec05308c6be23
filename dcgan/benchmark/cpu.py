"""`dcgan.bench` on the CPU: recipes' steps in all ways there are, ours and PyTorch's in turn."""

import gc
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from minigrad import bench, bench_gpu
from minigrad.bench import Timing, Work
from minigrad.machine import described, machine
from minigrad.tables import table_row

from ..console import output
from ..recipe.preset import Preset
from .ours import our_step, title
from .theirs import Learner

OURS, EAGER = "ours", "PyTorch"
CHANNELS_LAST, COMPILED = "PyTorch, channels_last", "PyTorch, compiled"
WARM_UP = 3  # steps of PyTorch's before any is timed: the first ones compile
HEADS = (  # in two lines
    ("", ""),
    ("", "GFLOP"),
    ("ours", "ms"),
    ("", "min"),
    ("GFLOP", "per s"),
    ("of", "limit"),
    ("PyTorch", "ms"),
    ("", "min"),
    ("channels", "last"),
    ("", "compiled"),
    ("ours/", "PyTorch"),
    ("ours/", "best"),
)
WIDTHS = (30, 6, 5, 5, 5, 5, 7, 5, 8, 8, 7, 5)


@dataclass(frozen=True)
class Step(bench.Row):
    """One line: the step of a recipe in all ways.

    Attributes:
        theirs: PyTorch's time without a change of its layout and uncompiled.
        channels_last: PyTorch's time with the channels of images and weights innermost.
        compiled: the same with networks by `torch.compile`. Each of the three is None where it did not run.
        failures: the errors of PyTorch's ways that failed, by the names of the ways.
    """

    channels_last: Timing | None = None
    compiled: Timing | None = None
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Timing | None:
        """The best of PyTorch's times, by the median; None without any."""
        found = [one for one in (self.theirs, self.channels_last, self.compiled) if one]
        return min(found, key=lambda one: one.median, default=None)


class Bench:
    """The benchmark on the CPU.

    Args:
        torch: the module; None without PyTorch.
        compiled: whether PyTorch's networks are timed by `torch.compile` too.
    """

    def __init__(self, torch: Any, compiled: bool) -> None:
        self.torch, self.compiled = torch, compiled

    def run(self, recipes: Sequence[Preset], rounds: int, path: Path | None) -> int:
        """Time the recipes; print their lines and write the figures, recipe by recipe. Returns the exit code.

        A way of PyTorch's that fails has an empty cell, and a line says why.
        """
        limit = bench.product_limit()
        output(described(machine(self.torch)))
        output(bench.limit_in_a_line(limit))
        output(heads())
        steps: list[Step] = []
        said: set[tuple[str, str]] = set()
        for preset in recipes:
            steps.append(self._step(preset, rounds, limit))
            output(line(steps[-1]))
            for failure in steps[-1].failures.items():
                if failure not in said:
                    output(f"  {': '.join(failure)}")
                    said.add(failure)
            if path is not None:
                bench.write(path, steps, limit, self.torch)
        if means := ratios(steps):
            output(means)
        output(f"peak memory of this process: {bench.peak_memory():.0f} MiB")
        return 0

    def _step(self, preset: Preset, rounds: int, limit: float) -> Step:
        gc.collect()  # the networks of the recipe before
        ours = our_step(preset)
        operations = bench.gflop(ours)
        theirs, failures = self._prepared(preset)
        times = bench.in_turn({OURS: ours} | theirs, rounds)
        return Step(
            title(preset),
            operations,
            times[OURS],
            times.get(EAGER),
            operations / times[OURS].median / limit,
            times.get(CHANNELS_LAST),
            times.get(COMPILED),
            failures,
        )

    def _prepared(self, preset: Preset) -> tuple[dict[str, Work], dict[str, str]]:
        """Return PyTorch's steps, compiled where they are, and the errors of those that failed."""
        steps: dict[str, Work] = {}
        failures: dict[str, str] = {}
        for name, make in self._learners(preset).items():
            try:
                step = make().step
                for _ in range(WARM_UP):
                    step()
                steps[name] = step
            except Exception as error:
                failures[name] = bench_gpu.in_a_line(error)
        return steps, failures

    def _learners(self, preset: Preset) -> dict[str, Callable[[], Learner]]:
        """Return what makes PyTorch's learners, by the names of the ways."""
        if self.torch is None:
            return {}
        ways: dict[str, Callable[[], Learner]] = {
            EAGER: partial(Learner, self.torch, preset),
            CHANNELS_LAST: partial(Learner, self.torch, preset, channels_last=True),
        }
        return ways | ({COMPILED: partial(self._compiled, preset)} if self.compiled else {})

    def _compiled(self, preset: Preset) -> Learner:
        """Return a learner whose networks `torch.compile` makes, without those of the recipes before.

        Networks of all recipes count as forms of one function, and each call looks for its own among them.
        Channels are innermost: compiled so, no recipe was slower than with the others.
        """
        self.torch.compiler.reset()
        return Learner(self.torch, preset, channels_last=True, compiled=True)


def heads() -> str:
    """Return the two lines above those of all steps."""
    return "\n".join(table_row(cells, WIDTHS, "<>") for cells in zip(*HEADS, strict=True))


def line(step: Step) -> str:
    """Return the line of a step: medians in milliseconds where nothing else is said."""
    ours, theirs = step.ours, step.theirs
    cells = (
        step.name,
        f"{step.gflop:.2f}",
        bench.in_ms(ours.median),
        bench.in_ms(ours.minimum),
        f"{step.gflop / ours.median:.0f}",
        f"{step.share:.0%}",
        _ms(theirs),
        bench.in_ms(theirs.minimum) if theirs else "-",
        _ms(step.channels_last),
        _ms(step.compiled),
        _ratio(ours, theirs),
        _ratio(ours, step.best),
    )
    return table_row(cells, WIDTHS, "<>")


def _ms(timing: Timing | None) -> str:
    return bench.in_ms(timing.median) if timing else "-"


def _ratio(ours: Timing, theirs: Timing | None) -> str:
    return f"{ours.median / theirs.median:.2f}" if theirs else "-"


def ratios(steps: Sequence[Step]) -> str:
    """Return a line with the geometric means of our medians over PyTorch's; "" without a step of both."""
    eager = [step.ours.median / step.theirs.median for step in steps if step.theirs]
    best = [step.ours.median / step.best.median for step in steps if step.best]
    means = [
        f"{name}: {math.exp(statistics.fmean(map(math.log, found))):.2f}"
        for name, found in (("ours/PyTorch", eager), ("ours/best", best))
        if found
    ]
    return f"geometric mean of {', '.join(means)}" if means else ""
