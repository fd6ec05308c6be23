"""`python -m dcgan.train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from minigrad.inspect import ShadowError

from . import device as devices
from . import models, presets
from .arguments import add_max_memory, add_range, natural, positive
from .console import StopOnSignal, run_command, tell
from .data import sources
from .data.batches import Batches
from .data.channels import size_in_words
from .data.scale import Range
from .describe import table
from .describe.step import explain
from .errors import UserError
from .evaluation.monitor import Monitor
from .recipe import memory
from .recipe.plan import too_short, total_steps
from .recipe.preset import Preset
from .run import checkup, ending, resume
from .run.config import RunConfig
from .run.directory import RunDirectory
from .run.divergence import Diverged
from .run.images import batches_of, load_images
from .run.learner import Learner
from .run.progress import Progress
from .run.resume import Start
from .run.schedule import KEPT, Interval, Schedule
from .run.shadow import shadowed
from .run.training import Training


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; what makes no sense by itself ends the program with exit code 2."""
    return _parser().parse_args(argv)


def _parser() -> argparse.ArgumentParser:
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
        "--no-graph",
        action="store_true",
        help="launch a step's kernels on a GPU one by one, and not as one CUDA graph: slower, same results",
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
    return parser


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 if the run diverged or a shadow differs; 128 plus its number if a signal ended it (all that
    was trained is kept then too).
    """
    arguments = parse_arguments(argv)
    if arguments.list:
        tell(table.recipes())
        return 0
    with ExitStack() as stack:
        if arguments.explain_step:
            tell(explain(_explained_preset(arguments, stack)))
            return 0
        open_run = _open_resumed if arguments.resume else _open_fresh
        return _train(*open_run(arguments, stack), arguments)


def _explained_preset(arguments: argparse.Namespace, stack: ExitStack) -> Preset:
    """Return the recipe that would be trained."""
    if arguments.resume:
        _, start, _ = _reopened(arguments, stack)
        return start.preset
    return _fresh_recipe(arguments)[0]


# -- a new run -----------------------------------------------------------------------------------------


def _open_fresh(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Training, int]:
    """Make the directory of a new run.

    Returns its training, ready for the first step, and the steps that are wanted in all. The directory is
    closed with the stack, and removed again if an exception ends the run untrained.
    """
    preset, device = _fresh_recipe(arguments)
    prepared = _prepared(arguments, preset, device, arguments.data, arguments.range)
    run = RunDirectory.create(arguments.out, prepared.config)
    stack.callback(run.close)
    stack.push(_discard_if_it_fails(run))
    _tell_plan(arguments, prepared, run)
    stack.enter_context(devices.enough_memory(device, preset.batch_size))
    return _training(arguments, prepared, run), prepared.total


def _fresh_recipe(arguments: argparse.Namespace) -> tuple[Preset, str]:
    """Return the recipe of a new run, and the device."""
    preset = chosen_preset(arguments)
    device = _device(arguments)
    models.build(preset)  # a recipe that does not fit together is refused before anything is read or made
    return preset, device


def _discard_if_it_fails(run: RunDirectory) -> Callable[..., None]:
    """Return an exit callback that removes a new directory if an exception ends the run untrained."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            run.discard()

    return leave


# -- a run that continues ------------------------------------------------------------------------------


def _open_resumed(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Training, int]:
    """Put the run that --resume names back to the state of its checkpoint.

    Returns its training, ready for the next step, and the steps that are wanted in all. The directory is
    closed with the stack.
    """
    run, start, device = _reopened(arguments, stack)
    prepared = _prepared(arguments, start.preset, device, *run.images(arguments.data, arguments.range))
    _tell_plan(arguments, prepared, run, start.step)
    stack.enter_context(devices.enough_memory(device, start.preset.batch_size))
    training = _training(arguments, prepared, run, start.step)
    if start.state is not None:
        training.restore(start.state)
    training.resume(start.path)
    if start.step < prepared.total:
        run.write_config(prepared.config)
    return training, prepared.total


def _reopened(arguments: argparse.Namespace, stack: ExitStack) -> tuple[RunDirectory, Start, str]:
    """Return the run that --resume names, where it continues, and the device.

    The run is locked until the stack is closed.
    """
    if arguments.out is not None:
        raise UserError(
            f"--out {arguments.out}: --resume continues a run in its own directory; leave --out out, or "
            "copy the run and resume the copy"
        )
    run = RunDirectory.reopen(resume.directory_of(arguments.resume))
    stack.callback(run.close)
    start = resume.start(run, arguments.resume, arguments.max_memory)
    preset = resume.checked_preset(run.path, start.preset, arguments.preset, _overrides(arguments))
    device = _device(arguments)
    if device == "cpu":  # a recipe that somebody else may have made
        memory.check(f"training {run.path}", memory.of_training(preset), arguments.max_memory)
    models.build(preset)
    return run, replace(start, preset=preset), device


