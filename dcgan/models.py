"""From a recipe to its two networks."""

import math

import numpy as np

import minigrad as mg
from minigrad import nn

from .recipe import layers, sizes
from .recipe.chain import MAX_WEIGHTS, misfit
from .recipe.layer import Layer, Shape, Sizes
from .recipe.preset import Preset


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
    first, second = sizes.of_generator(preset), sizes.of_discriminator(preset)  # both, before any array
    generator = Generator(preset.z_shape, *_modules(first, "generator"))
    return generator, nn.Sequential(*_modules(second, "discriminator"))


def build_generator(preset: Preset, most: int = MAX_WEIGHTS) -> Generator:
    """The generator alone. Raises UserError as `build` does, and where it has more than `most` weights."""
    return Generator(preset.z_shape, *_modules(sizes.of_generator(preset, most), "generator"))


def build_discriminator(preset: Preset, most: int = MAX_WEIGHTS) -> nn.Module:
    """The discriminator alone. Raises UserError as `build` does, and above `most` weights."""
    return nn.Sequential(*_modules(sizes.of_discriminator(preset, most), "discriminator"))


def count_parameters(module: nn.Module) -> int:
    """Return the number of parameters of a module, in numbers."""
    return sum(p.size for p in module.parameters())


def _modules(network: tuple[Sizes, ...], name: str) -> list[nn.Module]:
    """Return the modules of a network. Raises UserError if a layer takes no such arguments."""
    modules: list[nn.Module] = []
    for place, layer in enumerate(network):
        try:
            modules.append(layer.spec.module(layer.given) if _is_ours(layer.spec) else _own_module(layer))
        except (ValueError, TypeError) as error:
            raise misfit(name, place, layer.spec, layer.given, error) from error
    return modules


def _is_ours(spec: Layer) -> bool:
    return type(spec).__module__ == layers.__name__


def _own_module(layer: Sizes) -> nn.Module:
    """Return the module of a plugin's layer. Raises ValueError if it is not as the layer's sizes say."""
    random = mg.random.get_state()
    try:
        module = layer.spec.module(layer.given)
        made = mg.random.get_state()
        with mg.no_grad():
            y = module.eval()(mg.tensor(np.zeros((1, *layer.given), np.float32), device="cpu"))
        shape = y.shape[1:]
    except Exception as error:  # the code of a plugin may raise anything
        mg.random.set_state(random)
        raise ValueError(f"its module can't be made or run: {type(error).__name__}: {error}") from error
    mg.random.set_state(made)
    if (learned := count_parameters(module)) != layer.parameters:
        raise ValueError(
            f"its module learns {learned} numbers, but parameters(shape) says {layer.parameters}"
        )
    if shape != layer.made:
        raise ValueError(f"its module makes {shape}, but output(shape) says {layer.made}")
    return module.train()
