"""The vital signs of a training step: whether both players still learn, and whether G's pictures are alive.

An observer of the engine (minigrad/observer.py) measures the operations and optimizer's steps of which it is
notified. No network runs once more, and no random number is drawn: a measured step does, bit for bit,
what it would have done. diagnosis.py says what is wrong.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn, observer, optim
from minigrad.nn.module import Hook
from minigrad.ops.norm import BatchNorm

from ..steps import Gan, StepResult
from .values import BatchNormGap, LayerVitals, StepVitals

Array = Any  # of the device that trains

LIMITS: dict[type[nn.Module], tuple[float, float]] = {nn.Tanh: (-1.0, 1.0), nn.Sigmoid: (0.0, 1.0)}
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, *LIMITS)
SATURATION_THRESHOLD = 0.01  # an output so near to a limit of its activation is saturated
MIN_VALUES = 16  # values of a unit: with fewer nobody knows whether it is dead, or had no reason to speak
DIGITS = 6  # that are written down of a number


@dataclass(frozen=True)
class _Layer:
    """A module without modules in it, under its dotted name."""

    network: str
    name: str
    module: nn.Module

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [value for value in vars(self.module).values() if isinstance(value, nn.Parameter)]

    @property
    def kind(self) -> str:
        return type(self.module).__name__

    @property
    def is_rectifier(self) -> bool:
        """Whether it passes nothing below 0. (A leaky ReLU does: its units can't die.)"""
        epilogue = self.module.as_epilogue()
        return epilogue is not None and epilogue.slope == 0

    @property
    def limits(self) -> tuple[float, float] | None:
        """Between which its outputs lie."""
        return LIMITS.get(type(self.module))


class Measurement(observer.Observer):
    """Measures the step that runs while it is entered; `vitals` has what was found.

        with Measurement(gan, real) as seen:
            result = rule(gan, real)
        seen.vitals(step, epoch, result)

    What is said of G is of the pass that its gradients went through; of D's units and its BatchNorm, of the
    first fakes that it saw, which are judged by the same D as the real images.

    Args:
        gan: what the step works on.
        real: the images that it is given, (N, C, H, W).
    """

    def __init__(self, gan: Gan, real: mg.Tensor) -> None:
        super().__init__()
        self._gan, self._real = gan, real
        networks = {"generator": gan.generator, "discriminator": gan.discriminator}
        self._layers = {name: _layers(name, network) for name, network in networks.items()}
        self._hooks: list[Hook] = []
        self._before: list[Array] = []  # the parameters of the optimiser that steps
        # Of the pass that runs: what each layer gave, and what each BatchNorm found in its batch.
        self._outputs: dict[nn.Module, Array] = {}
        self._moments: dict[nn.Module, tuple[Array, Array]] = {}
        # What was found, by the layer.
        self._gradients: dict[nn.Module, float] = {}
        self._ratios: dict[nn.Module, float | None] = {}
        self._dead: dict[nn.Module, float | None] = {}
        self._saturated: dict[nn.Module, float | None] = {}
        self._of_real: dict[nn.Module, tuple[Array, Array]] = {}
        self._of_fake: dict[nn.Module, tuple[Array, Array]] | None = None
        self._distance: float | None = None  # between two of G's pictures
        self._drew = False

    def __enter__(self) -> "Measurement":
        # Of whole networks: one on a layer would have it and the activation behind it in two passes.
        self._hooks = [
            self._gan.generator.register_forward_hook(self._drawn),
            self._gan.discriminator.register_forward_hook(self._judged),
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def vitals(self, step: int, epoch: int, result: StepResult) -> StepVitals:
        """Return the vital signs of the step that was measured.

        All numbers but D's judgements are rounded to DIGITS digits. An output or a pixel is next to a limit
        within SATURATION_THRESHOLD of it; `_gap` defines the gaps.
        """
        real, fake = _distance(self._real.data), self._distance
        return StepVitals(
            step,
            epoch,
            d_x=_finite(result.d_x.item()),
            d_g_z1=_finite(result.d_g_z1.item()),
            d_g_z2=_finite(result.d_g_z2.item()),
            layers=tuple(
                self._of_layer(layer)
                for layers in self._layers.values()
                for layer in layers
                if layer.parameters or layer.is_rectifier or layer.limits
            ),
            spread=None if not real or fake is None else _rounded(fake / real),
            real_saturated=_rounded(_share_near(self._real.data, (-1.0, 1.0))),
            batch_norm_gap=tuple(self._gaps()),
        )

    def _gaps(self) -> list[BatchNormGap]:
        """Of each BatchNorm of D that has seen both real images and fakes."""
        fakes, found = self._of_fake or {}, []
        for layer in self._layers["discriminator"]:
            if layer.module in self._of_real and layer.module in fakes:
                eps: float = layer.module.eps  # type: ignore[attr-defined]
                gap = _gap(self._of_real[layer.module], fakes[layer.module], eps)
                found.append(BatchNormGap(layer.name, _rounded(gap)))
        return found

    def _of_layer(self, layer: _Layer) -> LayerVitals:
        learns = bool(layer.parameters)
        return LayerVitals(
            layer.network,
            layer.name,
            layer.kind,
            # Where no optimiser stepped, nothing moved.
            gradient_norm=_rounded(self._gradients.get(layer.module, 0.0)) if learns else None,
            update_ratio=_rounded(self._ratios.get(layer.module, 0.0)) if learns else None,
            dead=_rounded(self._dead.get(layer.module)),
            saturated=_rounded(self._saturated.get(layer.module)),
        )

    # -- notifications of the engine -----------------------------------------------------------------

    def begin(self, subject: Any, phase: str) -> None:
        if phase == observer.STEP:
            self._before = [p.data.copy() for p in subject.params]

    def end(self, subject: Any, phase: str, inputs: tuple[Any, ...], outputs: tuple[Any, ...]) -> None:
        if phase == observer.STEP:
            self._measure_step(subject)
        elif phase == observer.FORWARD and self.modules:
            self._outputs[self.modules[-1]] = outputs[0].data
            if isinstance(subject, BatchNorm):
                self._moments[self.modules[-1]] = subject.mean, subject.variance

    def _measure_step(self, optimizer: optim.Optimizer) -> None:
        """The gradients that an optimiser has just followed, and how far it went."""
        before = {id(p): array for p, array in zip(optimizer.params, self._before, strict=True)}
        self._before = []
        for layer in (layer for layers in self._layers.values() for layer in layers):
            moved = [p for p in layer.parameters if id(p) in before]
            if not moved:
                continue
            self._gradients[layer.module] = _norm(p.grad.data for p in moved if p.grad is not None)
            size = _norm(before[id(p)] for p in moved)
            way = _norm(_double(p.data) - _double(before[id(p)]) for p in moved)
            self._ratios[layer.module] = way / size if size else None

    def _drawn(self, _: nn.Module, __: tuple[Any, ...], images: mg.Tensor) -> None:
        """G has drawn images. In some steps it draws twice, and learns from one of them."""
        if images.requires_grad or not self._drew:
            self._drew = True
            self._distance = _distance(images.data)
            self._measure_units("generator")
        self._outputs.clear()

    def _judged(self, _: nn.Module, inputs: tuple[Any, ...], __: mg.Tensor) -> None:
        """D has judged images."""
        if inputs[0] is self._real:
            self._of_real = dict(self._moments)
        elif self._of_fake is None:
            self._of_fake = dict(self._moments)
            self._measure_units("discriminator", self._count_real(inputs[0]))
        self._outputs.clear()

    def _count_real(self, images: mg.Tensor) -> int:
        """Return how many of D's images are real: the first ones, where it sees both kinds at once."""
        count = len(self._real)
        if len(images) <= count:
            return 0
        return count if bool((images.data[:count] == self._real.data).all()) else 0

    def _measure_units(self, network: str, first: int = 0) -> None:
        """Of the images from number `first` on."""
        for layer, previous in zip(self._layers[network], [None, *self._layers[network]], strict=False):
            output = self._outputs.get(layer.module)
            if output is None and previous is not None:  # it was taken into the layer before
                output = self._outputs.get(previous.module)
            if output is None:
                continue
            output = output[first:]
            if layer.is_rectifier:
                self._dead[layer.module] = _dead(output)
            elif layer.limits is not None:
                self._saturated[layer.module] = _share_near(output, layer.limits)


def _layers(network: str, module: nn.Module) -> list[_Layer]:
    """The layers of a network, in its order."""
    named = module.named_modules()
    return [_Layer(network, name, part) for name, part in named if next(part.children(), None) is None]


# -- the measures ------------------------------------------------------------------------------------
# What they are given may be infinite or no number: NumPy need not warn, the line says it.


def _double(array: Array) -> Array:
    """In float64, where squares of float32's numbers neither overflow nor vanish."""
    return array.astype("float64")


@np.errstate(all="ignore")
def _norm(arrays: Iterable[Array]) -> float:
    """The Euclidean norm of all numbers together.

    By a sum and not by a product of the BLAS, whose rounding depends on its threads.
    """
    return math.sqrt(sum(float((_double(array) ** 2).sum()) for array in arrays))


@np.errstate(all="ignore")
def _distance(images: Array) -> float | None:
    """The root mean square difference of a pixel between two of the images (N, C, H, W); None of one alone.

    Over all pairs that is the root of twice the unbiased variance.
    """
    if len(images) < 2:
        return None
    return math.sqrt(2 * float(_double(images).var(axis=0, ddof=1).mean()))


def _dead(output: Array) -> float | None:
    """The share of the units (axis 1) of a ReLU's output that are nowhere above 0."""
    units = output.shape[1]
    if output.size // units < MIN_VALUES or not _is_finite(output):
        return None
    axes = (0, *range(2, output.ndim))
    return 1 - float((output > 0).any(axis=axes).sum()) / units


def _share_near(output: Array, limits: tuple[float, float]) -> float | None:
    """The share of numbers within SATURATION_THRESHOLD of a limit, or beyond."""
    if not _is_finite(output):
        return None
    low, high = limits
    return (
        float(((output <= low + SATURATION_THRESHOLD) | (output >= high - SATURATION_THRESHOLD)).sum())
        / output.size
    )


@np.errstate(all="ignore")
def _gap(real: tuple[Array, Array], fake: tuple[Array, Array], eps: float) -> float:
    """Return the distance of two batches' (mean, variance) by channel, each (C,): its mean over the channels.

    Of a channel: the 2-Wasserstein distance of the normal distributions with these moments,
    sqrt((m_r - m_f)^2 + (s_r - s_f)^2), in units of sqrt((s_r^2 + s_f^2) / 2 + eps), the deviation that
    BatchNorm would divide by had it seen both batches in one.
    """
    (mean_r, variance_r), (mean_f, variance_f) = real, fake
    squared = (mean_r - mean_f) ** 2 + (variance_r**0.5 - variance_f**0.5) ** 2
    return float(((squared / ((variance_r + variance_f) / 2 + eps)) ** 0.5).mean())


@np.errstate(all="ignore")
def _is_finite(array: Array) -> bool:
    return math.isfinite(float(array.sum(dtype="float64")))


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _rounded(number: float | None) -> float | None:
    """With DIGITS digits; None for what is not finite."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.{DIGITS}g}")
