"""The plain loop of a convolution, and of a transposed one: as text, and gone for single numbers.

(n, o, p, q) is a number of the smaller image, (n, c, r, s) of the larger: y and x of a Conv2d, x and y of a
ConvTranspose2d.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ... import naive
from ...backend.geometry import ConvGeometry
from ...nn import Conv2d, ConvTranspose2d
from ...tensor import Tensor
from .checks import Place, check_places, check_sums, double
from .explanation import Check, Step
from .look import Host
from .registry import host

Convolution = Conv2d | ConvTranspose2d


def loop_of(layer: Convolution, g: ConvGeometry, n: int) -> str:
    """Forward and backward in one loop: the sum over all taps is linear in x and in the weight."""
    o, c, kh, kw = layer.weight.shape
    (oh, ow), (height, width) = g.output_size, g.input_size
    (top, _), (left, _) = g.padding
    down = isinstance(layer, Conv2d)
    x, y = ("x[n, c, r, s]", "y[n, o, p, q]") if down else ("x[n, o, p, q]", "y[n, c, r, s]")
    small, large = ("y", "x") if down else ("x", "y")
    lines = [
        f"for n, o, p, q in ndindex({n}, {o}, {oh}, {ow}):  # every pixel of {small}",
        f"    for c, i, j in ndindex({c}, {kh}, {kw}):  # every tap of the kernel, on {large}",
        f"        r = {_pixel('p', 'i', g.stride[0], g.dilation[0], top)}",
        f"        s = {_pixel('q', 'j', g.stride[1], g.dilation[1], left)}",
        f"        if 0 <= r < {height} and 0 <= s < {width}:",
        f"            {y} += weight[o, c, i, j] * {x}",
        f"            d{x} += weight[o, c, i, j] * d{y}",
        f"            dweight[o, c, i, j] += {x} * d{y}",
    ]
    if layer.bias is not None:
        sizes = (n, o, oh, ow) if down else (n, c, height, width)
        lines += [
            f"for n, k, r, s in ndindex({', '.join(map(str, sizes))}):",
            "    y[n, k, r, s] += bias[k]",
            "    dbias[k] += dy[n, k, r, s]",
        ]
    return "\n".join(lines)


def _pixel(place: str, tap: str, stride: int, dilation: int, before: int) -> str:
    """The pixel of the larger image under a tap: place * stride + tap * dilation - before."""
    factors = ((place, stride), (tap, dilation))
    terms = [name if factor == 1 else f"{name} * {factor}" for name, factor in factors]
    return " + ".join(terms) + (f" - {before}" if before else "")


@dataclass(frozen=True)
class _Loop:
    """The loops of `minigrad.naive` over a geometry that is narrowed to one pixel or one tap."""

    geometry: ConvGeometry
    large: Host
    small: Host
    weight: Host

    def small_at(self, place: Place) -> float:
        """One number of the convolution of the larger image."""
        n, o, p, q = place
        g = replace(self._moved((-p, -q), self.geometry.stride), output_size=(1, 1))
        return float(naive.convolve(self.large[n : n + 1], self.weight[o : o + 1], g).item())

    def large_at(self, place: Place) -> float:
        """One number of the transposed convolution of the smaller image."""
        n, c, r, s = place
        g = replace(self._moved((r, s), (1, 1)), input_size=(1, 1))
        return float(
            naive.convolve_input_gradient(self.small[n : n + 1], self.weight[:, c : c + 1], g).item()
        )

    def weight_at(self, place: Place) -> float:
        """One number of the weight's gradient: the two images are each other's."""
        o, c, i, j = place
        g = replace(self._moved((-i, -j), self.geometry.dilation), kernel_size=(1, 1))
        large, small = self.large[:, c : c + 1], self.small[:, o : o + 1]
        return float(naive.convolve_weight_gradient(large, small, g).item())

    def _moved(self, by: tuple[int, int], unit: tuple[int, int]) -> ConvGeometry:
        """The geometry with its first pixel, or first tap, elsewhere: all that this moves is the padding."""
        (top, bottom), (left, right) = self.geometry.padding
        padding = ((top + by[0] * unit[0], bottom), (left + by[1] * unit[1], right))
        return replace(self.geometry, padding=padding)


def checks_of(
    layer: Convolution, g: ConvGeometry, x: Tensor, dy: Tensor, steps: Sequence[Step], seed: int
) -> tuple[Check, ...]:
    """The last of the steps of each symbol against the loops."""
    values = {step.symbol: step.values for step in steps}
    xs, dys, weight = double(*(host(x.backend, t.data) for t in (x, dy, layer.weight)))
    bias = None if layer.bias is None else double(host(x.backend, layer.bias.data))[0]
    down = isinstance(layer, Conv2d)
    large, small = (xs, dys) if down else (dys, xs)
    loop, squares = _Loop(g, large, small, weight), _Loop(g, large**2, small**2, weight**2)
    o, c = weight.shape[:2]

    def compared(symbol: str, way: str, products: int, shift: Host | None = None) -> Check:
        value_at, square_at = getattr(loop, way), getattr(squares, way)
        return check_places(
            symbol,
            values[symbol],
            lambda place: value_at(place) + (0.0 if shift is None else float(shift[place[1]])),
            lambda place: math.sqrt(square_at(place)),
            products,
            seed,
        )

    to_small, to_large = ("small_at", g.taps * c), ("large_at", g.taps * (o + g.positions))
    forward, backward = (to_small, to_large) if down else (to_large, to_small)
    checks = [
        compared("y", *forward, bias),
        compared("dx", *backward),
        compared("dweight", "weight_at", len(xs) * g.positions),
    ]
    return (*checks, *(() if bias is None else [check_sums("dbias", values["dbias"], dys, seed)]))
