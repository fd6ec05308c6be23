"""The transposed convolution seen from its result: as many plain convolutions as the stride has phases.

With a stride s, output pixel p of a convolution reads input pixels s p + i - before, tap by tap i. So an
input pixel a with a + before = s q + r is read by the taps i = r, r + s, r + 2 s, ... alone, by tap r + s j
at output pixel q - j. All pixels of the same phase r meet the same taps: what flows back to them is a
convolution of stride 1 over dy, with every s-th tap of the kernel,

    dx[s q + r - before] = sum over j of dy[q - j] w[r + s j],

and the s x s phases (one for each r down and across) together are dx, each pixel written once. The plain
form multiplies first and then adds up columns that overlap. There is as much to multiply here, but the
im2col of dy copies long runs, where col2im reads, adds and writes short ones. It is as wide as y has
channels, though, where the plain form's columns are as wide as x has: hence `pays`.

Source of the idea: Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016).
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ..geometry import ConvGeometry
from .parallel import Pool, Scratch, cut
from .taps import TapOrder

Array = np.ndarray[Any, Any]

# To copy a number of im2col costs about half of what it takes to add one up in col2im (measured).
CHEAPER = 2
FEWEST_CHANNELS = 16  # of x: a product with fewer columns would run far from full speed


@dataclass(frozen=True)
class Phase:
    """One axis of one phase.

    Attributes:
        taps: the kernel's, in the order of the pixels of dy that they meet: the last first.
        first: the first pixel of this phase in x; the others lie a stride apart.
        count: how many there are.
        start: the pixel of dy that the first tap of the first pixel meets (below 0 in the padding).
    """

    taps: tuple[int, ...]
    first: int
    count: int
    start: int


def pays(geometry: ConvGeometry, channels: int, out_channels: int) -> bool:
    """Whether dx is made by phases: a stride, and y not so many channels more than x that im2col costs more.

    Every phase must have a tap, and dilated kernels are left to the plain form.
    """
    strided = geometry.stride != (1, 1) and geometry.dilation == (1, 1)
    has_taps = all(k >= s for k, s in zip(geometry.kernel_size, geometry.stride, strict=True))
    return strided and has_taps and channels >= FEWEST_CHANNELS and out_channels <= CHEAPER * channels


@functools.lru_cache(maxsize=256)
def phases(geometry: ConvGeometry, axis: int) -> tuple[Phase, ...]:
    """The phases of an axis that have a pixel, by their first pixel."""
    size, stride = geometry.input_size[axis], geometry.stride[axis]
    before, kernel = geometry.padding[axis][0], geometry.kernel_size[axis]
    found = []
    for first in range(min(stride, size)):
        q, r = divmod(first + before, stride)
        taps = tuple(range(r, kernel, stride))[::-1]
        found.append(Phase(taps, first, -(-(size - first) // stride), q - len(taps) + 1))
    return tuple(found)


class PhaseForm:
    """`Backend.convolve_input_gradient`, phase by phase.

    Args:
        pool: the threads; images are shared out.
        scratch: a thread's own memory.
        empty: makes arrays, as numpy.empty.
        taps: puts weights in order.
    """

    def __init__(
        self, pool: Pool, scratch: Scratch, empty: Callable[[tuple[int, ...], Any], Array], taps: TapOrder
    ) -> None:
        self.pool, self.scratch, self.empty, self.taps = pool, scratch, empty, taps

    def input_gradient(
        self, dy: Array, weight: Array, geometry: ConvGeometry, finish: Callable[[Array], None]
    ) -> Array:
        """dx, channels innermost: (N, H, W, C).

        `finish` gets the rows (M, C) of some pixels before they are written, to change them in place.
        """
        n, c = len(dy), weight.shape[1]
        dx = self.empty((n, *geometry.input_size, c), dy.dtype)
        kernels = list(self._kernels(weight, geometry))
        (sh, sw) = geometry.stride

        def work(s: slice) -> None:
            canvas, (top, left) = self._canvas(dy[s], geometry)
            for down, across, kernel in kernels:
                columns = self._columns(canvas[:, down.start + top :, across.start + left :], down, across)
                rows = self.scratch.get("phase", (len(columns), c), dy.dtype)
                finish(np.matmul(columns, kernel, out=rows))
                pixels = rows.reshape(len(canvas), down.count, across.count, c)
                dx[s][:, down.first :: sh, across.first :: sw] = pixels

        self.pool.run_products(work, cut(n, geometry.positions * len(kernels[0][2]) * dy.itemsize))
        return dx

    def _kernels(self, weight: Array, geometry: ConvGeometry) -> Iterator[tuple[Phase, Phase, Array]]:
        """For each phase its taps of (O, C, kh, kw) as a matrix (taps * O, C), rows as in `_columns`."""
        by_tap = self.taps.by_tap(weight)  # (kh, kw, O, C)
        for down, across in product(phases(geometry, 0), phases(geometry, 1)):
            taps = by_tap[list(down.taps)][:, list(across.taps)]  # (down, across, O, C)
            yield down, across, taps.reshape(-1, weight.shape[1])  # (taps * O, C)

    def _canvas(self, dy: Array, geometry: ConvGeometry) -> tuple[Array, tuple[int, int]]:
        """dy (n, O, oh, ow) within zeros wherever a phase reaches, (n, height, width, O); its first pixel."""
        n, o = dy.shape[:2]
        before, size = [], []
        for axis in range(2):
            lines = phases(geometry, axis)
            out = geometry.output_size[axis]
            lead = max(0, *(-line.start for line in lines))
            before.append(lead)
            size.append(lead + max(out, *(line.start + line.count + len(line.taps) - 1 for line in lines)))
        (top, left), (oh, ow) = before, geometry.output_size
        canvas = self.scratch.get("canvas", (n, *size, o), dy.dtype)
        canvas[:, :top] = canvas[:, top + oh :] = 0
        canvas[:, top : top + oh, :left] = canvas[:, top : top + oh, left + ow :] = 0
        canvas[:, top : top + oh, left : left + ow] = dy.transpose(0, 2, 3, 1)
        return canvas, (top, left)

    def _columns(self, canvas: Array, down: Phase, across: Phase) -> Array:
        """im2col of a phase, from the pixel of its first tap on: (n * pixels, taps * O)."""
        n, o = len(canvas), canvas.shape[3]
        along_n, along_y, along_x, along_o = canvas.strides
        wide = len(across.taps) * o  # neighbouring taps lie side by side
        patches = np.lib.stride_tricks.as_strided(
            canvas,
            (n, down.count, across.count, len(down.taps), wide),
            (along_n, along_y, along_x, along_y, along_o),
        )
        shape = (n * down.count * across.count, len(down.taps) * wide)
        columns = self.scratch.get("columns", shape, canvas.dtype)
        np.copyto(columns.reshape(patches.shape), patches)
        return columns
