"""The report at the end of a run: the files that it left, or the error and its remedy."""

from collections.abc import Iterator

from minigrad.inspect import ShadowError

from .. import plugins
from ..console import tell
from ..errors import UserError, reason
from ..recipe import memory
from . import checkpoint, checkup
from .divergence import Diverged
from .training import Training


def tell_end(training: Training, total: int) -> None:
    """Tell where everything is, and how to go on with a run that was stopped before `total` steps."""
    path = training.run.path
    if training.done < total:
        tell(f"Stopped after step {training.done} of {total}; everything up to there is kept.")
        tell(f"go on with dcgan train --resume {path}{_options(training)}")
    tell(f"samples    {training.run.samples}/")
    for label, name in (
        ("animation", "output.gif"),
        ("curves", "losses.png"),
        ("vitals", checkup.PICTURE_NAME),
        ("metrics", "metrics.jsonl"),
        ("checkpoint", checkpoint.FILE_NAME),
        ("best", checkpoint.BEST_NAME),
        ("log", "tensorboard"),
    ):
        if (path / name).exists():
            tell(f"{label:<10} {path / name}")
    needed = plugins.options(training.preset)
    tell(f"more       dcgan sample {path} --out more.png --grid 8x8 --seed 1{needed}")


def divergence(training: Training, diverged: Diverged) -> Iterator[str]:
    """Yield sentences about a run that has diverged: the first number that is not finite, and what is left.

    The number is looked for after the first sentence, which takes as long as the last steps did.
    """
    training.progress.close()
    yield f"The run has diverged: {diverged}."
    where = training.where_it_diverged(diverged.step)
    if where:
        yield f"The first number that is not finite comes up {where}."
    last = training.run.path / checkpoint.FILE_NAME
    if training.saved is not None:
        yield f"The last good checkpoint, of step {training.saved}, is {last}."
    yield "Start again with smaller lr_generator and lr_discriminator (--set)."


def tell_difference(training: Training, device: str, error: ShadowError) -> None:
    """Tell which operation has another result on the device that each is done again on."""
    training.progress.close()
    tell(f"shadow: after {training.done} steps the {device.upper()} has another result")
    tell(f"shadow: {error}")


def not_written(training: Training, error: OSError) -> UserError:
    """Return the error that reports a failed write which ended the run."""
    run, saved = training.run, training.saved
    said = f"after step {training.done} {error.filename or run.path} could not be written: {reason(error)}. "
    if not run.is_in_place():
        last = "It had no checkpoint" if saved is None else f"Its last checkpoint was of step {saved}"
        return UserError(f"{said}The run's directory was moved or removed while it was training. {last}")
    whole = "holds no checkpoint yet" if saved is None else f"holds is whole, up to step {saved}"
    what = run.path if saved is None else f"What {run.path}"
    return UserError(f"{said}{what} {whole}; make room, or choose another --out")


def _options(training: Training) -> str:
    """Return the options besides the recipe that the next command needs to train as this one did."""
    schedule = training.schedule
    preset, device = training.preset, training.learner.device
    options = plugins.options(preset, device) + (f" --device {device}" if device != "cpu" else "")
    options += f" --every {schedule.evaluate_every}" if schedule.evaluate_every else ""
    needed = memory.of_training(training.preset)
    if needed > memory.DEFAULT:
        options += f" --max-memory {-(-needed // 2**30)}G"
    options += training.run.follower.option
    measured = schedule.vitals_every
    return options + (f" --vitals-every {measured}" if measured != checkup.EVERY else "")
