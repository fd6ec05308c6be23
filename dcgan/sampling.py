"""Images from a generator: the statistics that its BatchNorm uses, and batches without a graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import backend as backends
from minigrad import nn

from . import latent
from .errors import UserError
from .recipe.preset import Preset

STATISTICS = ("batch", "running", "recalibrated")
CALIBRATION_STREAM = 6  # of the run's seed, for the noise that statistics are measured on
BATCH = 256  # images at a time, if they do not depend on each other
CALIBRATION_COUNT, CALIBRATION_BATCH = 10_000, 250  # images


def choose_statistics(generator: nn.Module, preset: Preset, wanted: str | None, count: int) -> str:
    """Make a generator ready for the statistics that a person wants, and say which `generate` uses.

    Args:
        wanted: "batch", "running" or "recalibrated"; None for those of `statistics_of`.
        count: images that will be made.

    Raises UserError where one image is to be normalised by its own batch.
    """
    if wanted == "batch" and count == 1:
        raise UserError("--statistics batch: one image alone is no batch; use running or recalibrated")
    wanted = wanted or statistics_of(preset, count)
    if wanted == "recalibrated":
        recalibrate(generator, preset)
    return "batch" if wanted == "batch" else "running"


def statistics_of(preset: Preset, count: int) -> str:
    """Return the statistics that `count` images of a recipe are drawn with: the recipe's.

    One image alone is no batch: where the recipe's are "batch", it is drawn with "recalibrated" ones.
    """
    return fixed_statistics(preset) if count == 1 else preset.statistics


def fixed_statistics(preset: Preset) -> str:
    """Return the statistics with which an image of a recipe depends on its own z alone.

    They are "running" where the recipe's samples use them, else "recalibrated".
    """
    return "running" if preset.statistics == "running" else "recalibrated"


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
    backend = next(generator.parameters()).backend
    generator.train()
    with mg.no_grad(), backends.using(backend):
        for k in range(CALIBRATION_COUNT // CALIBRATION_BATCH):
            for norm in norms:
                norm.momentum = 1 / (k + 1)  # the k-th batch's share in a mean of k + 1
            generator(latent.draw(preset, CALIBRATION_BATCH, source, backend.device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    generator.train(training)


def generate(
    generator: nn.Module, z: mg.Tensor | NDArray[Any], statistics: str, batch_size: int = BATCH
) -> NDArray[Any]:
    """Images (N, C, H, W) from -1 to 1, on the host.

    The generator and the engine's random state are left as they were: a Dropout draws from a copy of it.

    Args:
        z: (N, *z_shape), on any device or on the host.
        statistics: what BatchNorm uses: "running", so that each image depends on its own z alone,
            or "batch", so that all of z is one batch. One image alone has no statistics of
            its own, and uses the running ones.
    """
    if len(z) == 1:
        statistics = "running"
    saved, training, random = generator.state_dict(), generator.training, mg.random.get_state()
    generator.train(statistics == "batch")
    size = len(z) if statistics == "batch" else batch_size
    backend = next(generator.parameters()).backend
    with mg.no_grad(), backends.using(backend), mg.random.isolated():
        mg.random.set_state(random)
        if not isinstance(z, mg.Tensor) or z.backend is not backend:
            z = mg.tensor(z, device=backend.device)
        parts = [generator(z[i : i + size]).numpy() for i in range(0, len(z), size)]
    generator.train(training)
    if statistics == "batch":
        generator.load_state_dict(saved)  # the running statistics have moved
    return np.concatenate(parts)
