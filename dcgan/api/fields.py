"""The fields of a recipe that `dcgan.fit` replaces by name, for editors and type checkers."""

from collections.abc import Sequence
from typing import TypedDict

from ..recipe.layer import Layer


class Fields(TypedDict, total=False):
    """Every field of `Preset` that can be replaced, but for those that `dcgan.fit` names itself."""

    generator: Sequence[Layer]
    discriminator: Sequence[Layer]
    step: str
    loss: str
    architecture: str
    nz: int
    ngf: int
    ndf: int
    image_size: int
    channels: int
    z_shape: Sequence[int]
    z_distribution: str
    crop: str
    flip: float
    shuffle: str
    enough_steps: int
    lr_generator: float
    lr_discriminator: float
    beta1: float
    beta2: float
    adam_eps: float
    adam_epsilon_hat: bool
    ema_decay: float
    statistics: str
    sample_every: int
    sample_early: int
    sample_noise: str
    sample_name: str
    grid_rows: int
    grid_columns: int
    plot_with_samples: bool
    real_name: str
    log_every: int
    frame_every: int
