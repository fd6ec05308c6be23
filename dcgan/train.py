"""`python -m dcgan.train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import minigrad as mg
from minigrad.inspect import TOLERANCE, Shadow, ShadowError

from . import checkpoint, checkup, listing, models, presets, resume
from . import device as devices
from .cadence import Cadence
from .data import sources
from .data.batches import Batches
from .divergence import Diverged
from .errors import UserError, run_command, tell
from .evaluation.monitor import Monitor
from .explain import explain
from .plan import check_batches, total_steps
from .preset import Preset
from .progress import Progress
from .rundir import RunDirectory
from .training import DATA_STREAM, KEPT, Training

TF32_TOLERANCE = {**TOLERANCE, "float32": 1e-2}  # products of factors with 10 bits of mantissa


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what makes no sense by itself ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.train", description="Train a DCGAN and leave pictures of what it learned."
    )
    parser.add_argument("--preset", help=f"the recipe: {', '.join(presets.PRESETS)} (default: flux)")
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
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run, in its directory, from its last checkpoint (or from the one that is named)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=Cadence.parse,
        metavar="N",
        help="write a checkpoint every N steps, or every Nmin or Ns (default: about every minute, as long as "
        "that costs less than a hundredth of the time); there is one with every grid, too",
    )
    parser.add_argument(
        "--keep", type=_positive, default=KEPT, metavar="N",
        help="how many of the last checkpoints stay (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--vitals-every", type=_natural, default=checkup.EVERY, metavar="STEPS",
        help="measure the vital signs of the first step and of every so many, and tell what is wrong "
        "(default: %(default)s; 0 for none)",
    )  # fmt: skip
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
    return presets.get(arguments.preset or presets.FLUX.name, **_overrides(arguments))


def _overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of the recipe that the command line replaces."""
    overrides = presets.replacements(arguments.set)
    for field in ("epochs", "steps", "batch_size", "seed"):
        if getattr(arguments, field) is not None:
            overrides[field] = getattr(arguments, field)
    return overrides


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
    """Run the command.

    Returns 0; 1 where the run diverged or a shadow differs; 130 or 143 where Ctrl-C or SIGTERM ended it (all
    that was trained is kept then too).
    """
    arguments = parse_arguments(argv)
    if arguments.list:
        tell(listing.table())
        return 0
    state = None
    if arguments.resume is not None:
        directory, state = resume.last_checkpoint(arguments.resume)
        preset = resume.checked_preset(directory, state.preset, arguments.preset, _overrides(arguments))
    else:
        preset = chosen_preset(arguments)
    device = devices.choose(arguments.device, arguments.tf32)
    if arguments.shadow == device:
        raise UserError(f"--shadow {device}: it needs another device to look at: --device gpu, and a GPU")
    models.build(preset)  # a recipe that does not fit together is told before anything is read or made
    if arguments.explain_step:
        tell(explain(preset))
        return 0
    run = None if state is None else RunDirectory.reopen(directory)
    data = arguments.data
    if run is not None and data is None:
        named = run.config().get("data")
        data = named if isinstance(named, str) else None
    with ExitStack() as open_directory:
        if run is not None:
            open_directory.callback(run.close)
        batches = load_batches(preset, data)
        total = total_steps(preset, batches.per_epoch)
        begin = state.position["step"] if state else 0
        if begin >= total:
            tell(f"{run.path if run else ''} has {begin} steps already, of {total} wanted: nothing to do.")
            return 0
        monitor = Monitor(preset, data or "mnist", batches.images) if arguments.every else None
        config = (preset, device, sources.absolute(data or "mnist"), arguments.tf32 and device == "gpu")
        if run is None:
            run = RunDirectory.create(arguments.out, *config)
            open_directory.callback(run.close)
        tell(
            f"{preset.name}: {preset.summary}; {len(batches.images)} images, {total} steps of "
            f"{preset.batch_size}, on the {device.upper()}, seed {preset.seed}, into {run.path}"
            + (f", from step {begin} on" if begin else "")
        )
        digits = data in (None, "mnist") and preset.name != presets.QUICK.name
        short_way = f" The short way to digits is --preset {presets.QUICK.name}." if digits else ""
        open_directory.enter_context(devices.enough_memory(device, preset.batch_size))
        training = Training(
            preset, batches, device, run, Progress(total, short_way, begin), monitor, arguments.every or 0,
            arguments.checkpoint_every, arguments.keep, arguments.vitals_every,
        )  # fmt: skip
        if state is not None:
            training.restore(state)
            run.write_config(*config)
        return _train(training, total, arguments, resumed=state is not None)


