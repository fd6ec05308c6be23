"""The recipes: each is one value, and all that a run does follows from it."""

import ast
import dataclasses
from collections.abc import Sequence
from typing import Any

from .errors import UserError, did_you_mean
from .recipe import written
from .recipe.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)
from .recipe.preset import Preset

# Small, since small networks learn more in a minute than large ones; a hidden layer behind the
# discriminator's convolutions, with a BatchNorm, helps most for its cost; few numbers of noise and
# averaged weights help too. Found by trying, with a classifier of digits as the judge.
QUICK = Preset(
    name="quick",
    summary="ours: digits that a person can read, soon, on a CPU",
    step="same_fakes",
    z_shape=(16,),
    batch_size=64,
    epochs=2,
    enough_steps=300,
    lr_generator=2e-3,
    lr_discriminator=1e-3,
    beta1=0.5,
    ema_decay=0.99,
    sample_every=250,
    sample_name="quick_steps_{step:06d}.png",
    grid_rows=8,
    grid_columns=8,
    log_every=250,
    frame_every=50,
    generator=(
        Dense(256, bias=False),
        BatchNorm(),
        LeakyReLU(0.2),
        Dense(3136, bias=False),
        BatchNorm(),
        LeakyReLU(0.2),
        Reshape(64, 7, 7),
        ConvTranspose(32, 4, 2, 1, bias=False),
        BatchNorm(),
        LeakyReLU(0.2),  # 14 x 14
        ConvTranspose(1, 4, 2, 1),
        Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(16, 4, 2, 1),
        LeakyReLU(0.2),  # 14 x 14
        Conv(32, 4, 2, 1, bias=False),
        BatchNorm(),
        LeakyReLU(0.2),  # 7 x 7
        Flatten(),
        Dense(256, bias=False),
        BatchNorm(),
        LeakyReLU(0.2),
        Dense(1),
    ),
)

# The Flux tutorial's DCGAN. Its published text makes the fake batch outside of the gradient call, so
# no gradient reaches the generator and it never learns (its users got grey images). That is
# mended here on purpose, as the source's later version does: G is updated on a forward pass of its own,
# with fresh noise, inside the gradient call (`fresh_noise` in steps.py).
FLUX = Preset(
    name="flux",
    summary="the Flux tutorial's DCGAN on MNIST",
    step="fresh_noise",
    enough_steps=2500,
    generator=(
        Dense(12544, bias=False),
        BatchNorm(),
        ReLU(),
        Reshape(256, 7, 7),
        ConvTranspose(128, 5, 1, 2, bias=False),
        BatchNorm(),
        ReLU(),
        ConvTranspose(64, 4, 2, 1, bias=False),
        BatchNorm(),
        ReLU(),  # 14 x 14
        ConvTranspose(1, 4, 2, 1, bias=False),
        Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(64, 4, 2, 1),
        LeakyReLU(0.2),
        Dropout(0.3),  # 14 x 14
        Conv(128, 4, 2, 1),
        LeakyReLU(0.2),
        Dropout(0.3),  # 7 x 7
        Flatten(),
        Dense(1),
    ),
)

# The first draft of the same tutorial.
FLUX_DRAFT = dataclasses.replace(
    FLUX,
    name="flux-draft",
    summary="an earlier draft of the Flux tutorial: other slopes and Dropouts, biases in G",
    epochs=20,
    grid_rows=6,
    grid_columns=6,
    generator=(
        Dense(12544, bias=False),
        BatchNorm(),
        ReLU(),
        Reshape(256, 7, 7),
        ConvTranspose(128, 5, 1, 2),
        BatchNorm(),
        ReLU(),
        ConvTranspose(64, 4, 2, 1),
        BatchNorm(),
        ReLU(),  # 14 x 14
        ConvTranspose(1, 4, 2, 1),
        Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(64, 4, 2, 1),
        LeakyReLU(0.3),
        Dropout(0.3),  # 14 x 14
        Conv(128, 4, 2, 1),
        LeakyReLU(0.3),
        Dropout(0.25),  # 7 x 7
        Flatten(),
        Dense(1),
    ),
)

# TensorFlow's BatchNorm: its momentum is the share of the old statistics, 0.99.
_TF_NORM = BatchNorm(eps=1e-3, momentum=0.01)
_GLOROT: Any = {"init": "glorot_uniform"}

