"""BatchNorm: two statistics of each channel, and what flows back through them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ... import naive
from ...backend.arrays import Array, per_channel
from ...nn import BatchNorm
from ...tensor import Tensor
from .checks import check, chosen, double, norms
from .explanation import Check, Step
from .look import Host
from .registry import Opened, Steps, explains, host

PRODUCTS_PER_NUMBER = 20  # that one value counts as in the loops
ONE_PASS = (
    "The engine itself takes the last steps in one pass over memory: what is the same for all of a channel "
    "(weight / sqrt(variance + eps) and what is added) is one factor and one summand, (C,) each."
)


@explains(BatchNorm)
def batch_norm(layer: BatchNorm, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """In training by the batch's own statistics, in eval mode by those that training kept."""
    return _by_batch(layer, x, dy, seed) if layer.training else _by_kept(layer, x, dy, seed)


@dataclass(frozen=True)
class _Normalised:
    """The values of the forward that the backward reads: x - mean, (N, C, ...), and the rest (C,)."""

    centred: Array
    rest: Array
    inv_std: Array


def _by_batch(layer: BatchNorm, x: Tensor, dy: Tensor, seed: int) -> Opened:
    backend, count = x.backend, x.size // x.shape[1]
    forward, backward = Steps(backend), Steps(backend)
    mean, variance = backend.moments(x.data)
    forward.take("mean", "mean", f"the sum of each channel's {count:,} values, / {count:,}, in float64", mean)
    spread = f"the sum of (x - mean)^2 over the same values, / {count:,}, in float64"
    forward.take("variance", "variance", spread, variance)
    buffers = _running(forward, layer, mean, variance, count)
    normalised = _normalise(forward, layer, x, mean, variance)
    gradients, sizes = _by_terms(backward, layer, dy, normalised, count)
    checks = _checks(layer, x, dy, (*forward, *backward), sizes, seed)
    loop = _loop_by_batch(layer, x)
    return Opened(forward, backward, gradients, (ONE_PASS,), loop, checks, buffers, sizes)


def _by_terms(
    steps: Steps, layer: BatchNorm, dy: Tensor, normalised: _Normalised, count: int
) -> tuple[dict[str, Array], dict[str, Host]]:
    """The gradients by two sums and three terms; and how large they are where nothing cancels.

    dx would be its first term if the others took nothing off: of two values a channel, say, they leave next
    to nothing.
    """
    dbias = _sum(steps, "dbias", f"the sum of each channel's {count:,} values of dy", dy.data)
    product = _sum(
        steps, "product", "the sum of dy * centred: how dy goes along with x", dy.data * normalised.centred
    )
    dweight, tilt, shift, scale = steps.backend.normalize_coefficients(
        count, normalised.rest, normalised.inv_std, layer.weight.data, product, dbias
    )
    dweight = steps.take(
        "dweight", "dweight", "product / sqrt(variance + eps): the sum of dy * xhat", dweight.astype(dy.dtype)
    )
    tilt, shift, scale = (per_channel(v.astype(dy.dtype), dy.ndim) for v in (tilt, shift, scale))
    steps.take("first term", "dy", "dy itself: all, if mean and variance were constants", dy.data)
    steps.take(
        "second term",
        "mean(dy)",
        f"dbias / {count:,}: each x has a part in the mean, and so in every other value of its channel",
        shift.reshape(-1),  # (C,)
    )
    tilted = steps.take(
        "third term",
        "xhat mean(dy xhat)",
        f"xhat * dweight / {count:,}: each x has a part in the variance too, and so in the scale of every "
        "other value",
        normalised.centred * tilt,
    )
    dx = steps.take(
        "three terms",
        "dx",
        "weight / sqrt(variance + eps) * (dy - mean(dy) - xhat mean(dy xhat)). What is taken off is the part "
        "along a constant and the part along xhat: adding to a whole channel, or scaling it, changes nothing "
        "after BatchNorm",
        (dy.data - tilted - shift) * scale,
    )
    gradients = {"x": dx, "weight": dweight, "bias": dbias.astype(dy.dtype)}
    xhat = normalised.centred * per_channel(normalised.inv_std.astype(dy.dtype), dy.ndim)
    return gradients, {"x": host(steps.backend, dy.data * scale), **_sizes(dy, xhat)}


