"""Images from a trained generator: its weights, what its BatchNorm uses, and batches without a graph."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn

from . import checkpoint, memory, models, noise
from .checkpoint import Checkpoint
from .errors import UserError
from .preset import Preset

WEIGHTS = ("last", "best", "ema")
STATISTICS = ("batch", "running", "recalibrated")
CALIBRATION_STREAM = 6  # of the run's seed, for the noise that statistics are measured on
BATCH = 256  # images at a time, if they do not depend on each other
CALIBRATION_COUNT, CALIBRATION_BATCH = 10_000, 250  # images


def load_run(run: Path, weights: str | None = None, max_memory: int = memory.DEFAULT) -> Checkpoint:
    """The checkpoint of a run directory, or a checkpoint file; the best one for the weights "best".

    Raises UserError where there is none, it is damaged, or reading it takes more than `max_memory` bytes.
    """
    if weights != "best":
        return checkpoint.load(run, max_memory)
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
    statistics = wanted or (preset.statistics if count > 1 else "recalibrated")
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


def load_generator(loaded: Checkpoint, weights: str | None = None) -> nn.Module:
    """The trained generator of a checkpoint, on the CPU.

    Args:
        weights: "last", those of the last step, or "ema", their running average; otherwise the
            average where the recipe keeps one.

    Raises UserError where the checkpoint has no such weights, or ones that do not fit the recipe.
    """
    if weights not in ("last", "ema"):
        weights = "ema" if loaded.preset.ema_decay else "last"
    prefix = "generator_ema" if weights == "ema" else "generator"
    if not loaded.under(prefix):
        raise UserError(
            f"--weights {weights}: this checkpoint has none; its recipe is {loaded.preset.name!r}"
        )
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
        network = build(loaded.preset, held)  # a recipe may say more than memory holds
        network.load_state_dict(state)
    except (ValueError, UserError) as error:
        raise UserError(f"the checkpoint does not fit its recipe: {error!s:.500}") from error
    return network


def choose_statistics(generator: nn.Module, preset: Preset, wanted: str | None, count: int) -> str:
    """Make a generator ready for the statistics that a person wants, and say which `generate` uses.

    Args:
        wanted: "batch", "running" or "recalibrated"; None for the recipe's, or, for one image alone, which
            is no batch, the recalibrated ones.
        count: images that will be made.

    Raises UserError where one image is to be normalised by its own batch.
    """
    if wanted == "batch" and count == 1:
        raise UserError("--statistics batch: one image alone is no batch; use running or recalibrated")
    if wanted is None:
        wanted = preset.statistics if count > 1 else "recalibrated"
    if wanted == "recalibrated":
        recalibrate(generator, preset)
    return "batch" if wanted == "batch" else "running"


def recalibrate(generator: nn.Module, preset: Preset) -> None:
    """Measure the running statistics anew, on 10,000 fresh z with the weights as they are.

    They become the plain mean over 40 batches of 250, each layer seeing what the layers before it make
    of such a batch. During training they lag behind the weights; and a recipe whose samples use the
    batch's statistics never relied on them.
    """
    norms = [module for _, module in generator.named_modules() if isinstance(module, nn.BatchNorm)]
    if not norms:
        return
    momenta, training = [norm.momentum for norm in norms], generator.training
    source = mg.Generator(preset.seed, CALIBRATION_STREAM)
    device = next(generator.parameters()).device
    generator.train()
    with mg.no_grad():
        for k in range(CALIBRATION_COUNT // CALIBRATION_BATCH):
            for norm in norms:
                norm.momentum = 1 / (k + 1)  # the k-th batch's share in a mean of k + 1
            generator(noise.draw(preset, CALIBRATION_BATCH, source, device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.train(training)


def generate(generator: nn.Module, z: mg.Tensor, statistics: str, batch_size: int = BATCH) -> NDArray[Any]:
    """Images (N, C, H, W) from -1 to 1, on the host.

    The generator and the engine's random state are left as they were.

    Args:
        statistics: what BatchNorm uses: "running", so that each image depends on its own z alone,
            or "batch", so that all of z is one batch. One image alone has no statistics of
            its own, and uses the running ones.
    """
    if len(z) == 1:
        statistics = "running"
    saved, training, random = generator.state_dict(), generator.training, mg.random.get_state()
    generator.train(statistics == "batch")
    size = len(z) if statistics == "batch" else batch_size
    with mg.no_grad():
        parts = [generator(z[i : i + size]).numpy() for i in range(0, len(z), size)]
    generator.train(training)
    mg.random.set_state(random)  # a Dropout has drawn from it: a look must not change what comes after
    if statistics == "batch":
        generator.load_state_dict(saved)  # the running statistics have moved
    return np.concatenate(parts)
