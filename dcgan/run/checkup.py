"""The vital signs of a run: when a step is measured, and what is written and reported of it."""

from collections import Counter
from dataclasses import replace

from ..data.batches import Batches
from ..errors import UserError
from ..files import jsonfile
from ..steps import StepLine, StepResult
from ..vitals import picture
from ..vitals.diagnosis import MAX_TIMES, Finding, finding, findings
from ..vitals.line import VitalsLine
from ..vitals.measure import Measurement
from .directory import RunDirectory
from .learner import Learner
from .progress import Progress

FILE_NAME, PICTURE_NAME = "vitals.jsonl", "vitals.png"
EVERY = 100  # steps: a measured one takes up to half as long again, so that this is under half a percent
MAX_WARNINGS = 3  # reports of one sign: what comes and goes would fill the screen


class Checkup:
    """Measures steps of a run, and reports what is wrong when it begins.

    Args:
        every: steps; the first step is measured too. 0 for none.
    """

    def __init__(self, every: int, batches: Batches, run: RunDirectory, progress: Progress) -> None:
        self.every, self.batches, self.run, self.progress = every, batches, run, progress
        self._last: list[VitalsLine] = []  # as many as a diagnosis looks at
        self._pending: list[VitalsLine] = []  # not yet written
        self._reported: Counter[str] = Counter()  # how often each sign began

    def do(self, step: int, learner: Learner) -> StepResult | None:
        """Do the next step of a learner, and measure it, if that is due; else do nothing and return None."""
        if not self.every or (step != 1 and step % self.every):
            return None
        real = learner.next_batch()
        with Measurement(learner.gan, real) as measurement:
            result = learner.step_on(real)
        vitals = measurement.vitals(step, self.batches.epoch_of(step), result)
        self._add(VitalsLine(**vars(vitals), findings=findings([*self._last, vitals])))
        return result

    def write(self) -> None:
        """Write what is kept. Where that fails (OSError), it is kept for the next time."""
        if self._pending:
            self.run.append(FILE_NAME, [line.to_json() for line in self._pending])
            self._pending = []

    def remember(self) -> None:
        """Take what was found until now from the run's file. UserError where that is damaged."""
        for line in lines(self.run):
            self._take_in(line)

    def diverged(self, step: int, where: str | None) -> None:
        """Write down where the step that ended the run went wrong: in its line, if it was measured."""
        measured = bool(self._last) and self._last[-1].step == step
        if not self.every or (measured and where is None and "not-finite" in self._signs_at(-1)):
            return
        said = "numbers are not finite" + (f": the first comes up {where}" if where else "")
        line = self._last[-1] if measured else self._unmeasured(step)
        others = [found for found in line.findings if found.sign != "not-finite"]
        line = replace(line, findings=(finding("not-finite", step, said), *others))
        self.write()
        if measured:
            self.run.replace_last(FILE_NAME, line.to_json())
        else:
            self.run.append(FILE_NAME, [line.to_json()])

    def _unmeasured(self, step: int) -> VitalsLine:
        """Return the line of a step that was not measured: D's judgements, if metrics.jsonl ends with it."""
        found = [line for line in self.run.lines("metrics.jsonl")[-1:] if line["step"] == step]
        known = StepLine.from_json(found[0]) if found else StepLine(step)
        return VitalsLine(
            step,
            self.batches.epoch_of(step),
            known.d_x,
            known.d_g_z1,
            known.d_g_z2,
            layers=(),
            spread=None,
            real_saturated=None,
            batch_norm_gap=(),
            findings=(),
        )

    def finish(self) -> None:
        """Report what is still wrong, and draw the signs over the steps, where there are two or more."""
        if persist := [sign for sign in self._signs_at(-1) if sign in self._signs_at(-2)]:
            step, path = self._last[-1].step, self.run.path / FILE_NAME
            self.progress.say(f"warning: still so at step {step}: {', '.join(persist)} (see {path})")
        path = self.run.place(PICTURE_NAME)
        measured = lines(self.run)
        if len(measured) > 1:
            picture.save(measured, path)
        else:
            path.unlink(missing_ok=True)  # of a run that went on from a checkpoint before the second

    def _add(self, line: VitalsLine) -> None:
        for found in self._take_in(line):
            sentence = found.sentence
            self.progress.say(f"warning: {sentence[0].lower()}{sentence[1:]} {found.remedy}")
        self._pending.append(line)

    def _take_in(self, line: VitalsLine) -> list[Finding]:
        """Keep a line for the next diagnosis; return those of its findings that are to be reported."""
        before = self._signs_at(-1)
        self._last = [*self._last, line][-MAX_TIMES:]
        new = [found for found in line.findings if found.sign not in before]
        self._reported.update(found.sign for found in new)
        return [found for found in new if self._reported[found.sign] <= MAX_WARNINGS]

    def _signs_at(self, place: int) -> list[str]:
        """The signs of one of the last lines, -1 for the very last; none where there is no such line."""
        if len(self._last) < -place:
            return []
        return [found.sign for found in self._last[place].findings]


def lines(run: RunDirectory) -> list[VitalsLine]:
    """The lines of a run's vitals.jsonl; none where there is no file. UserError where it is damaged."""
    path = run.path / FILE_NAME
    if not path.exists():
        return []
    try:
        return [VitalsLine.from_json(line) for line in jsonfile.lines(path)]
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is damaged ({error!s:.200}): expected a line of vital signs for each measured step: "
            "move it away to go on without"
        ) from error