def _train(training: Training, total: int, arguments: argparse.Namespace, resumed: bool) -> int:
    """Train up to `total` steps, and say how it ended; the exit code."""
    try:
        if resumed:
            training.resume()
            if training.monitor is not None:
                training.monitor.remember(training.run)
        with _StopOnSignal() as stop, _watched(training, arguments):
            training.train(total, lambda: stop.asked)
    except Diverged as diverged:
        return _tell_divergence(training, diverged)
    except OSError as error:
        raise UserError(
            f"after step {training.done} {error.filename or training.run.path} could not be written: "
            f"{error.strerror or error}. What {training.run.path} holds is whole, up to step "
            f"{training.saved}; make room, or choose another --out"
        ) from error
    except ShadowError as error:
        training.progress.close()
        tell(f"shadow: after {training.done} steps the {arguments.shadow.upper()} has another result")
        tell(f"shadow: {error}")
        return 1
    _tell_where(training, total)
    return 0 if training.done == total else 128 + stop.signal


def _tell_divergence(training: Training, diverged: Diverged) -> int:
    training.progress.close()
    tell(f"The run has diverged: {diverged}.")
    tell("Looking for where it began ...")
    where = training.where_it_diverged(diverged.step)
    if where:
        tell(f"The first number that is not finite comes up {where}.")
    last = training.run.path / checkpoint.FILE_NAME
    if training.saved:
        tell(f"The last good checkpoint, of step {training.saved}, is {last}.")
    tell("Start again with smaller lr_generator and lr_discriminator (--set).")
    return 1


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


class _StopOnSignal:
    """While it is entered, the first Ctrl-C or SIGTERM only asks to stop; a Ctrl-C a second later stops now.

    Within a second it counts as the same: people press twice. A run that was started with
    interrupts ignored (`nohup`, a job of a script) goes on ignoring them.

    Attributes:
        asked: whether somebody asked.
        signal: the number of the signal.
    """

    def __init__(self) -> None:
        self.asked, self.signal, self._at = False, int(signal.SIGINT), 0.0

    def __enter__(self) -> "_StopOnSignal":
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in self._before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked:
            if number == signal.SIGINT and now - self._at >= 1.0:
                # Not by an exception: it would be lost where the signal comes while Python frees an object.
                os.write(2, b"\ndcgan.train: interrupted\n")
                os._exit(130)
            return
        self.asked, self.signal, self._at = True, number, now
        # Straight to the file: the signal may have come in the middle of a print.
        os.write(2, b"\nStopping after this step; Ctrl-C once more stops at once, without a checkpoint.\n")


def _again(training: Training) -> str:
    """The options that are no part of the recipe, and have to be given once more."""
    every = f" --every {training.every}" if training.every else ""
    measured = training.checkup.every
    return every + (f" --vitals-every {measured}" if measured != checkup.EVERY else "")


def _tell_where(training: Training, total: int) -> None:
    path = training.run.path
    if training.done < total:
        tell(f"Stopped after step {training.done} of {total}; everything up to there is kept.")
        tell(f"go on with python -m dcgan.train --resume {path}{_again(training)}")
    tell(f"samples    {training.run.samples}/")
    for label, name in (
        ("animation", "output.gif"), ("curves", "losses.png"), ("vitals", checkup.PICTURE_NAME),
        ("metrics", "metrics.jsonl"), ("checkpoint", checkpoint.FILE_NAME), ("best", checkpoint.BEST_NAME),
    ):  # fmt: skip
        if (path / name).exists():
            tell(f"{label:<10} {path / name}")
    tell(f"more       python -m dcgan.sample {path} --out more.png --grid 8x8 --seed 1")


if __name__ == "__main__":
    run_command(main, "dcgan.train")
