"""Sizes of convolutions: the one place where kernel, stride, padding and dilation become numbers.

A convolution maps an image of `input_size` to one of `output_size`; a transposed convolution goes
the other way over the same geometry. So both are described by the same `ConvGeometry`, seen from
the convolution's side, and so are the gradients of either.
"""

from dataclasses import dataclass
from typing import Any

from .arguments import as_int

Pair = tuple[int, int]
Padding = int | Pair | tuple[Pair, Pair] | str


def pair(value: object, name: str, least: int) -> Pair:
    """`value`, an int or two of them, as (vertical, horizontal); each must be at least `least`."""
    both = value if isinstance(value, tuple | list) else (value, value)
    first, second = map(as_int, both) if len(both) == 2 else (None, None)
    if first is None or second is None or min(first, second) < least:
        raise ValueError(f"{name}: expected an int or a pair of ints >= {least}, got {value!r}")
    return (first, second)


def says(padding: object, word: str) -> bool:
    """Whether the padding is this word. (An array would be compared with it number by number.)"""
    return isinstance(padding, str) and padding == word


def explicit_padding(padding: Padding) -> tuple[Pair, Pair]:
    """An int, (h, w) or ((top, bottom), (left, right)), as the last of these."""
    if says(padding, "valid"):
        return ((0, 0), (0, 0))
    sides: Any = padding if isinstance(padding, tuple | list) else (padding, padding)
    try:
        vertical, horizontal = (pair(side, "padding", 0) for side in sides)
    except ValueError:
        raise ValueError(
            'padding: expected an int, (h, w), ((top, bottom), (left, right)), "valid" or "same", '
            f"got {padding!r}"
        ) from None
    return vertical, horizontal


def extent(kernel: int, dilation: int) -> int:
    """Return the pixels that a dilated kernel spans: dilation * (kernel - 1) + 1."""
    return dilation * (kernel - 1) + 1


def conv_output_size(size: int, kernel: int, stride: int, padding: Pair, dilation: int) -> int:
    """floor((size + before + after - extent) / stride) + 1: where a convolution's kernel fits."""
    return (size + sum(padding) - extent(kernel, dilation)) // stride + 1


def conv_transpose_output_size(
    size: int, kernel: int, stride: int, padding: Pair, output_padding: int, dilation: int
) -> int:
    """(size - 1) * stride + extent + output_padding - before - after: the inverse of the above."""
    return (size - 1) * stride + extent(kernel, dilation) + output_padding - sum(padding)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> Pair:
    """TensorFlow's SAME: pad so that ceil(size / stride) pixels come out, the odd one after.

    Source: the notes on padding in TensorFlow's documentation of tf.nn.convolution.
    """
    out = -(-size // stride)
    total = max((out - 1) * stride + extent(kernel, dilation) - size, 0)
    return (total // 2, total - total // 2)


@dataclass(frozen=True)
class ConvGeometry:
    """A 2-D convolution's sizes, each (vertical, horizontal).

    `padding` is ((top, bottom), (left, right)). The kernel's tap i at output pixel o reads input
    pixel o * stride + i * dilation - before; outside the image it reads 0. `transposed` tells that
    the layer goes from the output to the input on its way forward.
    """

    input_size: Pair
    output_size: Pair
    kernel_size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    transposed: bool = False

    @classmethod
    def of_conv(
        cls, input_size: Pair, kernel_size: Pair, stride: object, padding: Padding, dilation: object
    ) -> "ConvGeometry":
        """The geometry of a convolution over an image of `input_size`.

        Raises ValueError where an argument makes no sense or the kernel does not fit in the
        padded image.
        """
        strides, dilations = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
        if says(padding, "same"):
            pads = tuple(
                same_padding(*sizes)
                for sizes in zip(input_size, kernel_size, strides, dilations, strict=True)
            )
        else:
            pads = explicit_padding(padding)
        output = tuple(
            conv_output_size(*sizes)
            for sizes in zip(input_size, kernel_size, strides, pads, dilations, strict=True)
        )
        if min(output) < 1 or min(input_size) < 1:
            spans = tuple(map(extent, kernel_size, dilations))
            padded = tuple(size + sum(p) for size, p in zip(input_size, pads, strict=True))
            raise ValueError(
                f"the kernel of {kernel_size} with dilation {dilations} spans {spans} pixels, more than "
                f"the padded image of {padded} has (image {input_size}, padding {pads}): use a "
                "smaller kernel or more padding"
            )
        return cls(input_size, output, kernel_size, strides, pads, dilations)  # type: ignore[arg-type]

    @classmethod
    def of_conv_transpose(
        cls,
        size: Pair,
        kernel_size: Pair,
        stride: object,
        padding: Padding,
        output_padding: object,
        dilation: object,
    ) -> "ConvGeometry":
        """The geometry of the convolution whose transpose is applied to an image of `size`.

        The result's `output_size` is `size`; its `input_size` is what the transposed
        convolution makes. Raises ValueError where an argument makes no sense or nothing is left.
        """
        strides, dilations = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
        extra = pair(output_padding, "output_padding", 0)
        if min(size) < 1:
            raise ValueError(f"expected an image of at least one pixel, got {size}")
        if says(padding, "same"):
            if extra != (0, 0):
                raise ValueError(
                    f'padding="same" makes the output the input times the stride, so there is no room '
                    f"for output_padding={output_padding!r}: leave it at 0"
                )
            made = tuple(n * s for n, s in zip(size, strides, strict=True))
            pads = tuple(
                same_padding(*sizes) for sizes in zip(made, kernel_size, strides, dilations, strict=True)
            )
            return cls(made, size, kernel_size, strides, pads, dilations, True)  # type: ignore[arg-type]
        pads = explicit_padding(padding)
        for e, s, d in zip(extra, strides, dilations, strict=True):
            if e >= max(s, d):
                raise ValueError(
                    f"output_padding {extra} must be smaller than the stride {strides} or the "
                    f"dilation {dilations}: a pixel beyond that is reached by no tap of the kernel"
                )
        made = tuple(
            conv_transpose_output_size(*sizes)
            for sizes in zip(size, kernel_size, strides, pads, extra, dilations, strict=True)
        )
        if min(made) < 1:
            raise ValueError(
                f"padding {pads} crops all of the output: an image of {size} with kernel {kernel_size}, "
                f"stride {strides} and dilation {dilations} leaves {made} pixels; use less padding"
            )
        return cls(made, size, kernel_size, strides, pads, dilations, True)  # type: ignore[arg-type]

    @property
    def positions(self) -> int:
        """The number of the kernel's positions on an image: output height times width."""
        return self.output_size[0] * self.output_size[1]

    @property
    def taps(self) -> int:
        """Kernel height times width."""
        return self.kernel_size[0] * self.kernel_size[1]

    @property
    def canvas_size(self) -> Pair:
        """The smallest padded image on which every tap of every position lies, and the image too.

        It is the padded image but for rows at the end that no position reaches (cut off) and rows
        that an output_padding adds (kept).
        """
        # Cached by hand: Python 3.11's cached_property has a lock, which a forked process could find taken.
        cached = self.__dict__.get("_canvas_size")
        if cached is None:
            cached = self.__dict__["_canvas_size"] = self._smallest_canvas()
        return cached

    def _smallest_canvas(self) -> Pair:
        sizes = []
        for axis in range(2):
            reach = (self.output_size[axis] - 1) * self.stride[axis] + extent(
                self.kernel_size[axis], self.dilation[axis]
            )
            sizes.append(max(reach, self.padding[axis][0] + self.input_size[axis]))
        return (sizes[0], sizes[1])
