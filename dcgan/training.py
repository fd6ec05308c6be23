"""A run: the networks, their optimisers, and the loop over the steps."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import minigrad as mg
from minigrad import nn, optim

from . import checkpoint, models, noise
from .average import WeightAverage
from .cadence import Cadence
from .checkpoint import Checkpoint
from .checkup import Checkup
from .data.batches import Batches
from .data.feed import Feed
from .divergence import first_not_finite
from .errors import UserError
from .evaluation.monitor import Monitor
from .losses import LOSSES
from .metrics import Metrics
from .outputs import Outputs
from .preset import Preset
from .progress import Progress
from .rundir import RunDirectory
from .steps import RULES, Gan

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
        monitor: what measures the samples every `every` steps and at the end, and so finds the best
            step, whose checkpoint is kept; None for nobody.
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
            _adam(preset, generator, preset.lr_generator),
            _adam(preset, discriminator, preset.lr_discriminator),
            lambda n: noise.draw(preset, n, self.noise, device),
            preset.batch_size,
            LOSSES[preset.loss],
        )
        self.average = WeightAverage(generator, preset.ema_decay) if preset.ema_decay else None
        self.sampler = generator if self.average is None else self.average.average
        self.metrics = Metrics(preset, batches, run, progress, device)
        self.checkup = Checkup(vitals_every, batches, run, progress)
        self.outputs = Outputs(preset, batches, run, self.sampler, device)
        self.cadence, self.keep = cadence or Cadence(), keep
        self.done = self.saved = 0  # steps: done, and in the last checkpoint
        self._failed: set[str] = set()  # what could not be written

    def restore(self, state: Checkpoint) -> None:
        """Go on from a checkpoint of the same recipe: all is as it was after its step.

        Raises UserError where it was made on other images, or its tensors do not fit.
        """
        if state.images and state.images != self.batches.fingerprint():
            raise UserError(
                f"the run was trained on other images ({state.images.split(',')[0]}) than these "
                f"({len(self.batches.images)}): name the same ones by --data"
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

    def resume(self) -> None:
        """Put the run's files back to where the checkpoint is, and draw what is missing of that step."""
        self.run.forget_after(self.done)
        self.outputs.forget_after(self.done)
        self.checkup.remember()
        self._draw_due()

    def train(self, total: int, stopped: Callable[[], bool]) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end.

        Raises Diverged where a loss is no finite number, and OSError where the last checkpoint can't be
        written, or the run's directory has gone. Other files that can't be written are told, once.
        """
        rule = RULES[self.preset.step]
        self._try("a picture of the images", self.outputs.write_real)
        if not self.done:
            self._write_due()
        while self.done < total and not stopped():
            real = self.feed(self.done + 1)
            result = self.checkup.do(self.done + 1, rule, self.gan, real)
            self.done += 1
            if self.average is not None:
                self.average.update(self.done)
            self._try("vitals.jsonl", self.checkup.write)
            self._try("metrics.jsonl", partial(self.metrics.record, self.done, result, len(real)))
            self._write_due()
            if self.every and (self.done % self.every == 0 or self.done == total):
                self._try("the evaluation", self._evaluate)
        self.metrics.flush()
        self.progress.close()
        self.save(checkpoint.FILE_NAME)
        self._try("a picture", lambda: self.outputs.finish(self.done))
        self._try("a picture", self.checkup.finish)

    def save(self, name: str) -> None:
        """Write a checkpoint under a name in the run's directory.

        Raises Diverged, and writes nothing, where a step until now had a loss that is no finite number.
        """
        self.metrics.flush()
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
        if name == checkpoint.FILE_NAME and self.saved != self.done:
            checkpoint.set_aside(self.run.path, self.saved, self.keep)
        checkpoint.save(self.run.path / name, self.preset, position, parts, self.images)
        if name == checkpoint.FILE_NAME:
            self.saved = self.done

    def where_it_diverged(self, step: int) -> str | None:
        """Do the steps from the last checkpoint up to `step` again, and look for the first bad number.

        It is written among the vital signs, too.
        """
        again = Training(self.preset, self.batches, self.device, self.run, self.progress)
        if self.saved:
            again.restore(checkpoint.load(self.run.path / checkpoint.FILE_NAME))

        def steps() -> None:
            for done in range(again.done, step):
                RULES[self.preset.step](again.gan, again.feed(done + 1))

        networks = {"generator": again.gan.generator, "discriminator": again.gan.discriminator}
        where = first_not_finite(networks, steps)
        self._try("vitals.jsonl", partial(self.checkup.diverged, step, where))
        return where

    def _write_due(self) -> None:
        """The pictures that are due after `done` steps, and a checkpoint with a grid, or where one is due."""
        with_grid = self.done > 0 and self.outputs.sample_is_due(self.done)
        if with_grid and self.preset.plot_with_samples:
            self._try("metrics.jsonl", self.metrics.flush)
            self._try("a picture", self.outputs.write_curves)
        self._draw_due()
        if with_grid or (self.done and self.cadence.is_due(self.done)):
            self._try("a checkpoint", self._save_in_time)

    def _draw_due(self) -> None:
        if self.outputs.sample_is_due(self.done):
            self._try("a picture", lambda: self.outputs.write_sample(self.done))
        if self.outputs.frame_is_due(self.done):
            self._try("a picture", lambda: self.outputs.write_frame(self.done))

    def _save_in_time(self) -> None:
        started = time.monotonic()
        self.save(checkpoint.FILE_NAME)
        self.cadence.written(time.monotonic() - started)

    def _try(self, what: str, write: Callable[[], None]) -> None:
        """Write something; where that fails, say so the first time, and go on while there is a directory."""
        try:
            write()
        except OSError as error:
            if not self.run.path.is_dir():
                raise
            if what not in self._failed:
                self._failed.add(what)
                reason = error.strerror or error
                self.progress.say(f"warning: after step {self.done} {what} could not be written: {reason}")

    def _evaluate(self) -> None:
        """Measure the samples, write the figures down, and keep the checkpoint where they are the best."""
        assert self.monitor is not None
        figures, best = self.monitor.measure(self.sampler)
        self.metrics.flush()
        epoch = self.batches.epoch_of(self.done)
        floor = self.monitor.floor
        line = {"step": self.done, "epoch": epoch, **figures.to_json()}
        line |= {"floor": floor.to_json(), "accuracy": self.monitor.accuracy}
        self.run.append("evaluations.jsonl", [line])
        score = "" if figures.score is None else f"score {figures.score:.2f} (real {floor.score:.2f}), "
        self.progress.say(
            f"step {self.done}: {score}Fréchet distance {figures.frechet:.2f} (real {floor.frechet:.2f}) of "
            f"{self.monitor.count} samples{': the best so far' if best else ''}"
        )
        if best:
            self.save(checkpoint.BEST_NAME)


def _adam(preset: Preset, network: nn.Module, lr: float) -> optim.Adam:
    return optim.Adam(network.parameters(), lr, (preset.beta1, preset.beta2), preset.adam_eps)
