"""The vital signs of a run: when a step is measured, what is written down of it, and what is told."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import minigrad as mg

from ..data.batches import Batches
from ..errors import UserError
from ..files import jsonfile
from ..steps import Gan, StepResult
from ..vitals import picture
from ..vitals.diagnosis import MEASURES, SIGNS, finding, findings
from ..vitals.measure import Line, Measurement
from .directory import RunDirectory
from .progress import Progress

FILE_NAME, PICTURE_NAME = "vitals.jsonl", "vitals.png"
EVERY = 100  # steps: a measured one takes up to half as long again, so that this is under half a percent
MAX_WARNINGS = 3  # times that one sign is told: what comes and goes would fill the screen


class Checkup:
    """Measures steps of a run, and tells what is wrong when it begins.

    Args:
        every: steps; the first step is measured too. 0 for none.
    """

    def __init__(self, every: int, batches: Batches, run: RunDirectory, progress: Progress) -> None:
        self.every, self.batches, self.run, self.progress = every, batches, run, progress
        self._last: list[Line] = []  # as many as a diagnosis looks at
        self._pending: list[Line] = []  # not yet written
        self._told: Counter[str] = Counter()

    def do(
        self, step: int, rule: Callable[[Gan, mg.Tensor], StepResult], gan: Gan, real: mg.Tensor
    ) -> StepResult:
        """Do a step by its rule, and measure it where that is due."""
        if not self.every or (step != 1 and step % self.every):
            return rule(gan, real)
        with Measurement(gan, real) as seen:
            result = rule(gan, real)
        line = seen.line(step, self.batches.epoch_of(step), result)
        self._add({**line, "findings": findings([*self._last, line])})
        return result

    def write(self) -> None:
        """Write what is kept. Where that fails (OSError), it is kept for the next time."""
        if self._pending:
            self.run.append(FILE_NAME, self._pending)
            self._pending = []

    def remember(self) -> None:
        """Take what was found until now from the run's file. UserError where that is damaged."""
        for line in lines(self.run):
            self._take_in(line)

    def diverged(self, step: int, where: str | None) -> None:
        """Write down where the step that ended the run went wrong: in its line, if it was measured."""
        measured = bool(self._last) and self._last[-1]["step"] == step
        if not self.every or (measured and where is None and "not-finite" in self._signs_at(-1)):
            return
        said = "numbers are not finite" + (f": the first comes up {where}" if where else "")
        line = self._last[-1] if measured else self._unmeasured(step)
        others = [found for found in line["findings"] if found["sign"] != "not-finite"]
        line = {**line, "findings": [finding("not-finite", step, said), *others]}
        self.write()
        if measured:
            self.run.replace_last(FILE_NAME, line)
        else:
            self.run.append(FILE_NAME, [line])

    def _unmeasured(self, step: int) -> Line:
        """What a line says of a step that was not measured."""
        known = {line["step"]: line for line in self.run.lines("metrics.jsonl")[-1:]}.get(step, {})
        return {
            "step": step,
            "epoch": self.batches.epoch_of(step),
            **{name: known.get(name) for name in ("d_x", "d_g_z1", "d_g_z2")},
            "layers": [],
            "spread": None,
            "real_saturated": None,
            "batch_norm_gap": [],
            "findings": [],
        }

    def finish(self) -> None:
        """Tell what is still wrong, and draw the signs over the steps, where there are two or more."""
        if persist := [sign for sign in self._signs_at(-1) if sign in self._signs_at(-2)]:
            step, path = self._last[-1]["step"], self.run.path / FILE_NAME
            self.progress.say(f"warning: still so at step {step}: {', '.join(persist)} (see {path})")
        path = self.run.place(PICTURE_NAME)
        measured = lines(self.run)
        if len(measured) > 1:
            picture.save(measured, path)
        else:
            path.unlink(missing_ok=True)  # of a run that went on from a checkpoint before the second

    def _add(self, line: Line) -> None:
        for found in self._take_in(line):
            sentence = found["sentence"]
            self.progress.say(f"warning: {sentence[0].lower()}{sentence[1:]} {found['remedy']}")
        self._pending.append(line)

    def _take_in(self, line: Line) -> list[dict[str, str]]:
        """Keep a line for the next diagnosis; of its findings, those to tell."""
        before = self._signs_at(-1)
        self._last = [*self._last, line][-MEASURES:]
        new = [found for found in line["findings"] if found["sign"] not in before]
        self._told.update(found["sign"] for found in new)
        return [found for found in new if self._told[found["sign"]] <= MAX_WARNINGS]

    def _signs_at(self, place: int) -> list[str]:
        """The signs of one of the last lines, -1 for the very last; none where there is no such line."""
        if len(self._last) < -place:
            return []
        return [found["sign"] for found in self._last[place]["findings"]]


def lines(run: RunDirectory) -> list[Line]:
    """The lines of a run's vitals.jsonl; none where there is no file. UserError where it is damaged."""
    path = run.path / FILE_NAME
    if not path.exists():
        return []
    try:
        return [_checked(line) for line in jsonfile.lines(path)]
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({error!s:.200}): expected a line of vital signs for each measured step: "
            "move it away to go on without"
        ) from error


def _checked(line: Any) -> Line:
    """A line as it is read by a diagnosis and drawn; TypeError, ValueError or KeyError for anything else."""
    _expect(line, dict)
    for name in ("step", "epoch"):
        _expect(line[name], int)
    for name in ("d_x", "d_g_z1", "d_g_z2", "spread", "real_saturated"):
        _expect_number(name, line[name])
    for layer in _expect(line["layers"], list):
        for name in ("network", "name", "kind"):
            _expect(layer[name], str)
        for name in ("gradient_norm", "update_ratio", "dead", "saturated"):
            _expect_number(name, layer[name])
    for norm in _expect(line["batch_norm_gap"], list):
        _expect(norm["name"], str)
        _expect_number("gap", norm["gap"])
    for found in _expect(line["findings"], list):
        if found["sign"] not in (sign.name for sign in SIGNS):
            raise ValueError(f"an unknown sign {found['sign']!r:.60}")
        for name in ("sentence", "remedy"):
            _expect(found[name], str)
    return dict(line)


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r:.60}")
    return value


def _expect_number(name: str, value: Any) -> None:
    if value is not None and not (type(value) in (int, float) and 0 <= value < 2**1000):
        raise ValueError(f"{name}={value!r:.60}: expected a number of at least 0")
