"""The layers with parameters. Weights start as PyTorch's do: U(-a, a) with a = 1 / sqrt(fan_in)."""

import math
from typing import Any

from .. import backend as backends
from .. import functional as F
from ..backend.arguments import as_float, as_int, float_type
from ..backend.epilogue import NO_EPILOGUE, Epilogue
from ..backend.geometry import explicit_padding, pair, says
from ..tensor import Tensor
from . import init
from .module import Module, Parameter


def _parameter(shape: tuple[int, ...], dtype: str, device: str | None) -> Parameter:
    backend = backends.get(device)
    return Parameter.bare(backend.xp.zeros(shape, dtype), backend, requires_grad=True)


def _start(weight: Parameter, bias: Parameter | None) -> None:
    """PyTorch's default: U(-a, a), a = 1 / sqrt(fan_in), for the weight and for the bias."""
    fan_in, _ = init.fans(weight.shape)
    bound = 1 / math.sqrt(fan_in)
    init.uniform_(weight, -bound, bound)
    if bias is not None:
        init.uniform_(bias, -bound, bound)


def _size(layer: str, name: str, value: int) -> int:
    """Return a number of features or channels as a Python int; ValueError where it is none."""
    size = as_int(value)
    if size is None or size < 1:
        raise ValueError(f"{layer}: expected {name} to be an int >= 1, got {value!r}")
    return size


class Dense(Module):
    """y = x @ weight^T + bias: (N, in_features) to (N, out_features).

    Args:
        bias: whether there is one.
        dtype: "float32" (the default, also for None) or "float64".
        device: "cpu" or "gpu"; by default that of `minigrad.set_default_device`.

    `weight` is (out_features, in_features), `bias` (out_features,).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: Any = "float32",
        device: str | None = None,
    ) -> None:
        super().__init__()
        in_features = _size("Dense", "in_features", in_features)
        out_features = _size("Dense", "out_features", out_features)
        dtype = float_type(dtype, "Dense")
        self.weight = _parameter((out_features, in_features), dtype, device)
        self.bias = _parameter((out_features,), dtype, device) if bias else None
        _start(self.weight, self.bias)

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x, ndim=(2,), channels=self.weight.shape[1], layout="(N, {})")
        return F.dense(x, self.weight, self.bias)

    def describe(self) -> str:
        return f"Dense({self.weight.shape[1]}, {self.weight.shape[0]})"


class _Convolution(Module):
    """The common part of Conv2d and ConvTranspose2d; `channels` are the weight's axes 0 and 1."""

    def __init__(
        self,
        channels: tuple[int, int],
        kernel_size: Any,
        stride: Any,
        padding: Any,
        bias: int | None,
        dilation: Any,
        dtype: Any,
        device: str | None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        dtype = float_type(dtype, name)
        try:
            kernel = pair(kernel_size, "kernel_size", 1)
            self.stride, self.dilation = pair(stride, "stride", 1), pair(dilation, "dilation", 1)
            self.padding = padding if says(padding, "same") else explicit_padding(padding)
        except ValueError as error:
            raise ValueError(f"{name}{error}" if str(error)[0] == "(" else f"{name}: {error}") from None
        self.weight = _parameter((*channels, *kernel), dtype, device)
        self.bias = None if bias is None else _parameter((bias,), dtype, device)
        _start(self.weight, self.bias)


class Conv2d(_Convolution):
    """A 2-D convolution (cross-correlation): (N, in_channels, H, W) to (N, out_channels, H', W').

    Args:
        kernel_size, stride, dilation: an int or (vertical, horizontal).
        padding: an int, (h, w), ((top, bottom), (left, right)), "valid" or "same" (TensorFlow's).
        bias: whether there is one.

    `weight` is (out_channels, in_channels, kh, kw). Sizes: see `functional.conv2d`.
    """

    takes = ("activation", "dropout")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        bias: bool = True,
        dilation: Any = 1,
        *,
        dtype: Any = "float32",
        device: str | None = None,
    ) -> None:
        in_channels = _size("Conv2d", "in_channels", in_channels)
        out_channels = _size("Conv2d", "out_channels", out_channels)
        super().__init__(
            (out_channels, in_channels),
            kernel_size,
            stride,
            padding,
            out_channels if bias else None,
            dilation,
            dtype,
            device,
        )

    def forward(self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE) -> Tensor:
        _check(self, x, ndim=(4,), channels=self.weight.shape[1], layout="(N, {}, H, W)", epilogue=epilogue)
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, epilogue=epilogue
        )

    def describe(self) -> str:
        return f"Conv2d({self.weight.shape[1]}, {self.weight.shape[0]})"


