"""Convolution with fewer multiplications, for small kernels.

Two neighbours of a result share pixels. Winograd's filters use that: for a kernel of 2 taps w, and 3 pixels
x, the 2 results are

    k1 = (x0 - x1) w0,  k2 = x1 (w0 + w1),  k3 = (x2 - x1) w1,  y0 = k1 + k2,  y1 = k2 + k3

with 3 multiplications instead of 4; in two dimensions 9 instead of 16. For images with channels, each of
these products is a product of matrices, and the additions around it hardly count. Written out,
y = A ((B x) . (G w)) for one dimension, and y = A ((B x B^T) . (G w G^T)) A^T for squares of m x m results.
The point stands for a product of matrices for each of size^2 numbers: (squares, C) by (C, O). Convolution and
input gradient use the same three matrices, the latter transposed.

With a stride s, pixels that are s apart form a phase, and so do taps (plans.py): a 4x4 kernel of stride 2 has
four phases of 2x2 taps. The channels of all phases count as channels, since their products are added up.

The matrices evaluate polynomials at a few points, and interpolate (Toom and Cook). With the points 0, 1, -1
and infinity, results are as exact as sums of products; with more they lose digits. So squares stay small.

A square that is cut by an edge of the result lacks its last row or column. The products at infinity serve
these alone, so they are left out: a result of 7 x 7 in squares of 2 x 2 takes 121 products instead of 144.

An infinite or NaN pixel may make all results of its squares NaN. In the plain form, only the results that
read it are affected. An infinite or NaN weight may make all results of its channel NaN.

Sources: Winograd, "Arithmetic complexity of computations" (1980), chapter 3; Lavin and Gray, "Fast algorithms
for convolutional neural networks" (2016).
"""

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..arrays import Array
from ..epilogue import Epilogue
from ..geometry import ConvGeometry, Pair
from .forms import Alone
from .native import address, readable
from .workspace import Workspace

ADVANTAGE = 1.2  # at least, of the plain form's multiply-adds to ours: transforms are another pass (measured)
LARGER = 1.2  # at least, of the products of 2x2 squares to those of 3x3, whose transforms are larger
TRANSFORM = 16  # multiply-adds that take as long as the transforms of a number (measured)
LANES = 16  # numbers of channels must be multiples of it: the float32 numbers of the widest vectors
MOST_TAPS = 64  # of a kernel (kernels/winograd.c)
APART = 48  # unused numbers between two planes (kernels/winograd.c)
NEAR_BYTES = 5 << 18  # of the transforms of some squares: they stay in the cache
GROUP_BYTES = 1 << 24  # of the transforms of the images that a weight gradient takes at a time
PIECES = 8  # of a call, at least: for so many threads (a smaller batch has fewer)
ROWS = 12  # of a tile of products
LEAST_TILES = 3  # of a chunk: with fewer, the weight is read too often (measured)
MOST_POINTS = 4  # 0, 1, -1 and infinity


@dataclass(frozen=True)
class Squares:
    """The squares of a geometry.

    Attributes:
        m: pixels of a square of the result, along both axes.
        taps: of a phase, at most, along both axes.
        count: how many squares a result has.
        products: the multiplications of a result, for one channel of a phase and one of the result.
        canvas_size: (height, width) of an image with zeros around it, so that all squares lie on it.
    """

    m: int
    taps: int
    count: int
    products: int
    canvas_size: Pair

    @property
    def size(self) -> int:
        """Pixels of a square of an image's phase, along both axes."""
        return self.m + self.taps - 1


