"""The log of a run's steps: a line for each, the speed, and warnings."""

import math
import time
from dataclasses import dataclass
from typing import Any

from ..data.batches import Batches
from ..recipe.preset import Preset
from ..steps import StepLine, StepResult
from .directory import RunDirectory
from .divergence import Diverged
from .progress import Progress

LOW, HIGH = 1e-3, 50.0  # losses beyond these are reported: one player has won, or is lost
BLOCK = 50  # steps whose scalars stay on the device until they are written together
FRESH = 2.0  # seconds: nobody is shown scalars that are older


@dataclass(frozen=True)
class SpeedLine:
    """A line of timing.jsonl: the speed of the block of steps that ended with `step`."""

    step: int
    images_per_second: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, in their order."""
        return dict(vars(self))


class StepLog:
    """The scalars of the steps, on their way to metrics.jsonl and to the person who watches.

    Attributes:
        latest: the last line; None before the first.
    """

    def __init__(
        self, preset: Preset, batches: Batches, run: RunDirectory, progress: Progress, device: str = "cpu"
    ) -> None:
        self.looks_at_once = device == "cpu"  # where a look at a scalar waits for nobody
        self.preset, self.batches, self.run, self.progress = preset, batches, run, progress
        self.latest: StepLine | None = None
        self._pending: list[tuple[int, StepResult]] = []
        self._lines: list[StepLine] = []  # not yet in metrics.jsonl
        self._speeds: list[SpeedLine] = []  # not yet in timing.jsonl
        self._warned: set[str] = set()
        self._wrong: list[str] = []  # of the last line: what is no finite number
        self._block_started, self._block_images = time.perf_counter(), 0

    def record(self, step: int, result: StepResult, images: int) -> None:
        """Keep the scalars of a step; write them in blocks, so that a device is seldom waited for.

        Raises as `flush` does.
        """
        self._pending.append((step, result))
        self._block_images += images
        old = time.perf_counter() - self._block_started > FRESH
        losses = (result.loss_d, result.loss_g)
        old |= self.looks_at_once and not all(math.isfinite(loss.item()) for loss in losses)
        logged = step % self.preset.log_every == 0
        first, last = self.latest is None, self.progress.ends_with_next
        if len(self._pending) >= BLOCK or first or old or logged or last:
            self.flush()

    def report(self, step: int) -> None:
        """Print the scalars of a step, if the recipe asks for them."""
        if step % self.preset.log_every or self.latest is None:
            return
        latest = {name: math.nan if value is None else value for name, value in vars(self.latest).items()}
        self.progress.say(
            f"step {step}: loss D {latest['loss_d']:.4f}, loss G {latest['loss_g']:.4f}, "
            f"D(x) {latest['d_x']:.3f}, D(G(z)) {latest['d_g_z1']:.3f} / {latest['d_g_z2']:.3f}"
        )

    def flush(self) -> None:
        """Write what is kept: a line a step.

        Raises Diverged, whether it could be written or not, at the first step whose scalars are not all
        finite. If it can't be written (OSError), it is kept for the next time.
        """
        if self._pending:
            self._take_in()
        try:
            if self._lines:
                self.run.append("metrics.jsonl", [line.to_json() for line in self._lines])
                self._lines = []
        finally:
            if self.latest is not None and self._wrong:
                raise Diverged(self.latest.step, self._wrong)

    def write_speed(self) -> None:
        """Write the speed of the blocks so far. If that fails (OSError), it is kept for the next time."""
        if self._speeds:
            self.run.append("timing.jsonl", [line.to_json() for line in self._speeds])
            self._speeds = []

    def _take_in(self) -> None:
        """Make lines of the scalars that are kept: a look at them, all at once, waits for the device."""
        tensors = [value for _, result in self._pending for value in vars(result).values()]
        numbers = iter(tensors[0].backend.numbers([tensor.data for tensor in tensors]))
        for step, result in self._pending:
            scalars = {name: next(numbers) for name in vars(result)}
            line = StepLine(step, self.batches.epoch_of(step), **self._finite(step, scalars))
            self._lines.append(line)
            if self._wrong:
                break  # what comes after is worth nothing
        now = time.perf_counter()
        rate = self._block_images / (now - self._block_started)
        self._speeds.append(SpeedLine(line.step, round(rate, 1)))
        self.latest, self._pending = line, []
        self._block_started, self._block_images = now, 0

    def _finite(self, step: int, scalars: dict[str, float]) -> dict[str, float | None]:
        """The scalars with None (null in JSON) for what is no finite number; of others, a warning if odd."""
        self._wrong = wrong = [name for name, value in scalars.items() if not math.isfinite(value)]
        for name, player, other in (("loss_d", "D", "G"), ("loss_g", "G", "D")):
            value = scalars[name]
            if value < LOW:
                said = f"{player} has nothing left to learn from {other}"
                self._warn_once(f"{name} low", f"at step {step} {name} is {value:.2g}, under {LOW}: {said}")
            elif value > HIGH and math.isfinite(value):
                said = f"{player} is far behind {other}"
                self._warn_once(
                    f"{name} high", f"at step {step} {name} is {value:.4g}, over {HIGH:g}: {said}"
                )
        return {name: None if name in wrong else value for name, value in scalars.items()}

    def _warn_once(self, kind: str, text: str) -> None:
        """Say it the first time; metrics.jsonl has all the others."""
        if kind not in self._warned:
            self._warned.add(kind)
            self.progress.say(f"warning: {text}")
