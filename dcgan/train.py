"""`dcgan train`: train a recipe and leave pictures, metrics and a checkpoint."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from minigrad import backend as backends
from minigrad.inspect import ShadowError

from . import device as devices
from . import models, presets, recipe_files
from .arguments import chosen_preset
from .console import StopOnSignal, output, run_command, tell
from .data import names, sources
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
from .run import checkpoint, ending, learner, resume, tensorboard
from .run.checkpoint import Checkpoint
from .run.config import RunConfig
from .run.directory import RunDirectory
from .run.divergence import Diverged
from .run.images import batches_of, load_images
from .run.learner import Learner
from .run.progress import Progress
from .run.resume import Start
from .run.schedule import Schedule
from .run.shadow import shadowed
from .run.training import Training
from .train_parser import parser


def _options_of_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the recipe that have options of their own, as far as they are given."""
    fields = ("epochs", "steps", "batch_size", "seed")
    return {field: getattr(arguments, field) for field in fields if getattr(arguments, field) is not None}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 if the run diverged or a shadow differs; 128 plus its number if a signal ended it (all that
    was trained is kept then too).
    """
    arguments = parser().parse_args(argv)
    if arguments.list:
        output(table.recipes())
        return 0
    with ExitStack() as stack:
        if arguments.explain_step:
            output(explain(_explained_preset(arguments, stack)))
            return 0
        if arguments.log:
            tensorboard.check()
        open_run = _open_resumed if arguments.resume else _open_fresh
        return _train(*open_run(arguments, stack), arguments)


def _explained_preset(arguments: argparse.Namespace, stack: ExitStack) -> Preset:
    """Return the recipe that would be trained."""
    if arguments.resume:
        _, start, _ = _reopened(arguments, stack)
        return start.preset
    return _fresh_recipe(arguments, _source(arguments))[0]


# -- a new run -----------------------------------------------------------------------------------------


def _open_fresh(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Training, int]:
    """Make the directory of a new run.

    Returns its training, ready for the first step, and the steps that are wanted in all. The directory is
    closed with the stack, and removed again if an exception ends the run untrained.
    """
    source = _source(arguments)
    preset, device = _fresh_recipe(arguments, source)
    images, started_from = (arguments.data, arguments.range), None
    if source is not None:
        directory = checkpoint.directory_of(arguments.init_from)
        images = RunDirectory(directory).images(*images)
        started_from = {"run": str(arguments.init_from.resolve()), "step": source.position["step"]}
    prepared = _prepared(arguments, preset, device, images, started_from)
    run = RunDirectory.create(arguments.out, prepared.config)
    stack.callback(run.close)
    stack.push(_discard_if_it_fails(run))
    _tell_plan(arguments, prepared, run)
    stack.enter_context(devices.enough_memory(device, preset.batch_size))
    training = _training(arguments, prepared, run)
    if source is not None:
        training.learner.start_from(source)
        training.save()  # so that a resumed run does not need the other one
    return training, prepared.total


def _source(arguments: argparse.Namespace) -> Checkpoint | None:
    """Return the checkpoint that --init-from names, if it is given."""
    if arguments.init_from is None:
        return None
    if arguments.preset is not None:
        recipe_files.find(arguments.preset)  # a recipe in Python may be the plugin that the other run needs
    source = checkpoint.load(arguments.init_from, arguments.max_memory)
    source.check_whole(f"--init-from {arguments.init_from}")
    return source


def _fresh_recipe(arguments: argparse.Namespace, source: Checkpoint | None) -> tuple[Preset, str]:
    """Return the recipe of a new run, and the device."""
    if source is not None and arguments.preset is None:
        overrides = {**presets.replacements(arguments.set), **_options_of_fields(arguments)}
        preset = source.preset.replaced(overrides)
    else:
        preset = chosen_preset(arguments, _options_of_fields(arguments))
    device = _device(arguments)
    if (device == "cpu" and arguments.preset not in (None, *presets.PRESETS)) or source is not None:
        needed = memory.of_training(preset)  # a recipe that somebody else may have made
        memory.check(f"training {preset.name}", needed, arguments.max_memory)
    networks = models.build(preset)  # what does not fit together is refused before anything is read or made
    if source is not None:
        learner.check_weights(f"--init-from {arguments.init_from}", source, *networks)
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
    started_from = run.config().get("init_from")
    images = run.images(arguments.data, arguments.range)
    prepared = _prepared(arguments, start.preset, device, images, started_from)
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
    replaced = {**presets.replacements(arguments.set), **_options_of_fields(arguments)}
    named = None if arguments.preset is None else recipe_files.find(arguments.preset)  # loads its plugin
    run = RunDirectory.reopen(resume.directory_of(arguments.resume))
    stack.callback(run.close)
    start = resume.start(run, arguments.resume, arguments.max_memory)
    preset = resume.checked_preset(run.path, start.preset, named, replaced)
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
    arguments: argparse.Namespace,
    preset: Preset,
    device: str,
    images: tuple[str | None, Range | None],
    started_from: Any,
) -> Prepared:
    """Load the images, and what evaluates samples against them.

    Args:
        images: as --data and --range name them.
        started_from: see `RunConfig`.
    """
    data, value_range = images
    loaded = load_images(preset, data, value_range)
    batches = batches_of(preset, loaded)
    total = total_steps(preset, batches.per_epoch)
    named = data or "mnist"
    monitor = Monitor(preset, named, batches.images) if arguments.every else None
    on_gpu = device == "gpu"
    graph = backends.get(device).has_graphs and not arguments.no_graph and arguments.shadow is None
    tf32, kernels = arguments.tf32 and on_gpu, devices.kernels(device)
    config = RunConfig(
        preset, device, sources.absolute(named), tf32, graph, loaded.value_range, kernels, started_from
    )
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
    others = (resume.other_kernels(run, prepared.config), resume.other_device(run, prepared.device))
    for note in (too_short(preset, total), _too_seldom(arguments.every, begin, total), *others):
        if note:
            tell(note)


def _way(prepared: Prepared) -> str:
    """Return how a step gets to a device with graphs, a GPU; "" on others."""
    if not backends.get(prepared.device).has_graphs:
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
    digits = names.is_digits(prepared.data) and prepared.preset.name != presets.QUICK.name
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
    if arguments.log:
        tensorboard.follow(training)
    watched: AbstractContextManager[None] = nullcontext()
    if arguments.shadow is not None:
        watched = shadowed(training.learner, arguments.shadow, arguments.tf32)
    try:
        with StopOnSignal("dcgan train") as stop, watched:
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
    run_command(main, "dcgan train")
