"""A recipe with a loss, a layer and a device of its own, in one file outside of the package. To use it:

    dcgan train --preset own_parts.py:SMOOTH --device counting --out runs/smooth
    dcgan train --resume runs/smooth --epochs 4 --plugin own_parts.py --device counting
    dcgan sample runs/smooth --out smooth.png --plugin own_parts.py

Each command that opens the run names the file again: no command runs a file that only a run names.
"""

import atexit
import dataclasses

import minigrad as mg
import minigrad.functional as F
from dcgan import plugins, presets
from dcgan.recipe.layer import Layer, Shape
from dcgan.recipe.layers import LeakyReLU
from minigrad import nn
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.native import kernels


@plugins.loss("hinge", probability=F.sigmoid, generator=lambda fake: -fake.mean(), formula="max(0, 1 -+ l)")
def hinge(logits: mg.Tensor, label: float) -> mg.Tensor:
    """Source: Lim and Ye, "Geometric GAN" (2017)."""
    return F.relu(1 - logits if label else 1 + logits).mean()


class SwishModule(nn.Module):
    """x * sigmoid(x): Ramachandran et al., "Searching for activation functions" (2017)."""

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        return x * F.sigmoid(x)


@plugins.layer
class Swish(Layer):
    kept_arrays = 3  # x, sigmoid(x) and their product

    def module(self, shape: Shape) -> nn.Module:
        return SwishModule()


@plugins.device("counting")
class CountingBackend(CPUBackend):
    """The CPU, which counts its matrix products."""

    def __init__(self) -> None:
        super().__init__(kernels())
        self.products = 0
        atexit.register(lambda: print(f"{self.products:,} matrix products"))

    def matmul(self, a, b):
        self.products += 1
        return super().matmul(a, b)


SMOOTH = dataclasses.replace(
    presets.QUICK,
    name="smooth",
    summary="quick with a hinge loss and swish in the generator",
    loss="hinge",
    generator=tuple(Swish() if spec == LeakyReLU(0.2) else spec for spec in presets.QUICK.generator),
)
