"""The recipe of a run: its fields, its networks, and what one step of it does."""

import dataclasses
from typing import Any

from minigrad import inspect

from .. import models
from ..describe.step import explain
from ..errors import UserError
from ..markup import Markup, paragraph, section, table, tag
from ..presets import PRESETS
from ..recipe.preset import Preset
from .reading import Reading

SOURCES = {
    "flux": ("the Flux tutorial", "https://fluxml.ai/tutorialposts/2021-10-08-dcgan-mnist/"),
    "flux-draft": ("the Flux tutorial", "https://fluxml.ai/tutorialposts/2021-10-08-dcgan-mnist/"),
    "tensorflow": ("a TensorFlow tutorial", "https://github.com/CarlFredriksson/dcgan_tensorflow"),
    "tensorflow-baseline": ("a TensorFlow tutorial", "https://github.com/CarlFredriksson/dcgan_tensorflow"),
    "flowers": ("the PyTorch tutorial", "https://pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html"),
    "pytorch": ("the PyTorch tutorial", "https://pytorch.org/tutorials/beginner/dcgan_faces_tutorial.html"),
}
SHOWN_ELSEWHERE = ("name", "summary", "generator", "discriminator")  # fields that have a place of their own
MISFITS = (UserError, ValueError, OverflowError, MemoryError)  # what a recipe of absurd numbers ends in


def recipe(reading: Reading) -> Markup:
    """The section of the recipe: every field, where it is not the recipe's own, and both networks."""
    preset = reading.preset
    own = PRESETS.get(preset.name)
    parts = [paragraph(tag("strong", preset.name), f": {preset.summary}.", *_source(preset))]
    parts.append(paragraph(*_replaced(preset, own)))
    parts.append(tag("div", *_fields(preset, own), class_="columns"))
    return section("recipe", "The recipe", *parts, *_networks(preset))


def _source(preset: Preset) -> list[Any]:
    if preset.name not in SOURCES:
        return []
    title, address = SOURCES[preset.name]
    return [" Source: ", tag("a", title, href=address, rel="noreferrer"), f", {address}."]


def _replaced(preset: Preset, own: Preset | None) -> list[Any]:
    if own is None:
        return ["No recipe of this name comes with the package."]
    names = [f.name for f in dataclasses.fields(preset) if getattr(preset, f.name) != getattr(own, f.name)]
    if not names:
        return ["Every field is as the recipe has it."]
    return ["Replaced for this run: ", ", ".join(names), "."]


def _fields(preset: Preset, own: Preset | None) -> list[Markup]:
    """The fields in two tables beside each other."""
    rows = []
    for field in dataclasses.fields(preset):
        if field.name not in SHOWN_ELSEWHERE:
            value = getattr(preset, field.name)
            usual = getattr(own, field.name) if own is not None else value
            shown = _value(value)
            rows.append(
                (field.name, shown if value == usual else tag("mark", f"{shown} (else {_value(usual)})"))
            )
    half = (len(rows) + 1) // 2
    return [table(("field", "value"), part, "fields of the recipe") for part in (rows[:half], rows[half:])]


def _value(value: Any) -> str:
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _networks(preset: Preset) -> list[Markup]:
    """Both networks layer by layer."""
    image = (preset.channels, preset.image_size, preset.image_size)
    try:
        generator, discriminator = models.build(preset)
        found = {
            "generator": inspect.summary(generator, preset.z_shape),
            "discriminator": inspect.summary(discriminator, image),
        }
    except MISFITS as error:
        return [paragraph(f"The recipe does not fit together: {error}.")]
    return [part for name, summary in found.items() for part in _layers(name, summary)]


def _layers(name: str, summary: inspect.Summary) -> list[Markup]:
    rows = [
        (
            f"{row.name} {row.layer}",
            " x ".join(map(str, row.shape[1:])),
            f"{row.parameters:,}",
            f"{row.multiply_adds:,}",
            "-" if row.field is None else "{} x {}".format(*row.field),
        )
        for row in summary.rows
    ]
    rows.append(("all", "", f"{summary.parameters:,}", f"{summary.multiply_adds:,}", ""))
    heads = ("layer", "makes", "parameters", "multiply-adds", "a pixel sees")
    return [tag("h3", f"The {name}'s layers"), table(heads, rows, f"layers of the {name}")]


def ledger(reading: Reading) -> Markup:
    """The section with one step, watched and put in words."""
    try:
        words = explain(reading.preset)
    except MISFITS as error:
        return section("ledger", "One step", paragraph(f"The step can't be watched: {error}."))
    return section(
        "ledger", "One step", tag("pre", words, tabindex=0, role="region", aria_label="one step in words")
    )
