"""Recipes outside of the package: in a TOML or JSON file, a run's config.json, or a Python file."""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from . import plugins, presets
from .errors import UserError, did_you_mean, os_errors_as
from .files import jsonfile
from .recipe import written
from .recipe.preset import Preset

BASE = "base"  # the key that names the preset that a file changes
CONFIG = "config.json"  # of a run
NETWORKS = ("generator", "discriminator")
SIZES = ("nz", "ngf", "ndf")
ENDINGS = (".toml", ".json")
IN_PYTHON = re.compile(r"(.+\.py):([^:/\\]+)")
FIELDS = {field.name: field for field in dataclasses.fields(Preset)}
REQUIRED = [name for name, field in FIELDS.items() if field.default is dataclasses.MISSING]

# The fields of a file that `to_toml` writes, under their headings.
GROUPS = {
    "The step is a rule of dcgan/steps.py, the loss one of dcgan/losses.py.": (
        "name",
        "summary",
        "step",
        "loss",
    ),
    "The networks: layer by layer, or (architecture) by sizes alone.": (
        "architecture",
        "image_size",
        "channels",
        *SIZES,
        "z_shape",
        "z_distribution",
        *NETWORKS,
    ),
    "The images: the part that is shown of those that are not square, and the chance to be mirrored.": (
        "crop",
        "flip",
        "shuffle",
    ),
    "The length of a run: whichever of epochs and steps ends first; 0 is no limit.": (
        "batch_size",
        "epochs",
        "steps",
        "enough_steps",
        "seed",
    ),
    "The two Adams, and the average of the generator's weights (0 for none).": (
        "lr_generator",
        "lr_discriminator",
        "beta1",
        "beta2",
        "adam_eps",
        "adam_epsilon_hat",
        "ema_decay",
    ),
    "The pictures, by the step (sample_every = 0: by the epoch).": (
        "statistics",
        "sample_every",
        "sample_early",
        "sample_noise",
        "sample_name",
        "grid_rows",
        "grid_columns",
        "plot_with_samples",
        "real_name",
        "log_every",
        "frame_every",
    ),
}


def find(named: str) -> Preset:
    """Return the recipe that --preset names.

    Args:
        named: a preset; a .toml or .json file of a recipe; a run's config.json, or the run; or FILE.py:NAME,
            a `Preset` in a Python file, which is run as a plugin is.

    Raises UserError if there is none, or it can't be read.
    """
    if named in presets.PRESETS:
        return presets.get(named)
    if match := IN_PYTHON.fullmatch(named):
        return _in_python(Path(match[1]), match[2])
    path = Path(named)
    if path.is_dir() and named:
        if not (path / CONFIG).is_file():
            raise UserError(
                f"--preset {named}: a folder without {CONFIG}: expected a run, or a recipe's file"
            )
        return _in_file(path / CONFIG)
    if path.suffix == ".py":
        raise UserError(f"--preset {named}: name a recipe in it, too, as {named}:NAME")
    if path.suffix.lower() in ENDINGS or path.is_file():
        return _in_file(path)
    return presets.get(named)  # which says what there is


def to_toml(preset: Preset) -> str:
    """Return a recipe as the content of a TOML file, which `find` reads as an equal one."""
    listed = preset.architecture == "layers"
    left_out = SIZES if listed else ("z_shape", *NETWORKS)  # these follow from the sizes
    document = tomlkit.document()
    document.add(tomlkit.comment("A recipe. To train it: dcgan train --preset FILE"))
    document.add(tomlkit.comment(f'With {BASE} = "PRESET" a file gives only the fields that it changes.'))
    for heading, names in GROUPS.items():
        document.add(tomlkit.nl())
        document.add(tomlkit.comment(heading))
        for name in names:
            if name not in left_out:
                document.add(name, _toml_value(getattr(preset, name)))
    return tomlkit.dumps(document)


