"""Initial values, written into a tensor in place.

All draw from the engine's generator (`minigrad.manual_seed`) unless given another, and return the
tensor. `fan_in` is how many numbers go into one output, `fan_out` how many outputs one number goes
into: (out, in, kh, kw) has a fan_in of in kh kw and a fan_out of out kh kw. For a transposed
convolution's (in, out, kh, kw) the same places are read, as PyTorch does.
"""

import math
from typing import Any

from .. import random
from ..backend.ieee import ieee
from ..tensor import Tensor


@ieee()
def constant_(tensor: Tensor, value: float) -> Tensor:
    """Every element the same."""
    tensor.data = tensor.backend.xp.full_like(tensor.data, value)
    return tensor


def zeros_(tensor: Tensor) -> Tensor:
    """Every element 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Every element 1."""
    return constant_(tensor, 1.0)


@ieee()
def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """N(mean, std^2)."""
    return _fill(tensor, (generator or random.default).normal(tensor.shape, tensor.dtype) * std + mean)


@ieee()
def uniform_(
    tensor: Tensor, low: float = 0.0, high: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """U(low, high)."""
    return _fill(tensor, (generator or random.default).uniform(tensor.shape, low, high, tensor.dtype))


def glorot_uniform_(tensor: Tensor, generator: random.Generator | None = None) -> Tensor:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 16.
    """
    bound = math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound, generator)


def he_normal_(
    tensor: Tensor, negative_slope: float = 0.0, generator: random.Generator | None = None
) -> Tensor:
    """N(0, 2 / ((1 + negative_slope^2) fan_in)), for layers before a (leaky) ReLU.

    Source: He et al., "Delving deep into rectifiers" (2015), equations 10 and 15.
    """
    fan_in, _ = fans(tensor.shape)
    std = math.sqrt(2 / ((1 + negative_slope**2) * fan_in))
    return normal_(tensor, 0.0, std, generator)


def he_uniform_(
    tensor: Tensor, negative_slope: float = 0.0, generator: random.Generator | None = None
) -> Tensor:
    """U(-a, a) of the variance of `he_normal_`: a = sqrt(6 / ((1 + negative_slope^2) fan_in))."""
    fan_in, _ = fans(tensor.shape)
    bound = math.sqrt(6 / ((1 + negative_slope**2) * fan_in))
    return uniform_(tensor, -bound, bound, generator)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in) or (out, in, kh, kw)."""
    if len(shape) < 2:
        raise ValueError(f"fans: expected a weight of two axes or more, got shape {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _fill(tensor: Tensor, values: Any) -> Tensor:
    tensor.data = tensor.backend.asarray(values, tensor.dtype)
    return tensor
