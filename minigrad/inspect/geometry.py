"""The sizes of a convolution with their numbers, and how evenly its kernel covers the image."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend.geometry import ConvGeometry, extent
from ..figures import saved_figure
from ..nn import Conv2d, ConvTranspose2d, Module
from .receptive import Axis, taps
from .shapes import is_shape

Pair = tuple[int, int]
Host = np.ndarray[Any, Any]
AXES = ("height", "width")
MAX_SHOWN = 32  # pixels down and across, of the picture in text


@dataclass(frozen=True)
class Geometry:
    """A convolution or a transposed one over an image of one size; `str()` explains it.

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
        (top, bottom), (left, right) = self.padding
        done = "cut off the output" if self.transposed else "added around the input"
        subject = "output is written to" if self.transposed else "input is read"
        lines = [f"{self.layer}: {_size(self.input_size)} to {_size(self.output_size)} pixels"]
        lines += [f"  {name:<6} = {text}" for name, text in zip(AXES, self.formulas, strict=True)]
        lines.append(f"  {done}: {top} above, {bottom} below, {left} left, {right} right")
        lines.append(f"  a pixel of the output sees up to {_size(self.field)} pixels of the input")
        low, high = int(self.touched.min()), int(self.touched.max())
        lines.append(
            f"  a pixel of the {subject} {low} to {high} times:"
            if low < high
            else f"  each pixel of the {subject} {low} times"
        )
        if low < high:
            lines += [f"    {line}" for line in self.picture().splitlines()]
        if self.warning:
            lines.append(f"  warning: {self.warning}")
        return "\n".join(lines)

    def picture(self) -> str:
        """`touched` as lines of numbers: the first MAX_SHOWN pixels down and across."""
        shown = self.touched[:MAX_SHOWN, :MAX_SHOWN]
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


def _size(pair: Pair) -> str:
    return f"{pair[0]} x {pair[1]}"
