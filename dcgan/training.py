"""A run: the networks, their optimisers, the data, and what is written when."""

import math
import time
from collections.abc import Callable
from typing import Any

import minigrad as mg
from minigrad import nn, optim

from . import checkpoint, layers, models, noise, pictures
from .animate import animate
from .average import WeightAverage
from .data.batches import Batches
from .errors import UserError
from .evaluation.monitor import Monitor
from .losses import LOSSES
from .preset import Preset
from .progress import Progress
from .rundir import RunDirectory
from .sampling import generate
from .steps import RULES, Gan, StepResult

# Streams of the run's seed, besides stream 0, which the engine draws weights and dropout from.
NOISE_STREAM, DATA_STREAM, FIXED_STREAM, SAMPLE_STREAM = 1, 2, 3, 4

LOW, HIGH = 1e-3, 50.0  # losses beyond these are told: one player has won, or is lost
METRICS_BLOCK = 50  # steps whose scalars stay on the device until they are written together


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
        count = preset.grid_rows * preset.grid_columns
        self.fixed_z = noise.draw(preset, count, mg.Generator(preset.seed, FIXED_STREAM), device)
        self.done = 0
        self._pending: list[tuple[int, StepResult]] = []
        self._latest: dict[str, Any] = {}
        self._warned: set[str] = set()
        self._block_started, self._block_images = time.perf_counter(), 0

    def train(self, total: int, stopped: Callable[[], bool]) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end."""
        rule = RULES[self.preset.step]
        self._write_real()
        self._write_due()
        while self.done < total and not stopped():
            real = mg.tensor(self.batches.batch(self.done + 1), device=self.device)
            result = rule(self.gan, real)
            self.done += 1
            if self.average is not None:
                self.average.update(self.done)
            self._record(result, len(real))
            self._write_due()
            if self.every and (self.done % self.every == 0 or self.done == total):
                self._evaluate()
        self._flush()
        self.progress.close()
        self.finish()

    def finish(self) -> None:
        """The last grid, the checkpoint, the curves, real beside fake, and the animation."""
        if not self._sample_is_due():
            self._write_sample()
        if self.done % self.preset.frame_every:
            self._write_frame()
        self.save(checkpoint.FILE_NAME)
        self._write_curves()
        self._write_real_and_fake()
        animate(self.run.frames, self.run.path / "output.gif")

    def save(self, name: str) -> None:
        """Write a checkpoint under a name in the run's directory."""
        parts: dict[str, dict[str, Any]] = {
            "generator": dict(self.gan.generator.state_dict()),
            "discriminator": dict(self.gan.discriminator.state_dict()),
            "optimizer_g": self.gan.optimizer_g.state_dict(),
            "optimizer_d": self.gan.optimizer_d.state_dict(),
            "": {"fixed_z": self.fixed_z},
            "rng": {
                "engine": checkpoint.random_state(mg.random.default),
                "noise": checkpoint.random_state(self.noise),
            },
        }
        if self.average is not None:
            parts["generator_ema"] = dict(self.average.average.state_dict())
        position = {"step": self.done, "epoch": self.batches.epoch_of(max(self.done, 1))}
        checkpoint.save(self.run.path / name, self.preset, position, parts)

    # -- what is written on the way ----------------------------------------------------------------

    def _write_due(self) -> None:
        """The grid, the frame, the curves and the checkpoint that are due after `done` steps."""
        if self._sample_is_due():
            self._write_sample()
            if self.done:
                self._flush()
                self.save(checkpoint.FILE_NAME)
                if self.preset.plot_with_samples:
                    self._write_curves()
        if self.done % self.preset.frame_every == 0:
            self._write_frame()

    def _sample_is_due(self) -> bool:
        every, early = self.preset.sample_every, self.preset.sample_early
        if every == 0:
            return self.done > 0 and self.batches.ends_epoch(self.done)
        return self.done % (early if early and self.done < every else every) == 0

    @property
    def sampler(self) -> nn.Module:
        """The generator that samples are drawn with: the averaged one where the recipe has it."""
        return self.gan.generator if self.average is None else self.average.average

    def _fakes(self, z: mg.Tensor) -> Any:
        """The images of z, as bytes (N, H, W, C)."""
        return pictures.to_bytes(generate(self.sampler, z, self.preset.statistics))

    def _evaluate(self) -> None:
        """Measure the samples, write the figures down, and keep the checkpoint where they are the best."""
        assert self.monitor is not None
        figures, best = self.monitor.measure(self.sampler)
        self._flush()
        epoch = self.batches.epoch_of(self.done)
        self.run.append("evaluations.jsonl", [{"step": self.done, "epoch": epoch, **figures.to_json()}])
        score = "" if figures.score is None else f"score {figures.score:.2f}, "
        self.progress.say(
            f"step {self.done}: {score}Fréchet distance {figures.frechet:.2f} of {self.monitor.count} samples"
            f"{': the best so far' if best else ''}"
        )
        if best:
            self.save(checkpoint.BEST_NAME)

    def _grid(self, images: Any) -> Any:
        return pictures.grid(images, self.preset.grid_rows, self.preset.grid_columns)

    def _write_sample(self) -> None:
        z = self.fixed_z
        if self.preset.sample_noise == "new":
            generator = mg.Generator(self.preset.seed, SAMPLE_STREAM)
            generator.state = {**generator.state, "calls": self.done}  # of this step, in whatever run
            z = noise.draw(self.preset, len(z), generator, self.device)
        epoch = self.batches.epoch_of(max(self.done, 1))
        name = self.preset.sample_name.format(step=self.done, epoch=epoch - 1)
        pictures.save_png(pictures.enlarged(self._grid(self._fakes(z))), self.run.samples / name)

    def _write_frame(self) -> None:
        pictures.save_png(self._grid(self._fakes(self.fixed_z)), self.run.frames / f"{self.done:08d}.png")

    def _reals(self) -> Any:
        return pictures.to_bytes(self.batches.first(len(self.fixed_z)))

    def _write_real(self) -> None:
        pictures.save_png(pictures.enlarged(self._grid(self._reals())), self.run.path / self.preset.real_name)

    def _write_real_and_fake(self) -> None:
        pictures.save_side_by_side(
            {"real": self._grid(self._reals()), "generated": self._grid(self._fakes(self.fixed_z))},
            self.run.path / "real_and_fake.png",
        )

    def _write_curves(self) -> None:
        if metrics := self.run.metrics():
            pictures.save_losses(metrics, self.run.path / "losses.png")

    def _record(self, result: StepResult, images: int) -> None:
        """Keep the step's scalars; write them in blocks, so that a device is seldom waited for."""
        self._pending.append((self.done, result))
        self._block_images += images
        if len(self._pending) == METRICS_BLOCK or not self._latest:
            self._flush()
        self.progress.step(images, self._latest)
        if self.done % self.preset.log_every == 0:
            self._flush()
            latest = {name: math.nan if value is None else value for name, value in self._latest.items()}
            self.progress.say(
                f"step {self.done}: loss D {latest['loss_d']:.4f}, loss G {latest['loss_g']:.4f}, "
                f"D(x) {latest['d_x']:.3f}, D(G(z)) {latest['d_g_z1']:.3f} / {latest['d_g_z2']:.3f}"
            )

    def _flush(self) -> None:
        if not self._pending:
            return
        lines = []
        for step, result in self._pending:
            scalars = {name: value.item() for name, value in vars(result).items()}
            lines.append({"step": step, "epoch": self.batches.epoch_of(step), **self._finite(step, scalars)})
        self.run.append("metrics.jsonl", lines)
        now = time.perf_counter()
        rate = self._block_images / (now - self._block_started)
        self.run.append("timing.jsonl", [{"step": self.done, "images_per_second": round(rate, 1)}])
        self._latest = lines[-1]
        self._pending, self._block_started, self._block_images = [], now, 0

    def _finite(self, step: int, scalars: dict[str, float]) -> dict[str, float | None]:
        """The scalars with None (null in JSON) for what is no finite number, and a warning of that."""
        wrong = [name for name, value in scalars.items() if not math.isfinite(value)]
        if wrong:
            self._warn_once(
                "diverged",
                f"at step {step} {', '.join(wrong)} is not finite: the run has diverged, and what "
                "it learned is lost. Start it again with smaller lr_generator and lr_discriminator (--set)",
            )
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


