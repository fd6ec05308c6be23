"""A run: the networks, their optimisers, and the loop over the steps."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import minigrad as mg
from minigrad.inspect import ShadowError

from .. import latent, models, optimizers
from ..data.batches import Batches
from ..data.feed import Feed
from ..errors import UserError
from ..evaluation.line import EvaluationLine
from ..evaluation.monitor import Monitor
from ..losses import LOSSES
from ..recipe.preset import Preset
from ..steps import RULES, Gan
from . import checkpoint
from .checkpoint import Checkpoint
from .checkup import Checkup
from .directory import RunDirectory
from .divergence import Diverged, first_not_finite
from .ema import WeightAverage
from .evaluations import Evaluations
from .outputs import Outputs
from .progress import Progress
from .schedule import Cadence
from .step_log import BLOCK, StepLog

# Streams of the run's seed, besides stream 0, which the engine draws weights and dropout from, and those
# in outputs.py.
NOISE_STREAM, DATA_STREAM = 1, 2
KEPT = 2  # checkpoints


class Training:
    """One run of a recipe.

    Args:
        preset: the recipe.
        batches: the images.
        device: "cpu" or "gpu".
        run: where everything is written.
        progress: what a person sees meanwhile.
        monitor: what measures the samples every `every` steps and so finds the best step, whose checkpoint
            is kept; None for nobody.
        cadence: when checkpoints are due, besides those with the recipe's grids and at the end.
        keep: how many of the last ones stay.
        vitals_every: steps between two whose vital signs are measured; 0 for none.
    """

    def __init__(
        self,
        preset: Preset,
        batches: Batches,
        device: str,
        run: RunDirectory,
        progress: Progress,
        monitor: Monitor | None = None,
        every: int = 0,
        cadence: Cadence | None = None,
        keep: int = KEPT,
        vitals_every: int = 0,
    ) -> None:
        mg.manual_seed(preset.seed)
        self.preset, self.batches, self.device = preset, batches, device
        self.run, self.progress = run, progress
        self.monitor, self.every = monitor, every
        self.images = batches.fingerprint()
        generator, discriminator = (network.to(device) for network in models.build(preset))
        self.feed = Feed(batches, device)
        self.noise = mg.Generator(preset.seed, NOISE_STREAM)
        self.gan = Gan(
            generator,
            discriminator,
            *optimizers.build(preset, generator, discriminator),
            lambda n: latent.draw(preset, n, self.noise, device),
            preset.batch_size,
            LOSSES[preset.loss],
        )
        self.average = WeightAverage(generator, preset.ema_decay) if preset.ema_decay else None
        self.sampler = generator if self.average is None else self.average.average
        self.metrics = StepLog(preset, batches, run, progress, device)
        self.checkup = Checkup(vitals_every, batches, run, progress)
        self.outputs = Outputs(preset, batches, run, self.sampler, device)
        self.evaluations = Evaluations(run)
        self.cadence, self.keep = cadence or Cadence(), keep
        self.done = 0  # steps
        self.saved: int | None = None  # the step of the last checkpoint, if there is one
        self._failed: set[str] = set()  # what could not be written

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint of the same recipe: all is as it was after its step.

        Raises UserError where it was made on other images, or its tensors do not fit.
        """
        if state.images and not self.batches.matches(state.images):
            raise UserError(
                f"the run was trained on other images ({state.images.split(',')[0]}) than these "
                f"({len(self.batches.images)}): name the same ones by --data, with the same --range"
            )
        try:
            self.gan.generator.load_state_dict(state.under("generator"))
            self.gan.discriminator.load_state_dict(state.under("discriminator"))
            self.gan.optimizer_g.load_state_dict(state.under("optimizer_g"))
            self.gan.optimizer_d.load_state_dict(state.under("optimizer_d"))
            if self.average is not None:
                self.average.average.load_state_dict(state.under("generator_ema"))
            random = state.under("rng")
            mg.random.set_state(checkpoint.generator_state(random["engine"]))
            self.noise.state = checkpoint.generator_state(random["noise"])
        except (KeyError, ValueError) as error:
            raise UserError(f"the checkpoint does not fit its recipe: {error}") from error
        self.done = self.saved = state.position["step"]

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
            self.monitor.remember(self.run)

    def train(self, total: int, stopped: Callable[[], bool]) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end.

        Raises Diverged if a loss is no finite number, and OSError if the last checkpoint can't be written,
        or the run's directory has gone. Other failures to write or draw are reported, each once.
        """
        rule = RULES[self.preset.step]
        self._draw("a picture of the images", self.outputs.write_real)
        self._draw_due()
        self._evaluate_if_due()
        while self.done < total and not stopped():
            real = self.feed(self.done + 1)
            result = self.checkup.do(self.done + 1, rule, self.gan, real)
            self.done += 1
            if self.average is not None:
                self.average.update(self.done)
            self._try("vitals.jsonl", self.checkup.write)
            self._try("metrics.jsonl", partial(self.metrics.record, self.done, result, len(real)))
            self._try("timing.jsonl", self.metrics.write_speed)
            self.progress.step(len(real), self.metrics.latest)
            self.metrics.report(self.done)
            self._write_due()
            self._evaluate_if_due()
        self._finish()

    def _finish(self) -> None:
        """Write the last checkpoint, if this step has none, and the pictures of the end."""
        self._try("metrics.jsonl", self.metrics.flush)
        self.progress.close()
        if self.saved != self.done:
            self.save()
        else:  # perhaps by a run that was killed before it had removed older ones
            self._try("a checkpoint", partial(checkpoint.prune, self.run.path, self.keep))
        self._try("timing.jsonl", self.metrics.write_speed)
        self._try("vitals.jsonl", self.checkup.write)
        self._try("the evaluation", self.evaluations.flush)
        for name, draw in self.outputs.final(self.done).items():
            self._draw(name, draw)
        self._draw("vitals.png", self.checkup.finish)
        self._try("metrics.jsonl", self.metrics.flush)  # again: there may be room by now

    def save(self) -> None:
        """Write a checkpoint.

        Raises Diverged, and writes nothing, if a step until now had a loss that is no finite number. Raises
        OSError if it can't be written.
        """
        self._try("metrics.jsonl", self.metrics.flush)  # the weights are worth more than their log
        last = self.run.place(checkpoint.FILE_NAME)
        if self.saved is not None and self.keep > 1 and last.is_file():
            (self.run.path / checkpoint.OLDER_NAME).mkdir(exist_ok=True)
            checkpoint.give_name(last, self.run.place(checkpoint.older_name(self.saved)))
        checkpoint.save(last, *self._state())
        self.saved = self.done
        checkpoint.prune(self.run.path, self.keep)

    def _state(self) -> tuple[Preset, dict[str, int], dict[str, dict[str, Any]], str]:
        """Return the recipe, the position, the state dicts and the images' fingerprint, for a checkpoint."""
        parts: dict[str, dict[str, Any]] = {
            "generator": dict(self.gan.generator.state_dict()),
            "discriminator": dict(self.gan.discriminator.state_dict()),
            "optimizer_g": self.gan.optimizer_g.state_dict(),
            "optimizer_d": self.gan.optimizer_d.state_dict(),
            "": {"fixed_z": self.outputs.fixed_z},
            "rng": {
                "engine": checkpoint.random_state(mg.random.default),
                "noise": checkpoint.random_state(self.noise),
            },
        }
        if self.average is not None:
            parts["generator_ema"] = dict(self.average.average.state_dict())
        position = {"step": self.done, "epoch": self.batches.epoch_of(max(self.done, 1))}
        return self.preset, position, parts, self.images

    def where_it_diverged(self, step: int) -> str | None:
        """Do the steps from the last checkpoint up to `step` again, and look for the first bad number.

        It is written among the vital signs, too.
        """
        again = Training(self.preset, self.batches, self.device, self.run, self.progress)
        if self.saved is not None:
            again.restore(checkpoint.load(self.run.path / checkpoint.FILE_NAME))

        def steps() -> None:
            for done in range(again.done, step):
                RULES[self.preset.step](again.gan, again.feed(done + 1))

        networks = {"generator": again.gan.generator, "discriminator": again.gan.discriminator}
        where = first_not_finite(networks, steps)
        self._try("timing.jsonl", self.metrics.write_speed)
        self._try("vitals.jsonl", partial(self.checkup.diverged, step, where))
        return where

    def _write_due(self) -> None:
        """The pictures that are due after `done` steps, and a checkpoint with a grid, or where one is due."""
        with_grid = self.outputs.sample_is_due(self.done)
        if with_grid and self.preset.plot_with_samples:
            self._try("metrics.jsonl", self.metrics.flush)
            self._draw("losses.png", self.outputs.write_curves)
        self._draw_due()
        if with_grid or self.cadence.is_due(self.done):
            self._try("a checkpoint", self._save_in_time)

    def _draw_due(self) -> None:
        if self.outputs.sample_is_due(self.done):
            self._draw("a grid", lambda: self.outputs.write_sample(self.done))
        if self.outputs.frame_is_due(self.done):
            self._draw("a frame", lambda: self.outputs.write_frame(self.done))

    def _save_in_time(self) -> None:
        started = time.monotonic()
        self.save()
        self.cadence.written(time.monotonic() - started)

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
                reason = (error.strerror if isinstance(error, OSError) else "") or f"{error!s:.300}"
                self.progress.say(
                    f"warning: after step {self.done} {what} could not be written: "
                    f"{reason or type(error).__name__}"
                )

    def _evaluate_if_due(self) -> None:
        """Measure the samples every so many steps, unless a run that was killed had done so."""
        monitor = self.monitor
        if monitor is not None and self.done > monitor.last and self.done % self.every == 0:
            self._evaluate(monitor)
        self._try("the evaluation", self.evaluations.flush)

    def _evaluate(self, monitor: Monitor) -> None:
        """Measure the samples, and keep the checkpoint if they are the best so far."""
        self._try("metrics.jsonl", self.metrics.flush)  # the best step is never one that diverged
        result, best = monitor.measure(self.sampler, self.done)
        floor = monitor.floor
        line = EvaluationLine(self.done, self.batches.epoch_of(self.done), result, floor, monitor.accuracy)
        self.evaluations.add(line, checkpoint.encode(*self._state()) if best else None)
        score = "" if result.score is None else f"score {result.score:.2f} (real {floor.score:.2f}), "
        self.progress.say(
            f"step {self.done}: {score}Fréchet distance {result.frechet:.2f} (real {floor.frechet:.2f}) of "
            f"{monitor.count} samples{': the best so far' if best else ''}"
        )
