"""A run made ready for its next step: a new one in a new directory, or one that continues."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad import backend as backends

from .. import device as devices
from .. import models, presets
from ..console import tell
from ..data import names, sources
from ..data.batches import Batches
from ..data.channels import size_in_words
from ..data.scale import BYTES, Range
from ..errors import UserError, os_errors_as
from ..evaluation.monitor import Monitor
from ..recipe import memory
from ..recipe.plan import too_short, total_steps
from ..recipe.preset import Preset
from . import checkpoint, learner, resume
from .checkpoint import Checkpoint
from .checkup import EVERY
from .config import RunConfig
from .directory import IMAGES_NAME, RunDirectory
from .images import batches_of, load_images
from .learner import Learner
from .progress import Progress
from .resume import Start
from .schedule import Schedule
from .training import Training

Data = str | NDArray[Any] | None  # the images: as --data names them, or an array


@dataclass(frozen=True)
class Options:
    """The way in which a run is trained, besides its recipe. The defaults are those of `dcgan train`.

    Attributes:
        data: the images, as --data names them; an array (n, H, W), (n, H, W, C) or (n, C, H, W); or None for
            those of the run that it continues or begins with, or else MNIST.
        value_range: the numbers of `data` that are black and white; None to follow from their type.
        device: "cpu", "gpu", or a plugin's.
        tf32: whether a GPU may round the factors of products to TensorFloat-32.
        graph: whether the steps on a GPU are captured as one CUDA graph.
        shadow: the device that every operation is done again on, to be compared; None for none.
        schedule: the steps at which samples are evaluated, checkpoints written and vital signs measured.
        max_memory: bytes that reading and training may take, of recipes that somebody else may have made.
    """

    data: Data = None
    value_range: Range | None = None
    device: str = "cpu"
    tf32: bool = False
    graph: bool = True
    shadow: str | None = None
    schedule: Schedule = field(default_factory=lambda: Schedule(vitals_every=EVERY))
    max_memory: int = memory.DEFAULT


@dataclass(frozen=True)
class Initial:
    """The weights that a new run begins with.

    Attributes:
        path: the run or the checkpoint, as it was named.
        state: the checkpoint.
    """

    path: Path
    state: Checkpoint

    @classmethod
    def load(cls, path: Path, max_memory: int = memory.DEFAULT) -> "Initial":
        """Read the checkpoint of a run, or a checkpoint file. Raises UserError as `checkpoint.load`."""
        state = checkpoint.load(path, max_memory)
        state.check_whole(f"--init-from {path}")
        return cls(path, state)


@dataclass(frozen=True)
class Opened:
    """A run that is ready for its next step.

    Attributes:
        training: what trains it.
        total: steps that are wanted in all.
    """

    training: Training
    total: int


# -- a new run -----------------------------------------------------------------------------------------


def begin(
    preset: Preset,
    options: Options,
    out: Path | None,
    stack: ExitStack,
    initial: Initial | None = None,
    foreign: bool = False,
) -> Opened:
    """Make the directory of a new run, and all that trains in it.

    Args:
        out: the directory; by default runs/<preset>, with a number added if that is taken.
        stack: closes the directory, and removes it again if an exception ends the run untrained.
        initial: the weights to begin with; None for fresh ones.
        foreign: whether somebody else may have made the recipe, so that its memory is checked.

    Raises UserError if the recipe, the images, the weights or the directory can't be used.
    """
    device = checked_device(preset, options, initial, foreign)
    started_from = None
    if initial is not None:
        directory = RunDirectory(checkpoint.directory_of(initial.path))
        options = _with_images_of(directory, options)
        started_from = {"run": str(initial.path.resolve()), "step": initial.state.position["step"]}
    prepared = _prepare(preset, device, options, started_from)
    run = RunDirectory.create(out, prepared.config)
    stack.callback(run.close)
    stack.push(_discard_if_it_fails(run))
    if prepared.config.data == IMAGES_NAME:
        with os_errors_as(f"--out {run.path}"):
            run.write_images(prepared.batches.images)
    _tell_plan(prepared, run, options)
    stack.enter_context(devices.enough_memory(device, preset.batch_size))
    training = _training(prepared, run, options)
    if initial is not None:
        training.learner.start_from(initial.state)
        training.save()  # so that a resumed run does not need the other one
    return Opened(training, prepared.total)


def checked_device(preset: Preset, options: Options, initial: Initial | None, foreign: bool) -> str:
    """Return the device of a new run, before anything is read or made for it.

    Raises UserError if the device can't be used, the recipe's layers do not fit together, it takes too much
    memory, or the weights to begin with do not fit it. The arguments are those of `begin`.
    """
    device = _device(options)
    if (device == "cpu" and foreign) or initial is not None:
        memory.check(f"training {preset.name}", memory.of_training(preset), options.max_memory)
    networks = models.build(preset)
    if initial is not None:
        learner.check_weights(f"--init-from {initial.path}", initial.state, *networks)
    return device


def _discard_if_it_fails(run: RunDirectory) -> Callable[..., None]:
    """Return an exit callback that removes a new directory if an exception ends the run untrained."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            run.discard()

    return leave


# -- a run that continues ------------------------------------------------------------------------------


def proceed(run: RunDirectory, start: Start, device: str, options: Options, stack: ExitStack) -> Opened:
    """Put a run back to the state of its checkpoint, ready for its next step.

    Args:
        run, start, device: as `reopen` returns them.
    """
    started_from = run.config().get("init_from")
    prepared = _prepare(start.preset, device, _with_images_of(run, options), started_from)
    _tell_plan(prepared, run, options, start.step)
    stack.enter_context(devices.enough_memory(device, start.preset.batch_size))
    training = _training(prepared, run, options, start.step)
    if start.state is not None:
        training.restore(start.state)
    training.resume(start.path)
    if start.step < prepared.total:
        if prepared.config.data == IMAGES_NAME:
            run.write_images(prepared.batches.images)
        run.write_config(prepared.config)
    return Opened(training, prepared.total)


