"""Training from a program: `dcgan.fit`, and `Run.resume`."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

import minigrad as mg
from minigrad.serialize import TEMPORARY_PREFIX

from .. import device as devices
from .. import latent, pictures, presets, recipe_files
from ..console import StopOnSignal
from ..errors import UserError
from ..recipe import memory
from ..recipe.preset import Preset
from ..run import ending, opening
from ..run.divergence import Diverged
from ..run.opening import Data, Initial, Opened, Options
from ..run.schedule import Schedule
from ..run.training import Training
from ..sampling import generate
from ..steps import StepLine, StepResult
from .images import Images, PathLike
from .run import Run


class RunDiverged(UserError):
    """A loss of a run is no finite number any more; the message says where that began.

    Attributes:
        run: the run up to its last good checkpoint; None if it has none.
    """

    run: Run | None = None


class TrainingState:
    """A run while it trains, as callbacks get it after each step.

    Attributes:
        preset: the recipe.
        total: steps that are wanted in all.
        path: the run's directory.
    """

    def __init__(self, training: Training, total: int) -> None:
        self._training, self._result = training, cast(StepResult, None)
        self._line: StepLine | None = None
        self._stopped = False
        self.preset, self.total, self.path = training.preset, total, training.run.path

    @property
    def step(self) -> int:
        """Steps so far."""
        return self._training.done

    @property
    def epoch(self) -> int:
        """The epoch of the last step, from 1."""
        return self._training.batches.epoch_of(max(self.step, 1))

    @property
    def line(self) -> StepLine:
        """The scalars of the last step: loss_d, loss_g, d_x, d_g_z1, d_g_z2. On a GPU, reading them waits."""
        if self._line is None:
            values = {name: value.item() for name, value in vars(self._result).items()}
            self._line = StepLine(self.step, self.epoch, **values)
        return self._line

    def sample(self, count: int = 64, seed: int = 0) -> Images:
        """Return images of the generator as it is now, with the recipe's statistics.

        What is trained afterwards does not depend on it.
        """
        learner = self._training.learner
        z = latent.draw(self.preset, count, mg.Generator(seed), learner.device)
        pixels = pictures.to_bytes(generate(learner.sampler, z, self.preset.statistics))
        return Images(pixels, z.numpy())

    def stop(self) -> None:
        """End the run after this step. All that was trained is kept."""
        self._stopped = True

    def __repr__(self) -> str:
        return f"<TrainingState of {self.preset.name!r}, step {self.step} of {self.total}>"


Callback = Callable[[TrainingState], object]


def fit(
    recipe: str | PathLike | Preset = presets.FLUX.name,
    images: Any = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str = "cpu",
    out: PathLike | None = None,
    callbacks: Sequence[Callback] = (),
    value_range: tuple[float, float] | None = None,
    every: int | None = None,
    init_from: PathLike | Run | None = None,
    max_memory: int = memory.DEFAULT,
    **fields: Any,
) -> Run:
    """Train a recipe, as `dcgan train` does, and return the run.

        >>> import dcgan
        >>> run = dcgan.fit("quick", "mnist", steps=2, batch_size=8)
        >>> run.step
        2
        >>> run.sample(4).shape
        (4, 28, 28, 1)

    Ctrl-C (in a notebook: interrupting the kernel) stops the run after its current step; all that was trained
    is kept, and returned: `run.resume()` goes on with it. A second Ctrl-C raises KeyboardInterrupt. The
    engine's random state is left as it was, and runs in several threads do not disturb each other.

    Messages go through `logging`, by the logger "dcgan"; `logging.getLogger("dcgan").setLevel("WARNING")`
    silences them, and the progress bar.

    Args:
        recipe: a preset's name, a .toml or .json file, "FILE.py:NAME", or a `Preset`.
        images: an array (n, H, W), (n, H, W, C) or (n, C, H, W), which is copied into the run's directory; a
            folder or .zip of images, a file of many, "mnist" or "fashion-mnist:DIR". By default MNIST.
        steps, epochs: the length of the run, in updates or in passes over the images.
        batch_size: images a step.
        seed: of all that is random. Equal calls give equal results, bit for bit.
        device: "cpu", "gpu", or a plugin's.
        out: the run's directory, which must be new or empty; by default a temporary one, which is removed
            when the run is gone (`Run.save` keeps it).
        callbacks: functions that are called with a `TrainingState` after each step. What one raises ends the
            run and is raised again; KeyboardInterrupt is taken as `TrainingState.stop`.
        value_range: the numbers of the images that are black and white; by default by their type.
        every: steps between two evaluations of the samples, the best of which are kept ("best" of
            `dcgan.load`); by default none.
        init_from: a run whose weights this one begins with.
        max_memory: bytes that a recipe which somebody else may have made may take.
        fields: any other field of the recipe, such as `lr_generator=1e-4` or `ema_decay=0.999`.

    Raises UserError for anything that can't be used, and RunDiverged if a loss is no finite number any more.
    """
    own = {"steps": steps, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    replaced = {**fields, **{name: value for name, value in own.items() if value is not None}}
    named = _named(recipe)
    preset = (named if isinstance(named, Preset) else recipe_files.find(named)).replaced(replaced)
    source = init_from.path if isinstance(init_from, Run) else init_from
    initial = None if source is None else Initial.load(Path(source), max_memory)
    options = Options(_data(images), value_range, devices.canonical(device), max_memory=max_memory)
    options = replace(options, schedule=_schedule(every))
    foreign = not isinstance(named, Preset) and named not in presets.PRESETS
    temporary = None if out is not None else Path(tempfile.mkdtemp(prefix=f"{TEMPORARY_PREFIX}dcgan-"))
    folder = temporary / preset.name if temporary is not None else Path(cast(PathLike, out))
    try:
        with ExitStack() as stack, mg.random.isolated():
            opened = opening.begin(preset, options, folder, stack, initial, foreign)
            _train(opened, callbacks)
        run = Run(folder)
    except BaseException as error:
        if temporary is not None:
            _keep_or_remove(temporary, error)
        raise
    if temporary is not None:
        run.remove_with(temporary)
    return run


def resumed(
    run: Run,
    steps: int | None,
    images: Any,
    device: str | None,
    callbacks: Sequence[Callback],
    every: int | None,
) -> None:
    """Train a run further, as `Run.resume` says."""
    if steps is not None and (type(steps) is not int or steps < 1):
        raise UserError(f"steps={steps!r:.40}: expected an integer of at least 1, the steps to go on for")
    options = Options(
        data=_data(images),
        device=devices.canonical(run.device if device is None else device),
        max_memory=run.max_memory,
        schedule=_schedule(every),
    )
    replaced = {} if steps is None else {"steps": run.step + steps}
    with ExitStack() as stack, mg.random.isolated():
        directory, start, device = opening.reopen(run.named, None, replaced, options, stack)
        opened = opening.proceed(directory, start, device, options, stack)
        if steps is None and start.step >= opened.total:
            raise UserError(
                f"{run.path} has {start.step} steps already, of {opened.total} wanted: say how many more, as "
                "run.resume(steps=400)"
            )
        _train(opened, callbacks)


def _train(opened: Opened, callbacks: Sequence[Callback]) -> None:
    """Train up to the steps that are wanted, or until a callback or Ctrl-C stops it."""
    training = opened.training
    state = TrainingState(training, opened.total)

    def after_step(result: StepResult) -> None:
        state._result, state._line = result, None
        for callback in callbacks:
            try:
                callback(state)
            except KeyboardInterrupt:
                state.stop()

    try:
        with StopOnSignal(None) as stop:
            training.train(opened.total, lambda: stop.asked or state._stopped, after_step)
    except Diverged as diverged:
        error = RunDiverged(" ".join(ending.divergence(training, diverged)))
        if training.saved is not None:
            error.run = Run(training.run.path)
        raise error from diverged
    except OSError as error:
        raise ending.not_written(training, error) from error
    if training.done < opened.total:
        training.progress.say(
            f"Stopped after step {training.done} of {opened.total}; everything up to there is kept: "
            "run.resume() goes on."
        )


def _named(recipe: str | PathLike | Preset) -> str | Preset:
    if isinstance(recipe, Preset):
        return recipe
    if not isinstance(recipe, str | os.PathLike):
        raise UserError(f"recipe: expected a preset's name, a file or a Preset, got {type(recipe).__name__}")
    return os.fspath(recipe)


def _data(images: Any) -> Data:
    """Return the images as --data names them, or as an array."""
    if images is None or isinstance(images, str):
        return images
    if isinstance(images, os.PathLike):
        return os.fspath(images)
    array = images.numpy() if isinstance(images, mg.Tensor) else np.asarray(images)
    if array.dtype == object:
        raise UserError(
            "images: expected an array of numbers, or the name of a folder or file, got "
            f"{type(images).__name__} that is no such array: images of several sizes go into a folder"
        )
    return array


def _schedule(every: int | None) -> Schedule:
    if every is not None and (type(every) is not int or every < 1):
        raise UserError(f"every={every!r:.40}: expected an integer of at least 1")
    return replace(Options().schedule, evaluate_every=every or 0)


def _keep_or_remove(temporary: Path, error: BaseException) -> None:
    """Remove a temporary directory, unless the error has a run in it, which removes it then."""
    if isinstance(error, RunDiverged) and error.run is not None:
        error.run.remove_with(temporary)
    else:
        shutil.rmtree(temporary, ignore_errors=True)
