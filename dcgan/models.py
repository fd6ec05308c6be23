"""From a recipe to its two networks."""

import math
import re
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn

from . import layers
from .errors import UserError
from .losses import LOSSES
from .preset import Preset

Shape = tuple[int, ...]  # of one image or one row, without the batch
MOST_WEIGHTS = 2**29  # of a network: 2 GiB
MOST_VALUES = 2**24  # that a layer makes of one image


class Generator(nn.Sequential):
    """Noise (N, *z_shape), or (N, numbers in all), to images (N, C, H, W) in [-1, 1]."""

    def __init__(self, z_shape: Shape, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.z_shape = z_shape

    def forward(self, z: mg.Tensor) -> mg.Tensor:
        if z.shape[1:] not in (self.z_shape, (math.prod(self.z_shape),)):
            expected = ", ".join(("N", *map(str, self.z_shape)))
            raise ValueError(f"Generator: expected z of shape ({expected}), got {z.shape}")
        return super().forward(z.reshape(z.shape[0], *self.z_shape))


def build(preset: Preset) -> tuple[nn.Module, nn.Module]:
    """The recipe's generator and discriminator with fresh weights, on the CPU, in training mode.

    Weights are drawn from the engine's generator (`minigrad.manual_seed`), the generator's first.
    Raises UserError where the layers do not make images of the recipe's size, or no single number
    for each image.
    """
    generator = build_generator(preset)
    return generator, build_discriminator(preset)


def build_generator(preset: Preset, most: int = MOST_WEIGHTS) -> Generator:
    """The generator alone. Raises UserError as `build` does, and where it has more than `most` weights."""
    image = (preset.channels, preset.image_size, preset.image_size)
    modules, made = _modules(preset.generator, preset.z_shape, "generator", most)
    if made != image:
        raise UserError(
            f"preset {preset.name!r}: the generator makes images of {made}, not {image} (C, H, W); "
            "image_size and channels are free in the presets flowers and pytorch"
        )
    return Generator(preset.z_shape, *modules)


def build_discriminator(preset: Preset, most: int = MOST_WEIGHTS) -> nn.Module:
    """The discriminator alone. Raises UserError as `build` does, and above `most` weights."""
    image = (preset.channels, preset.image_size, preset.image_size)
    modules, judged = _modules(preset.discriminator, image, "discriminator", most)
    if judged != (1,):
        raise UserError(
            f"preset {preset.name!r}: the discriminator gives {judged} for an image, not one number"
        )
    if LOSSES[preset.loss].takes_logits == isinstance(preset.discriminator[-1], layers.Sigmoid):
        takes = "logits, not a Sigmoid's output" if LOSSES[preset.loss].takes_logits else "a Sigmoid's output"
        raise UserError(
            f"loss={preset.loss!r} takes {takes}, and the discriminator of {preset.name!r} ends in "
            f"{preset.discriminator[-1]}: replace one of them"
        )
    return nn.Sequential(*modules)


def count_parameters(module: nn.Module) -> int:
    """How many numbers a module learns."""
    return sum(p.size for p in module.parameters())


def _modules(
    specs: tuple[layers.Layer, ...], shape: Shape, where: str, most: int
) -> tuple[list[nn.Module], Shape]:
    """The modules of a network of at most `most` weights, and the shape that they turn `shape` into."""
    modules: list[nn.Module] = []
    left = most
    for i, spec in enumerate(specs):
        try:
            left -= _weights(spec, shape)
            if left < 0:  # told before they are made
                raise ValueError(f"with this layer there are {most - left} weights; expected {most} at most")
            module = _module(spec, shape)
            shape = _shape_after(module, shape)
        except (ValueError, TypeError, IndexError) as error:
            raise UserError(f"{where}, layer {i} ({spec}), on {shape}: {error}") from error
        modules.append(module)
    return modules, shape


def _weights(spec: layers.Layer, shape: Shape) -> int:
    """How many numbers the weight of a layer has."""
    match spec:
        case layers.Dense():
            return shape[0] * spec.features
        case layers.Conv() | layers.ConvTranspose():
            taps = math.prod(spec.kernel) if isinstance(spec.kernel, tuple) else spec.kernel**2
            return shape[0] * spec.channels * taps
    return 0


def _module(spec: layers.Layer, shape: Shape) -> nn.Module:
    match spec:
        case layers.Dense():
            return _started(nn.Dense(shape[0], spec.features, bias=spec.bias), spec.init)
        case layers.Conv():
            conv = nn.Conv2d(shape[0], spec.channels, spec.kernel, spec.stride, spec.padding, bias=spec.bias)
            return _started(conv, spec.init)
        case layers.ConvTranspose():
            transposed = nn.ConvTranspose2d(
                shape[0], spec.channels, spec.kernel, spec.stride, spec.padding, bias=spec.bias
            )
            return _started(transposed, spec.init)
        case layers.BatchNorm():
            norm = nn.BatchNorm(shape[0], spec.eps, spec.momentum)
            if spec.gamma_std:
                nn.init.normal_(norm.weight, 1.0, spec.gamma_std)
            return norm
        case layers.ReLU():
            return nn.ReLU()
        case layers.LeakyReLU():
            return nn.LeakyReLU(spec.slope)
        case layers.Tanh():
            return nn.Tanh()
        case layers.Sigmoid():
            return nn.Sigmoid()
        case layers.Dropout():
            return nn.Dropout(spec.p)
        case layers.Flatten():
            return nn.Flatten()
        case layers.Reshape():
            return nn.Reshape(spec.channels, spec.height, spec.width)


def _started(layer: Any, init: str) -> nn.Module:
    """The layer with its weight drawn as `init` says and its bias, if any, at 0."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if (match := re.fullmatch(r"normal\((.+)\)", init)) and 0 <= float(match[1]) <= layers.MOST:
        nn.init.normal_(layer.weight, 0.0, float(match[1]))
    elif init == "glorot_uniform":
        nn.init.glorot_uniform_(layer.weight)
    else:
        raise ValueError(f'unknown init {init!r}: expected "glorot_uniform" or "normal(STD)"')
    return layer


def _shape_after(module: nn.Module, shape: Shape) -> Shape:
    """What a module makes of one item of `shape`, found by trying it on a batch of none."""
    with mg.no_grad():
        module.eval()
        after = module(mg.tensor(np.zeros((0, *shape), np.float32))).shape[1:]
        module.train()
    if math.prod(after) > MOST_VALUES:
        raise ValueError(f"it makes {after} of one image: expected {MOST_VALUES} numbers at most")
    return after