def reopen(
    path: Path, named: Preset | None, replaced: dict[str, Any], options: Options, stack: ExitStack
) -> tuple[RunDirectory, Start, str]:
    """Take a run that is to continue: its directory, the point where it continues, and the device.

    Args:
        path: the run's directory, or a checkpoint in it.
        named: the recipe that it is expected to have; None for whatever it has.
        replaced: fields of the recipe that are asked for; only its length may be another one.
        stack: unlocks the directory.

    Raises UserError if the run can't continue, or not so.
    """
    run = RunDirectory.reopen(resume.directory_of(path))
    stack.callback(run.close)
    start = resume.start(run, path, options.max_memory)
    preset = resume.checked_preset(run.path, start.preset, named, replaced)
    device = _device(options)
    if device == "cpu":  # a recipe that somebody else may have made
        memory.check(f"training {run.path}", memory.of_training(preset), options.max_memory)
    models.build(preset)
    return run, replace(start, preset=preset), device


# -- both ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """The images of a run, and what follows from them and the options before anything is written.

    Attributes:
        preset, device: what is trained, and where.
        data: the images as --data names them.
        batches: the images.
        total: steps that are wanted in all.
        monitor: what evaluates the samples; None if they are not evaluated.
        config: how the run is trained, for its directory.
    """

    preset: Preset
    device: str
    data: str
    batches: Batches
    total: int
    monitor: Monitor | None
    config: RunConfig


def _device(options: Options) -> str:
    """Return the device that is trained on. Raises UserError if --shadow has no other one beside it."""
    device = devices.choose(options.device, options.tf32)
    if options.shadow == device:
        raise UserError(f"--shadow {device}: it needs another device to look at: --device gpu, and a GPU")
    return device


def _with_images_of(run: RunDirectory, options: Options) -> Options:
    """Return the options with the images of a run, if they name none."""
    if options.data is not None and not isinstance(options.data, str):
        return options
    data, value_range = run.images(options.data, options.value_range)
    return replace(options, data=data, value_range=value_range)


def _prepare(preset: Preset, device: str, options: Options, started_from: Any) -> Prepared:
    """Load the images, and what evaluates samples against them.

    Args:
        started_from: see `RunConfig`.
    """
    given = options.data
    in_memory = isinstance(given, np.ndarray)
    loaded = load_images(preset, given, options.value_range)
    named = IMAGES_NAME if isinstance(given, np.ndarray) else given or names.DIGITS
    batches = batches_of(preset, loaded)
    total = total_steps(preset, batches.per_epoch)
    monitor = Monitor(preset, named, batches.images) if options.schedule.evaluate_every else None
    on_gpu = device == "gpu"
    config = RunConfig(
        preset,
        device,
        named if in_memory else sources.absolute(named),
        options.tf32 and on_gpu,
        backends.get(device).has_graphs and options.graph and options.shadow is None,
        BYTES if in_memory else loaded.value_range,
        devices.kernels(device),
        started_from,
    )
    return Prepared(preset, device, named, batches, total, monitor, config)


def _tell_plan(
    prepared: Prepared, run: RunDirectory, options: Options, resumed_at: int | None = None
) -> None:
    """Say what will be trained, and that it is too short, if it is.

    Args:
        resumed_at: the steps that were done before, of a run that continues.
    """
    preset, total, begin = prepared.preset, prepared.total, resumed_at or 0
    if begin >= total:
        tell(f"{run.path} has {begin} steps already, of {total} wanted: nothing to train.")
        return
    tell(
        f"{preset.name}: {preset.summary}; {len(prepared.batches.images)} images of "
        f"{size_in_words(preset.image_size, preset.channels)}, {total} steps of {preset.batch_size}, "
        f"on the {prepared.device.upper()}{_way(prepared)}, seed {preset.seed}, into {run.path}"
        + (f", from step {begin} on" if resumed_at is not None else "")
    )
    every = options.schedule.evaluate_every
    others = (resume.other_kernels(run, prepared.config), resume.other_device(run, prepared.device))
    for note in (too_short(preset, total), _too_seldom(every, begin, total), *others):
        if note:
            tell(note)


def _way(prepared: Prepared) -> str:
    """Return how a step gets to a device with graphs, a GPU; "" on others."""
    if not backends.get(prepared.device).has_graphs:
        return ""
    return ", each step one CUDA graph" if prepared.config.graph else ", without a CUDA graph"


def _too_seldom(every: int, begin: int, total: int) -> str:
    """A sentence for --every STEPS that the run never reaches; "" otherwise."""
    if not every or total // every > begin // every:
        return ""
    return f"--every {every}: no step up to {total} is a multiple of it, so nothing will be measured"


def _training(prepared: Prepared, run: RunDirectory, options: Options, begin: int = 0) -> Training:
    """Return the training of a run, of which `begin` steps were done before."""
    digits = names.is_digits(prepared.data) and prepared.preset.name != presets.QUICK.name
    short_way = f" The short way to digits is --preset {presets.QUICK.name}." if digits else ""
    return Training(
        Learner(prepared.preset, prepared.batches, prepared.device, prepared.config.graph),
        run,
        Progress(prepared.total, short_way, begin),
        options.schedule,
        prepared.monitor,
    )
