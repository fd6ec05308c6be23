"""Layers as recipes write them: as Python calls in text, and as JSON objects."""

import ast
from dataclasses import MISSING, asdict, fields
from typing import Any, get_origin, get_type_hints

from ..errors import did_you_mean
from . import layers
from .layer import KINDS, Layer


def parse(text: str) -> tuple[Layer, ...]:
    """Layers written as they are in presets.py: "[Flatten(), Dense(128), ReLU(), Dense(1, bias=False)]".

    Nothing in the text is run. Raises ValueError where it is anything else.
    """
    try:
        written = ast.parse(text.strip(), mode="eval").body
        calls = written.elts if isinstance(written, ast.List | ast.Tuple) else [written]
        return tuple(_parsed(call) for call in calls)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"{error}; expected layers, such as [Flatten(), Dense(128), ReLU(), Dense(1)], of the kinds "
            f"{', '.join(KINDS)}"
        ) from None


def _parsed(call: ast.expr) -> Layer:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"{ast.unparse(call)} is no layer")
    kind = call.func.id
    if kind not in KINDS:
        raise ValueError(f"{ast.unparse(call)} is no layer{did_you_mean(kind, KINDS)}")
    arguments = [_literal(argument) for argument in call.args]
    named = {keyword.arg or "": _literal(keyword.value) for keyword in call.keywords}
    if len(named) < len(call.keywords):
        raise ValueError(f"{ast.unparse(call)}: an argument is given twice")
    layer = KINDS[kind](*arguments, **named)
    try:
        check_types(type(layer), vars(layer))
    except TypeError as error:
        raise ValueError(f"{ast.unparse(call)}: {error}") from None
    return layer


def _literal(value: ast.expr) -> Any:
    try:
        return ast.literal_eval(value)
    except ValueError:
        raise ValueError(f"{ast.unparse(value)} is no number, text, True or False") from None


def to_text(layer: Layer) -> str:
    """Return the call that `parse` reads, without the fields that have their default.

    Fields that have none stand first, without their names; the others are named. The only field of a layer is
    always there.
    """
    given = []
    for field in fields(layer):
        value = getattr(layer, field.name)
        if field.default is MISSING or len(fields(layer)) == 1:
            given.append(repr(value))
        elif value != field.default:
            given.append(f"{field.name}={value!r}")
    return f"{type(layer).__name__}({', '.join(given)})"


def to_json(layer: Layer) -> dict[str, Any]:
    """The layer as a JSON object, its kind under "kind"."""
    return {"kind": type(layer).__name__, **asdict(layer)}


def from_json(data: dict[str, Any]) -> Layer:
    """The layer that `to_json` wrote; ValueError for anything else."""
    values = dict(data)
    kind = values.pop("kind", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown kind of layer {kind!r:.60}: expected one of {', '.join(KINDS)}")
    try:
        check_types(KINDS[kind], values)
        return KINDS[kind](**values)
    except TypeError as error:
        raise ValueError(f"layer {kind}: {error}") from None


def check_types(kind: type[Any], values: dict[str, Any]) -> None:
    """TypeError where a value is not of the type that the dataclass `kind` gives its field.

    An integer may stand for a float; true and false for no number.
    """
    types = get_type_hints(kind)
    for field in fields(kind):
        wanted = types[field.name]
        if field.name not in values or get_origin(wanted) is tuple:
            continue
        value, allowed = values[field.name], float | int if wanted is float else wanted
        if not isinstance(value, allowed) or (type(value) is bool) != (wanted is bool):
            name = getattr(wanted, "__name__", wanted)
            raise TypeError(f"{field.name}={value!r:.60}: expected a value of type {name}")
        if wanted is float and abs(value) > layers.MAX_NUMBER:
            raise TypeError(f"{field.name}={value!r:.60}: expected a number up to {layers.MAX_NUMBER:g}")
