"""`python -m dcgan.train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import minigrad as mg
from minigrad.inspect import TOLERANCE, Shadow, ShadowError

from . import device as devices
from . import models, presets
from .arguments import add_max_memory, add_range, natural, positive
from .console import StopOnSignal, run_command, tell
from .data import sources
from .data.batches import Batches
from .data.scale import Range
from .data.sources import ImageSet
from .describe import table
from .describe.step import explain
from .errors import UserError
from .evaluation.monitor import Monitor
from .recipe import memory
from .recipe.plan import check_batches, too_short, total_steps
from .recipe.preset import Preset
from .run import checkpoint, checkup, resume
from .run.directory import RunDirectory
from .run.divergence import Diverged
from .run.learner import DATA_STREAM, Learner
from .run.progress import Progress
from .run.resume import Start
from .run.schedule import KEPT, Interval, Schedule
from .run.training import Training

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
        "--tf32",
        action="store_true",
        help="let the GPU round the factors of products to TensorFloat-32: faster, to 3 digits",
    )
    parser.add_argument(
        "--shadow",
        choices=("cpu",),
        help="do every operation again on the CPU, and end with the first whose result differs",
    )
    parser.add_argument(
        "--epochs", type=positive, help="passes over the images, in all (default: the recipe's)"
    )
    parser.add_argument(
        "--steps",
        type=positive,
        help="updates, in all, in place of the recipe's epochs; with --epochs, whichever is reached first "
        "ends the run",
    )
    parser.add_argument("--batch-size", type=positive, help="images a step (default: the recipe's)")
    parser.add_argument("--seed", type=natural, help="of all that is random (default: the recipe's)")
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
        type=positive,
        metavar="STEPS",
        help="measure samples every so many steps, and keep the best checkpoint as best.safetensors",
    )
    add_range(parser)
    add_max_memory(parser)
    parser.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run, in its directory, from its last checkpoint (or from the one that is named)",
    )
    parser.add_argument(
        "--checkpoint-every",
        type=Interval.parse,
        default=Interval(),
        metavar="N",
        help="write a checkpoint every N steps, or every Nmin or Ns (default: about every minute, as long as "
        "that costs less than a hundredth of the time); there is one with every grid, too",
    )
    parser.add_argument(
        "--keep",
        type=positive,
        default=KEPT,
        metavar="N",
        help="how many of the last checkpoints stay (default: %(default)s)",
    )
    parser.add_argument(
        "--vitals-every",
        type=natural,
        default=checkup.EVERY,
        metavar="STEPS",
        help="measure the vital signs of the first step and of every so many, and tell what is wrong "
        "(default: %(default)s; 0 for none)",
    )
    parser.add_argument("--list", action="store_true", help="show the recipes, and end")
    parser.add_argument(
        "--explain-step", action="store_true", help="say what one step of the recipe does, and end"
    )
    return parser.parse_args(argv)


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


def load_images(preset: Preset, data: str | None, value_range: Range | None = None) -> ImageSet:
    """The images that --data names, as the recipe wants them; what was done to them is printed.

    Args:
        value_range: the values of black and white in them; None to follow from their type.

    Raises UserError if there are none, or they can't be batches of the recipe.
    """
    if data == "":
        raise UserError("--data: an empty name; expected mnist, a folder of images, or a file of many")
    if data is None and preset.channels > 1:
        tell(f"No --data is given: {preset.name} trains on MNIST; --data FOLDER trains it on your pictures.")
    loaded = sources.load(data or "mnist", preset.image_size, preset.channels, value_range)
    for note in loaded.notes:
        tell(note)
    check_batches(preset, len(loaded.images))
    return loaded


def batches_of(preset: Preset, loaded: ImageSet) -> Batches:
    """The batches of a run: what the recipe makes of a set of images."""
    return Batches(
        loaded.images,
        preset.batch_size,
        mg.Generator(preset.seed, DATA_STREAM),
        channels=preset.channels,
        crop=preset.crop,
        flip=preset.flip,
        shuffle=preset.shuffle,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 if the run diverged or a shadow differs; 128 plus its number if a signal ended it (all that
    was trained is kept then too).
    """
    arguments = parse_arguments(argv)
    if arguments.list:
        tell(table.table())
        return 0
    with ExitStack() as stack:
        run, start = _reopened(arguments, stack) if arguments.resume else (None, None)
        preset = start.preset if start else chosen_preset(arguments)
        device = devices.choose(arguments.device, arguments.tf32)
        if arguments.shadow == device:
            raise UserError(f"--shadow {device}: it needs another device to look at: --device gpu, and a GPU")
        if run is not None and device == "cpu":  # a recipe that somebody else may have made
            memory.check(f"training {run.path}", memory.of_training(preset), arguments.max_memory)
        models.build(preset)  # a recipe that does not fit together is told before anything is read or made
        if arguments.explain_step:
            tell(explain(preset))
            return 0
        return _run(arguments, preset, device, run, start, stack)


