"""`python -m dcgan.train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
import ast
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import minigrad as mg
from minigrad import nn, optim
from minigrad.backend import get as get_backend

from . import checkpoint, models, noise, pictures, presets
from .animate import animate
from .average import WeightAverage
from .data import mnist
from .data.batches import Batches
from .errors import UserError, run_command, tell
from .presets import Preset
from .progress import Progress
from .rundir import RunDirectory
from .sampling import generate
from .steps import RULES, Gan, StepResult

# Streams of the run's seed, besides stream 0, which the engine draws weights and dropout from.
NOISE_STREAM, DATA_STREAM, FIXED_STREAM = 1, 2, 3

METRICS_BLOCK = 50  # steps whose scalars stay on the device until they are written together


class Training:
    """A run: the networks, their optimisers, the data, and what is written when."""

    def __init__(
        self, preset: Preset, batches: Batches, device: str, run: RunDirectory, progress: Progress
    ) -> None:
        mg.manual_seed(preset.seed)
        self.preset, self.batches, self.device, self.run, self.progress = (
            preset,
            batches,
            device,
            run,
            progress,
        )
        generator, discriminator = (network.to(device) for network in models.build(preset))
        self.noise = mg.Generator(preset.seed, NOISE_STREAM)
        self.gan = Gan(
            generator,
            discriminator,
            _adam(preset, generator, preset.lr_generator),
            _adam(preset, discriminator, preset.lr_discriminator),
            lambda n: noise.draw(preset, n, self.noise, device),
            preset.batch_size,
        )
        self.average: WeightAverage | None = None
        if preset.ema_decay:
            state = mg.random.get_state()  # the second network's own weights are drawn and thrown away
            self.average = WeightAverage(generator, models.build(preset)[0].to(device), preset.ema_decay)
            mg.random.set_state(state)
        count = preset.grid_rows * preset.grid_columns
        self.fixed_z = noise.draw(preset, count, mg.Generator(preset.seed, FIXED_STREAM), device)
        self.done = 0
        self._pending: list[tuple[int, StepResult]] = []
        self._latest: dict[str, float] = {}
        self._block_started, self._block_images = time.perf_counter(), 0

    def train(self, total: int, stopped: Callable[[], bool]) -> None:
        """Steps up to `total` in all, or until `stopped()`; then all that belongs to the end."""
        rule = RULES[self.preset.step]
        self._pictures()
        while self.done < total and not stopped():
            real = mg.tensor(self.batches.batch(self.done + 1), device=self.device)
            result = rule(self.gan, real)
            self.done += 1
            if self.average is not None:
                self.average.update(self.done)
            self._record(result, len(real))
            self._pictures()
        self._flush()
        self.progress.close()
        self.finish()

    def finish(self) -> None:
        """The last grid, the checkpoint, the curves and the animation."""
        self._write_sample()
        self._write_frame()
        self.save()
        if metrics := self.run.metrics():
            pictures.save_losses(metrics, self.run.path / "losses.png")
        animate(self.run.frames, self.run.path / "output.gif")

    def save(self) -> None:
        """Write the checkpoint."""
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
        checkpoint.save(self.run.path / checkpoint.FILE_NAME, self.preset, position, parts)

    # -- what is written on the way ----------------------------------------------------------------

    def _pictures(self) -> None:
        """The grid and the frame that are due after `done` steps; the run's end writes its own."""
        if self.done % self.preset.sample_every == 0:
            self._write_sample()
        if self.done % self.preset.frame_every == 0:
            self._write_frame()

    def _grid(self) -> Any:
        source = self.gan.generator if self.average is None else self.average.average
        images = generate(source, self.fixed_z, self.preset.statistics)
        return pictures.grid(pictures.to_bytes(images), self.preset.grid_rows, self.preset.grid_columns)

    def _write_sample(self) -> None:
        name = self.preset.sample_name.format(step=self.done)
        pictures.save_png(pictures.enlarged(self._grid()), self.run.samples / name)

    def _write_frame(self) -> None:
        pictures.save_png(self._grid(), self.run.frames / f"{self.done:08d}.png")

    def _record(self, result: StepResult, images: int) -> None:
        """Keep the step's scalars; write them in blocks, so that a device is seldom waited for."""
        self._pending.append((self.done, result))
        self._block_images += images
        if len(self._pending) == METRICS_BLOCK or not self._latest:
            self._flush()
        self.progress.step(images, self._latest)
        if self.done % self.preset.log_every == 0:
            self._flush()
            latest = self._latest
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
            lines.append({"step": step, "epoch": self.batches.epoch_of(step), **scalars})
        self.run.append("metrics.jsonl", lines)
        now = time.perf_counter()
        rate = self._block_images / (now - self._block_started)
        self.run.append("timing.jsonl", [{"step": self.done, "images_per_second": round(rate, 1)}])
        self._latest = lines[-1]
        self._pending, self._block_started, self._block_images = [], now, 0


def _adam(preset: Preset, network: nn.Module, lr: float) -> optim.Adam:
    return optim.Adam(network.parameters(), lr, (preset.beta1, preset.beta2), preset.adam_eps)


