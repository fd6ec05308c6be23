"""Layers as data: what the networks of a recipe are made of, before any array exists.

Input sizes are left out: they follow from what comes before (see models.py).
"""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Dense:
    """Fully connected, to `features` numbers. `init` starts the weight, biases start at 0."""

    features: int
    bias: bool = True
    init: str = "glorot_uniform"


@dataclass(frozen=True)
class _Kernel:
    """What both kinds of convolution are told. `init` starts the weight, biases start at 0."""

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


def to_json(layer: Layer) -> dict[str, Any]:
    """The layer as a JSON object, its kind under "kind"."""
    return {"kind": type(layer).__name__, **asdict(layer)}


def from_json(data: dict[str, Any]) -> Layer:
    """The layer that `to_json` wrote; ValueError for anything else."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"unknown kind of layer {kind!r}: expected one of {', '.join(KINDS)}")
    try:
        return KINDS[kind](**fields)
    except TypeError as error:
        raise ValueError(f"layer {kind}: {error}") from None
