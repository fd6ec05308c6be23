"""Layers as data: what the networks of a recipe are made of, before any array exists.

Input sizes are left out: they follow from what comes before (see models.py).
"""

import ast
from dataclasses import asdict, dataclass, fields
from typing import Any, get_origin

MAX_NUMBER = 1e30  # that a number of a recipe may be: float32 holds it, and its products with others


@dataclass(frozen=True)
class Dense:
    """Fully connected, to `features` numbers. `init` starts the weight, biases start at 0."""

    features: int
    bias: bool = True
    init: str = "glorot_uniform"


@dataclass(frozen=True)
class _Kernel:
    """The fields of both kinds of convolution. `init` starts the weight, biases start at 0."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int | str = 0
    bias: bool = True
    init: str = "normal(0.02)"


@dataclass(frozen=True)
class Conv(_Kernel):
    """A convolution to `channels`."""


@dataclass(frozen=True)
class ConvTranspose(_Kernel):
    """A transposed convolution to `channels`."""


@dataclass(frozen=True)
class BatchNorm:
    """`momentum` is the share of the new batch in the running statistics; gamma starts from
    N(1, gamma_std^2).
    """

    eps: float = 1e-5
    momentum: float = 0.1
    gamma_std: float = 0.0


@dataclass(frozen=True)
class ReLU:
    """max(x, 0)."""


@dataclass(frozen=True)
class LeakyReLU:
    """x where x > 0, slope * x elsewhere."""

    slope: float = 0.2


@dataclass(frozen=True)
class Tanh:
    """To (-1, 1)."""


@dataclass(frozen=True)
class Sigmoid:
    """To (0, 1)."""


@dataclass(frozen=True)
class Dropout:
    """Drops each value with probability p, in training."""

    p: float


@dataclass(frozen=True)
class Flatten:
    """To one row of numbers an image."""


@dataclass(frozen=True)
class Reshape:
    """To an image of (channels, height, width)."""

    channels: int
    height: int
    width: int


Layer = (
    Dense | Conv | ConvTranspose | BatchNorm | ReLU | LeakyReLU | Tanh | Sigmoid | Dropout | Flatten | Reshape
)
KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Layer.__args__}


def parse(text: str) -> tuple[Layer, ...]:
    """Layers written as they are in presets.py: "[Flatten(), Dense(128), ReLU(), Dense(1, bias=False)]".

    Nothing in the text is run. Raises ValueError where it is anything else.
    """
    try:
        written = ast.parse(text.strip(), mode="eval").body
        calls = written.elts if isinstance(written, ast.List | ast.Tuple) else [written]
        return tuple(_parsed(call) for call in calls)
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(
            f"{error}; expected layers, such as [Flatten(), Dense(128), ReLU(), Dense(1)], of the kinds "
            f"{', '.join(KINDS)}"
        ) from None


def _parsed(call: ast.expr) -> Layer:
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in KINDS:
        raise ValueError(f"{ast.unparse(call)} is no layer")
    arguments = [ast.literal_eval(argument) for argument in call.args]
    named = {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}
    layer: Layer = KINDS[call.func.id](*arguments, **named)
    try:
        check_types(type(layer), vars(layer))
    except TypeError as error:
        raise ValueError(f"{ast.unparse(call)}: {error}") from None
    return layer


def to_json(layer: Layer) -> dict[str, Any]:
    """The layer as a JSON object, its kind under "kind"."""
    return {"kind": type(layer).__name__, **asdict(layer)}


def from_json(data: dict[str, Any]) -> Layer:
    """The layer that `to_json` wrote; ValueError for anything else."""
    values = dict(data)
    kind = values.pop("kind", None)
    if kind not in KINDS:
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
    for field in fields(kind):
        if field.name not in values or get_origin(field.type) is tuple:
            continue
        value, wanted = values[field.name], float | int if field.type is float else field.type
        if not isinstance(value, wanted) or (type(value) is bool) != (wanted is bool):  # type: ignore[arg-type]
            name = getattr(field.type, "__name__", field.type)
            raise TypeError(f"{field.name}={value!r:.60}: expected a value of type {name}")
        if field.type is float and abs(value) > MAX_NUMBER:
            raise TypeError(f"{field.name}={value!r:.60}: expected a number up to {MAX_NUMBER:g}")
