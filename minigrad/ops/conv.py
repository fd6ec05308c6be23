"""Convolution, its transpose and its weight gradient: three products over one geometry.

With x the image (N, C, H, W), w the weight (O, C, kh, kw) and y the result (N, O, oh, ow), the sum
over all places of y * (w applied to x) is linear in each of the three. Fix two and differentiate by
the third, and one of these operations comes out:

    Convolve(x, w)               -> shape of y
    ConvolveInputGradient(y, w)  -> shape of x      (this is the transposed convolution)
    ConvolveWeightGradient(x, y) -> shape of w

So each one's gradients are the other two, at every order, and no further mathematics is needed.
Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import naive, random
from ..backend.arrays import Array
from ..backend.epilogue import NO_EPILOGUE, Epilogue, check_epilogue
from ..backend.geometry import ConvGeometry
from ..tensor import Tensor
from .cases import Case, normal
from .epilogue import HasEpilogue
from .operation import Operation, require_tensor

# What the cases of all three run over: odd sizes, gaps, overlaps, one-sided padding, dilation.
GEOMETRIES = {
    "plain": ConvGeometry.of_conv((5, 4), (3, 2), 1, 0, 1),
    "stride 2, padding 1": ConvGeometry.of_conv((6, 5), (4, 4), 2, 1, 1),
    "same, stride 2": ConvGeometry.of_conv((5, 6), (5, 3), 2, "same", 1),
    "dilation, uneven padding": ConvGeometry.of_conv((6, 7), (2, 3), (1, 2), ((2, 0), (1, 3)), (3, 2)),
    "stride over kernel": ConvGeometry.of_conv((7, 6), (2, 1), 3, 0, 1),
    "1x1": ConvGeometry.of_conv((1, 1), (1, 1), 1, 0, 1),
    "output_padding": ConvGeometry.of_conv_transpose((3, 2), (3, 3), 2, 1, 1, 1),
}
BATCH, CHANNELS_IN, CHANNELS_OUT = 2, 3, 2


def _sized(*names: str) -> Any:
    """Cases' inputs for each geometry: of the shapes called "x", "w", "y" and "b"."""
    for label, g in GEOMETRIES.items():
        shapes = {
            "x": (BATCH, CHANNELS_IN, *g.input_size),
            "w": (CHANNELS_OUT, CHANNELS_IN, *g.kernel_size),
            "y": (BATCH, CHANNELS_OUT, *g.output_size),
            "b": (CHANNELS_OUT,),
            "c": (CHANNELS_IN,),
        }
        yield label, g, normal(*(shapes[name] for name in names))


@dataclass(eq=False)
class Convolve(HasEpilogue, Operation):
    """y = f(x (*) w + b): dx, dw by the other two operations, db = the sum of dy over all but channels.

    f is the epilogue. dy is taken back through it first.
    """

    geometry: ConvGeometry
    epilogue: Epilogue = NO_EPILOGUE
    keep_inputs = True

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        y, self.mask = self.backend.convolve(x, weight, bias, self.geometry, self.epilogue)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *bias = self.inputs
        dy = self.back_through_epilogue(dy)
        return (
            ConvolveInputGradient(self.geometry)(dy, weight) if self.needs[0] else None,
            ConvolveWeightGradient(self.geometry)(x, dy) if self.needs[1] else None,
            *_bias_gradient(self, dy, bias),
        )

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        if not (self.needs[0] and self.needs[1]):  # it pays where both come from the same transform of dy
            return self.backward(dy)
        x, weight, *bias = self.inputs
        dy = self.back_through_epilogue(dy)
        dx, dw = self.backend.convolve_gradients(x.data, weight.data, dy.data, self.geometry)
        db = _bias_gradient(self, dy, bias)
        return (Tensor(dx, backend=self.backend), Tensor(dw, backend=self.backend), *db)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        for label, g, inputs in _sized("x", "w", "b"):
            yield Case(
                lambda x, w, b, g=g: Convolve(g)(x, w, b),
                inputs,
                lambda x, w, b, g=g: naive.convolve(x, w, g) + b.reshape(-1, 1, 1),
                label,
            )
            yield Case(
                lambda x, w, b, g=g: Convolve(g, Epilogue(0.2))(x, w, b),
                inputs,
                lambda x, w, b, g=g: naive.leaky_relu(naive.convolve(x, w, g) + b.reshape(-1, 1, 1), 0.2),
                f"{label}, leaky ReLU",
            )
        p, draw = 0.4, ((5, 7), (0, 3, 0, 0))
        for label, slope in (("stride 2, padding 1", 0.2), ("plain", 1.0)):
            g = GEOMETRIES[label]
            yield Case(
                lambda x, w, b, g=g, slope=slope: Convolve(g, Epilogue(slope, p, draw))(x, w, b),
                {name: inputs for name, _, inputs in _sized("x", "w", "b")}[label],
                lambda x, w, b, g=g, slope=slope: naive.dropout(
                    naive.leaky_relu(naive.convolve(x, w, g) + b.reshape(-1, 1, 1), slope), p, *draw
                ),
                f"{label}, {'leaky ReLU, ' if slope != 1 else ''}dropout",
            )