@functools.lru_cache(maxsize=256)
def squares(geometry: ConvGeometry) -> Squares | None:
    """Return the squares that save the most time; None for a kernel that is too large or has gaps."""
    (kh, kw), (sh, sw) = geometry.kernel_size, geometry.stride
    taps = -(-kh // sh)
    if geometry.dilation != (1, 1) or taps != -(-kw // sw) or not 2 <= taps <= 3 or kh < sh or kw < sw:
        return None
    if kh * kw > MOST_TAPS:
        return None
    saved = _products(geometry, 2, taps) / _products(geometry, 3, taps)
    m = 3 if taps + 2 <= MOST_POINTS and saved >= LARGER else 2
    down, across = (-(-size // m) for size in geometry.output_size)
    canvas = (down * m + taps - 1) * sh, (across * m + taps - 1) * sw
    size = max(canvas[0], geometry.canvas_size[0]), max(canvas[1], geometry.canvas_size[1])
    return Squares(m, taps, down * across, _products(geometry, m, taps), size)


def _products(geometry: ConvGeometry, m: int, taps: int) -> int:
    """Return the products of a result. A square that is cut along an axis has none at infinity there."""
    whole = m + taps - 1
    return math.prod(size // m * whole + (whole - 1 if size % m else 0) for size in geometry.output_size)


@functools.lru_cache(maxsize=1024)
def pays(geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
    """Whether this form needs ADVANTAGE times fewer multiply-adds than the plain form."""
    if channels % LANES or out_channels % LANES or not min(n, channels, out_channels):
        return False
    found = squares(geometry)
    if found is None:
        return False
    inner = math.prod(geometry.stride) * channels
    products = inner * out_channels + TRANSFORM * (inner + out_channels)
    plain = geometry.positions * geometry.taps * channels * out_channels
    return ADVANTAGE * found.products * products <= plain


class WinogradForm(Alone):
    """The three products of a convolution, by kernels/winograd.c.

    Args:
        workspace: with kernels.
    """

    description = "by Winograd's filters, with fewer multiplications, in C (backend/cpu/winograd.py)"

    def __init__(self, workspace: Workspace) -> None:
        assert workspace.kernels is not None
        self._kernels, self._space = workspace.kernels, workspace

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """Whether it needs so many fewer multiplications; see the function `pays`."""
        return pays(geometry, n, channels, out_channels)

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        y = self._space.arena.empty((len(x), *geometry.output_size, len(weight)), x.dtype)
        self._call("winograd_convolve", self._space.pixels(x), y, y, weight, bias, geometry, epilogue, False)
        return y

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        dx = self._space.arena.empty((len(dy), *geometry.input_size, weight.shape[1]), dy.dtype)
        dy = self._space.pixels(dy)
        self._call("winograd_input_gradient", dx, dy, dx, weight, bias, geometry, epilogue, True)
        return dx

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        found, x, dy = _squares(geometry), self._space.pixels(x), self._space.pixels(dy)
        (n, height, width, c), o, dtype, members = x.shape, dy.shape[-1], x.dtype, self._space.pool.threads
        plan = gradient_plan(geometry, n, c, o, dtype.itemsize, members)
        # Before the memory of the transforms, which is free again at the end: no gap is left.
        dw = self._space.arena.empty((o, c, *geometry.kernel_size), dtype)
        sizes = plan.image, plan.result, plan.sums, members * plan.canvas
        image, result, sums, scratch = (self._space.arena.empty((size,), dtype) for size in sizes)
        (top, _), (left, _) = geometry.padding
        self._kernels.winograd_weight_gradient[dtype](
            n, address(x), height, width, c, top, left, *found.canvas_size, *geometry.stride, address(dy),
            *geometry.output_size, o, found.m, found.size, address(dw), *geometry.kernel_size, found.taps,
            plan.each, plan.chunk, plan.parts, *map(address, (image, result, sums, scratch)), plan.canvas,
            members,
        )  # fmt: skip
        return dw

    def _call(
        self, kernel: str, image: Array, result: Array, made: Array, weight: Array, bias: Array | None,
        geometry: ConvGeometry, epilogue: Epilogue, by_inner: bool,
    ) -> None:  # fmt: skip
        """Call a kernel that reads images (N, H, W, C) and makes results (N, oh, ow, O), or the reverse."""
        found = _squares(geometry)
        (n, height, width, c), o, dtype = image.shape, result.shape[-1], made.dtype
        plan = product_plan(geometry, n, c, o, dtype.itemsize)
        members = self._space.pool.threads
        scratch = self._space.scratch.get("winograd", (members * plan.scratch,), dtype)
        u = self._weight(weight, found, geometry, by_inner)
        bias = None if bias is None else readable(np.ascontiguousarray(bias))
        (top, _), (left, _) = geometry.padding
        getattr(self._kernels, kernel)[dtype](
            n, address(image), height, width, c, top, left, *found.canvas_size, *geometry.stride,
            address(result), *geometry.output_size, o, found.m, found.size, address(u),
            0 if bias is None else address(bias), plan.each, plan.chunk, address(scratch), plan.scratch,
            members, epilogue.slope,
        )  # fmt: skip

    def _weight(self, weight: Array, found: Squares, geometry: ConvGeometry, by_inner: bool) -> Array:
        """Return G w G^T for all channels, in the order of the products."""
        weight = readable(np.ascontiguousarray(weight))
        (o, c), dtype = weight.shape[:2], weight.dtype
        u = self._space.arena.empty((found.size**2 * math.prod(geometry.stride) * c * o,), dtype)
        self._kernels.winograd_weight[dtype](
            address(weight), address(u), c, o, *geometry.kernel_size, *geometry.stride,
            found.size, found.taps, by_inner,
        )  # fmt: skip
        return u


def _squares(geometry: ConvGeometry) -> Squares:
    found = squares(geometry)
    assert found is not None  # else the form does not pay
    return found


class ProductPlan(NamedTuple):
    """The cuts of a convolution or an input gradient, and its memory in numbers.

    Attributes:
        each: images of a piece.
        chunk: squares that are transformed together.
        scratch: for each thread: the canvases of a piece, and the transforms of a chunk.
        weight: the transform of the weight.
    """

    each: int
    chunk: int
    scratch: int
    weight: int


@functools.lru_cache(maxsize=1024)
def product_plan(
    geometry: ConvGeometry, n: int, channels: int, out_channels: int, itemsize: int
) -> ProductPlan:
    """Return the plan for n images; `itemsize` is the bytes of a number."""
    found, inner = _squares(geometry), math.prod(geometry.stride) * channels
    planes, both = found.size**2, inner + out_channels
    most = max(NEAR_BYTES // (planes * both * itemsize) // ROWS, LEAST_TILES) * ROWS
    each = max(1, min(-(-n // PIECES), -(-most // found.count)))
    chunk = min(most, each * found.count)
    canvases = each * math.prod(found.canvas_size) * channels
    return ProductPlan(
        each, chunk, canvases + planes * (chunk * both + 2 * APART), planes * inner * out_channels
    )


class GradientPlan(NamedTuple):
    """The cuts of a weight gradient, and its memory in numbers.

    Attributes:
        each: images of a group.
        chunk: squares of a group.
        parts: shares of the batch that have sums of their own.
        image, result: the transforms of a group, for each thread if there are parts.
        sums: of all parts.
        canvas: for each thread, that of an image.
    """

    each: int
    chunk: int
    parts: int
    image: int
    result: int
    sums: int
    canvas: int


@functools.lru_cache(maxsize=1024)
def gradient_plan(
    geometry: ConvGeometry, n: int, channels: int, out_channels: int, itemsize: int, threads: int
) -> GradientPlan:
    """Return the plan for n images; `itemsize` is the bytes of a number."""
    found, inner = _squares(geometry), math.prod(geometry.stride) * channels
    planes = found.size**2
    sums = planes * inner * out_channels
    parts = min(n, PIECES) if sums * itemsize <= NEAR_BYTES else 1
    most = NEAR_BYTES if parts > 1 else GROUP_BYTES
    image_bytes = found.count * planes * (inner + out_channels) * itemsize
    each = max(1, min(-(-n // parts), most // image_bytes))
    chunk, owners = each * found.count, threads if parts > 1 else 1
    return GradientPlan(
        each,
        chunk,
        parts,
        owners * planes * (chunk * inner + APART),
        owners * planes * (chunk * out_channels + APART),
        parts * sums,
        math.prod(found.canvas_size) * channels,
    )