def _by_kept(layer: BatchNorm, x: Tensor, dy: Tensor, seed: int) -> Opened:
    backend, count = x.backend, x.size // x.shape[1]
    forward = Steps(backend)
    kept = "kept from training; the batch's own is not looked at, so that an image depends on itself alone"
    mean = forward.take("running_mean", "mean", kept, layer.running_mean.data)
    variance = forward.take("running_var", "variance", kept, layer.running_var.data)
    normalised = _normalise(forward, layer, x, mean, variance)

    backward = Steps(backend)
    dbias = _sum(backward, "dbias", f"the sum of each channel's {count:,} values of dy", dy.data)
    xhat = normalised.centred * per_channel(normalised.inv_std.astype(x.dtype), x.ndim)
    dweight = _sum(backward, "dweight", "the sum of dy * xhat", dy.data * xhat)
    scale = normalised.inv_std * layer.weight.data
    dx = backward.take(
        "dx",
        "dx",
        "weight / sqrt(variance + eps) * dy: mean and variance are constants here",
        dy.data * per_channel(scale.astype(x.dtype), x.ndim),
    )
    gradients = {"x": dx, "weight": dweight.astype(x.dtype), "bias": dbias.astype(x.dtype)}
    sizes = _sizes(dy, xhat)
    checks = _checks(layer, x, dy, (*forward, *backward), sizes, seed)
    return Opened(forward, backward, gradients, (ONE_PASS,), _loop_by_kept(layer, x), checks, sizes=sizes)


def _running(steps: Steps, layer: BatchNorm, mean: Array, variance: Array, count: int) -> dict[str, Array]:
    """Return the running statistics after this forward."""
    keep, share = 1 - layer.momentum, layer.momentum
    blend = steps.backend.blend
    return {
        "running_mean": steps.take(
            "running_mean",
            "running_mean",
            f"{keep:g} of the kept one + {share:g} of the batch's mean",
            blend(layer.running_mean.data, mean, keep, share),
        ),
        "running_var": steps.take(
            "running_var",
            "running_var",
            f"{keep:g} of the kept one + {share:g} of the batch's variance * {count:,} / {count - 1:,} "
            "(unbiased)",
            blend(layer.running_var.data, variance, keep, share * (count / (count - 1))),
        ),
    }


def _normalise(steps: Steps, layer: BatchNorm, x: Tensor, mean: Array, variance: Array) -> _Normalised:
    """From the statistics to y; `near` is the mean in x's dtype, and what that leaves is put right in y."""
    backend, weight, bias = x.backend, layer.weight.data, layer.bias.data
    near, scale, shift = backend.normalize_constants(mean, variance, layer.eps, weight, bias, x.dtype)
    centred = steps.take(
        "centre", "centred", "x - mean, channel by channel", x.data - per_channel(near, x.ndim)
    )
    inv_std = 1 / backend.xp.sqrt(variance + layer.eps)
    steps.take(
        "normalise",
        "xhat",
        f"centred / sqrt(variance + {layer.eps:g}): mean 0, and variance 1 but for eps, in each channel"
        + ("" if layer.training else ", if the batch is like those of training"),
        centred * per_channel(inv_std.astype(x.dtype), x.ndim),
    )
    steps.take(
        "scale and shift",
        "y",
        "xhat * weight + bias, as centred * (weight / sqrt(variance + eps)) + bias",
        centred * per_channel(scale, x.ndim) + per_channel(shift, x.ndim),
    )
    return _Normalised(centred, mean - near, inv_std)


def _sizes(dy: Tensor, xhat: Array) -> dict[str, Host]:
    """Return the usual size of the two sums."""
    return {"weight": norms(host(dy.backend, dy.data * xhat)), "bias": norms(host(dy.backend, dy.data))}


def _sum(steps: Steps, symbol: str, sentence: str, values: Array) -> Array:
    """Over all but the channels, in float64."""
    axes = (0, 2, 3)[: values.ndim - 1]
    return steps.take("sum", symbol, sentence, values.sum(axis=axes, dtype="float64"))


# -- the loops ---------------------------------------------------------------------------------------