@dataclass(eq=False)
class ConvolveInputGradient(HasEpilogue, Operation):
    """x = f(the transposed convolution of y by w, + b): dy, dw by the other two, db and f as above.

    The epilogue f has no dropout.
    """

    geometry: ConvGeometry
    epilogue: Epilogue = NO_EPILOGUE
    keep_inputs = True

    def forward(self, y: Array, weight: Array, bias: Array | None = None) -> Array:
        return self.backend.convolve_input_gradient(y, weight, bias, self.geometry, self.epilogue)

    def backward(self, dx: Tensor) -> tuple[Tensor | None, ...]:
        y, weight, *bias = self.inputs
        dx = self.back_through_epilogue(dx)
        return (
            Convolve(self.geometry)(dx, weight) if self.needs[0] else None,
            ConvolveWeightGradient(self.geometry)(dx, y) if self.needs[1] else None,
            *_bias_gradient(self, dx, bias),
        )

    def fused_backward(self, dx: Tensor) -> tuple[Tensor | None, ...]:
        if not (self.needs[0] and self.needs[1]):  # it pays where both come from what is made of dx once
            return self.backward(dx)
        y, weight, *bias = self.inputs
        dx = self.back_through_epilogue(dx)
        dy, dw = self.backend.convolve_and_weight_gradient(dx.data, weight.data, y.data, self.geometry)
        db = _bias_gradient(self, dx, bias)
        return (Tensor(dy, backend=self.backend), Tensor(dw, backend=self.backend), *db)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        for label, g, inputs in _sized("y", "w", "c"):
            yield Case(
                lambda y, w, b, g=g: ConvolveInputGradient(g)(y, w, b),
                inputs,
                lambda y, w, b, g=g: naive.convolve_input_gradient(y, w, g) + b.reshape(-1, 1, 1),
                label,
            )
            yield Case(
                lambda y, w, b, g=g: ConvolveInputGradient(g, Epilogue(0.2))(y, w, b),
                inputs,
                lambda y, w, b, g=g: naive.leaky_relu(
                    naive.convolve_input_gradient(y, w, g) + b.reshape(-1, 1, 1), 0.2
                ),
                f"{label}, leaky ReLU",
            )


