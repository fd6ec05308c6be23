"""A run: the networks, their optimisers, and the loop over the steps."""

from collections.abc import Callable
from typing import Any

import minigrad as mg
from minigrad import nn, optim

from . import checkpoint, models, noise
from .average import WeightAverage
from .data.batches import Batches
from .data.feed import Feed
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
    ) -> None:
        mg.manual_seed(preset.seed)
        self.preset, self.batches, self.device = preset, batches, device
        self.run, self.progress = run, progress
        self.monitor, self.every = monitor, every
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
        self.metrics = Metrics(preset, batches, run, progress)
        self.outputs = Outputs(preset, batches, run, self.sampler, device)
        self.done = 0

    def train(self, total: int, stopped: Callable[[], bool]) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end."""
        rule = RULES[self.preset.step]
        self.outputs.write_real()
        self._write_due()
        while self.done < total and not stopped():
            real = self.feed(self.done + 1)
            result = rule(self.gan, real)
            self.done += 1
            if self.average is not None:
                self.average.update(self.done)
            self.metrics.record(self.done, result, len(real))
            self._write_due()
            if self.every and (self.done % self.every == 0 or self.done == total):
                self._evaluate()
        self.metrics.flush()
        self.progress.close()
        self.save(checkpoint.FILE_NAME)
        self.outputs.finish(self.done)

    def save(self, name: str) -> None:
        """Write a checkpoint under a name in the run's directory."""
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
        checkpoint.save(self.run.path / name, self.preset, position, parts)

    def _write_due(self) -> None:
        """The grid, with a checkpoint, and the frame that are due after `done` steps."""
        if self.outputs.sample_is_due(self.done):
            self.outputs.write_sample(self.done)
            if self.done:
                self.metrics.flush()
                self.save(checkpoint.FILE_NAME)
                if self.preset.plot_with_samples:
                    self.outputs.write_curves()
        if self.outputs.frame_is_due(self.done):
            self.outputs.write_frame(self.done)

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