def _adam(preset: Preset, network: nn.Module, lr: float) -> optim.Adam:
    return optim.Adam(network.parameters(), lr, (preset.beta1, preset.beta2), preset.adam_eps)


def check_batches(preset: Preset, count: int) -> None:
    """Raise UserError where the set is less than a batch, or some batch would hold one image that a
    BatchNorm has no statistics of.
    """
    in_d, in_g = (
        any(isinstance(layer, layers.BatchNorm) for layer in network)
        for network in (preset.discriminator, preset.generator)
    )
    if count < preset.batch_size:
        smaller = f"use --batch-size {count} or less, or more images" if count > 1 else "use more images"
        raise UserError(f"{count} images are less than a batch of {preset.batch_size}: {smaller}")
    last = count % preset.batch_size
    fakes_follow = preset.step != "fresh_noise"  # as many fakes as real images, on the last batch too
    if preset.batch_size == 1 and (in_d or in_g):
        raise UserError("--batch-size 1: a BatchNorm needs two images or more; use a larger batch")
    if last == 1 and (in_d or (in_g and fakes_follow)):
        raise UserError(
            f"--batch-size {preset.batch_size}: the last batch of {count} images would hold one, and a "
            f"BatchNorm needs more; use {_next_size(preset.batch_size, count)}, or another size"
        )


def _next_size(batch_size: int, count: int) -> int:
    """The first larger batch size that leaves no image alone, of `count` of them."""
    return next(size for size in range(batch_size + 1, count + 1) if count % size != 1)


def total_steps(preset: Preset, per_epoch: int) -> int:
    """How many steps the recipe asks for: its epochs, or fewer where it names steps."""
    steps = preset.epochs * per_epoch
    return min(steps, preset.steps) if preset.steps else steps