@dataclass(eq=False)
class ConvolveWeightGradient(Operation):
    """w = the sum over the batch and all positions of x's patch times y: dx, dy by the other two."""

    geometry: ConvGeometry
    keep_inputs = True

    def forward(self, x: Array, y: Array) -> Array:
        return self.backend.convolve_weight_gradient(x, y, self.geometry)

    def backward(self, dw: Tensor) -> tuple[Tensor | None, ...]:
        x, y = self.inputs
        return (
            ConvolveInputGradient(self.geometry)(y, dw) if self.needs[0] else None,
            Convolve(self.geometry)(x, dw) if self.needs[1] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        for label, g, inputs in _sized("x", "y"):
            yield Case(
                lambda x, y, g=g: ConvolveWeightGradient(g)(x, y),
                inputs,
                lambda x, y, g=g: naive.convolve_weight_gradient(x, y, g),
                label,
            )


def _bias_gradient(operation: Operation, dy: Tensor, bias: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """Return the gradient of the bias, if there is one, as the last part of a backward's tuple."""
    return tuple(dy.sum(axis=(0, 2, 3)) if operation.needs[2] else None for _ in bias)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """The cross-correlation of x with a kernel (what neural networks call a convolution).

    Args:
        x: (N, C, H, W).
        weight: (O, C, kh, kw).
        bias: (O,), or None.
        stride, dilation: an int or (vertical, horizontal).
        padding: an int, (h, w), ((top, bottom), (left, right)), "valid" (none) or "same"
            (TensorFlow's: ceil(size / stride) pixels come out; the odd pixel of padding goes after).
        epilogue: an activation, a dropout or both, applied to the result in the same pass over memory.

    Returns (N, O, floor((H + top + bottom - dilation (kh - 1) - 1) / stride) + 1, the same for W).
    An infinite or NaN pixel of x makes every output that reads it infinite or NaN. On the CPU, further
    outputs may become NaN. Kernels that are large beside the image affect all outputs of the pixel's image
    (backend/cpu/frequency.py). Some small kernels affect outputs near the pixel, and an infinite or NaN
    number of the weight affects all outputs of its channel (backend/cpu/winograd.py).
    Raises ValueError where shapes do not fit or the kernel is larger than the padded image.
    """
    _check_image("conv2d", x, weight, channels=1, where="(O, C, kh, kw)")
    _check_bias("conv2d", bias, weight, 0)
    check_epilogue("conv2d", epilogue, ("activation", "dropout"))
    try:
        geometry = ConvGeometry.of_conv(_image_size(x), _image_size(weight), stride, padding, dilation)
    except ValueError as error:
        raise ValueError(f"conv2d: {error}") from None
    if epilogue.p and epilogue.draw is None:
        epilogue = epilogue.drawn(*random.current().next_counter())
    operation = Convolve(geometry, epilogue)
    return operation(x, weight) if bias is None else operation(x, weight, bias)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    dilation: Any = 1,
    *,
    epilogue: Epilogue = NO_EPILOGUE,
) -> Tensor:
    """The transposed convolution: the backward of a convolution, used as a forward.

    Every pixel of x lays the kernel, times its value, `stride` pixels apart; what overlaps adds up,
    `padding` is cropped off, and `output_padding` rows and columns are added below and right.

    Args:
        x: (N, C, H, W).
        weight: (C, O, kh, kw).
        bias: (O,), or None.
        stride, dilation: an int or (vertical, horizontal).
        padding: as of `conv2d`; "same" makes x's size times the stride, as TensorFlow does.
        output_padding: an int or a pair, smaller than the stride or the dilation.
        epilogue: an activation, applied to the result in the same pass over memory.

    Returns (N, O, (H - 1) stride - top - bottom + dilation (kh - 1) + output_padding + 1, ...).
    Infinities and NaN in x or in the weight spread as they do in `conv2d`.
    Raises ValueError where shapes do not fit or nothing is left.
    """
    _check_image("conv_transpose2d", x, weight, channels=0, where="(C, O, kh, kw)")
    _check_bias("conv_transpose2d", bias, weight, 1)
    check_epilogue("conv_transpose2d", epilogue)
    try:
        geometry = ConvGeometry.of_conv_transpose(
            _image_size(x),
            _image_size(weight),
            stride,
            padding,
            output_padding,
            dilation,
        )
    except ValueError as error:
        raise ValueError(f"conv_transpose2d: {error}") from None
    operation = ConvolveInputGradient(geometry, epilogue)
    return operation(x, weight) if bias is None else operation(x, weight, bias)


def _image_size(x: Tensor) -> tuple[int, int]:
    """Return (H, W) of x (N, C, H, W)."""
    return x.shape[2], x.shape[3]


def _check_image(name: str, x: Tensor, weight: Tensor, channels: int, where: str) -> None:
    require_tensor(name, x, weight)
    if weight.ndim != 4 or not all(weight.shape):
        raise ValueError(f"{name}: expected a weight of shape {where}, got {weight.shape}")
    wanted = weight.shape[channels]
    if x.ndim != 4 or x.shape[1] != wanted:
        raise ValueError(
            f"{name}: expected x of shape (N, {wanted}, H, W) for a weight of {weight.shape}, got {x.shape}"
        )


def _check_bias(name: str, bias: Tensor | None, weight: Tensor, axis: int) -> None:
    if bias is not None:
        require_tensor(name, bias)
    if bias is not None and bias.shape != (weight.shape[axis],):
        raise ValueError(f"{name}: expected a bias of shape ({weight.shape[axis]},), got {bias.shape}")
