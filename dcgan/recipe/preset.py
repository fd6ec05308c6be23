"""The fields of a recipe, and the checks of their values."""

import dataclasses
import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, did_you_mean
from ..files import jsonfile
from ..losses import LOSSES
from ..steps import RULES
from . import family, layers, shown, written
from .layer import Layer

MAX_GRID_IMAGES = 10_000  # in one grid


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Attributes:
        name, summary: for people.
        generator, discriminator: their layers.
        step: the name of the update rule (steps.py); `loss` is that of the loss (losses.py).
        architecture: "layers" where the layers are listed one by one. Else they follow, with
            `z_shape`, from `image_size`, `channels`, `nz` (numbers of noise), `ngf` and `ndf`
            (feature maps of the layers next to the image, in G and D): "dcgan", the paper's form,
            or "dcgan_conv_last", with a plain convolution at G's end (family.py).
        image_size, channels: of the images, which are square.
        z_shape: of one image's noise; `z_distribution` is "normal", N(0, 1), or "uniform", U(-1, 1).
        crop: which square of an image that is none: "center", or "random_or_center", with equal
            chance; `flip` is the chance that an image is mirrored.
        shuffle: the order of the images is drawn anew for "every_epoch", or "once".
        batch_size: images a step.
        epochs, steps: the length of a run, in passes over the images and in updates; whichever is reached
            first ends it, and 0 is no limit.
        enough_steps: steps after which the samples are first worth looking at, as measured; a shorter run
            says so. 0 if nobody has measured it.
        lr_generator, lr_discriminator, beta1, beta2, adam_eps: of the two Adams.
        adam_epsilon_hat: whether they add adam_eps outside of the bias correction, as TensorFlow does
            (`epsilon_hat` of minigrad.optim.Adam), and not inside of it, as Kingma and Ba's algorithm 1. The
            recipe of a checkpoint that says nothing about it goes on with the latter.
        ema_decay: of the averaged weights of the generator, 0 for none; where there are
            any, samples are drawn with them.
        statistics: what the generator's BatchNorm uses in samples: "running" or "batch".
        sample_every: steps between two grids of the recipe, the first before any update; 0 for
            the end of every epoch. Until the first `sample_every` steps are done there is one
            every `sample_early`, where that is not 0. The last step always has one.
        sample_noise: the grids show "fixed" noise, or "new" noise each time.
        sample_name: the grids' file name, with {step}, updates done, or {epoch}, which counts
            from 0 as the documents do; `grid_rows` x `grid_columns` images.
        plot_with_samples: whether the curves are drawn with every grid, and not at the end alone.
        real_name: the file name of a grid of real images, written at the start.
        log_every: steps between two lines of losses.
        frame_every: steps between two frames of the animation.
        seed: of all that is random.
    """

    name: str
    summary: str
    generator: tuple[Layer, ...]
    discriminator: tuple[Layer, ...]
    step: str
    loss: str = "bce_with_logits"
    architecture: str = "layers"
    nz: int = 0
    ngf: int = 0
    ndf: int = 0
    image_size: int = 28
    channels: int = 1
    z_shape: tuple[int, ...] = (100,)
    z_distribution: str = "normal"
    crop: str = "center"
    flip: float = 0.0
    shuffle: str = "every_epoch"
    batch_size: int = 128
    epochs: int = 25
    steps: int = 0
    enough_steps: int = 0
    lr_generator: float = 2e-4
    lr_discriminator: float = 2e-4
    beta1: float = 0.9
    beta2: float = 0.999
    adam_eps: float = 1e-8
    adam_epsilon_hat: bool = False
    ema_decay: float = 0.0
    statistics: str = "running"
    sample_every: int = 1000
    sample_early: int = 0
    sample_noise: str = "fixed"
    sample_name: str = "dcgan_steps_{step:06d}.png"
    grid_rows: int = 5
    grid_columns: int = 5
    plot_with_samples: bool = False
    real_name: str = "training_images.png"
    log_every: int = 1000
    frame_every: int = 250
    seed: int = 0

    def __post_init__(self) -> None:
        _check_numbers(self)
        _check_names(self)
        if self.architecture == "layers":
            _check_listed(self)
        else:
            _derive_networks(self)
        _check_round_trip(self)

    def __repr__(self) -> str:
        """Return the call that makes the recipe, without the fields that have their default."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        changed = (f for f in dataclasses.fields(self) if given[f.name] != f.default)
        return f"{type(self).__name__}({', '.join(f'{f.name}={_written(given[f.name])}' for f in changed)})"

    def _repr_html_(self) -> str:
        return shown.recipe(vars(self))

    def to_json(self) -> dict[str, Any]:
        """Every field as JSON values."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _NETWORKS:
            data[name] = [written.to_json(layer) for layer in data[name]]
        return {**data, "z_shape": list(self.z_shape)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Preset":
        """Return the recipe that `to_json` wrote; ValueError or TypeError for anything else."""
        return cls(**_fields(data))

    def replaced(self, overrides: dict[str, Any]) -> "Preset":
        """The recipe with fields replaced: all but its name and its summary.

        `steps` without `epochs` is the length of a run, however many epochs that takes, and the other way
        round. Raises UserError for an unknown field, or a value of the wrong type.
        """
        checked = {}
        for field, value in overrides.items():
            if field not in SETTABLE:
                raise _unknown_field(field)
            checked[field] = _checked(field, getattr(self, field), value)
        for length, other in (("steps", "epochs"), ("epochs", "steps")):
            if checked.get(length) and other not in checked:
                checked[other] = 0  # the length that is asked for replaces that of the recipe
        derived = checked.get("architecture", self.architecture) != "layers"
        for field in _DERIVED & checked.keys() if derived else ():
            raise UserError(
                f"{field} follows from image_size, channels, nz, ngf and ndf in {self.name!r}: replace those"
            )
        return dataclasses.replace(self, **checked)


def _written(value: Any) -> str:
    """Return a field's value as Python code."""
    if not isinstance(value, tuple):
        return repr(value)
    parts = [written.to_text(part) if isinstance(part, Layer) else repr(part) for part in value]
    return f"({', '.join(parts)}{',' * (len(parts) == 1)})"


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a recipe from JSON values. Raises ValueError or TypeError for anything else."""
    fields = dict(data)
    written.check_types(Preset, fields)
    if not all(type(number) is int for number in fields["z_shape"]):
        raise TypeError("z_shape: expected a list of integers")
    for name in _NETWORKS:
        fields[name] = tuple(written.from_json(layer) for layer in fields[name])
    return {**fields, "z_shape": tuple(fields["z_shape"])}


def _unknown_field(field: str) -> UserError:
    if field in _FOR_PEOPLE:
        return UserError(f"{field} can't be replaced: a recipe in a file may have another (--preset FILE)")
    near = did_you_mean(MEANT.get(field, field), SETTABLE)
    expected = near or f": expected one of {', '.join(SETTABLE)}"
    return UserError(f"unknown field {field!r:.60}{expected}")


def _check_round_trip(preset: Preset) -> None:
    """Raise UserError if the recipe could not be read again from the files of its runs."""
    try:
        again = _fields(jsonfile.parse(json.dumps(preset.to_json())))
    except (TypeError, ValueError) as error:
        raise UserError(f"preset {preset.name!r}: {error}") from error
    changed = [f.name for f in dataclasses.fields(preset) if again[f.name] != getattr(preset, f.name)]
    if changed:
        raise UserError(
            f"preset {preset.name!r}: {', '.join(changed)} would be another when read from a file"
        )


def _check_numbers(preset: Preset) -> None:
    for field in dataclasses.fields(preset):
        value = getattr(preset, field.name)
        least = int(field.name in _POSITIVE)
        if field.type is int and not least <= value < 2**63:
            raise UserError(f"{field.name}={value}: expected an integer of at least {least}, below 2^63")
    for name in ("beta1", "beta2", "ema_decay"):
        if not 0 <= getattr(preset, name) < 1:
            raise UserError(f"{name}={getattr(preset, name)}: expected 0 <= {name} < 1")
    for name in ("lr_generator", "lr_discriminator", "adam_eps"):
        if not 0 < getattr(preset, name) < float("inf"):
            raise UserError(f"{name}={getattr(preset, name)}: expected a positive number")
    if not preset.epochs and not preset.steps:
        raise UserError("epochs=0, steps=0: expected at least one of them as the length of a run")
    if preset.image_size > _MAX_IMAGE_SIZE:
        raise UserError(f"image_size={preset.image_size}: expected {_MAX_IMAGE_SIZE} at most")
    if not 0 <= preset.flip <= 1:
        raise UserError(f"flip={preset.flip}: expected a chance from 0 to 1")
    if preset.channels not in family.CHANNELS:
        raise UserError(f"channels={preset.channels}: expected 1 (grey), 2 (and alpha), 3 (RGB) or 4 (RGBA)")
    if preset.grid_rows * preset.grid_columns > MAX_GRID_IMAGES:
        raise UserError(
            f"grid_rows={preset.grid_rows}, grid_columns={preset.grid_columns}: expected a grid of at most "
            f"{MAX_GRID_IMAGES} images"
        )


def _check_names(preset: Preset) -> None:
    if not _is_plain(preset.name) or preset.name.startswith("."):  # a run's directory is called so
        raise UserError(f"name={preset.name!r:.60}: expected a short name of letters, digits and the like")
    if not preset.summary.isprintable():
        raise UserError(f"summary={preset.summary!r:.60}: expected a line of text")
    for name, choices in _CHOICES.items():
        value = getattr(preset, name)
        if value not in choices:
            plugin = ", or one that a plugin registers (--plugin FILE)" if name in _OPEN else ""
            near = did_you_mean(value, choices).removeprefix(":") if isinstance(value, str) else ""
            expected = f"expected one of {', '.join(choices)}{plugin}{near and f';{near}'}"
            raise UserError(f"{name}={value!r:.60}: {expected}")
    counted = "step" if preset.sample_every else "epoch"
    if not _names_files(preset.sample_name, counted):
        raise UserError(
            f"sample_name={preset.sample_name!r}: expected a file name with {{{counted}}} in it that ends in "
            f'.png, such as "{counted}_{{{counted}:06d}}.png"'
        )
    taken = preset.real_name.startswith(".") or preset.real_name in _TAKEN
    if not _is_file_name(preset.real_name) or taken:
        raise UserError(
            f"real_name={preset.real_name!r}: expected a file name that ends in .png and is none of "
            f"{', '.join(_TAKEN)}"
        )


def _check_listed(preset: Preset) -> None:
    if not preset.z_shape or min(preset.z_shape) < 1 or math.prod(preset.z_shape) > _MAX_NOISE_SIZE:
        raise UserError(
            f"z_shape={preset.z_shape!s:.60}: expected positive integers, {_MAX_NOISE_SIZE} numbers at most"
        )
    for name in _NETWORKS:
        if len(getattr(preset, name)) > _DEEPEST:
            raise UserError(f"{name}: {len(getattr(preset, name))} layers; expected {_DEEPEST} at most")
    for name in ("nz", "ngf", "ndf"):
        if getattr(preset, name):
            raise UserError(
                f"{name}={getattr(preset, name)}: the layers of {preset.name!r} are listed one by one; "
                "replace z_shape, generator and discriminator, or use the presets flowers or pytorch"
            )


def _derive_networks(preset: Preset) -> None:
    """Fill in what follows from the sizes (a frozen value is still being made, hence `setattr`)."""
    for name in ("nz", "ngf", "ndf"):
        if not 1 <= getattr(preset, name) <= _WIDEST:
            raise UserError(f"{name}={getattr(preset, name)}: expected an integer from 1 to {_WIDEST}")
    generator = family.GENERATORS[preset.architecture](preset.image_size, preset.channels, preset.ngf)
    derived = {
        "z_shape": (preset.nz, 1, 1),
        "generator": generator,
        "discriminator": family.discriminator(preset.image_size, preset.ndf),
    }
    for name, value in derived.items():
        object.__setattr__(preset, name, value)


def _names_files(pattern: str, counted: str) -> bool:
    """Whether a pattern gives each step, or epoch, a PNG file of its own."""
    if not _PATTERN.fullmatch(pattern):  # `format` itself can do far more than count
        return False
    names = [pattern.format(**{"step": 1, "epoch": 1, counted: number}) for number in (1, 2)]
    return names[0] != names[1] and all(map(_is_file_name, names))


def _is_file_name(name: str) -> bool:
    return name.endswith(".png") and _is_plain(name)


def _is_plain(name: str) -> bool:
    """Whether a file may be called so anywhere, and a terminal shows it as it is."""
    return (
        bool(name)
        and name.isprintable()
        and len(name.encode()) <= _MAX_NAME_BYTES
        and not set("/\\") & set(name)
    )


def _checked(field: str, current: Any, value: Any) -> Any:
    """`value` for a field that holds `current` now: of its type, an int also where a float is.

    NumPy's numbers become Python's: a recipe is written as JSON.
    """
    value = _as_python(value)
    if isinstance(current, float) and type(value) is int and abs(value) <= layers.MAX_NUMBER:
        value = float(value)  # of a larger one there may be no float
    if isinstance(current, tuple) and isinstance(value, tuple | list):
        value = tuple(map(_as_python, value))
        wanted = int if field == "z_shape" else Layer
        if value and all(isinstance(v, wanted) for v in value):
            return value
    elif type(value) is type(current):
        return value
    if isinstance(current, tuple) and field != "z_shape":
        raise UserError(f"{field}={value!r:.200}: expected layers, such as [Flatten(), Dense(1)]")
    expected = (
        "a tuple of integers" if isinstance(current, tuple) else f"a value of type {type(current).__name__}"
    )
    raise UserError(f"{field}={value!r:.200}: expected {expected}, such as {current!s:.60}")


def _as_python(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


_NETWORKS = ("generator", "discriminator")
_FOR_PEOPLE = ("name", "summary")
SETTABLE = tuple(f.name for f in dataclasses.fields(Preset) if f.name not in _FOR_PEOPLE)  # by --set
_TAKEN = ("losses.png", "vitals.png", "real_and_fake.png", "evaluation.png")  # a run's other pictures
_MAX_NAME_BYTES = 200  # bytes: file systems have 255, and a file is written under a longer name first
_DERIVED = {"generator", "discriminator", "z_shape"}
_WIDEST = 4096
_MAX_IMAGE_SIZE = 2048  # pixels of a side
_MAX_NOISE_SIZE = 2**20  # of one image's noise
_DEEPEST = 200  # layers
_PATTERN = re.compile(r"(?:[^{}]|\{(?:step|epoch)(?::0?\d{1,2}d?)?\})*")
_POSITIVE = ("image_size", "channels", "batch_size", "grid_rows", "grid_columns", "log_every", "frame_every")
# Other names that people give to fields, and parts of the fields' names.
MEANT = {
    "learning_rate": "lr",
    "latent_dim": "nz",
    "z_dim": "nz",
    "resolution": "image_size",
    "size": "image_size",
    "img_size": "image_size",
}
_OPEN = ("step", "loss")  # fields whose values plugins add to
_CHOICES: dict[str, Collection[str]] = {
    "step": RULES,
    "loss": LOSSES,
    "architecture": ("layers", *family.GENERATORS),
    "z_distribution": ("normal", "uniform"),
    "crop": ("center", "random_or_center"),
    "shuffle": ("every_epoch", "once"),
    "statistics": ("running", "batch"),
    "sample_noise": ("fixed", "new"),
}