def _reopened(arguments: argparse.Namespace, stack: ExitStack) -> tuple[RunDirectory, Start]:
    """The run that --resume names, locked until the stack is closed, and where it continues."""
    if arguments.out is not None:
        raise UserError(
            f"--out {arguments.out}: --resume continues a run in its own directory; leave --out out, or "
            "copy the run and resume the copy"
        )
    run = RunDirectory.reopen(resume.directory_of(arguments.resume))
    stack.callback(run.close)
    start = resume.start(run, arguments.resume, arguments.max_memory)
    preset = resume.checked_preset(run.path, start.preset, arguments.preset, _overrides(arguments))
    return run, replace(start, preset=preset)


def _run(
    arguments: argparse.Namespace,
    preset: Preset,
    device: str,
    run: RunDirectory | None,
    start: Start | None,
    stack: ExitStack,
) -> int:
    """Train, in a new directory or in that of a run that continues."""
    data, value_range = arguments.data, arguments.range
    if run is not None:
        data, value_range = run.images(data, value_range)
    loaded = load_images(preset, data, value_range)
    batches = batches_of(preset, loaded)
    total = total_steps(preset, batches.per_epoch)
    begin = start.state.position["step"] if start and start.state else 0
    monitor = Monitor(preset, data or "mnist", batches.images) if arguments.every else None
    config = (
        preset,
        device,
        sources.absolute(data or "mnist"),
        arguments.tf32 and device == "gpu",
        loaded.value_range,
    )
    if run is None:
        run = RunDirectory.create(arguments.out, *config)
        stack.callback(run.close)
        stack.push(_discard_if_it_fails(run))
    _tell_plan(arguments, preset, device, run, begin, total, len(loaded.images))
    digits = data in (None, "mnist") and preset.name != presets.QUICK.name
    short_way = f" The short way to digits is --preset {presets.QUICK.name}." if digits else ""
    stack.enter_context(devices.enough_memory(device, preset.batch_size))
    training = Training(
        Learner(preset, batches, device),
        run,
        Progress(total, short_way, begin),
        Schedule(arguments.every or 0, arguments.checkpoint_every, arguments.keep, arguments.vitals_every),
        monitor,
    )
    if start is not None:
        if start.state is not None:
            training.restore(start.state)
        training.resume(start.path)
        if begin < total:
            run.write_config(*config)
    return _train(training, total, arguments)


def _tell_plan(
    arguments: argparse.Namespace,
    preset: Preset,
    device: str,
    run: RunDirectory,
    begin: int,
    total: int,
    images: int,
) -> None:
    """Say what will be trained, and that it is too short, if it is."""
    if begin >= total:
        tell(f"{run.path} has {begin} steps already, of {total} wanted: nothing to train.")
        return
    tell(
        f"{preset.name}: {preset.summary}; {images} images, {total} steps of {preset.batch_size}, on the "
        f"{device.upper()}, seed {preset.seed}, into {run.path}"
        + (f", from step {begin} on" if arguments.resume else "")
    )
    for note in (too_short(preset, total), _too_seldom(arguments.every, begin, total)):
        if note:
            tell(note)


def _too_seldom(every: int | None, begin: int, total: int) -> str:
    """A sentence for --every STEPS that the run never reaches; "" otherwise."""
    if every is None or total // every > begin // every:
        return ""
    return f"--every {every}: no step up to {total} is a multiple of it, so nothing will be measured"


