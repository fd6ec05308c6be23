"""The operations as plain loops over single numbers, with sums in the order of the formulas.

Each function has the name of the operation that it defines and takes NumPy arrays. It is the shortest answer
to "what does this operation do?".

Nothing here computes by the engine, of which only `ConvGeometry` is used, the sizes of a convolution; and no
forward or backward of the engine computes by anything here. So these functions serve as an oracle: operations
name them as the references of their `cases`, with which the tests compare the engine, and `inspect.explain`
compares a layer with them.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from .backend.geometry import ConvGeometry

Array = np.ndarray[Any, Any]


def _each(function: Callable[..., float]) -> Callable[..., Array]:
    """A function of numbers, applied to arrays element by element."""
    return np.vectorize(function, otypes=[np.float64])


add = _each(lambda a, b: a + b)
subtract = _each(lambda a, b: a - b)
multiply = _each(lambda a, b: a * b)
divide = _each(lambda a, b: a / b)
negate = _each(lambda x: -x)
power = _each(lambda a, b: a**b)
exp = _each(math.exp)
log = _each(math.log)
sqrt = _each(math.sqrt)
abs = _each(lambda x: x if x >= 0 else -x)
maximum = _each(lambda a, b: a if a >= b else b)
tanh = _each(lambda x: 1 - 2 / (math.exp(2 * x) + 1))
sigmoid = _each(lambda x: 1 / (1 + math.exp(-x)))
softplus = _each(lambda x: x if x > 30 else math.log(1 + math.exp(x)))
floored_log = _each(lambda p: math.log(p) if p > math.exp(-100) else -100.0)
logit_binary_cross_entropy = _each(
    lambda x, t: -t * math.log(1 / (1 + math.exp(-x))) - (1 - t) * math.log(1 / (1 + math.exp(x)))
)


def leaky_relu(x: Array, slope: float) -> Array:
    """x where it is positive, slope x elsewhere."""
    return _each(lambda value: value if value > 0 else slope * value)(x)


def mean_binary_cross_entropy(p: Array, t: Any, epsilon: float = 0.0) -> float:
    """The mean of -t log(p + epsilon) - (1 - t) log(1 - p + epsilon), without a floor."""
    losses = -t * log(p + epsilon) - (1 - t) * log(1 - p + epsilon)
    return math.fsum(losses.reshape(-1).tolist()) / losses.size


def mean_logit_binary_cross_entropy(x: Array, t: Any) -> float:
    """The mean of `logit_binary_cross_entropy`."""
    losses = np.asarray(logit_binary_cross_entropy(x, t))
    return math.fsum(losses.reshape(-1).tolist()) / losses.size


def sum(x: Array) -> float:
    """The sum of all elements, rounded once."""
    return math.fsum(x.reshape(-1).tolist())


def max(x: Array) -> float:
    """The largest of all elements."""
    return sorted(x.reshape(-1).tolist())[-1]


def transpose(x: Array) -> Array:
    """(n, m) to (m, n)."""
    return np.array([[x[i, j] for i in range(len(x))] for j in range(x.shape[1])])


def matmul(a: Array, b: Array) -> Array:
    """Stacks of matrices (..., n, k) @ (..., k, m)."""
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a = np.broadcast_to(a, stack + a.shape[-2:])
    b = np.broadcast_to(b, stack + b.shape[-2:])
    y = np.zeros((*stack, a.shape[-2], b.shape[-1]))
    for index in np.ndindex(y.shape):
        *s, i, j = index
        y[index] = math.fsum(a[(*s, i, k)] * b[(*s, k, j)] for k in range(a.shape[-1]))
    return y


def _taps(geometry: ConvGeometry) -> Any:
    """Every (output pixel, tap, input pixel) where the tap reads inside of the image."""
    height, width = geometry.input_size
    for oy, ox in product(*map(range, geometry.output_size)):
        for i, j in product(*map(range, geometry.kernel_size)):
            y = oy * geometry.stride[0] + i * geometry.dilation[0] - geometry.padding[0][0]
            x = ox * geometry.stride[1] + j * geometry.dilation[1] - geometry.padding[1][0]
            if 0 <= y < height and 0 <= x < width:
                yield oy, ox, i, j, y, x


def convolve(x: Array, w: Array, geometry: ConvGeometry) -> Array:
    """y[n, o, oy, ox] = the sum over c, i, j of w[o, c, i, j] x[n, c, y, x]."""
    result = np.zeros((len(x), len(w), *geometry.output_size), np.float64)
    for oy, ox, i, j, iy, ix in _taps(geometry):
        for n, o, c in product(range(len(x)), range(len(w)), range(x.shape[1])):
            result[n, o, oy, ox] += float(w[o, c, i, j]) * float(x[n, c, iy, ix])
    return result


def convolve_input_gradient(y: Array, w: Array, geometry: ConvGeometry) -> Array:
    """x[n, c, y, x] = the sum of w[o, c, i, j] y[n, o, oy, ox] over all that read the pixel."""
    result = np.zeros((len(y), w.shape[1], *geometry.input_size), np.float64)
    for oy, ox, i, j, iy, ix in _taps(geometry):
        for n, o, c in product(range(len(y)), range(len(w)), range(w.shape[1])):
            result[n, c, iy, ix] += float(w[o, c, i, j]) * float(y[n, o, oy, ox])
    return result


def convolve_weight_gradient(x: Array, y: Array, geometry: ConvGeometry) -> Array:
    """w[o, c, i, j] = the sum of x[n, c, y, x] y[n, o, oy, ox] over the batch and all positions."""
    result = np.zeros((y.shape[1], x.shape[1], *geometry.kernel_size), np.float64)
    for oy, ox, i, j, iy, ix in _taps(geometry):
        for n, o, c in product(range(len(x)), range(y.shape[1]), range(x.shape[1])):
            result[o, c, i, j] += float(x[n, c, iy, ix]) * float(y[n, o, oy, ox])
    return result


def batch_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-3) -> Array:
    """Each channel of (N, C) or (N, C, H, W), normalised by its own mean and variance."""
    y = np.empty(x.shape, np.float64)
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].reshape(-1)]
        mean = math.fsum(values) / len(values)
        variance = math.fsum((v - mean) ** 2 for v in values) / len(values)
        for index in np.ndindex(x[:, c].shape):
            xhat = (float(x[:, c][index]) - mean) / math.sqrt(variance + eps)
            y[:, c][index] = xhat * weight[c] + bias[c]
    return y


def batch_norm_gradients(x: Array, dy: Array, weight: Array, eps: float = 1e-3) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of `batch_norm`: back through the variance and the mean, one after the other.

    Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, as it stands there.
    """
    dx = np.empty(x.shape, np.float64)
    dweight, dbias = np.empty((2, x.shape[1]))
    for c in range(x.shape[1]):
        values, above = ([float(v) for v in a[:, c].reshape(-1)] for a in (x, dy))
        count = len(values)
        mean = math.fsum(values) / count
        centred = [v - mean for v in values]
        variance = math.fsum(v * v for v in centred) / count
        root = math.sqrt(variance + eps)
        dxhat = [d * float(weight[c]) for d in above]
        dvariance = (
            math.fsum(d * v for d, v in zip(dxhat, centred, strict=True)) * -0.5 / (root * root * root)
        )
        dmean = -math.fsum(dxhat) / root - 2 * dvariance * math.fsum(centred) / count
        for k, index in enumerate(np.ndindex(x[:, c].shape)):
            dx[:, c][index] = dxhat[k] / root + dvariance * 2 * centred[k] / count + dmean / count
        dweight[c] = math.fsum(d * v / root for d, v in zip(above, centred, strict=True))
        dbias[c] = math.fsum(above)
    return dx, dweight, dbias


