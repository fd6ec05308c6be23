"""The sizes of a convolution with their numbers, and how evenly its kernel covers the image."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.geometry import ConvGeometry, extent
from ..figures import saved_figure
from ..markup import SHADE, Markup, paragraph, preformatted, tag
from ..nn import Conv2d, ConvTranspose2d, Module
from .receptive import Axis, taps
from .shapes import is_shape

Pair = tuple[int, int]
Host = np.ndarray[Any, Any]
AXES = ("height", "width")
MAX_SHOWN = 32  # pixels down and across, of the pictures in text and in HTML
CELL = 20  # pixels of the page, of a number in HTML


@dataclass(frozen=True)
class Geometry:
    """A convolution or a transposed one over an image of one size; `str()` explains it, and so do notebooks.

    Every pair is (vertical, horizontal), and in pixels.

    Attributes:
        layer: with its arguments.
        transposed: whether it goes from the smaller to the larger image.
        input_size, output_size: of the images.
        padding: ((top, bottom), (left, right)), added around the input, or, transposed, cut off the
            output.
        field: how many pixels of the input one of the output sees, at most.
        touched: of a transposed one, how often each pixel of its output is written to, (H', W'); of
            another, how often each pixel of its input is read, (H, W).
        formulas: of the output's height and width, with the numbers in them.
        warning: what is to be feared of the sizes, or "".
    """

    layer: str
    transposed: bool
    input_size: Pair
    output_size: Pair
    padding: tuple[Pair, Pair]
    field: Pair
    touched: Host
    formulas: tuple[str, str]
    warning: str

    def __str__(self) -> str:
        title, *facts = self._facts()
        lines = [title, *(f"  {fact}" for fact in facts)]
        if self._uneven:
            lines += [f"    {line}" for line in self.picture().splitlines()]
        if self.warning:
            lines.append(f"  warning: {self.warning}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        title, *facts = self._facts()
        parts = [paragraph(tag("strong", title)), preformatted(facts)]
        if self._uneven:
            parts.append(self._drawing())
        if self.warning:
            parts.append(paragraph(tag("strong", "warning: "), self.warning))
        return "".join(parts)

    @property
    def _uneven(self) -> bool:
        """Whether some pixels are touched more often than others."""
        return bool(self.touched.min() < self.touched.max())

    def _facts(self) -> list[str]:
        """The title and the sizes, as lines."""
        (top, bottom), (left, right) = self.padding
        done = "cut off the output" if self.transposed else "added around the input"
        subject = "output is written to" if self.transposed else "input is read"
        facts = [f"{self.layer}: {_size(self.input_size)} to {_size(self.output_size)} pixels"]
        facts += [f"{name:<6} = {text}" for name, text in zip(AXES, self.formulas, strict=True)]
        facts.append(f"{done}: {top} above, {bottom} below, {left} left, {right} right")
        facts.append(f"a pixel of the output sees up to {_size(self.field)} pixels of the input")
        low, high = int(self.touched.min()), int(self.touched.max())
        shown = self._shown.shape
        part = "" if shown == self.touched.shape else f" (the first {_size(shown)} pixels)"
        facts.append(
            f"a pixel of the {subject} {low} to {high} times{part}:"
            if low < high
            else f"each pixel of the {subject} {low} times"
        )
        return facts

    @property
    def _shown(self) -> Host:
        return self.touched[:MAX_SHOWN, :MAX_SHOWN]

    def _drawing(self) -> Markup:
        """`touched` as a picture in SVG: numbers on shades, the darker the more often."""
        shown, most = self._shown, int(self.touched.max())
        height, width = (CELL * n for n in shown.shape)
        squares, numbers = [], []
        for (row, column), count in np.ndenumerate(shown):
            x, y = CELL * column, CELL * row
            shade = f"{0.75 * count / most:.2f}"
            squares.append(tag("rect", x=x, y=y, width=CELL - 1, height=CELL - 1, fill_opacity=shade))
            numbers.append(tag("text", count, x=x + CELL // 2, y=y + CELL // 2 + 4))
        return tag(
            "svg",
            tag("g", *squares, fill=f"rgb({SHADE})"),
            tag("g", *numbers, fill="currentColor", font_size=11, text_anchor="middle"),
            width=width,
            height=height,
            viewBox=f"0 0 {width} {height}",
        )

    def picture(self) -> str:
        """`touched` as lines of numbers: the first MAX_SHOWN pixels down and across."""
        shown = self._shown
        width = len(str(shown.max()))
        return "\n".join(" ".join(str(count).rjust(width) for count in row) for row in shown)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `touched` as a picture with a scale; ValueError where the path does not end in .png."""
        with saved_figure(path, (6.4, 4.8)) as figure:
            axes = figure.add_subplot()
            figure.colorbar(axes.imshow(self.touched, vmin=0), ax=axes)
            done = "written" if self.transposed else "read"
            figure.suptitle(f"{self.layer}:\nhow often a pixel is {done}", fontsize="medium")