# -- both ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The images of a run, and what follows from them and the command line before anything is written.

    Attributes:
        preset, device: what is trained, and where.
        batches: the images, which --data names as `data`.
        total: steps that are wanted in all.
        monitor: what evaluates the samples; None without --every.
        config: how the run is trained, for its directory.
    """

    preset: Preset
    device: str
    data: str
    batches: Batches
    total: int
    monitor: Monitor | None
    config: RunConfig


def _device(arguments: argparse.Namespace) -> str:
    """Return the device that is trained on. Raises UserError if --shadow has no other one beside it."""
    device = devices.choose(arguments.device, arguments.tf32)
    if arguments.shadow == device:
        raise UserError(f"--shadow {device}: it needs another device to look at: --device gpu, and a GPU")
    return device


def _prepared(
    arguments: argparse.Namespace, preset: Preset, device: str, data: str | None, value_range: Range | None
) -> Prepared:
    """Load the images, and what evaluates samples against them."""
    loaded = load_images(preset, data, value_range)
    batches = batches_of(preset, loaded)
    total = total_steps(preset, batches.per_epoch)
    named = data or "mnist"
    monitor = Monitor(preset, named, batches.images) if arguments.every else None
    on_gpu = device == "gpu"
    graph = on_gpu and not arguments.no_graph and arguments.shadow is None
    tf32, kernels = arguments.tf32 and on_gpu, devices.kernels(device)
    config = RunConfig(preset, device, sources.absolute(named), tf32, graph, loaded.value_range, kernels)
    return Prepared(preset, device, named, batches, total, monitor, config)


def _tell_plan(arguments: argparse.Namespace, prepared: Prepared, run: RunDirectory, begin: int = 0) -> None:
    """Say what will be trained from step `begin` on, and that it is too short, if it is."""
    preset, total = prepared.preset, prepared.total
    if begin >= total:
        tell(f"{run.path} has {begin} steps already, of {total} wanted: nothing to train.")
        return
    tell(
        f"{preset.name}: {preset.summary}; {len(prepared.batches.images)} images of "
        f"{size_in_words(preset.image_size, preset.channels)}, {total} steps of {preset.batch_size}, "
        f"on the {prepared.device.upper()}{_way(prepared)}, seed {preset.seed}, into {run.path}"
        + (f", from step {begin} on" if arguments.resume else "")
    )
    other_kernels = resume.other_kernels(run, prepared.config)
    for note in (too_short(preset, total), _too_seldom(arguments.every, begin, total), other_kernels):
        if note:
            tell(note)


def _way(prepared: Prepared) -> str:
    """Return how a step gets to the GPU; "" on the CPU."""
    if prepared.device != "gpu":
        return ""
    return ", each step one CUDA graph" if prepared.config.graph else ", without a CUDA graph"


def _too_seldom(every: int | None, begin: int, total: int) -> str:
    """A sentence for --every STEPS that the run never reaches; "" otherwise."""
    if every is None or total // every > begin // every:
        return ""
    return f"--every {every}: no step up to {total} is a multiple of it, so nothing will be measured"


def _training(
    arguments: argparse.Namespace, prepared: Prepared, run: RunDirectory, begin: int = 0
) -> Training:
    """Return the training of a run, of which `begin` steps were done before."""
    digits = prepared.data == "mnist" and prepared.preset.name != presets.QUICK.name
    short_way = f" The short way to digits is --preset {presets.QUICK.name}." if digits else ""
    schedule = Schedule(
        evaluate_every=arguments.every or 0,
        checkpoint_every=arguments.checkpoint_every,
        keep=arguments.keep,
        vitals_every=arguments.vitals_every,
    )
    return Training(
        Learner(prepared.preset, prepared.batches, prepared.device, prepared.config.graph),
        run,
        Progress(prepared.total, short_way, begin),
        schedule,
        prepared.monitor,
    )


def _train(training: Training, total: int, arguments: argparse.Namespace) -> int:
    """Train up to `total` steps, and tell how it ended; the exit code."""
    watched: AbstractContextManager[None] = nullcontext()
    if arguments.shadow is not None:
        watched = shadowed(training.learner, arguments.shadow, arguments.tf32)
    try:
        with StopOnSignal("dcgan.train") as stop, watched:
            training.train(total, lambda: stop.asked)
    except Diverged as diverged:
        ending.tell_divergence(training, diverged)
        return 1
    except ShadowError as error:
        ending.tell_difference(training, arguments.shadow, error)
        return 1
    except OSError as error:
        raise ending.not_written(training, error) from error
    ending.tell_end(training, total)
    return 128 + stop.signal if training.done < total else 0


if __name__ == "__main__":
    run_command(main, "dcgan.train")