class ConvTranspose2d(_Convolution):
    """A 2-D transposed convolution: (N, in_channels, H, W) to (N, out_channels, H', W').

    Args:
        kernel_size, stride, dilation: an int or (vertical, horizontal).
        padding: what is cropped, as of Conv2d; "same" makes the input's size times the stride.
        output_padding: rows and columns added below and right.
        bias: whether there is one.

    `weight` is (in_channels, out_channels, kh, kw). Sizes: see `functional.conv_transpose2d`.
    """

    takes = ("activation",)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        bias: bool = True,
        dilation: Any = 1,
        *,
        dtype: Any = "float32",
        device: str | None = None,
    ) -> None:
        in_channels = _size("ConvTranspose2d", "in_channels", in_channels)
        out_channels = _size("ConvTranspose2d", "out_channels", out_channels)
        super().__init__(
            (in_channels, out_channels),
            kernel_size,
            stride,
            padding,
            out_channels if bias else None,
            dilation,
            dtype,
            device,
        )
        self.output_padding = _output_padding(output_padding, self.stride, self.dilation, self.padding)

    def forward(self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE) -> Tensor:
        _check(self, x, ndim=(4,), channels=self.weight.shape[0], layout="(N, {}, H, W)", epilogue=epilogue)
        return F.conv_transpose2d(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.dilation,
            epilogue=epilogue,
        )

    def describe(self) -> str:
        return f"ConvTranspose2d({self.weight.shape[0]}, {self.weight.shape[1]})"


class BatchNorm(Module):
    """Batch normalisation of (N, C) or (N, C, H, W), channel by channel.

    In training each channel is normalised by the batch's own mean and variance, and the running
    ones move by `momentum` (the share of the new; the variance unbiased). In `eval()` the running
    ones are used.

    Args:
        num_features: C.
        eps: added to the variance.
        momentum: the new share, in [0, 1].
    """

    takes = ("activation",)

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        *,
        dtype: Any = "float32",
        device: str | None = None,
    ) -> None:
        super().__init__()
        num_features, dtype = _size("BatchNorm", "num_features", num_features), float_type(dtype, "BatchNorm")
        self.eps, self.momentum = as_float(eps), as_float(momentum)
        if not self.eps > 0 or not 0 <= self.momentum <= 1:
            raise ValueError(
                f"BatchNorm: expected eps > 0 and 0 <= momentum <= 1, got eps={eps}, momentum={momentum}"
            )
        self.weight = _parameter((num_features,), dtype, device)
        self.bias = _parameter((num_features,), dtype, device)
        init.ones_(self.weight)
        backend = backends.get(device)
        self.running_mean = Tensor(backend.xp.zeros(num_features, dtype), backend=backend)
        self.running_var = Tensor(backend.xp.ones(num_features, dtype), backend=backend)

    def forward(self, x: Tensor, epilogue: Epilogue = NO_EPILOGUE) -> Tensor:
        layout = "(N, {0}) or (N, {0}, H, W)"
        _check(self, x, ndim=(2, 4), channels=self.weight.shape[0], layout=layout, epilogue=epilogue)
        return F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
            epilogue=epilogue,
        )

    def describe(self) -> str:
        return f"BatchNorm({self.weight.shape[0]})"


def _output_padding(value: Any, stride: Any, dilation: Any, padding: Any) -> tuple[int, int]:
    """The output_padding of a ConvTranspose2d as a pair; ValueError where the other arguments forbid it."""
    try:
        extra = pair(value, "output_padding", 0)
    except ValueError as error:
        raise ValueError(f"ConvTranspose2d: {error}") from None
    if says(padding, "same") and extra != (0, 0):
        raise ValueError(
            f'ConvTranspose2d: padding="same" leaves no room for output_padding={value!r}: leave it at 0'
        )
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"ConvTranspose2d: output_padding {extra} must be smaller than the stride {stride} or the "
            f"dilation {dilation}"
        )
    return extra


def _check(
    layer: Module, x: Any, ndim: tuple[int, ...], channels: int, layout: str, epilogue: Any = NO_EPILOGUE
) -> None:
    """Raise an error that names the layer where x is not what it takes."""
    weight: Tensor = layer.weight  # type: ignore[attr-defined]
    if not isinstance(x, Tensor):
        expected = layout.format(channels)
        raise TypeError(f"{layer.describe()}: expected a Tensor of shape {expected}, got {type(x).__name__}")
    if isinstance(epilogue, Tensor):  # the layer itself takes an Epilogue there, from `Sequential`
        raise TypeError(f"{layer.describe()}: expected one input, got a second Tensor, of {epilogue.shape}")
    if x.ndim not in ndim or x.shape[1] != channels:
        raise ValueError(f"{layer.describe()}: expected {layout.format(channels)}, got {x.shape}")
    if x.dtype != weight.dtype:
        raise TypeError(f"{layer.describe()}: expected {weight.dtype}, as its weight, got {x.dtype}")
    if x.device != weight.device:
        raise ValueError(
            f"{layer.describe()}: it is on {weight.device!r}, its input on {x.device!r}: move one with .to()"
        )
