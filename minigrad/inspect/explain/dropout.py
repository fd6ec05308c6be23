"""Dropout: draws, a mask, a scale."""

import math
from collections.abc import Mapping

import numpy as np

from ... import naive, random
from ...backend.arrays import channels_first, channels_last
from ...backend.philox import Counter, Key, philox
from ...nn import Dropout
from ...tensor import Tensor
from .checks import check, where
from .explanation import Check, Step
from .look import Host
from .registry import Opened, Steps, explains, host

MAX_DRAWS = 4096  # draws that the loop makes


@explains(Dropout)
def dropout(layer: Dropout, x: Tensor, dy: Tensor, seed: int) -> Opened:
    """In training the draws are those of the next call, by the engine's generator as it stands."""
    backend, p = x.backend, layer.p
    forward, backward = Steps(backend), Steps(backend)
    if not layer.training or p == 0:
        why = "p is 0" if layer.training else "in eval mode nothing is dropped"
        forward.take("nothing", "y", f"x itself: {why}", x.data)
        dx = backward.take("nothing", "dx", "dy itself", dy.data)
        return Opened(forward, backward, {"x": dx}, loop="y[...] = x\ndx[...] = dy")
    calls = random.get_state()["calls"]
    key, counter = random.current().next_counter()
    draws = _draws(x.shape, key, counter)
    threshold = round(p * 2**16)
    order = ", numbered with the channels innermost, as they lie in memory" if x.ndim == 4 else ""
    forward.take(
        "draws",
        "draws",
        f"{x.size:,} whole numbers below 2^16, from call {calls} of the engine's generator{order}",
        backend.asarray(draws),
    )
    mask = forward.take(
        "mask",
        "mask",
        f"True where the draw is {p:g} * 2^16 = {threshold:,} or more: those are kept",
        backend.dropout_mask(x.shape, p, key, counter),
    )
    scale = 1 / (1 - p)
    forward.take(
        "scale",
        "y",
        f"x * {scale:.6g} = x / (1 - {p:g}) where the mask is True, 0 elsewhere: so the mean stays, over all "
        "masks, and eval mode needs no factor",
        backend.mask_scale(x.data, mask, scale),
    )
    dx = backward.take(
        "mask",
        "dx",
        f"dy * {scale:.6g} where the mask is True, 0 elsewhere: by the same mask",
        backend.mask_scale(dy.data, mask, scale),
    )
    checks = [
        check("mask", "draws >= threshold", host(backend, mask), draws >= threshold),
        *_checks(layer, {"mask": forward[1], "y": forward[2], "dx": backward[0]}, x, dy, (key, counter)),
    ]
    sizes = ", ".join(map(str, x.shape))
    loop = (
        f"for k in ndindex({sizes}):\n"
        f"    kept = draws[k] >= {threshold}\n"
        f"    y[k] = x[k] / (1 - {p!r}) if kept else 0\n"
        f"    dx[k] = dy[k] / (1 - {p!r}) if kept else 0"
    )
    return Opened(forward, backward, {"x": dx}, loop=loop, checks=tuple(checks))


def _draws(shape: tuple[int, ...], key: Key, counter: Counter) -> Host:
    """The words of 16 bits behind `Backend.dropout_mask`, in the shape of x."""
    count = math.prod(shape)
    words = philox(key, counter).random_raw(-(-count // 4)).astype("<u8").view("<u2")[:count]
    if len(shape) != 4:
        return words.reshape(shape)
    n, c, h, w = shape
    return channels_first(words.reshape(n, h, w, c))  # (N, C, H, W)


def _checks(
    layer: Dropout, steps: Mapping[str, Step], x: Tensor, dy: Tensor, place: tuple[Key, Counter]
) -> list[Check]:
    """The steps against the loop, which draws from the first number on."""
    count = min(x.size, MAX_DRAWS)
    kept = naive.dropout_mask(count, layer.p, *place)

    def scaled(source: Tensor) -> Host:
        numbers = _in_draw_order(host(source.backend, source.data))[:count].tolist()
        return np.array([v / (1 - layer.p) if k else 0.0 for v, k in zip(numbers, kept, strict=True)])

    expected = {"mask": np.array(kept), "y": scaled(x), "dx": scaled(dy)}
    by = where(count, x.size)
    return [
        check(symbol, by, _in_draw_order(steps[symbol].values)[:count], e) for symbol, e in expected.items()
    ]


def _in_draw_order(values: Host) -> Host:
    """Return the numbers in the order of the draws."""
    return (channels_last(values) if values.ndim == 4 else values).reshape(-1)  # (numbers,)