def check_batches(preset: Preset, count: int) -> None:
    """Raise UserError where some batch would hold one image and a BatchNorm would need more."""
    in_d = any(type(layer).__name__ == "BatchNorm" for layer in preset.discriminator)
    in_g = any(type(layer).__name__ == "BatchNorm" for layer in preset.generator)
    last = count % preset.batch_size
    fakes_follow = preset.step == "same_fakes"  # as many fakes as real images, on the last batch too
    if preset.batch_size == 1 and (in_d or in_g):
        raise UserError("--batch-size 1: a BatchNorm needs two images or more; use a larger batch")
    if last == 1 and (in_d or (in_g and fakes_follow)):
        raise UserError(
            f"--batch-size {preset.batch_size}: the last batch of {count} images would hold one, and a "
            f"BatchNorm needs more; use {preset.batch_size + 1}, or another size"
        )


def total_steps(preset: Preset, per_epoch: int) -> int:
    """How many steps the recipe asks for: its epochs, or fewer where it names steps."""
    steps = preset.epochs * per_epoch
    return min(steps, preset.steps) if preset.steps else steps


def choose_device(name: str) -> str:
    """The device to train on: the CPU, with a warning, where there is no GPU."""
    try:
        return get_backend(name).device
    except (ValueError, ImportError, RuntimeError):
        tell(f"warning: --device {name}: no GPU can be used here; training on the CPU instead")
        return "cpu"


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.train", description="Train a DCGAN and leave pictures of what it learned."
    )
    parser.add_argument(
        "--preset", default="flux", help=f"the recipe: {', '.join(presets.PRESETS)} (default: %(default)s)"
    )
    parser.add_argument("--data", default="mnist", help="the images: mnist (default: %(default)s)")
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu"), help="where to compute (default: %(default)s)"
    )
    parser.add_argument(
        "--epochs", type=_positive, help="passes over the images, in all (default: the recipe's)"
    )
    parser.add_argument("--steps", type=_positive, help="end after this many updates, in all")
    parser.add_argument("--batch-size", type=_positive, help="images a step (default: the recipe's)")
    parser.add_argument("--seed", type=_natural, help="of all that is random (default: the recipe's)")
    parser.add_argument(
        "--out", type=Path, help="the run's directory (default: runs/<preset>, numbered if taken)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="replace any field of the recipe; may be repeated",
    )
    return parser.parse_args(argv)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer of at least 1, got {text!r}")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected an integer of at least 0, got {text!r}")
    return int(text)


def chosen_preset(arguments: argparse.Namespace) -> Preset:
    """The recipe with what the command line replaces."""
    overrides: dict[str, Any] = {}
    for text in arguments.set:
        field, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected FIELD=VALUE")
        try:
            overrides[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            overrides[field] = value  # text needs no quotes
    for field in ("epochs", "steps", "batch_size", "seed"):
        if getattr(arguments, field) is not None:
            overrides[field] = getattr(arguments, field)
    return presets.get(arguments.preset, **overrides)


def load_images(name: str) -> Any:
    """The images that --data names, uint8."""
    if name != "mnist":
        raise UserError(f"--data {name}: expected mnist")
    return mnist.images("train")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 130 where Ctrl-C ended it (all that was trained is kept then too)."""
    arguments = parse_arguments(argv)
    preset = chosen_preset(arguments)
    device = choose_device(arguments.device)
    batches = Batches(load_images(arguments.data), preset.batch_size, mg.Generator(preset.seed, DATA_STREAM))
    check_batches(preset, len(batches.images))
    models.build(preset)  # a recipe that does not fit together is told before a directory is made
    run = RunDirectory.create(arguments.out, preset, device)
    total = total_steps(preset, batches.per_epoch)
    tell(
        f"{preset.name}: {preset.summary}; {len(batches.images)} images, {total} steps of "
        f"{preset.batch_size}, on the {device.upper()}, seed {preset.seed}, into {run.path}"
    )
    short_way = "" if preset.name == "quick" else " The short way to digits is --preset quick."
    progress = Progress(total, short_way)
    training = Training(preset, batches, device, run, progress)
    with _StopOnInterrupt() as interrupted:
        training.train(total, interrupted)
    _tell_where(training, total)
    return 0 if training.done == total else 130


class _StopOnInterrupt:
    """While it is entered, the first Ctrl-C only asks to stop; the second is Python's own."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Callable[[], bool]:
        self._before = signal.signal(signal.SIGINT, self._ask)
        return lambda: self.asked

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, self._before)
        # Straight to the file: the signal may have come in the middle of a print.
        os.write(2, b"\nStopping after this step; Ctrl-C once more stops at once, without a checkpoint.\n")


def _tell_where(training: Training, total: int) -> None:
    path = training.run.path
    if training.done < total:
        tell(f"Stopped after step {training.done} of {total}; everything up to there is kept.")
    tell(f"samples    {training.run.samples}/")
    for label, name in (
        ("animation", "output.gif"), ("curves", "losses.png"), ("metrics", "metrics.jsonl"),
        ("checkpoint", checkpoint.FILE_NAME),
    ):  # fmt: skip
        if (path / name).exists():
            tell(f"{label:<10} {path / name}")
    tell(f"more       python -m dcgan.sample {path} --out more.png --grid 8x8 --seed 1")


if __name__ == "__main__":
    run_command(main, "dcgan.train")
