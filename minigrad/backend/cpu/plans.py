"""Plans of a convolution: where its factors lie, in tables that depend on the geometry alone.

A convolution and its input gradient are both products of rows by a matrix, where a row of the left factor is
read from a canvas, an image within zeros: a few segments of it, each a tap, or several that lie side by side.
kernels/convolution.c multiplies so.

- `of_convolution` has one plan, with a row for each position of the kernel.
- `of_input_gradient` has one for each phase of the stride. With a stride s, output pixel p of a convolution
  reads input pixels s p + i d - before, tap by tap i with dilation d. So pixel a of the input is read by the
  taps for which a + before - i d is a multiple of s, by each at output pixel (a + before - i d) / s. All
  pixels of one phase, s apart, meet the same taps: their gradient is a convolution of stride 1 over dy.

Source of the phases: Shi et al., "Is the deconvolution layer the same as a convolutional layer?" (2016).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, Pair

Table = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Plan:
    """One product of a convolution.

    Attributes:
        taps: the kernel's taps that a row meets, in the order of its segments: numbered row by row; int64.
        rows: where the rows begin in the canvas.
        out: where their results begin in the image that is made.
        segments: where the segments of a row begin, counted in numbers from the row's beginning.
        length: numbers of a segment.
    """

    taps: Table
    rows: Table
    out: Table
    segments: Table
    length: int

    @property
    def depth(self) -> int:
        """Numbers of a row: k goes up to it."""
        return len(self.segments) * self.length


@dataclass(frozen=True)
class Plans:
    """The plans of a convolution or of its input gradient, and their tables as the kernel reads them.

    Attributes:
        canvas_size: (height, width) in pixels.
        corner: (row, column) of the image's first pixel in the canvas.
        plans: one, or one for each phase of the stride.
        table, taps, rows, out, segments: of all plans, one after another; int64. A line of `table` says where
            those of a plan begin: rows, first row, segments, first segment, length, numbers of k before.
        depth: of all plans together.
        most_rows, shortest: the rows of the largest plan, and the shortest segment.
    """

    canvas_size: Pair
    corner: Pair
    plans: tuple[Plan, ...]
    table: Table
    taps: Table
    rows: Table
    out: Table
    segments: Table
    depth: int
    most_rows: int
    shortest: int

    @classmethod
    def of(cls, canvas_size: Pair, corner: Pair, plans: Sequence[Plan]) -> "Plans":
        """Put the tables of plans together."""
        lines, row, segment, depth = [], 0, 0, 0
        for plan in plans:
            lines.append((len(plan.rows), row, len(plan.segments), segment, plan.length, depth))
            row, segment, depth = row + len(plan.rows), segment + len(plan.segments), depth + plan.depth
        return cls(
            canvas_size,
            corner,
            tuple(plans),
            np.array(lines, np.int64),
            np.concatenate([plan.taps for plan in plans]),
            np.concatenate([plan.rows for plan in plans]),
            np.concatenate([plan.out for plan in plans]),
            np.concatenate([plan.segments for plan in plans]),
            depth,
            max(len(plan.rows) for plan in plans),
            min(plan.length for plan in plans),
        )


@functools.lru_cache(maxsize=256)
def of_convolution(geometry: ConvGeometry, channels: int, out_channels: int) -> Plans:
    """Return the plan of a convolution, with the channels innermost in images."""
    (oh, ow), (kh, kw) = geometry.output_size, geometry.kernel_size
    (sh, sw), (dh, dw), width = geometry.stride, geometry.dilation, geometry.canvas_size[1]
    rows = _grid(np.arange(oh) * sh * width, np.arange(ow) * sw) * channels
    segments, length = _segments(np.arange(kh) * dh * width, np.arange(kw) * dw, channels)
    taps = np.arange(kh * kw, dtype=np.int64)
    plan = Plan(taps, rows, np.arange(oh * ow, dtype=np.int64) * out_channels, segments, length)
    return Plans.of(geometry.canvas_size, (geometry.padding[0][0], geometry.padding[1][0]), [plan])


@functools.lru_cache(maxsize=256)
def of_input_gradient(geometry: ConvGeometry, channels: int, out_channels: int) -> Plans:
    """Return the plans of a convolution's input gradient, one for each phase of its stride."""
    down, across = phases(geometry, 0), phases(geometry, 1)
    size, corner = zip(
        *(_reach(geometry.output_size[a], p) for a, p in enumerate((down, across))), strict=True
    )
    plans = []
    for d in down:
        for a in across:
            rows = _grid((corner[0] + np.arange(d.count)) * size[1], corner[1] + np.arange(a.count))
            out = _grid(d.pixels * geometry.input_size[1], a.pixels) * channels
            segments, length = _segments(d.starts * size[1], a.starts, out_channels)
            taps = _grid(d.taps * geometry.kernel_size[1], a.taps)
            plans.append(Plan(taps, rows * out_channels, out, segments, length))
    return Plans.of((size[0], size[1]), (corner[0], corner[1]), plans)


@dataclass(frozen=True)
class Phase:
    """One axis of a phase.

    Attributes:
        pixels: of the input, a stride apart.
        taps: of the kernel, those that meet them: the last first, so that what they meet lies in order.
        starts: the output pixel that each tap meets at the first pixel; below 0 in the padding.
    """

    pixels: Table
    taps: Table
    starts: Table

    @property
    def count(self) -> int:
        """How many pixels there are."""
        return len(self.pixels)


def phases(geometry: ConvGeometry, axis: int) -> list[Phase]:
    """Return the phases of an axis that have a pixel, by their first pixel."""
    size, stride, dilation = geometry.input_size[axis], geometry.stride[axis], geometry.dilation[axis]
    before, kernel = geometry.padding[axis][0], geometry.kernel_size[axis]
    if geometry.output_size[axis] == 1:  # no two taps of a pixel meet it: each pixel is a phase by itself
        stride = size + before + kernel * dilation
    found = []
    for first in range(min(stride, size)):
        reached = first + before - np.arange(kernel)[::-1] * dilation  # output pixels times the stride
        meets = reached % stride == 0
        taps = np.arange(kernel)[::-1][meets]
        found.append(Phase(np.arange(first, size, stride), taps, reached[meets] // stride))
    return found


def _reach(size: int, lines: Sequence[Phase]) -> tuple[int, int]:
    """Return the size of the canvas on which all taps of an axis lie, and the first output pixel's place."""
    lead = max(0, *(-line.starts.min(initial=0) for line in lines))
    last = max(size, *(line.starts.max(initial=0) + line.count for line in lines))
    return int(lead + last), int(lead)


def _grid(down: Table, across: Table) -> Table:
    """Return the sums of each number down and each across, row by row; int64."""
    grid: Table = np.add.outer(down, across).reshape(-1).astype(np.int64)  # (down * across,)
    return grid


def _segments(down: Table, across: Table, channels: int) -> tuple[Table, int]:
    """Return where segments begin, and their length: taps that lie side by side are one segment."""
    if len(across) and (np.diff(across) == 1).all():
        return _grid(down, across[:1]) * channels, len(across) * channels
    return _grid(down, across) * channels, channels
