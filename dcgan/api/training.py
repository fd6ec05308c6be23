"""Training from a program: callbacks, Ctrl-C, and a run that goes on."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import minigrad as mg

from .. import device as devices
from .. import latent, pictures
from ..console import StopOnSignal
from ..errors import UserError
from ..recipe import memory
from ..recipe.preset import MAX_GRID_IMAGES
from ..run import ending, opening
from ..run.divergence import Diverged
from ..run.opening import Data, Opened, Options
from ..run.training import Training
from ..sampling import generate
from ..steps import StepLine, StepResult
from . import checks
from .images import Images


class RunDiverged(UserError):
    """A loss of a run is no finite number any more; the message says where that began.

    Attributes:
        run: the `Run` up to its last good checkpoint; None if it has none.
    """

    run: Any = None


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

        Drawing them changes nothing for the steps that follow.
        """
        count, seed = checks.whole("count", count, 1, MAX_GRID_IMAGES), checks.whole("seed", seed, 0)
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


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raise UserError unless callbacks are functions in a list or a tuple."""
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise UserError(f"callbacks={callbacks!r:.60}: expected a list of functions of a TrainingState")


def train(opened: Opened, callbacks: Sequence[Callback]) -> None:
    """Train up to the steps that are wanted, or until a callback or Ctrl-C stops it."""
    training = opened.training
    state = TrainingState(training, opened.total)

    raised: list[Exception] = []  # by a callback

    def after_step(result: StepResult) -> None:
        state._result, state._line = result, None
        for callback in callbacks:
            try:
                callback(state)
            except KeyboardInterrupt:
                state.stop()
            except Exception as error:
                raised.append(error)
                raise

    try:
        with StopOnSignal(None) as stop:
            training.train(opened.total, lambda: stop.asked or state._stopped, after_step)
    except Diverged as diverged:
        raise RunDiverged(" ".join(ending.divergence(training, diverged))) from diverged
    except OSError as error:
        if error in raised:
            raise
        raise ending.not_written(training, error) from error
    if training.done < opened.total:
        training.progress.say(
            f"Stopped after step {training.done} of {opened.total}; everything up to there is kept: "
            "run.resume() goes on."
        )


def resume(path: Path, steps: int | None, options: Options, callbacks: Sequence[Callback]) -> None:
    """Train the run in a directory, or from a checkpoint of it, further.

    Args:
        steps: how many more; None for those that are left of what the run was to do.

    Raises UserError if it can't go on, or there are none left.
    """
    check_callbacks(callbacks)
    if steps is not None:
        steps = checks.whole("steps", steps, 1)
    with ExitStack() as stack, mg.random.isolated():
        directory, start, device = opening.reopen(path, None, {}, options, stack)
        if steps is not None:
            start = replace(start, preset=start.preset.replaced({"steps": start.step + steps}))
        opened = opening.proceed(directory, start, device, options, stack)
        if start.step >= opened.total:
            raise UserError(
                f"{path} has {start.step} steps already, of {opened.total} wanted: say how many more, as "
                "run.resume(steps=400)"
            )
        train(opened, callbacks)


def options(
    images: Any,
    device: str,
    every: int | None,
    value_range: tuple[float, float] | None = None,
    max_memory: int = memory.DEFAULT,
) -> Options:
    """Return how a run is trained, by the arguments of `dcgan.fit`. Raises UserError for wrong ones."""
    every = 0 if every is None else checks.whole("every", every, 1)
    if not isinstance(device, str):
        raise UserError(f"device={device!r:.40}: expected the name of a device, such as cpu or gpu")
    usual = Options()
    return replace(
        usual,
        data=_data(images),
        value_range=value_range,
        device=devices.canonical(device),
        schedule=replace(usual.schedule, evaluate_every=every),
        max_memory=checks.whole("max_memory", max_memory, 1),
    )


def _data(images: Any) -> Data:
    """Return the images as --data names them, or as an array."""
    if images is None or isinstance(images, str):
        return images
    if isinstance(images, os.PathLike):
        return os.fspath(images)
    return checks.array("images", images)
