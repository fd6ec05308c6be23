"""Activations, dropout, sums and moves by the C kernels (the files of these names in `kernels/`)."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import Array, channels_last
from ..epilogue import Epilogue
from ..philox import Counter, Key
from .calls import C_ORDER, FLOAT64, INNERMOST, NEITHER, KernelCalls, order_of
from .native import address
from .sliced import in_shape, is_innermost

MIN_SUMMED = 1 << 10  # numbers; for fewer, NumPy's sum takes less time than the call of a kernel
MIN_ADDED = 1 << 15  # numbers; the same of a sum of two arrays
BOOL = np.dtype(np.bool_)


class CompiledElementwise(KernelCalls):
    """The activations, dropout and sums of `CPUBackend`."""

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        order = self._order(x) if shape[:1] == x.shape[:1] and math.prod(shape) == x.size else NEITHER
        if order == INNERMOST:
            n, c, h, w = x.shape
            y = self.arena.empty(shape, x.dtype)
            self._kernel("swap", x.dtype)(address(x), address(y), n, h * w, c)
            return y
        if order == C_ORDER and x.ndim == 2 and len(shape) == 4 and 1 not in (shape[1], shape[2] * shape[3]):
            # The images of a dense layer. The next layer needs their channels innermost, so they are
            # reordered once.
            images = self._rows(x.reshape(shape))
            assert images is not None
            return images
        return super().reshape(x, shape)

    # -- sums ----------------------------------------------------------------------------------

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        rows, channels, shape = _as_rows(x, axes, keepdims)
        if not rows or self._order(x) == NEITHER:
            return super().sum(x, axes, keepdims)
        total = np.empty(shape, x.dtype)
        partial = self._sums_of_chunks(rows, channels)
        self._kernel("sum_rows", x.dtype)(address(x), address(partial), address(total), rows, channels)
        return total

    def add(self, a: Any, b: Any) -> Array:
        large = isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.size >= MIN_ADDED
        order = self._order(a, b) if large else NEITHER
        if not order:
            return super().add(a, b)
        total = self._empty(a.shape, a.dtype, order)
        self._kernel("add", a.dtype)(address(a), address(b), address(total), a.size)
        return total

    # -- activations ---------------------------------------------------------------------------

    def leaky_relu(self, x: Array, slope: float) -> Array:
        order = self._order(x)
        if not order:
            return super().leaky_relu(x, slope)
        y = self._empty(x.shape, x.dtype, order)
        self._kernel("leaky_relu", x.dtype)(address(x), address(y), x.size, slope)
        return y

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        dy, order = self._gradient(dy, y)
        if not order:
            return super().leaky_relu_backward(dy, y, slope)
        dx = self._empty(y.shape, y.dtype, order)
        self._kernel("leaky_relu_backward", y.dtype)(address(dy), address(y), address(dx), y.size, slope)
        return dx

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        return self._product("tanh_backward", dy, y)

    def sigmoid_backward(self, dy: Array, y: Array) -> Array:
        return self._product("sigmoid_backward", dy, y)

    def _product(self, name: str, dy: Array, y: Array) -> Array:
        """Return a gradient that depends on dy and on the result y only."""
        dy, order = self._gradient(dy, y)
        if not order:
            plain: Array = getattr(super(), name)(dy, y)
            return plain
        dx = self._empty(y.shape, y.dtype, order)
        self._kernel(name, y.dtype)(address(dy), address(y), address(dx), y.size)
        return dx

    # -- dropout -------------------------------------------------------------------------------

    def dropout_mask(self, shape: tuple[int, ...], p: float, key: Key, counter: Counter) -> Array:
        count = int(np.prod(shape, dtype=np.int64))
        if self.kernels is None or not count:
            return super().dropout_mask(shape, p, key, counter)
        mask, place = self.arena.empty((count,), BOOL), _place(key, counter)
        self._kernel("dropout_mask", FLOAT64)(address(mask), address(place), count, round(p * 2**16))
        return in_shape(mask, shape)

    def dropout(self, x: Array, p: float, key: Key, counter: Counter) -> tuple[Array, Array]:
        order = self._order(x)
        if not order or not _is_numbered(x):
            return super().dropout(x, p, key, counter)
        y = self._empty(x.shape, x.dtype, order)
        return y, self._drop_into(y, x, 1.0, p, key, counter, order)

    def apply_epilogue(self, y: Array, epilogue: Epilogue) -> tuple[Array, Array | None]:
        return self._finished(y, epilogue, self._empty)

    def _finish(self, y: Array, epilogue: Epilogue) -> tuple[Array, Array | None]:
        """Do `apply_epilogue`; the result may be y itself, changed."""
        return self._finished(y, epilogue, lambda *_: y)

    def _finished(
        self, y: Array, epilogue: Epilogue, empty: Callable[[tuple[int, ...], Any, int], Array]
    ) -> tuple[Array, Array | None]:
        """Do `apply_epilogue`, with the result of a dropout in memory that `empty` gives."""
        order = self._order(y)
        drops = epilogue.dropout if epilogue.has_activation else None
        if drops is None or not order or not _is_numbered(y):
            return super().apply_epilogue(y, epilogue)
        out = empty(y.shape, y.dtype, order)
        return out, self._drop_into(out, y, epilogue.slope, *drops, order)

    def _drop_into(
        self, y: Array, x: Array, slope: float, p: float, key: Key, counter: Counter, order: int
    ) -> Array:
        """Write the dropout of leaky ReLU(x) to y, which may be x, and return the mask."""
        mask, place = self._empty(x.shape, BOOL, order), _place(key, counter)
        self._kernel("dropout", x.dtype)(
            address(x),
            address(y),
            address(mask),
            address(place),
            x.size,
            round(p * 2**16),
            slope,
            1 / (1 - p),
        )
        return mask

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        order = self._order(x)
        if not order or not _is_mask(mask, x, order):
            return super().mask_scale(x, mask, scale)
        y = self._empty(x.shape, x.dtype, order)
        self._kernel("mask_scale", x.dtype)(address(x), address(mask), address(y), x.size, scale)
        return y

    def leaky_dropout_backward(self, dy: Array, y: Array, mask: Array, slope: float, scale: float) -> Array:
        dy, order = self._gradient(dy, y)
        if not order or not _is_mask(mask, y, order):
            return super().leaky_dropout_backward(dy, y, mask, slope, scale)
        dx = self._empty(y.shape, y.dtype, order)
        self._kernel("leaky_dropout_backward", y.dtype)(
            address(dy), address(y), address(mask), address(dx), y.size, slope, scale
        )
        return dx


def _is_numbered(x: Array) -> bool:
    """Whether the memory order of an array without gaps is that of the draws of its dropout."""
    return x.ndim != 4 or channels_last(x).flags.c_contiguous


def _is_mask(mask: Array, x: Array, order: int) -> bool:
    """Whether a mask has the shape and the memory order of x."""
    return mask.dtype == BOOL and mask.shape == x.shape and order_of(mask) == order


def _as_rows(x: Array, axes: tuple[int, ...], keepdims: bool) -> tuple[int, int, tuple[int, ...]]:
    """Return rows and channels for a sum of x along axes, and its shape; 0 rows if the kernel can't do it."""
    if len(axes) == x.ndim:
        return (x.size, 1, (1,) * x.ndim if keepdims else ()) if x.size >= MIN_SUMMED else (0, 0, ())
    over_images = axes == (0, 2, 3) and x.ndim == 4 and (is_innermost(x) or x.shape[1] == 1)
    if not over_images and not (axes == (0,) and x.ndim == 2):
        return 0, 0, ()
    channels = x.shape[1]
    shape = (1, channels, 1, 1)[: x.ndim] if keepdims else (channels,)
    return x.size // max(channels, 1), channels, shape


def _place(key: Key, counter: Counter) -> Array:
    """Return the key and the counter of a draw as kernels read them: (6,)."""
    return np.array((*key, *counter), np.uint64)
