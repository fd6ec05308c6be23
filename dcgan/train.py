"""`python -m dcgan.train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import minigrad as mg
from minigrad.inspect import TOLERANCE, Shadow, ShadowError

from . import checkpoint, listing, models, presets
from . import device as devices
from .data import sources
from .data.batches import Batches
from .errors import UserError, run_command, tell
from .evaluation.monitor import Monitor
from .explain import explain
from .plan import check_batches, total_steps
from .preset import Preset
from .progress import Progress
from .rundir import RunDirectory
from .training import DATA_STREAM, Training

TF32_TOLERANCE = {**TOLERANCE, "float32": 1e-2}  # products of factors with 10 bits of mantissa


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what makes no sense by itself ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.train", description="Train a DCGAN and leave pictures of what it learned."
    )
    parser.add_argument(
        "--preset", default="flux", help=f"the recipe: {', '.join(presets.PRESETS)} (default: %(default)s)"
    )
    parser.add_argument(
        "--data",
        help="the images: mnist (the default), a folder of images, fashion-mnist:DIR, an .npy or .npz file, "
        "or IDX files",
    )
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "gpu"), help="where to compute (default: %(default)s)"
    )
    parser.add_argument(
        "--tf32", action="store_true",
        help="let the GPU round the factors of products to TensorFloat-32: faster, to 3 digits",
    )  # fmt: skip
    parser.add_argument(
        "--shadow", choices=("cpu",),
        help="do every operation again on the CPU, and end with the first whose result differs",
    )  # fmt: skip
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
    parser.add_argument(
        "--every",
        type=_positive,
        metavar="STEPS",
        help="measure samples every so many steps, and keep the best checkpoint as best.safetensors",
    )
    parser.add_argument("--list", action="store_true", help="show the recipes, and end")
    parser.add_argument(
        "--explain-step", action="store_true", help="say what one step of the recipe does, and end"
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
    overrides = presets.replacements(arguments.set)
    for field in ("epochs", "steps", "batch_size", "seed"):
        if getattr(arguments, field) is not None:
            overrides[field] = getattr(arguments, field)
    return presets.get(arguments.preset, **overrides)


def load_batches(preset: Preset, data: str | None) -> Batches:
    """The images that --data names, as the recipe wants them; what was done to them is printed.

    Raises UserError where there are none, or they can't be batches of the recipe.
    """
    if data == "":
        raise UserError("--data: an empty name; expected mnist, a folder of images, or a file of many")
    if data is None and preset.channels > 1:
        tell(f"No --data is given: {preset.name} trains on MNIST; --data FOLDER trains it on your pictures.")
    loaded = sources.load(data or "mnist", preset.image_size, preset.channels)
    for note in loaded.notes:
        tell(note)
    check_batches(preset, len(loaded.images))
    return Batches(
        loaded.images, preset.batch_size, mg.Generator(preset.seed, DATA_STREAM), channels=preset.channels,
        crop=preset.crop, flip=preset.flip, shuffle=preset.shuffle,
    )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 130 where Ctrl-C ended it (all that was trained is kept then too)."""
    arguments = parse_arguments(argv)
    if arguments.list:
        tell(listing.table())
        return 0
    preset = chosen_preset(arguments)
    device = devices.choose(arguments.device, arguments.tf32)
    if arguments.shadow == device:
        raise UserError(f"--shadow {device}: it needs another device to look at: --device gpu, and a GPU")
    models.build(preset)  # a recipe that does not fit together is told before anything is read or made
    if arguments.explain_step:
        tell(explain(preset))
        return 0
    batches = load_batches(preset, arguments.data)
    monitor = Monitor(preset, arguments.data or "mnist", batches.images) if arguments.every else None
    run = RunDirectory.create(
        arguments.out,
        preset,
        device,
        sources.absolute(arguments.data or "mnist"),
        arguments.tf32 and device == "gpu",
    )
    total = total_steps(preset, batches.per_epoch)
    tell(
        f"{preset.name}: {preset.summary}; {len(batches.images)} images, {total} steps of "
        f"{preset.batch_size}, on the {device.upper()}, seed {preset.seed}, into {run.path}"
    )
    digits = arguments.data in (None, "mnist") and preset.name != presets.QUICK.name
    short_way = f" The short way to digits is --preset {presets.QUICK.name}." if digits else ""
    progress = Progress(total, short_way)
    with devices.enough_memory(device, preset.batch_size):
        training = Training(preset, batches, device, run, progress, monitor, arguments.every or 0)
        try:
            with _StopOnInterrupt() as interrupted, _watched(training, arguments):
                training.train(total, interrupted)
        except OSError as error:
            raise UserError(
                f"after step {training.done} {error.filename or run.path} could not be written: "
                f"{error.strerror or error}. What {run.path} holds is whole; make room, or choose another "
                "--out"
            ) from error
        except ShadowError as error:
            progress.close()
            tell(f"shadow: after {training.done} steps the {arguments.shadow.upper()} has another result")
            tell(f"shadow: {error}")
            return 1
    _tell_where(training, total)
    return 0 if training.done == total else 130


@contextmanager
def _watched(training: Training, arguments: argparse.Namespace) -> Iterator[None]:
    """With --shadow, each operation of the training is done again on the other device; else as it is."""
    if arguments.shadow is None:
        yield
        return
    networks = {"generator": training.gan.generator, "discriminator": training.gan.discriminator}
    if training.average is not None:
        networks["average of the generator"] = training.average.average
    shadow = Shadow(networks, arguments.shadow, TF32_TOLERANCE if arguments.tf32 else TOLERANCE)
    with shadow:
        yield
    tell(
        f"shadow: {shadow.checked} results of {training.done} steps agree with the "
        f"{arguments.shadow.upper()}'s; the largest error is {shadow.worst:.2g}"
    )


class _StopOnInterrupt:
    """While it is entered, the first Ctrl-C only asks to stop; another, a second later, stops at once.

    Within a second it counts as the same: people press twice. A run that was started with
    interrupts ignored (`nohup`, a job of a script) goes on ignoring them.
    """

    def __init__(self) -> None:
        self.asked_at: float | None = None

    def __enter__(self) -> Callable[[], bool]:
        self._before = signal.getsignal(signal.SIGINT)
        if self._before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._ask)
        return lambda: self.asked_at is not None

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked_at is not None:
            if now - self.asked_at >= 1.0:
                raise KeyboardInterrupt
            return
        self.asked_at = now
        # Straight to the file: the signal may have come in the middle of a print.
        os.write(2, b"\nStopping after this step; Ctrl-C once more stops at once, without a checkpoint.\n")


def _tell_where(training: Training, total: int) -> None:
    path = training.run.path
    if training.done < total:
        tell(f"Stopped after step {training.done} of {total}; everything up to there is kept.")
    tell(f"samples    {training.run.samples}/")
    for label, name in (
        ("animation", "output.gif"), ("curves", "losses.png"), ("metrics", "metrics.jsonl"),
        ("checkpoint", checkpoint.FILE_NAME), ("best", checkpoint.BEST_NAME),
    ):  # fmt: skip
        if (path / name).exists():
            tell(f"{label:<10} {path / name}")
    tell(f"more       python -m dcgan.sample {path} --out more.png --grid 8x8 --seed 1")


if __name__ == "__main__":
    run_command(main, "dcgan.train")