def geometry(layer: Module, input_shape: tuple[int, ...]) -> Geometry:
    """Return the sizes of a convolution over an image, with their derivation.

    Args:
        layer: a Conv2d or a ConvTranspose2d.
        input_shape: of an image: (H, W), (C, H, W) or (N, C, H, W).

    Raises TypeError for another layer and for what is no shape, and ValueError where the channels or the
    kernel don't fit.
    """
    if not isinstance(layer, Conv2d | ConvTranspose2d):
        given = layer.describe() if isinstance(layer, Module) else type(layer).__name__
        raise TypeError(
            f"geometry: expected a Conv2d or a ConvTranspose2d, got {given}: of a network, pass one of those "
            "in it"
        )
    if not is_shape(input_shape):
        raise TypeError(
            "geometry: expected as input_shape that of an image, such as (28, 28) or (1, 28, 28), "
            f"got {input_shape!r:.80}: write its sizes as a tuple of whole numbers from 1 on"
        )
    transposed = isinstance(layer, ConvTranspose2d)
    channels = layer.weight.shape[0 if transposed else 1]
    if not 2 <= len(input_shape) <= 4 or (len(input_shape) > 2 and input_shape[-3] != channels):
        raise ValueError(
            f"geometry: {layer.describe()} takes (H, W), ({channels}, H, W) or (N, {channels}, H, W), "
            f"got {tuple(input_shape)}"
        )
    size, kernel = (int(input_shape[-2]), int(input_shape[-1])), layer.weight.shape[2:]
    kernel = (kernel[0], kernel[1])
    extra = (0, 0)
    if isinstance(layer, ConvTranspose2d):
        extra = layer.output_padding
        sizes = ConvGeometry.of_conv_transpose(
            size, kernel, layer.stride, layer.padding, extra, layer.dilation
        )
    else:
        sizes = ConvGeometry.of_conv(size, kernel, layer.stride, layer.padding, layer.dilation)
    image = sizes.input_size  # as the convolution sees it, of which the transposed one is the way back
    joined = [taps(sizes, axis) for axis in range(2)]
    times = [np.bincount(pixels, minlength=image[axis]) for axis, (pixels, _) in enumerate(joined)]
    output = image if transposed else sizes.output_size
    field = []
    for axis, (pixels, places) in enumerate(joined):
        source, target = (places, pixels) if transposed else (pixels, places)
        field.append(Axis.of_image(size[axis]).through(source, target, output[axis]).widest)
    return Geometry(
        f"{layer.describe()}, kernel {_size(sizes.kernel_size)}, stride {_size(sizes.stride)}",
        transposed,
        size,
        output,
        sizes.padding,
        (field[0], field[1]),
        np.outer(*times),
        (_formula(sizes, 0, transposed, extra[0]), _formula(sizes, 1, transposed, extra[1])),
        _warning(sizes) if transposed else "",
    )


def _formula(sizes: ConvGeometry, axis: int, transposed: bool, extra: int) -> str:
    """The output's size along an axis."""
    large, small = sizes.input_size[axis], sizes.output_size[axis]  # as the convolution sees them
    stride, (before, after) = sizes.stride[axis], sizes.padding[axis]
    spans = extent(sizes.kernel_size[axis], sizes.dilation[axis])
    if transposed:
        added = f" + {extra}" if extra else ""
        return f"({small} - 1) * {stride} + {spans}{added} - {before} - {after} = {large}"
    return f"floor(({large} + {before} + {after} - {spans}) / {stride}) + 1 = {small}"


def _warning(sizes: ConvGeometry) -> str:
    """Source: Odena et al., "Deconvolution and checkerboard artifacts" (2016)."""
    uneven = [
        f"{name} ({kernel} and {stride})"
        for name, kernel, stride in zip(AXES, sizes.kernel_size, sizes.stride, strict=True)
        if kernel % stride
    ]
    if not uneven:
        return ""
    return (
        f"the kernel is no multiple of the stride in {' and '.join(uneven)}, so that pixels are "
        "written to unequally often: expect a checkerboard"
    )


def _size(pair: tuple[int, ...]) -> str:
    return f"{pair[0]} x {pair[1]}"