def _discard_if_it_fails(run: RunDirectory) -> Callable[..., None]:
    """Return an exit callback that removes a new directory if an exception ends the run untrained."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            run.discard()

    return leave


def _train(training: Training, total: int, arguments: argparse.Namespace) -> int:
    """Train up to `total` steps, and say how it ended; the exit code."""
    try:
        with StopOnSignal("dcgan.train") as stop, _watched(training, arguments):
            training.train(total, lambda: stop.asked)
    except Diverged as diverged:
        return _tell_divergence(training, diverged)
    except OSError as error:
        raise _not_written(training, error) from error
    except ShadowError as error:
        training.progress.close()
        tell(f"shadow: after {training.done} steps the {arguments.shadow.upper()} has another result")
        tell(f"shadow: {error}")
        return 1
    _tell_where(training, total)
    return 128 + stop.signal if training.done < total else 0


def _not_written(training: Training, error: OSError) -> UserError:
    """Return the error that reports a failed write which ended the run."""
    run, saved = training.run, training.saved
    said = f"after step {training.done} {error.filename or run.path} could not be written: "
    said += f"{error.strerror or error}. "
    if not run.is_in_place():
        last = "It had no checkpoint" if saved is None else f"Its last checkpoint was of step {saved}"
        return UserError(f"{said}The run's directory was moved or removed while it was training. {last}")
    whole = "holds no checkpoint yet" if saved is None else f"holds is whole, up to step {saved}"
    what = run.path if saved is None else f"What {run.path}"
    return UserError(f"{said}{what} {whole}; make room, or choose another --out")


def _tell_divergence(training: Training, diverged: Diverged) -> int:
    training.progress.close()
    tell(f"The run has diverged: {diverged}.")
    tell("Looking for where it began ...")
    where = training.where_it_diverged(diverged.step)
    if where:
        tell(f"The first number that is not finite comes up {where}.")
    last = training.run.path / checkpoint.FILE_NAME
    if training.saved is not None:
        tell(f"The last good checkpoint, of step {training.saved}, is {last}.")
    tell("Start again with smaller lr_generator and lr_discriminator (--set).")
    return 1


@contextmanager
def _watched(training: Training, arguments: argparse.Namespace) -> Iterator[None]:
    """With --shadow, each operation of the training is done again on the other device; else as it is."""
    if arguments.shadow is None:
        yield
        return
    learner = training.learner
    networks = learner.networks
    if learner.average is not None:
        networks["average of the generator"] = learner.average.average
    shadow = Shadow(networks, arguments.shadow, TF32_TOLERANCE if arguments.tf32 else TOLERANCE)
    with shadow:
        yield
    tell(
        f"shadow: {shadow.checked} results of {training.done} steps agree with the "
        f"{arguments.shadow.upper()}'s; the largest error is {shadow.worst:.2g}"
    )


def _again(training: Training) -> str:
    """The options besides the recipe that the next command needs to train as this one did."""
    schedule = training.schedule
    every = f" --every {schedule.evaluate_every}" if schedule.evaluate_every else ""
    measured = schedule.vitals_every
    needed = memory.of_training(training.preset)
    if needed > memory.DEFAULT:
        every += f" --max-memory {-(-needed // 2**30)}G"
    return every + (f" --vitals-every {measured}" if measured != checkup.EVERY else "")


def _tell_where(training: Training, total: int) -> None:
    path = training.run.path
    if training.done < total:
        tell(f"Stopped after step {training.done} of {total}; everything up to there is kept.")
        tell(f"go on with python -m dcgan.train --resume {path}{_again(training)}")
    tell(f"samples    {training.run.samples}/")
    for label, name in (
        ("animation", "output.gif"),
        ("curves", "losses.png"),
        ("vitals", checkup.PICTURE_NAME),
        ("metrics", "metrics.jsonl"),
        ("checkpoint", checkpoint.FILE_NAME),
        ("best", checkpoint.BEST_NAME),
    ):
        if (path / name).exists():
            tell(f"{label:<10} {path / name}")
    tell(f"more       python -m dcgan.sample {path} --out more.png --grid 8x8 --seed 1")


if __name__ == "__main__":
    run_command(main, "dcgan.train")
