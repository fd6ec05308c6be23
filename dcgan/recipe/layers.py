"""The kinds of layers that recipes are made of."""

import math
import re
from typing import Any

from minigrad import nn
from minigrad.backend.geometry import ConvGeometry

from .layer import Layer, Shape, Sizes, register

MAX_NUMBER = 1e30  # that a number of a recipe may be: float32 holds it, and its products with others


@register
class Dense(Layer):
    """Fully connected, to `features` numbers. `init` starts the weight, biases start at 0."""

    features: int
    bias: bool = True
    init: str = "glorot_uniform"

    def module(self, shape: Shape) -> nn.Module:
        return _started(nn.Dense(shape[0], self.features, bias=self.bias), self.init)

    def sizes(self, shape: Shape) -> Sizes:
        if len(shape) != 1:
            raise ValueError("expected rows (features,): put Flatten() before it")
        if self.features < 1:
            raise ValueError(f"expected out_features to be an int >= 1, got {self.features}")
        weight = shape[0] * self.features
        return Sizes(self, shape, (self.features,), weight, weight + self.bias * self.features)


class _Kernel(Layer):
    """The fields and sizes of both kinds of convolution. `init` starts the weight, biases start at 0."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int | str = 0
    bias: bool = True
    init: str = "normal(0.02)"

    def sizes(self, shape: Shape) -> Sizes:
        if len(shape) != 3:
            raise ValueError("expected images (channels, height, width): put Reshape(...) before it")
        if self.channels < 1 or self.kernel < 1:
            raise ValueError(f"expected channels and kernel >= 1, got {self.channels} and {self.kernel}")
        geometry, size = self.geometry((shape[1], shape[2]))
        weight = shape[0] * self.channels * geometry.taps
        made = (self.channels, *size)
        return Sizes(self, shape, made, weight, weight + self.bias * self.channels, geometry=geometry)

    def geometry(self, image: tuple[int, int]) -> tuple[ConvGeometry, tuple[int, ...]]:
        """Return the geometry on images (height, width), and the height and width of the output."""
        raise NotImplementedError


@register
class Conv(_Kernel):
    """A convolution to `channels`."""

    def module(self, shape: Shape) -> nn.Module:
        conv = nn.Conv2d(shape[0], self.channels, self.kernel, self.stride, self.padding, bias=self.bias)
        return _started(conv, self.init)

    def geometry(self, image: tuple[int, int]) -> tuple[ConvGeometry, tuple[int, ...]]:
        kernel = (self.kernel, self.kernel)
        geometry = ConvGeometry.of_conv(image, kernel, self.stride, self.padding, 1)
        return geometry, geometry.output_size


@register
class ConvTranspose(_Kernel):
    """A transposed convolution to `channels`."""

    def module(self, shape: Shape) -> nn.Module:
        sizes = (shape[0], self.channels, self.kernel, self.stride, self.padding)
        return _started(nn.ConvTranspose2d(*sizes, bias=self.bias), self.init)

    def geometry(self, image: tuple[int, int]) -> tuple[ConvGeometry, tuple[int, ...]]:
        kernel = (self.kernel, self.kernel)
        geometry = ConvGeometry.of_conv_transpose(image, kernel, self.stride, self.padding, 0, 1)
        return geometry, geometry.input_size


@register
class BatchNorm(Layer):
    """`momentum` is the share of the new batch in the running statistics; gamma starts from
    N(1, gamma_std^2).
    """

    kept_arrays = 1.25  # the share of its statistics is measured
    eps: float = 1e-5
    momentum: float = 0.1
    gamma_std: float = 0.0

    def module(self, shape: Shape) -> nn.Module:
        norm = nn.BatchNorm(shape[0], self.eps, self.momentum)
        if self.gamma_std:
            nn.init.normal_(norm.weight, 1.0, self.gamma_std)
        return norm

    def sizes(self, shape: Shape) -> Sizes:
        if len(shape) not in (1, 3):
            raise ValueError("expected rows (features,) or images (channels, height, width)")
        return Sizes(self, shape, shape, parameters=2 * shape[0], buffers=2 * shape[0])


@register
class ReLU(Layer):
    """max(x, 0)."""

    def module(self, shape: Shape) -> nn.Module:
        return nn.ReLU()


@register
class LeakyReLU(Layer):
    """x where x > 0, slope * x elsewhere."""

    slope: float = 0.2

    def module(self, shape: Shape) -> nn.Module:
        return nn.LeakyReLU(self.slope)


@register
class Tanh(Layer):
    """To (-1, 1)."""

    def module(self, shape: Shape) -> nn.Module:
        return nn.Tanh()


@register
class Sigmoid(Layer):
    """To (0, 1)."""

    def module(self, shape: Shape) -> nn.Module:
        return nn.Sigmoid()


@register
class Dropout(Layer):
    """Drops each value with probability p, in training."""

    p: float

    def module(self, shape: Shape) -> nn.Module:
        return nn.Dropout(self.p)


@register
class Flatten(Layer):
    """To one row of numbers an image."""

    kept_arrays = 0

    def module(self, shape: Shape) -> nn.Module:
        return nn.Flatten()

    def output(self, shape: Shape) -> Shape:
        return (math.prod(shape),)


@register
class Reshape(Layer):
    """To an image of (channels, height, width)."""

    kept_arrays = 0
    channels: int
    height: int
    width: int

    def module(self, shape: Shape) -> nn.Module:
        return nn.Reshape(self.channels, self.height, self.width)

    def output(self, shape: Shape) -> Shape:
        made = (self.channels, self.height, self.width)
        if min(made) < 1 or math.prod(made) != math.prod(shape):
            raise ValueError(f"{math.prod(shape)} numbers do not fit into {made}")
        return made


def _started(layer: Any, init: str) -> nn.Module:
    """Return the layer with its weight drawn as `init` says and its bias, if any, at 0."""
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if (match := re.fullmatch(r"normal\((.+)\)", init)) and 0 <= float(match[1]) <= MAX_NUMBER:
        nn.init.normal_(layer.weight, 0.0, float(match[1]))
    elif init == "glorot_uniform":
        nn.init.glorot_uniform_(layer.weight)
    else:
        raise ValueError(f'unknown init {init!r}: expected "glorot_uniform" or "normal(STD)"')
    return layer