def _toml_value(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    texts = [each if isinstance(each, int) else written.to_text(each) for each in value]
    return tomlkit.item(texts).multiline(not isinstance(texts[0], int))


# -- reading -------------------------------------------------------------------------------------------


def _in_python(path: Path, name: str) -> Preset:
    found = getattr(plugins.load(path), name, None)
    if not isinstance(found, Preset):
        there = [key for key, value in vars(plugins.load(path)).items() if isinstance(value, Preset)]
        said = "is no Preset" if found is not None else "is not in it"
        expected = did_you_mean(name, there) or f"; its recipes: {', '.join(there) or 'none'}"
        raise UserError(f"--preset {path}:{name}: {name} {said}{expected}")
    return found


def _in_file(path: Path) -> Preset:
    with os_errors_as(f"--preset {path}"):
        if not path.is_file():
            raise UserError(f"--preset {path}: {'not a plain file' if path.exists() else 'no such file'}")
        content = path.read_bytes()[: jsonfile.MAX_CHARACTERS + 1]
    try:
        data = _parsed(content, path.suffix.lower())
        if isinstance(data.get("preset"), dict):
            return plugins.recipe_of(f"the run of {path}", data)
        return _of_fields(data, path.stem)
    except plugins.PluginNeeded:
        raise
    except (UserError, ValueError, TypeError, KeyError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(f"--preset {path}: {said}") from error


def _parsed(content: bytes, ending: str) -> dict[str, Any]:
    """Return the mapping in a TOML or JSON file. Raises ValueError if it is none."""
    if len(content) > jsonfile.MAX_CHARACTERS:
        raise ValueError(f"expected a recipe of {jsonfile.MAX_CHARACTERS} bytes at most")
    text = content.decode("utf-8-sig")  # with the mark that some editors put first
    if ending == ".json":
        data = jsonfile.parse(text)
    elif ending == ".toml":
        try:
            data = tomllib.loads(text)
        except RecursionError:
            raise ValueError("TOML that is nested too deeply") from None
    else:
        raise ValueError("expected a file that ends in .toml or .json, or FILE.py:NAME")
    if not isinstance(data, dict):
        raise ValueError(f"expected the fields of a recipe, got {type(data).__name__}")
    return data


def _of_fields(data: Mapping[str, Any], stem: str) -> Preset:
    """Return the recipe of a file: all fields that have no default, or a base and what it changes.

    Args:
        stem: the recipe's name if the file gives none.
    """
    for key in data:
        if key not in FIELDS and key != BASE:
            near = did_you_mean(key, FIELDS) or f": expected {BASE} or one of {', '.join(FIELDS)}"
            raise UserError(f"unknown field {key!r:.60}{near}")
    fields = {key: _value(key, value) for key, value in data.items() if key != BASE}
    name = fields.pop("name", stem)
    if BASE not in data:
        return _complete({"summary": "a recipe of a file", **fields, "name": name})
    base = presets.get(str(data[BASE]))
    summary = fields.pop("summary", f"{base.summary} (changed)")
    written.check_types(Preset, {"name": name, "summary": summary})
    return dataclasses.replace(base.replaced(fields), name=name, summary=summary)


def _complete(fields: dict[str, Any]) -> Preset:
    if fields.get("architecture", "layers") != "layers":
        derived = {key: fields.pop(key) for key in ("z_shape", *NETWORKS) if key in fields}
        made = _made({**fields, **dict.fromkeys(NETWORKS, ())})
        for key, value in derived.items():  # config.json has them, too
            if value != getattr(made, key):
                raise UserError(f"{key} follows from image_size, channels, nz, ngf and ndf: leave it out")
        return made
    return _made(fields)


def _made(fields: dict[str, Any]) -> Preset:
    """Return the recipe of fields; UserError if one is missing, TypeError if one is of a wrong type."""
    if missing := [key for key in REQUIRED if key not in fields]:
        raise UserError(f'it lacks {", ".join(missing)}: give them, or {BASE} = "PRESET" to change a preset')
    written.check_types(Preset, fields)
    numbers = {key: float(value) for key, value in fields.items() if FIELDS[key].type is float}
    return Preset(**{**fields, **numbers})


def _value(key: str, value: Any) -> Any:
    """Return the value of a field as `Preset` takes it: layers, and tuples for lists."""
    if key in NETWORKS:
        return _layers(key, value)
    if key == "z_shape":
        if not isinstance(value, list) or not all(type(number) is int for number in value):
            raise UserError(f"z_shape={value!r:.60}: expected a list of integers")
        return tuple(value)
    return value


def _layers(network: str, value: Any) -> tuple[Any, ...]:
    """Return the layers of a network, each written as a call, or as config.json has it."""
    listed = value if isinstance(value, list) else [value]
    found: list[Any] = []
    for place, each in enumerate(listed):
        try:
            if isinstance(each, dict):
                found.append(written.from_json(each))
            elif isinstance(each, str):
                found += written.parse(each)
            else:
                raise ValueError(f'expected a text such as "Dense(128)", got {each!r:.60}')
        except ValueError as error:
            raise UserError(f"{network}, layer {place}: {error}") from error
    return tuple(found)
