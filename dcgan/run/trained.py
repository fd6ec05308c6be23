"""The networks of a trained run, opened again: from a run's directory, or from a checkpoint file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import minigrad as mg
from minigrad import backend as backends
from minigrad import nn

from .. import device, models
from ..errors import UserError
from ..recipe import memory
from ..recipe.preset import Preset
from ..sampling import BATCH, CALIBRATION_BATCH, statistics_of
from . import checkpoint, packaged
from .checkpoint import Checkpoint

WEIGHTS = ("last", "best", "ema")


def load_run(run: Path, weights: str | None = None, max_memory: int = memory.DEFAULT) -> Checkpoint:
    """The checkpoint of a run directory, a checkpoint file, or a generator of the package, such as "@quick".

    With the weights "best" it is the best checkpoint of the run.

    Raises UserError where there is none, it is damaged, or reading it takes more than `max_memory` bytes.
    """
    if weights != "best":
        return checkpoint.load(run, max_memory)
    if packaged.is_named(run):
        raise UserError(f"--weights best: {run} has one set of weights: leave --weights out")
    directory = checkpoint.directory_of(run)
    best = directory / checkpoint.BEST_NAME
    if not best.is_file():
        raise UserError(
            f"--weights best: there is no {best}; it is kept by a run that is trained with --every STEPS"
        )
    return checkpoint.load(best, max_memory)


def check_memory(
    what: str, loaded: Checkpoint, wanted: str | None, count: int, max_memory: int, further: int = 0
) -> None:
    """Check that a checkpoint's generator, and `count` images of it, fit in `max_memory` bytes.

    It is called before the generator is loaded, and takes no memory itself.

    Args:
        what: what is to be done, for the message.
        wanted: the statistics, as of `choose_statistics`.
        further: bytes that are needed besides.

    Raises UserError if they do not fit, or if the layers of the recipe do not fit together.
    """
    preset = loaded.preset
    statistics = wanted or statistics_of(preset, count)
    batch = count if statistics == "batch" else min(count, BATCH)
    if statistics == "recalibrated":
        batch = max(batch, CALIBRATION_BATCH)
    needed = memory.of_sampling(preset, count, batch)
    held = sum(array.nbytes for array in loaded.tensors.values())
    memory.check(
        f"{what} of {preset.image_size} x {preset.image_size} by the recipe {preset.name!r}",
        held + needed + further,
        max_memory,
    )


def default_weights(loaded: Checkpoint) -> str:
    """Return "ema" where the recipe averages and the checkpoint has the average, else "last"."""
    return "ema" if loaded.preset.ema_decay and loaded.under("generator_ema") else "last"


def prefix_of(loaded: Checkpoint, weights: str | None) -> str:
    """Return the prefix of the keys of a generator's weights.

    Args:
        weights: as of `load_generator`.
    """
    if weights not in ("last", "ema"):
        weights = default_weights(loaded)
    return "generator_ema" if weights == "ema" else "generator"


def load_generator(loaded: Checkpoint, weights: str | None = None) -> nn.Module:
    """The trained generator of a checkpoint, on the CPU. Tells of the CPU's kernels (`device.tell_kernels`).

    A generator of the package computes by NumPy's forms (`minigrad.backend.numpy_forms`): its images are the
    same whether or not there are kernels, and nothing is compiled for it.

    Args:
        weights: "last", those of the last step, or "ema", their running average; otherwise the
            average where the recipe keeps one, and the checkpoint has it.

    Raises UserError where the checkpoint has no such weights, or ones that do not fit the recipe.
    """
    prefix = prefix_of(loaded, weights)
    if not loaded.under(prefix):
        raise UserError(
            f"--weights {weights or 'last'}: this checkpoint has none; its recipe is {loaded.preset.name!r}"
        )
    if loaded.packaged:
        with backends.using(backends.numpy_forms()):
            return _trained(loaded, prefix, models.build_generator)
    device.tell_kernels()
    return _trained(loaded, prefix, models.build_generator)


def load_discriminator(loaded: Checkpoint) -> nn.Module:
    """The trained discriminator of a checkpoint, on the CPU. Raises UserError as `load_generator` does."""
    if not loaded.under("discriminator"):
        raise UserError("this checkpoint has no discriminator")
    return _trained(loaded, "discriminator", models.build_discriminator)


def _trained(loaded: Checkpoint, prefix: str, build: Callable[[Preset, int], nn.Module]) -> nn.Module:
    """A network with a checkpoint's weights under a prefix."""
    state = loaded.under(prefix)
    if not all(np.isfinite(array).all() for array in state.values()):
        raise UserError(
            f"after step {loaded.position['step']} the weights hold numbers that are not finite: the run had "
            "diverged by then"
        )
    held = sum(array.size for array in state.values())
    try:
        with mg.random.isolated():  # a look leaves the engine's random state as it was
            network = build(loaded.preset, held)  # a recipe may say more than memory holds
        network.load_state_dict(state)
    except (ValueError, UserError) as error:
        raise UserError(f"the checkpoint does not fit its recipe: {error!s:.500}") from error
    return network
