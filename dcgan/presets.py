"""The recipes: each is one value, and all that a run does follows from it."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from . import layers
from .errors import UserError
from .layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LeakyReLU,
    ReLU,
    Reshape,
    Tanh,
)


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        name, summary: for people.
        image_size, channels: of the images, which are square.
        z_shape: of one image's noise; `z_distribution` is "normal", N(0, 1), or "uniform", U(-1, 1).
        generator, discriminator: their layers.
        step: the name of the update rule (steps.py).
        batch_size, epochs: how much; `steps` ends the run earlier where it is not 0.
        lr_generator, lr_discriminator, beta1, beta2, adam_eps: of the two Adams.
        ema_decay: of the averaged weights of the generator, 0 for none; where there are
            any, samples are drawn with them.
        statistics: what the generator's BatchNorm uses in samples: "running" or "batch".
        sample_every: steps between two grids of the recipe, the first before any update;
            `sample_name` is their file name, with {step}; `grid_rows` x `grid_columns` images.
        log_every: steps between two lines of losses.
        frame_every: steps between two frames of the animation.
        seed: of all that is random.
    """

    name: str
    summary: str
    generator: tuple[Layer, ...]
    discriminator: tuple[Layer, ...]
    step: str
    image_size: int = 28
    channels: int = 1
    z_shape: tuple[int, ...] = (100,)
    z_distribution: str = "normal"
    batch_size: int = 128
    epochs: int = 25
    steps: int = 0
    lr_generator: float = 2e-4
    lr_discriminator: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    ema_decay: float = 0.0
    statistics: str = "running"
    sample_every: int = 1000
    sample_name: str = "dcgan_steps_{step:06d}.png"
    grid_rows: int = 5
    grid_columns: int = 5
    log_every: int = 1000
    frame_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = int(field.name in _POSITIVE)
            if field.type is int and not least <= value < 2**63:
                raise UserError(f"{field.name}={value}: expected an integer of at least {least}, below 2^63")
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)}: expected 0 <= {name} < 1")
        for name in ("lr_generator", "lr_discriminator", "adam_eps"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name}={getattr(self, name)}: expected a positive number")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}")
        if self.grid_rows * self.grid_columns > MOST_IMAGES:
            raise UserError(
                f"grid_rows={self.grid_rows}, grid_columns={self.grid_columns}: expected a grid of at most "
                f"{MOST_IMAGES} images"
            )
        if not _names_files(self.sample_name):
            raise UserError(
                f"sample_name={self.sample_name!r}: expected a file name with {{step}} in it that ends in "
                '.png, such as "step_{step:06d}.png"'
            )
        if not self.z_shape or min(self.z_shape) < 1:
            raise UserError(f"z_shape={self.z_shape}: expected positive integers")

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON values."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _NETWORKS:
            data[name] = [layers.to_json(layer) for layer in data[name]]
        return {**data, "z_shape": list(self.z_shape)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Preset":
        """What `to_json` wrote; ValueError or TypeError for anything else."""
        fields = dict(data)
        for name in _NETWORKS:
            fields[name] = tuple(layers.from_json(layer) for layer in fields[name])
        return cls(**{**fields, "z_shape": tuple(fields["z_shape"])})


def _names_files(pattern: str) -> bool:
    """Whether a pattern gives each step a PNG file of its own."""
    try:
        names = [pattern.format(step=step) for step in (1, 2)]
    except (IndexError, KeyError, ValueError):
        return False
    return names[0] != names[1] and pattern.endswith(".png") and not set("/\\\0") & set(pattern)


MOST_IMAGES = 10_000  # in one grid
_NETWORKS = ("generator", "discriminator")
_POSITIVE = (
    "image_size", "channels", "batch_size", "epochs", "sample_every", "grid_rows", "grid_columns",
    "log_every", "frame_every",
)  # fmt: skip
_CHOICES = {
    "step": ("fresh_noise", "same_fakes"),
    "z_distribution": ("normal", "uniform"),
    "statistics": ("running", "batch"),
}

# The Flux tutorial's DCGAN. Its published text makes the fake batch outside of the gradient call, so
# no gradient reaches the generator and it never learns (its users got grey images). That is
# mended here on purpose, as the source's later version does: G is updated on a forward pass of its own,
# with fresh noise, inside the gradient call (`fresh_noise` in steps.py).
FLUX = Preset(
    name="flux",
    summary="the Flux tutorial's DCGAN on MNIST",
    step="fresh_noise",
    generator=(
        Dense(12544, bias=False), BatchNorm(), ReLU(), Reshape(256, 7, 7),
        ConvTranspose(128, 5, 1, 2, bias=False), BatchNorm(), ReLU(),
        ConvTranspose(64, 4, 2, 1, bias=False), BatchNorm(), ReLU(),  # 14 x 14
        ConvTranspose(1, 4, 2, 1, bias=False), Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(64, 4, 2, 1), LeakyReLU(0.2), Dropout(0.3),  # 14 x 14
        Conv(128, 4, 2, 1), LeakyReLU(0.2), Dropout(0.3),  # 7 x 7
        Flatten(), Dense(1),
    ),
)  # fmt: skip

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
        Dense(256, bias=False), BatchNorm(), LeakyReLU(0.2),
        Dense(3136, bias=False), BatchNorm(), LeakyReLU(0.2), Reshape(64, 7, 7),
        ConvTranspose(32, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2),  # 14 x 14
        ConvTranspose(1, 4, 2, 1), Tanh(),  # 28 x 28
    ),
    discriminator=(
        Conv(16, 4, 2, 1), LeakyReLU(0.2),  # 14 x 14
        Conv(32, 4, 2, 1, bias=False), BatchNorm(), LeakyReLU(0.2),  # 7 x 7
        Flatten(), Dense(256, bias=False), BatchNorm(), LeakyReLU(0.2),
        Dense(1),
    ),
)  # fmt: skip

PRESETS = {preset.name: preset for preset in (FLUX, QUICK)}


def get(name: str, /, **overrides: Any) -> Preset:
    """The recipe of a name, with fields replaced (all but its name and its summary).

    Raises UserError for an unknown recipe or field, or a value of the wrong type.
    """
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    settable = [f.name for f in dataclasses.fields(Preset) if f.name not in ("name", "summary")]
    for field, value in overrides.items():
        if field not in settable:
            raise UserError(f"unknown field {field!r}: what can be replaced is {', '.join(settable)}")
        overrides[field] = _checked(field, getattr(preset, field), value)
    return dataclasses.replace(preset, **overrides)


def _checked(field: str, current: Any, value: Any) -> Any:
    """`value` for a field that holds `current` now: of its type, an int also where a float is."""
    if isinstance(current, float) and type(value) is int:
        value = float(value)
    if isinstance(current, tuple) and isinstance(value, tuple | list):
        value = tuple(value)
        wanted = int if field == "z_shape" else Layer
        if value and all(isinstance(v, wanted) for v in value):
            return value
    elif type(value) is type(current):
        return value
    kind = "a tuple of " + ("integers" if field == "z_shape" else "layers (dcgan.layers)")
    expected = kind if isinstance(current, tuple) else f"a value of type {type(current).__name__}"
    raise UserError(f"{field}={value!r}: expected {expected}, such as {current!s:.60}")
