"""A recipe as HTML: its fields, and both networks with the sizes that their layers make."""

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..markup import Markup, paragraph, tag
from ..notebook import beside, standalone, table
from . import written
from .chain import each_of_layers
from .layer import Layer, Shape, Sizes

APART = ("name", "summary", "generator", "discriminator")  # fields that have a place of their own
UNKNOWN = ("?", "?")  # what a layer makes, and its parameters
COLUMNS = 3  # tables of fields beside each other


def recipe(fields: Mapping[str, Any]) -> Markup:
    """Return a recipe as HTML, from the fields of a `Preset` by name.

    If the layers do not fit together, those before the first misfit are shown with their sizes, the others
    without, and a sentence says what is wrong.
    """
    image = (fields["channels"], fields["image_size"], fields["image_size"])
    return standalone(
        paragraph(tag("strong", fields["name"]), f": {fields['summary']}"),
        beside(*_fields(fields)),
        beside(
            _network("generator", fields["generator"], given=fields["z_shape"], expected=image),
            _network("discriminator", fields["discriminator"], given=image, expected=(1,)),
        ),
    )


def size(shape: Shape) -> str:
    """Return a shape as people write it: 64 × 7 × 7."""
    return " × ".join(map(str, shape))


def _fields(fields: Mapping[str, Any]) -> list[Markup]:
    rows = [(name, _value(value)) for name, value in fields.items() if name not in APART]
    length = -(-len(rows) // COLUMNS)
    parts = (rows[i : i + length] for i in range(0, len(rows), length))
    return [table(("field", "value"), part, "fields of the recipe") for part in parts]


def _value(value: Any) -> str:
    return size(value) if isinstance(value, tuple) else str(value)


def _network(name: str, layers: tuple[Layer, ...], given: Shape, expected: Shape) -> Markup:
    found, wrong = _sizes(name, layers, given)
    made = found[-1].made if found else given
    if not wrong and made != expected:
        wrong = f"{name}: it makes {size(made)}, not {size(expected)}"
    known = [(size(each.made), f"{each.parameters:,}") for each in found]
    known += [UNKNOWN] * (len(layers) - len(found))
    rows = [(i, written.to_text(layer), *known[i]) for i, layer in enumerate(layers)]
    learned = f"{sum(each.parameters for each in found):,}"
    about = f"{name}: from {size(given)}, {'at least ' * (len(found) < len(layers))}{learned} parameters"
    shown = table(("", "layer", "makes", "parameters"), rows, f"layers of the {name}", about)
    return tag("div", shown, paragraph(f"The layers do not fit: {wrong}.") if wrong else "")


def _sizes(name: str, layers: tuple[Layer, ...], given: Shape) -> tuple[list[Sizes], str]:
    """Return the sizes of the layers up to the first that does not fit, and what is wrong with it."""
    found: list[Sizes] = []
    try:
        # One by one: those before an error are kept.
        found.extend(each_of_layers(layers, given, name))
    except UserError as error:
        return found, str(error)
    return found, ""