def normalize(x: Array, mean: Array, variance: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Each channel of (N, C) or (N, C, H, W), normalised by a given mean and variance."""
    y = np.empty(x.shape, np.float64)
    for index in np.ndindex(x.shape):
        c = index[1]
        xhat = (float(x[index]) - float(mean[c])) / math.sqrt(float(variance[c]) + eps)
        y[index] = xhat * float(weight[c]) + float(bias[c])
    return y


def normalize_gradients(
    x: Array, dy: Array, mean: Array, variance: Array, weight: Array, eps: float
) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) of `normalize`, mean and variance constants."""
    dx = np.empty(x.shape, np.float64)
    dweight, dbias = np.zeros((2, x.shape[1]))
    for index in np.ndindex(x.shape):
        c = index[1]
        root = math.sqrt(float(variance[c]) + eps)
        dx[index] = float(dy[index]) * float(weight[c]) / root
        dweight[c] += float(dy[index]) * (float(x[index]) - float(mean[c])) / root
        dbias[c] += float(dy[index])
    return dx, dweight, dbias


def cross_entropy(x: Array, labels: Any = (2, 0, 1)) -> Array:
    """-log(exp(x[label]) / the sum of all exp(x)), row by row."""
    rows = []
    for row, label in zip(x.tolist(), labels, strict=True):
        rows.append(-math.log(math.exp(row[label]) / math.fsum(map(math.exp, row))))
    return np.array(rows)


def philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """One block of Philox4x64-10: four words of 64 bits from a key and a counter.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011), section 3.3.
    """
    mask = 2**64 - 1
    x, k = list(counter), list(key)
    for _ in range(10):
        low = [0xD2E7470EE14C6C93 * x[0], 0xCA5A826395121157 * x[2]]
        x = [(low[1] >> 64) ^ x[1] ^ k[0], low[1] & mask, (low[0] >> 64) ^ x[3] ^ k[1], low[0] & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


def dropout_mask(
    count: int, p: float, key: tuple[int, int], counter: tuple[int, int, int, int]
) -> list[bool]:
    """Return which of `count` elements are kept: those whose draw of 16 bits is p * 2^16 or more.

    The first block's counter is one more than the given one.
    """
    draws: list[int] = []
    position = counter[0] + sum_of_words(counter)
    while len(draws) < count:
        position += 1
        words = philox(key, tuple(position >> (64 * i) & (2**64 - 1) for i in range(4)))  # type: ignore[arg-type]
        draws += [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)]
    return [draw >= round(p * 2**16) for draw in draws[:count]]


def dropout(x: Array, p: float, key: tuple[int, int], counter: tuple[int, int, int, int]) -> Array:
    """x / (1 - p) where it is kept, 0 elsewhere; images are numbered with the channels innermost."""
    kept = np.array(dropout_mask(x.size, p, key, counter))
    last = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x  # (N, H, W, C)
    y = np.where(kept.reshape(last.shape), last / (1 - p), 0.0)
    return y.transpose(0, 3, 1, 2) if x.ndim == 4 else y


def sum_of_words(counter: tuple[int, int, int, int]) -> int:
    """The three upper words of a 256-bit counter as one number."""
    return counter[1] << 64 | counter[2] << 128 | counter[3] << 192
