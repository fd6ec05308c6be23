"""The reference backend: every primitive's plain form, over `self.xp` (NumPy, CuPy, ...).

A backend may override any primitive with a faster form; what it leaves out falls back to the one here, in
activations.py, convolution.py, losses.py and optimizers.py, which is also the truth that the faster form is
tested against.
"""

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .activations import ReferenceActivations
from .arrays import Array, channels_first, per_channel, refuse_masked
from .convolution import ReferenceConvolution
from .epilogue import NO_EPILOGUE, Epilogue
from .ieee import ieee
from .losses import ReferenceLosses
from .measuring import Measuring
from .optimizers import ReferenceOptimizers
from .philox import Counter, Key, philox
from .tape import Graph, checked


class Backend(ReferenceActivations, ReferenceConvolution, ReferenceLosses, ReferenceOptimizers, Measuring):
    """Array primitives on one device.

    Attributes:
        device: its name.
        xp: its NumPy-like module.
        has_graphs: whether `graph` returns one.
    """

    device: str
    xp: ModuleType
    has_graphs = False

    # -- arrays ------------------------------------------------------------------------------

    def owns(self, array: object) -> bool:
        """Whether `array` is an array of this device."""
        return isinstance(array, self.xp.ndarray)

    def asarray(self, data: Any, dtype: Any = None) -> Array:
        """Host data (numbers, lists, NumPy arrays) as this device's array; copies only if it must.

        Raises TypeError for a masked array.
        """
        refuse_masked(data)
        return self.xp.asarray(data, dtype=dtype)

    def from_host(self, make: Callable[[], Any], shape: tuple[int, ...], dtype: Any) -> Array:
        """Return the array that `make()` gives on the host, on this device.

        In a captured step `make` is called again by each replay (tape.py). Raises ValueError if it gives
        another shape or dtype.
        """
        return self.asarray(checked(make(), shape, np.dtype(dtype)))

    def copy(self, array: Array) -> Array:
        """This device's array again, in memory of its own."""
        copied: Array = array.copy()
        return copied

    def plain(self, array: Array) -> Array:
        """This device's array without what a subclass makes of it, over the same memory.

        The product of two arrays of class numpy.matrix is a matrix product; none such comes into the engine.
        Raises TypeError for a masked array.
        """
        return array if type(array) is self.xp.ndarray else self.asarray(array)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """This device's array as a NumPy array on the host."""
        return np.asarray(array)

    def numbers(self, arrays: Sequence[Array]) -> list[float]:
        """Return the values of arrays of one element each, as Python's numbers."""
        return [self.to_numpy(array).item() for array in arrays]

    def owns_memory(self, array: Array) -> bool:
        """Whether an array lies in memory of its own, not in another array's."""
        return array.base is None

    def sample(self, array: Array) -> bytes | None:
        """Return some of an array's bits, which tell of changes in place; None where to look is to wait."""
        return None

    def free_memory(self) -> int | None:
        """The bytes that new arrays may still take on the device; None where nobody knows."""
        return None

    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether that is what the error says."""
        return isinstance(error, MemoryError)

    def allow_tf32(self, allowed: bool) -> None:
        """Allow products of float32 to round their factors to TensorFloat-32, or forbid it, as at first.

        Raises ValueError where the device has no such thing.
        """
        if allowed:
            raise ValueError(f"{self.device!r} has no TensorFloat-32")

    @property
    def allows_tf32(self) -> bool:
        """Whether products of float32 may round their factors to TensorFloat-32."""
        return False

    def graph(self) -> Graph:
        """Return a new graph, which can capture launches.

        Raises NotImplementedError where the device has no such thing.
        """
        raise NotImplementedError(f"{self.device!r} has no graphs")

    def ones_like(self, array: Array) -> Array:
        """Return ones in the shape and the dtype of an array."""
        return self.xp.ones_like(array)

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        """x in another shape; a view where its memory allows."""
        return x.reshape(shape)

    def concatenate(self, arrays: tuple[Array, ...], axis: int) -> Array:
        """Arrays of one dtype, one after another along an axis."""
        return self.xp.concatenate(arrays, axis=axis)

    # -- sums ----------------------------------------------------------------------------------

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        """The sum along axes, in x's dtype. It adds up in float64: in float32 the rounding of a
        long sum would show wherever its terms cancel.
        """
        if x.dtype != "float32":
            return x.sum(axis=axes, keepdims=keepdims)
        return x.sum(axis=axes, keepdims=keepdims, dtype="float64").astype("float32")

    def mean(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        """The mean along axes, in x's dtype: the sum, as `sum` rounds it, over the number of its terms."""
        return self.sum(x, axes, keepdims) / math.prod(x.shape[axis] for axis in axes)

    def add(self, a: Any, b: Any) -> Array:
        """a + b, with broadcasting; one of them may be a number."""
        return a + b

    # -- products ----------------------------------------------------------------------------

    def matmul(self, a: Array, b: Array) -> Array:
        """a @ b, as NumPy's matmul."""
        return self.xp.matmul(a, b)

    def dense(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        """x @ weight^T + bias: (N, in) by (out, in), and (out,)."""
        y = self.matmul(x, weight.T)
        return y if bias is None else self.add(y, bias)

    # -- dropout -----------------------------------------------------------------------------

    def dropout_mask(self, shape: tuple[int, ...], p: float, key: Key, counter: Counter) -> Array:
        """A boolean mask that drops each element with probability p; True is kept.

        Element i is dropped where word i of the Philox4x64-10 stream of `key` from `counter` is
        under p * 2^16 (words of 16 bits, the lowest first), rounded: p is kept to a multiple of
        2^-16. The draws are what dropout costs, and so there are four to a word of the generator.
        Elements are numbered with the channels innermost where there are four axes, since that is
        how they lie in memory.
        """
        count = int(np.prod(shape, dtype=np.int64))
        # "<": the lowest 16 bits come first on every machine.
        draws = philox(key, counter).random_raw(-(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
        dropped = round(p * 2**16)  # of 2^16 draws; all of them, for p next to 1: no word of 16 bits
        keep = draws >= np.uint16(dropped) if dropped < 2**16 else np.zeros(count, np.bool_)
        if len(shape) == 4:
            n, c, h, w = shape
            return channels_first(self.asarray(keep.reshape(n, h, w, c)))  # (N, C, H, W)
        return self.asarray(keep.reshape(shape))

    def dropout(self, x: Array, p: float, key: Key, counter: Counter) -> tuple[Array, Array]:
        """x / (1 - p) where `dropout_mask` keeps it, 0 elsewhere, whatever x is there; and the mask."""
        mask = self.dropout_mask(x.shape, p, key, counter)
        return self.mask_scale(x, mask, 1 / (1 - p)), mask

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        """x * scale where the mask is True, 0 elsewhere, whatever x is there."""
        return self.xp.where(mask, x * scale, 0)

    def leaky_dropout_backward(self, dy: Array, y: Array, mask: Array, slope: float, scale: float) -> Array:
        """The gradient of a leaky ReLU and of the dropout behind it, y being the dropout's result: dy times
        `scale` where the mask is True, times `slope` where y is not above 0.
        """
        return self.leaky_relu_backward(self.mask_scale(dy, mask, scale), y, slope)

    def apply_epilogue(self, y: Array, epilogue: Epilogue) -> tuple[Array, Array | None]:
        """Apply an epilogue to y. Returns the result and the mask of its dropout, None without one."""
        if epilogue.has_activation:
            y = self.leaky_relu(y, epilogue.slope)
        return (y, None) if epilogue.dropout is None else self.dropout(y, *epilogue.dropout)

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        """Mean and (biased) variance of each channel of (N, C) or (N, C, H, W), (C,) in float64.

        In two passes: where the mean is large, nothing cancels.
        """
        axes = (0, 2, 3)[: x.ndim - 1]
        count = x.size // x.shape[1]
        mean = x.sum(axis=axes, dtype="float64") / count  # (C,)
        near = mean.astype(x.dtype)  # what can be taken off in x's dtype; the rest is put right below
        centred = x - per_channel(near, x.ndim)
        centred = centred.astype("float64")  # in float32 the squares of what is over 1e19 would overflow
        variance = (centred * centred).sum(axis=axes) / count - (mean - near) ** 2
        return mean, self.xp.maximum(variance, 0)

    def normalize(
        self,
        x: Array,
        mean: Array,
        variance: Array,
        eps: float,
        weight: Array,
        bias: Array,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> Array:
        """f((x - mean) / sqrt(variance + eps) * weight + bias), f the epilogue, which has no dropout.

        Each of the four is (C,); mean and variance may be float64. `mean` is taken off as near as x's
        dtype can hold it, and what that leaves goes into the bias.
        """
        near, scale, shift = self.normalize_constants(mean, variance, eps, weight, bias, x.dtype)
        near, scale, shift = (per_channel(v, x.ndim) for v in (near, scale, shift))
        return self.apply_epilogue((x - near) * scale + shift, epilogue)[0]

    def normalize_constants(
        self, mean: Array, variance: Array, eps: float, weight: Array, bias: Array, dtype: Any
    ) -> tuple[Array, Array, Array]:
        """(near, scale, shift), each (C,) in `dtype`: `normalize` is (x - near) * scale + shift."""
        near = mean.astype(dtype)
        scale: Array = 1 / self.xp.sqrt(variance + eps) * weight
        shift: Array = bias - (mean - near) * scale
        return near, scale.astype(dtype), shift.astype(dtype)

    def normalize_backward(
        self,
        dy: Array,
        x: Array,
        y: Array,
        mean: Array,
        variance: Array,
        eps: float,
        weight: Array,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array, Array]:
        """The gradients (dx, dweight, dbias) of `normalize`, y its result, where mean and variance follow
        from x.

        With dy taken back through f, xhat = (x - mean) * inv_std and means over a channel's values:
        dx = weight * inv_std * (dy - mean(dy) - xhat * mean(dy * xhat)).
        Source: Ioffe and Szegedy, "Batch Normalization" (2015), section 3, simplified.
        """
        if epilogue.has_activation:
            dy = self.leaky_relu_backward(dy, y, epilogue.slope)
        inv_std = 1 / self.xp.sqrt(variance + eps)
        near = mean.astype(x.dtype)
        product, dbias = self.normalize_sums(dy, x, near)
        dweight, tilt, shift, scale = (
            v.astype(x.dtype)
            for v in self.normalize_coefficients(
                x.size // x.shape[1], mean - near, inv_std, weight, product, dbias
            )
        )
        dx = self.normalize_gradient(dy, x, near, tilt, shift, scale)
        return dx, dweight, dbias.astype(x.dtype)

    def normalize_sums(self, dy: Array, x: Array, near: Array) -> tuple[Array, Array]:
        """The sums of dy * (x - near) and of dy by channel, (C,) in float64."""
        axes = (0, 2, 3)[: x.ndim - 1]
        product = (dy * (x - per_channel(near, x.ndim))).sum(axis=axes, dtype="float64")
        return product, dy.sum(axis=axes, dtype="float64")

    def normalize_gradient(
        self, dy: Array, x: Array, near: Array, tilt: Array, shift: Array, scale: Array
    ) -> Array:
        """(dy - (x - near) * tilt - shift) * scale, the last four (C,): dx of `normalize_backward`."""
        near, tilt, shift, scale = (per_channel(v, x.ndim) for v in (near, tilt, shift, scale))
        dx: Array = (dy - (x - near) * tilt - shift) * scale
        return dx

    @staticmethod
    def normalize_coefficients(
        count: int, rest: Array, inv_std: Array, weight: Array, product: Array, dbias: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Return the coefficients of BatchNorm's backward by channel, (C,) in float64, from the sums over it.

        Args:
            count: values a channel.
            rest: mean - near; xhat = (centred - rest) * inv_std, where centred = x - near.
            product, dbias: the sums of dy * centred and of dy.

        Returns (dweight, tilt, shift, scale), with dx = (dy - centred * tilt - shift) * scale.
        """
        dweight = (product - rest * dbias) * inv_std  # the sum of dy * xhat
        tilt = inv_std * dweight / count
        return dweight, tilt, dbias / count - rest * tilt, weight * inv_std

    @ieee()
    def blend(self, old: Array, new: Array, keep: float, share: float) -> Array:
        """keep * old + share * new, in old's dtype; `new` may be float64."""
        mixed: Array = keep * old + (share * new).astype(old.dtype)
        return mixed

    def move_statistics(
        self, running: Sequence[Array | None], batch: Sequence[Array], keep: float, shares: Sequence[float]
    ) -> None:
        """Move BatchNorm's running mean and variance towards those of a batch, in place.

        Args:
            running: the mean and the variance, (C,) each; None for one that is not kept.
            batch: the same of the batch; they may be float64.
            keep, shares: each becomes keep * running + share * batch, as by `blend`.
        """
        for old, new, share in zip(running, batch, shares, strict=True):
            if old is not None:
                old[...] = self.blend(old, new, keep, share)

    # -- batches ---------------------------------------------------------------------------------

    def crop_images(self, images: Array, squares: Array, side: int, channels: int, given: int) -> Array:
        """Squares cut out of images that lie as bytes, one after another, from -1 (0) to 1 (255).

        Args:
            images: uint8 (bytes,): pixels row by row, the `given` channels innermost.
            squares: int64 (N, 3), of each square where its first byte lies, the bytes of a row of the
                image that it is cut out of, and 1 where it is shown from right to left, else 0. All of a
                square must lie in `images`.
            side: the squares' height and width.
            channels: of the result; a single given channel is repeated.

        Returns float32 (N, channels, side, side).
        """
        self.check_channels(channels, given)
        self.check_squares(images, squares)
        places = self.xp.arange(side)
        offset, stride, mirrored = (squares[:, i, None] for i in range(3))  # (N, 1) each
        columns = self.xp.where(mirrored != 0, side - 1 - places, places)  # (N, side)
        rows = offset + places * stride  # (N, side)
        first = rows[:, :, None] + columns[:, None, :] * given  # (N, side, side)
        channel = self.xp.arange(channels) % given
        pixels = images[first[..., None] + channel].astype("float32")  # (N, side, side, channels)
        return channels_first(pixels * np.float32(2 / 255) - np.float32(1))

    @staticmethod
    def check_channels(channels: int, given: int) -> None:
        """Raise ValueError where `crop_images` can't make so many channels of those given."""
        if given not in (1, channels):
            raise ValueError(f"crop_images: expected images of 1 or {channels} channels, got {given}")

    @staticmethod
    def check_squares(images: Array, squares: Array) -> None:
        """Raise TypeError or ValueError where these are not the arrays that `crop_images` takes."""
        if images.dtype != "uint8" or squares.dtype != "int64":
            raise TypeError(f"crop_images: expected uint8 and int64, got {images.dtype} and {squares.dtype}")
        if images.ndim != 1 or squares.shape[1:] != (3,):
            raise ValueError(
                f"crop_images: expected images (bytes,) and squares (N, 3), got {images.shape} and "
                f"{squares.shape}"
            )
