"""The vital signs of one step as values, to JSON and from it."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any, Self, get_args

Check = Callable[[str, Any], Any]  # given a field's name and value; returns the value, or raises
MAX_NUMBER = 2**1000  # of a larger one there may be no float


@dataclass(frozen=True)
class Values:
    """Base of the dataclasses that lines of vitals.jsonl are made of.

    A new field needs its annotation, and a default, which lines of earlier versions are read with. It is an
    `int`, a `str`, a `float | None` (a number of at least 0, None where it is not known), or a
    `tuple[part, ...]` of another such dataclass.
    """

    def to_json(self) -> dict[str, Any]:
        """Return the fields, in their order, as JSON values."""
        values = dict(vars(self))
        for name, value in values.items():
            if isinstance(value, tuple):
                values[name] = [part.to_json() for part in value]
        return values

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the values that a JSON object holds. What is not a field is left out.

        Raises KeyError for a field that is missing and has no default, TypeError or ValueError for a value of
        another kind.
        """
        _expect(value, dict)
        checks = cls._checks()
        return cls(
            **{name: check(name, value[name]) for name, check, needed in checks if needed or name in value}
        )

    @classmethod
    @cache
    def _checks(cls) -> tuple[tuple[str, Check, bool], ...]:
        """Return the name of each field, the check of its annotation, and whether a line must have it."""
        return tuple((f.name, _check_of(f.type), f.default is MISSING) for f in fields(cls))


@dataclass(frozen=True)
class LayerVitals(Values):
    """A layer that learns, or an activation whose units may die or whose outputs may saturate.

    Attributes:
        network: "generator" or "discriminator".
        name, kind: its dotted name in the network, and its class.
        gradient_norm: the Euclidean norm of its gradients; None for a layer without parameters.
        update_ratio: the norm of what its parameters moved by that of the parameters.
        dead: the share of a ReLU's units that are above 0 nowhere.
        saturated: the share of the outputs of a tanh or sigmoid that are next to a limit.
    """

    network: str
    name: str
    kind: str
    gradient_norm: float | None
    update_ratio: float | None
    dead: float | None
    saturated: float | None


@dataclass(frozen=True)
class BatchNormGap(Values):
    """The distance of real from generated images at a BatchNorm of D, in standard deviations."""

    name: str
    gap: float | None


@dataclass(frozen=True)
class StepVitals(Values):
    """The vital signs of a step; None for a number that is not finite, or that nobody can measure.

    Attributes:
        step, epoch: from 1.
        d_x, d_g_z1, d_g_z2: D's judgements, as in `steps.StepResult`.
        layers: of G, then of D, in their order.
        spread: how far two of G's images are from each other, by the same of real ones.
        real_saturated: the share of the real pixels next to black or white.
        batch_norm_gap: of each BatchNorm of D that has seen both real images and fakes.
    """

    step: int
    epoch: int
    d_x: float | None
    d_g_z1: float | None
    d_g_z2: float | None
    layers: tuple[LayerVitals, ...]
    spread: float | None
    real_saturated: float | None
    batch_norm_gap: tuple[BatchNormGap, ...]


def _check_of(annotation: Any) -> Check:
    """Return the check of a field by its annotation. It raises as `Values.from_json` does."""
    if annotation == float | None:
        return _number
    if annotation in (int, str):
        return lambda _, value: _expect(value, annotation)
    part, _ = get_args(annotation)
    return lambda _, value: tuple(map(part.from_json, _expect(value, list)))


def _number(name: str, value: Any) -> Any:
    if value is not None and not (type(value) in (int, float) and 0 <= value < MAX_NUMBER):
        raise ValueError(f"{name}={value!r:.60}: expected a number of at least 0")
    return value


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(f"expected {kind.__name__}, got {value!r:.60}")
    return value
