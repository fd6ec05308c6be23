"""The loop of a run, and when it writes what."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from minigrad.inspect import ShadowError

from ..errors import reason
from ..evaluation.line import EvaluationLine
from ..evaluation.monitor import Monitor
from ..recipe.preset import Preset
from ..steps import StepResult
from . import checkpoint
from .checkpoint import Checkpoint
from .checkup import Checkup
from .directory import RunDirectory
from .divergence import Diverged, first_not_finite
from .evaluations import Evaluations
from .learner import Learner
from .outputs import Outputs
from .progress import Progress
from .schedule import CheckpointTimer, Schedule
from .step_log import BLOCK, StepLog


class Training:
    """One run of a recipe.

    Args:
        learner: the networks, and the images that they learn from.
        run: where everything is written.
        progress: what a person sees meanwhile.
        schedule: how often samples are evaluated, checkpoints written and vital signs measured.
        monitor: what evaluates the samples and so finds the best step, whose checkpoint is kept; None for
            nobody.
    """

    def __init__(
        self,
        learner: Learner,
        run: RunDirectory,
        progress: Progress,
        schedule: Schedule,
        monitor: Monitor | None = None,
    ) -> None:
        self.learner, self.run, self.progress = learner, run, progress
        self.schedule, self.monitor = schedule, monitor
        self.preset, self.batches = learner.preset, learner.batches
        self.step_log = StepLog(self.preset, self.batches, run, progress, learner.device)
        self.checkup = Checkup(schedule.vitals_every, self.batches, run, progress)
        self.outputs = Outputs(self.preset, self.batches, run, learner.sampler, learner.device)
        self.evaluations = Evaluations(run)
        self.timer = CheckpointTimer(schedule.checkpoint_every)
        self.saved: int | None = None  # the step of the last checkpoint, if there is one
        self._failed: set[str] = set()  # what could not be written

    @property
    def done(self) -> int:
        """Steps so far."""
        return self.learner.done

    def restore(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint, as `Learner.restore` does."""
        self.learner.restore(saved)
        self.saved = self.done

    def resume(self, loaded: Path | None) -> None:
        """Put the run's files back to the state that the checkpoint is of.

        Each step leaves files from which the run can be resumed again: pictures are removed while the log
        files still tell how far the run had come.

        Args:
            loaded: the checkpoint's file; None for a run without one, which starts again.
        """
        checkpoint.go_back(self.run.path, loaded, self.done)
        self.run.make_folders()
        reached = max([self.done, *(line["step"] for line in self.run.lines("metrics.jsonl")[-1:])]) + BLOCK
        self.outputs.forget_after(self.done, reached)
        for said in self.run.forget_after(self.done):
            self.progress.say(f"warning: {said}")
        self.checkup.remember()
        if self.monitor is not None:
            has_best = (self.run.path / checkpoint.BEST_NAME).is_file()
            lines = [EvaluationLine.from_json(line) for line in self.run.lines("evaluations.jsonl")]
            self.monitor.remember(lines, has_best)

    def train(
        self,
        total: int,
        stopped: Callable[[], bool],
        after_step: Callable[[StepResult], None] | None = None,
    ) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end.

        Args:
            after_step: called with the result of each step. What it raises ends the run, which is kept as if
                it had been stopped.

        Raises Diverged if a loss is no finite number, and OSError if the last checkpoint can't be written,
        or the run's directory has gone. Other failures to write or draw are reported, each once.
        """
        learner = self.learner
        self._draw("a picture of the images", self.outputs.write_real)
        self._draw_due()
        self._evaluate_if_due()
        while self.done < total and not stopped():
            images = self.batches.count(self.done + 1)
            result = self.checkup.do(self.done + 1, learner) or learner.step(images)
            learner.count_step()
            self._try("vitals.jsonl", self.checkup.write)
            self._try("metrics.jsonl", partial(self.step_log.record, self.done, result, images))
            self._try("timing.jsonl", self.step_log.write_speed)
            self.progress.step(images, self.step_log.latest)
            self.step_log.report(self.done)
            self._write_due()
            self._evaluate_if_due()
            if after_step is not None:
                self._call(after_step, result)
        self._finish()

    def _call(self, after_step: Callable[[StepResult], None], result: StepResult) -> None:
        try:
            after_step(result)
        except BaseException:
            self._finish()
            raise

    def _finish(self) -> None:
        """Write the last checkpoint, if this step has none, and the pictures of the end."""
        self._try("metrics.jsonl", self.step_log.flush)
        self.progress.close()
        if self.saved != self.done:
            self.save()
        else:  # perhaps by a run that was killed before it had removed older ones
            self._try("a checkpoint", partial(checkpoint.prune, self.run.path, self.schedule.keep))
        self._try("timing.jsonl", self.step_log.write_speed)
        self._try("vitals.jsonl", self.checkup.write)
        self._try("the evaluation", self.evaluations.flush)
        for name, draw in self.outputs.final(self.done).items():
            self._draw(name, draw)
        self._draw("vitals.png", self.checkup.finish)
        self._try("metrics.jsonl", self.step_log.flush)  # again: there may be room by now

    def save(self) -> None:
        """Write a checkpoint.

        Raises Diverged, and writes nothing, if a step until now had a loss that is no finite number. Raises
        OSError if it can't be written.
        """
        self._try("metrics.jsonl", self.step_log.flush)  # the weights are worth more than their log
        last = self.run.place(checkpoint.FILE_NAME)
        if self.saved is not None and self.schedule.keep > 1 and last.is_file():
            (self.run.path / checkpoint.OLDER_NAME).mkdir(exist_ok=True)
            checkpoint.give_name(last, self.run.place(checkpoint.older_name(self.saved)))
        checkpoint.save(last, *self._state())
        self.saved = self.done
        checkpoint.prune(self.run.path, self.schedule.keep)

    def _state(self) -> tuple[Preset, dict[str, int], dict[str, dict[str, Any]], str]:
        """Return the recipe, the position, the state dicts and the images' fingerprint, for a checkpoint."""
        parts = {**self.learner.state_dicts(), "": {"fixed_z": self.outputs.fixed_z}}
        return self.preset, self.learner.position(), parts, self.learner.images

    def where_it_diverged(self, step: int) -> str | None:
        """Do the steps from the last checkpoint up to `step` again, and look for the first bad number.

        It is written among the vital signs, too.
        """
        again = Learner(self.preset, self.batches, self.learner.device)
        if self.saved is not None:
            again.restore(checkpoint.load(self.run.path / checkpoint.FILE_NAME))

        def steps() -> None:
            for _ in range(again.done, step):
                again.step_on(again.next_batch())
                again.count_step()

        where = first_not_finite(again.networks, steps)
        self._try("timing.jsonl", self.step_log.write_speed)
        self._try("vitals.jsonl", partial(self.checkup.diverged, step, where))
        return where

    def _write_due(self) -> None:
        """The pictures that are due after `done` steps, and a checkpoint with a grid, or where one is due."""
        with_grid = self.outputs.sample_is_due(self.done)
        if with_grid and self.preset.plot_with_samples:
            self._try("metrics.jsonl", self.step_log.flush)
            self._draw("losses.png", self.outputs.write_curves)
        self._draw_due()
        if with_grid or self.timer.is_due(self.done):
            self._try("a checkpoint", self._save_in_time)

    def _draw_due(self) -> None:
        if self.outputs.sample_is_due(self.done):
            self._draw("a grid", lambda: self.outputs.write_sample(self.done))
        if self.outputs.frame_is_due(self.done):
            self._draw("a frame", lambda: self.outputs.write_frame(self.done))

    def _save_in_time(self) -> None:
        started = time.monotonic()
        self.save()
        self.timer.written(time.monotonic() - started)

    def _draw(self, what: str, draw: Callable[[], None]) -> None:
        """Draw a picture; whatever fails in it is reported, and training goes on."""
        self._try(what, draw, Exception)

    def _try(self, what: str, write: Callable[[], None], failures: type[Exception] = OSError) -> None:
        """Write something; report a failure the first time, and go on if the directory is still there."""
        try:
            write()
        except (Diverged, ShadowError):
            raise
        except failures as error:
            if not self.run.is_in_place():
                raise
            if what not in self._failed:
                self._failed.add(what)
                cause = reason(error) if isinstance(error, OSError) else str(error)
                self.progress.say(
                    f"warning: after step {self.done} {what} could not be written: "
                    f"{cause[:300] or type(error).__name__}"
                )

    def _evaluate_if_due(self) -> None:
        """Measure the samples every so many steps, unless a run that was killed had done so."""
        monitor = self.monitor
        if monitor is not None and self.done > monitor.last and self.done % self.schedule.evaluate_every == 0:
            self._evaluate(monitor)
        self._try("the evaluation", self.evaluations.flush)

    def _evaluate(self, monitor: Monitor) -> None:
        """Measure the samples, and keep the checkpoint if they are the best so far."""
        self._try("metrics.jsonl", self.step_log.flush)  # the best step is never one that diverged
        result, best = monitor.measure(self.learner.sampler, self.done)
        floor = monitor.floor
        line = EvaluationLine(self.done, self.batches.epoch_of(self.done), result, floor, monitor.accuracy)
        self.evaluations.add(line, checkpoint.encode(*self._state()) if best else None)
        score = "" if result.score is None else f"score {result.score:.2f} (real {floor.score:.2f}), "
        self.progress.say(
            f"step {self.done}: {score}Fréchet distance {result.frechet:.2f} (real {floor.frechet:.2f}) of "
            f"{monitor.count} samples{': the best so far' if best else ''}"
        )
