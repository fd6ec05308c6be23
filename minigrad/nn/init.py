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
    _check("constant_", tensor, None, value=value)
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
    _check("normal_", tensor, generator, mean=mean, std=std)
    return _fill(tensor, (generator or random.current()).normal(tensor.shape, tensor.dtype) * std + mean)


@ieee()
def uniform_(
    tensor: Tensor, low: float = 0.0, high: float = 1.0, generator: random.Generator | None = None
) -> Tensor:
    """U(low, high)."""
    _check("uniform_", tensor, generator, low=low, high=high)
    return _fill(tensor, (generator or random.current()).uniform(tensor.shape, low, high, tensor.dtype))


def glorot_uniform_(tensor: Tensor, generator: random.Generator | None = None) -> Tensor:
    """U(-a, a) with a = sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural
    networks" (2010), equation 16.
    """
    _check("glorot_uniform_", tensor, generator)
    bound = math.sqrt(6 / sum(fans(tensor.shape)))
    return uniform_(tensor, -bound, bound, generator)


def he_normal_(
    tensor: Tensor, negative_slope: float = 0.0, generator: random.Generator | None = None
) -> Tensor:
    """N(0, 2 / ((1 + negative_slope^2) fan_in)), for layers before a (leaky) ReLU.

    Source: He et al., "Delving deep into rectifiers" (2015), equations 10 and 15.
    """
    _check("he_normal_", tensor, generator, negative_slope=negative_slope)
    fan_in, _ = fans(tensor.shape)
    std = math.sqrt(2 / ((1 + negative_slope**2) * fan_in))
    return normal_(tensor, 0.0, std, generator)


def he_uniform_(
    tensor: Tensor, negative_slope: float = 0.0, generator: random.Generator | None = None
) -> Tensor:
    """U(-a, a) of the variance of `he_normal_`: a = sqrt(6 / ((1 + negative_slope^2) fan_in))."""
    _check("he_uniform_", tensor, generator, negative_slope=negative_slope)
    fan_in, _ = fans(tensor.shape)
    bound = math.sqrt(6 / ((1 + negative_slope**2) * fan_in))
    return uniform_(tensor, -bound, bound, generator)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in) or (out, in, kh, kw)."""
    if len(shape) < 2:
        raise ValueError(f"fans: expected a weight of two axes or more, got shape {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _check(function: str, tensor: Any, generator: random.Generator | None, **numbers: Any) -> None:
    """Raise TypeError for a wrong type: of the tensor to fill, the generator or the numbers."""
    if not isinstance(tensor, Tensor):
        raise TypeError(
            f"{function}: expected a Tensor, such as a layer's .weight, got {type(tensor).__name__}"
        )
    if not isinstance(generator, random.Generator | None):
        raise TypeError(
            f"{function}: expected a minigrad.Generator or None as generator, got {type(generator).__name__}"
        )
    for name, number in numbers.items():
        if not hasattr(number, "__float__"):
            raise TypeError(f"{function}: expected a number as {name}, got {number!r:.80}")


def _fill(tensor: Tensor, values: Any) -> Tensor:
    tensor.data = tensor.backend.asarray(values, tensor.dtype)
    return tensor
