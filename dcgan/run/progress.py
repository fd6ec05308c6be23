"""The progress of a run: a bar on a terminal, elsewhere a plain line now and then."""

import math
import sys
import time
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from ..console import QuietStream, in_notebook, shows_progress, tell
from ..steps import StepLine

LINE_EVERY = 15.0  # seconds between two plain lines
LONG_RUN_THRESHOLD = 600.0  # seconds: a run that takes longer says so
NOTEBOOK_BAR = "{percentage:3.0f}%{bar}{n}/{total}, {remaining} left{postfix}"
BAR = "{percentage:3.0f}%|{bar:10}| {n}/{total}, {remaining} left{postfix}"
MEASURED = 5  # steps that the estimate is taken from, after one to warm up


def duration(seconds: float) -> str:
    """ "45 s", "12 min" or "3 h 20 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _scalars(latest: StepLine | None) -> str:
    """Return the latest scalars for a person; nan for what is not known."""
    known = dict.fromkeys(("loss_d", "loss_g", "d_x", "d_g_z1"), math.nan)
    if latest is not None:
        known |= {name: value for name, value in vars(latest).items() if value is not None}
    return (
        f"D {known['loss_d']:.3f}  G {known['loss_g']:.3f}  "
        f"D(x) {known['d_x']:.2f}  D(G(z)) {known['d_g_z1']:.2f}"
    )


class Progress:
    """Counts steps and shows how it goes.

    Args:
        total: steps in the run.
        short_way: a sentence for those who find that the run will be long; "" for none.
        begin: steps that an earlier run has done.
    """

    def __init__(self, total: int, short_way: str, begin: int = 0) -> None:
        self.total, self.short_way, self.begin = total, short_way, begin
        self.done, self.images = begin, 0
        self._started = self._measured_from = time.perf_counter()
        self._next_line = self._started + LINE_EVERY
        self._bar = _bar(total, begin) if shows_progress() else None

    def step(self, images: int, latest: StepLine | None) -> None:
        """Count one more step, of `images` images; `latest` has the latest scalars that are known."""
        self.done += 1
        self.images += images
        if self.done == self.begin + 1:
            self._measured_from = time.perf_counter()  # the first step warms up: it is left out
        elif self.done == self.begin + 1 + MEASURED:
            self._estimate()
        if self._bar is not None:
            self._bar.set_postfix_str(f"{_scalars(latest)}  {self.rate():.0f} images/s", refresh=False)
            self._bar.update()
        elif time.perf_counter() >= self._next_line or self.done == self.total:
            self._next_line = time.perf_counter() + LINE_EVERY
            left = duration((self.total - self.done) * self._seconds_per_step())
            rate = f"{self.rate():.0f} images/s"
            self.say(f"step {self.done}/{self.total}  {_scalars(latest)}  {rate}  {left} left")

    @property
    def ends_with_next(self) -> bool:
        """Whether the next step is the last."""
        return self.done + 1 == self.total

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        if self._bar is not None:
            self._bar.clear()
        tell(line)
        if self._bar is not None:
            self._bar.refresh()

    def rate(self) -> float:
        """Images per second so far."""
        return self.images / max(time.perf_counter() - self._started, 1e-9)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def _seconds_per_step(self) -> float:
        return (time.perf_counter() - self._measured_from) / max(self.done - self.begin - 1, 1)

    def _estimate(self) -> None:
        seconds = self._seconds_per_step()
        steps = self.total - self.begin
        if seconds * steps < LONG_RUN_THRESHOLD:
            return
        self.say(
            f"This run will take about {duration(seconds * steps)} on this machine: {steps} steps "
            f"of {seconds:.2f} s, measured on the first {MEASURED}.{self.short_way}"
        )


def _bar(total: int, begin: int) -> Any:
    """Return a progress bar: in a notebook a widget, if ipywidgets is installed, elsewhere one of text."""
    if in_notebook() and find_spec("ipywidgets") is not None:
        from .widget_bar import WidgetBar

        return WidgetBar(total=total, initial=begin, bar_format=NOTEBOOK_BAR)
    stream = sys.stdout if in_notebook() else sys.stderr  # notebooks show the latter's text as an error
    return tqdm(total=total, initial=begin, dynamic_ncols=True, bar_format=BAR, file=QuietStream(stream))