# "same" is TensorFlow's rule: 28 -> 14 -> 7 pads 1 before and 2 after, and the way back crops as much.
# tf.train.AdamOptimizer, which the tutorial uses, adds epsilon outside of the bias correction; its
# documentation calls it the paper's "epsilon hat".
TENSORFLOW = Preset(
    name="tensorflow",
    summary="a TensorFlow tutorial's DCGAN on MNIST: G first, then D on the same noise",
    step="generator_first",
    loss="bce_epsilon",
    z_shape=(100, 1, 1),
    z_distribution="uniform",
    shuffle="once",
    epochs=20,
    enough_steps=200,
    beta1=0.5,
    adam_epsilon_hat=True,
    statistics="batch",
    sample_every=0,
    sample_noise="new",
    sample_name="dcgan_gen_data_{epoch}.png",
    grid_rows=10,
    grid_columns=10,
    real_name="mnist_data.png",
    log_every=100,
    generator=(
        ConvTranspose(256, 7, 1, "valid", bias=False, **_GLOROT),
        _TF_NORM,
        LeakyReLU(0.2),  # 7 x 7
        ConvTranspose(128, 5, 2, "same", bias=False, **_GLOROT),
        _TF_NORM,
        LeakyReLU(0.2),  # 14 x 14
        ConvTranspose(1, 5, 2, "same", **_GLOROT),
        Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(128, 5, 2, "same", bias=False, **_GLOROT),
        _TF_NORM,
        LeakyReLU(0.2),  # 14 x 14
        Conv(256, 5, 2, "same", bias=False, **_GLOROT),
        _TF_NORM,
        LeakyReLU(0.2),  # 7 x 7
        Conv(1, 7, 1, "valid", **_GLOROT),
        Flatten(),
        Sigmoid(),
    ),
)

TENSORFLOW_BASELINE = dataclasses.replace(
    TENSORFLOW,
    name="tensorflow-baseline",
    summary="the same tutorial's plain GAN, with no convolution, to compare with",
    z_shape=(100,),
    epochs=100,
    sample_name="gan_gen_data_{epoch}.png",
    enough_steps=4000,
    frame_every=1000,
    generator=(Dense(128), ReLU(), Dense(784), Tanh(), Reshape(1, 28, 28)),
    discriminator=(Flatten(), Dense(128), ReLU(), Dense(1), Sigmoid()),
)

# The DCGAN paper's sizes, as in PyTorch's tutorial.
PYTORCH = Preset(
    name="pytorch",
    summary="the PyTorch tutorial's DCGAN: any pictures, sizes 8 to 256",
    step="same_fakes",
    generator=(),  # both follow from the sizes
    discriminator=(),
    architecture="dcgan",
    nz=100,
    ngf=64,
    ndf=64,
    image_size=64,
    channels=3,
    loss="bce",
    epochs=5,
    enough_steps=400,
    beta1=0.5,
    statistics="batch",
    sample_every=500,
    sample_name="output_{step}_iters-epoch_{epoch}.png",
    grid_rows=8,
    grid_columns=8,
    log_every=50,
    frame_every=100,
    seed=999,
)

# The same tutorial, brought to 32 x 32 for flowers: a plain convolution makes the image.
FLOWERS = dataclasses.replace(
    PYTORCH,
    name="flowers",
    summary="the PyTorch tutorial, as made for 800 photographs of flowers",
    architecture="dcgan_conv_last",
    nz=64,
    ngf=32,
    ndf=32,
    image_size=32,
    crop="random_or_center",
    flip=0.5,
    epochs=500,
    enough_steps=700,
    sample_every=100,
    sample_early=10,
    plot_with_samples=True,
)

PRESETS = {
    preset.name: preset
    for preset in (FLUX, QUICK, FLUX_DRAFT, TENSORFLOW, TENSORFLOW_BASELINE, FLOWERS, PYTORCH)
}


def get(name: str, /, **overrides: Any) -> Preset:
    """The recipe of a name, with fields replaced (all but its name and its summary).

    Raises UserError for an unknown recipe or field, or a value of the wrong type.
    """
    if name not in PRESETS:
        near = did_you_mean(name, PRESETS) or f": expected one of {', '.join(PRESETS)}"
        raise UserError(f"unknown preset {name!r:.100}{near}")
    return PRESETS[name].replaced(overrides)


def replacements(texts: Sequence[str]) -> dict[str, Any]:
    """The fields that --set FIELD=VALUE replaces, with their values; UserError for anything else."""
    overrides: dict[str, Any] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: expected FIELD=VALUE")
        overrides[field] = _value(field, value)
    return overrides


def _value(field: str, text: str) -> Any:
    """Return the value of --set FIELD=TEXT: layers, a Python literal, or else the text, without quotes."""
    if field in ("generator", "discriminator"):
        try:
            return written.parse(text)
        except ValueError as error:
            raise UserError(f"--set {field}: {error}") from None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
