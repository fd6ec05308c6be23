"""ReLU, LeakyReLU, Tanh and Sigmoid: a function of each number, and its derivative as a factor."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ... import naive
from ...backend import Backend
from ...backend.arrays import Array
from ...nn import LeakyReLU, ReLU, Sigmoid, Tanh
from ...tensor import Tensor
from .checks import check, chosen, double, where
from .look import Host
from .registry import Opened, Steps, explains, host

MAX_EXPONENT = 300.0  # beyond, the loops' exponentials may overflow in float64; tanh and sigmoid are flat
PRODUCTS_PER_NUMBER = 10  # that one number of the loops counts as


@dataclass(frozen=True)
class _Activation:
    """One function of numbers.

    Attributes:
        name: of the step.
        formula, derivative: in words.
        forward: by the backend.
        factor: the derivative by the backend, from y.
        plain: the function by loops, of an array.
        slope: the derivative of one number, from x.
        loop: the body of the loop, over k.
        max_size: of x, for which the loops are asked.
    """

    name: str
    formula: str
    derivative: str
    forward: Callable[[Backend, Array], Array]
    factor: Callable[[Backend, Array], Array]
    plain: Callable[[Host], Host]
    slope: Callable[[float], float]
    loop: str
    max_size: float


@explains(ReLU)
def relu(layer: ReLU, x: Tensor, dy: Tensor, seed: int) -> Opened:
    return _opened(_rectifier("ReLU", "x where x > 0, 0 elsewhere", 0.0), x, dy, seed)


@explains(LeakyReLU)
def leaky_relu(layer: LeakyReLU, x: Tensor, dy: Tensor, seed: int) -> Opened:
    slope = layer.negative_slope
    return _opened(_rectifier("leaky ReLU", f"x where x > 0, {slope:g} x elsewhere", slope), x, dy, seed)


@explains(Tanh)
def tanh(layer: Tanh, x: Tensor, dy: Tensor, seed: int) -> Opened:
    activation = _Activation(
        "tanh",
        "the hyperbolic tangent of each number, between -1 and 1",
        "1 - y^2: 1 where x is 0, next to nothing where y is near -1 or 1",
        lambda backend, x: backend.tanh(x),
        lambda backend, y: backend.tanh_backward(backend.xp.ones_like(y), y),
        naive.tanh,
        lambda x: 1 / math.cosh(x) ** 2,
        "    y[k] = tanh(x[k])\n    dx[k] = dy[k] * (1 - tanh(x[k]) ** 2)",
        MAX_EXPONENT,
    )
    return _opened(activation, x, dy, seed)


@explains(Sigmoid)
def sigmoid(layer: Sigmoid, x: Tensor, dy: Tensor, seed: int) -> Opened:
    activation = _Activation(
        "sigmoid",
        "1 / (1 + exp(-x)) of each number, between 0 and 1",
        "y (1 - y): 1/4 where x is 0, next to nothing where y is near 0 or 1",
        lambda backend, x: backend.sigmoid(x),
        lambda backend, y: y * (1 - y),
        naive.sigmoid,
        lambda x: 1 / (2 * math.cosh(x / 2)) ** 2,
        "    y[k] = 1 / (1 + exp(-x[k]))\n    dx[k] = dy[k] * exp(-x[k]) / (1 + exp(-x[k])) ** 2",
        MAX_EXPONENT,
    )
    return _opened(activation, x, dy, seed)


def _rectifier(name: str, formula: str, slope: float) -> _Activation:
    return _Activation(
        name,
        formula,
        f"1 where y > 0, {slope:g} elsewhere",
        lambda backend, x: backend.leaky_relu(x, slope),
        lambda backend, y: backend.leaky_relu_backward(backend.xp.ones_like(y), y, slope),
        lambda x: naive.leaky_relu(x, slope),
        lambda x: 1.0 if x > 0 else slope,
        f"    y[k] = x[k] if x[k] > 0 else {slope:g} * x[k]\n"
        f"    dx[k] = dy[k] if x[k] > 0 else {slope:g} * dy[k]",
        math.inf,
    )


def _opened(activation: _Activation, x: Tensor, dy: Tensor, seed: int) -> Opened:
    backend = x.backend
    forward, backward = Steps(backend), Steps(backend)
    y = forward.take(activation.name, "y", activation.formula, activation.forward(backend, x.data))
    factor = backward.take("derivative", "factor", activation.derivative, activation.factor(backend, y))
    dx = backward.take("product", "dx", "dy * factor, number by number", dy.data * factor)

    xs, dys = (a.reshape(-1) for a in double(host(backend, x.data), host(backend, dy.data)))
    near = np.flatnonzero(np.abs(xs) < activation.max_size)  # NaN is not
    few = near[chosen(len(near), PRODUCTS_PER_NUMBER, seed)]
    loop = f"for k in ndindex({', '.join(map(str, x.shape))}):\n{activation.loop}"
    if not few.size:  # a check of no numbers would count as one that found them right
        return Opened(forward, backward, {"x": dx}, loop=loop)
    by, slopes = where(len(few), x.size), np.array([activation.slope(v) for v in xs[few]])
    checks = (
        check("y", by, forward[-1].values.reshape(-1)[few], activation.plain(xs[few])),
        check("dx", by, backward[-1].values.reshape(-1)[few], slopes * dys[few]),
    )
    return Opened(forward, backward, {"x": dx}, loop=loop, checks=checks)