def _values(x: Tensor) -> tuple[int, int, str]:
    """Channels, values a channel, and their sizes as text."""
    sizes = (x.shape[0], *x.shape[2:])
    return x.shape[1], math.prod(sizes), ", ".join(map(str, sizes))


def _loop_by_batch(layer: BatchNorm, x: Tensor) -> str:
    channels, count, sizes = _values(x)
    return f"""for c in range({channels}):
    places = list(ndindex({sizes}))  # of the channel's {count} values
    v, d = [x[:, c][k] for k in places], [dy[:, c][k] for k in places]
    mean = sum(v) / {count}
    variance = sum((a - mean) ** 2 for a in v) / {count}
    running_mean[c] += {layer.momentum!r} * (mean - running_mean[c])
    running_var[c] += {layer.momentum!r} * (variance * {count} / {count - 1} - running_var[c])
    h = [(a - mean) / sqrt(variance + {layer.eps!r}) for a in v]
    dbias[c] = sum(d)
    dweight[c] = sum(b * a for b, a in zip(d, h))
    for k, b, a in zip(places, d, h):
        y[:, c][k] = a * weight[c] + bias[c]
        rest = b - dbias[c] / {count} - a * dweight[c] / {count}
        dx[:, c][k] = weight[c] / sqrt(variance + {layer.eps!r}) * rest"""


def _loop_by_kept(layer: BatchNorm, x: Tensor) -> str:
    channels, _, sizes = _values(x)
    return f"""for c in range({channels}):
    root = sqrt(running_var[c] + {layer.eps!r})
    for k in ndindex({sizes}):
        xhat = (x[:, c][k] - running_mean[c]) / root
        y[:, c][k] = xhat * weight[c] + bias[c]
        dx[:, c][k] = dy[:, c][k] * weight[c] / root
        dweight[c] += dy[:, c][k] * xhat
        dbias[c] += dy[:, c][k]"""


def _checks(
    layer: BatchNorm, x: Tensor, dy: Tensor, steps: tuple[Step, ...], sizes: Mapping[str, Host], seed: int
) -> tuple[Check, ...]:
    """The steps against the loops, on whole channels: as many as stay quick."""
    tensors = (x, dy, layer.weight, layer.bias, layer.running_mean, layer.running_var)
    xs, dys, *vectors = double(*(host(x.backend, t.data) for t in tensors))
    channels = x.shape[1]
    few = chosen(channels, PRODUCTS_PER_NUMBER * x.size // channels, seed)
    xs, dys = xs[:, few], dys[:, few]
    weight, bias, mean, variance = (v[few] for v in vectors)
    if layer.training:
        y = naive.batch_norm(xs, weight, bias, layer.eps)
        gradients = naive.batch_norm_gradients(xs, dys, weight, layer.eps)
        kept = _moved(layer, xs, mean, variance)
    else:
        y = naive.normalize(xs, mean, variance, weight, bias, layer.eps)
        gradients = naive.normalize_gradients(xs, dys, mean, variance, weight, layer.eps)
        kept = {}
    values = {step.symbol: step.values for step in steps}
    by = "the loop" if len(few) == channels else f"the loop, on {len(few)} of {channels:,} channels"
    found = [check("y", by, values["y"][:, few], y)]
    found += [check(name, by, values[name][few], expected) for name, expected in kept.items()]
    for name, expected in zip(("x", "weight", "bias"), gradients, strict=True):
        got = values[f"d{name}"].astype(str(x.dtype))  # the sums are float64
        part = (slice(None), few) if name == "x" else few
        size = sizes[name][part] if name in sizes else None
        found.append(check(f"d{name}", by, got[part], expected, size=size))
    return tuple(found)


def _moved(layer: BatchNorm, x: Host, mean: Host, variance: Host) -> dict[str, Host]:
    """The running statistics of some channels after a forward, from what they were."""
    means, variances = mean.copy(), variance.copy()
    for c in range(x.shape[1]):
        values = x[:, c]
        own = naive.sum(values) / values.size
        means[c] += layer.momentum * (own - means[c])
        unbiased = naive.sum((values - own) ** 2) / (values.size - 1)
        variances[c] += layer.momentum * (unbiased - variances[c])
    return {"running_mean": means, "running_var": variances}
