"""What goes through arrays once, by the C kernels (`kernels/*.c`).

A kernel takes arrays of one dtype, float32 or float64, that lie in the same memory order without gaps: C
order, or images with their channels innermost. Anything else goes to NumPy's forms (sliced.py), and so does
everything where there are no kernels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..epilogue import NO_EPILOGUE, Epilogue
from ..optimizers import AdamUpdate, Factors
from ..philox import Counter, Key
from .native import FLOATS, Kernels, address
from .parallel import Pool, available_threads
from .sliced import SlicedBackend, in_shape, is_innermost

# How an array lies in memory: any order but 0 is one that kernels take.
NEITHER, C_ORDER, INNERMOST = range(3)
# How rows are cut (kernels/rows.h): into so many chunks at most, of so many rows at least.
MAX_CHUNKS, MIN_CHUNK = 64, 64
MIN_SUMMED = 1 << 10  # numbers of an array; NumPy has added up fewer before a kernel is called
TABLE_WIDTH = 5  # of a table of updates (kernels/adam.c): up to four addresses, and a size
FLOAT64, BOOL = np.dtype(np.float64), np.dtype(np.bool_)


class CompiledBackend(SlicedBackend):
    """`SlicedBackend` with kernels, or without for None."""

    def __init__(self, kernels: Kernels | None) -> None:
        resized = [] if kernels is None else [kernels.set_members]
        super().__init__(Pool(available_threads(), *resized))
        self.kernels = kernels

    def _order(self, first: Array, *others: Array) -> int:
        """The memory order of arrays that a kernel takes together; NEITHER where none does."""
        if self.kernels is None or not first.size or first.dtype not in FLOATS:
            return NEITHER
        order = order_of(first)
        for other in others:
            if other.dtype != first.dtype or other.shape != first.shape or order_of(other) != order:
                return NEITHER
        return order

    def _empty(self, shape: tuple[int, ...], dtype: Any, order: int) -> Array:
        """A new array of that memory order."""
        if order == C_ORDER:
            return self.arena.empty(shape, dtype)
        n, c, h, w = shape
        return channels_first(self.arena.empty((n, h, w, c), dtype))

    def _sums_of_chunks(self, rows: int, sums: int) -> Array:
        """Memory for so many sums of each chunk of rows."""
        chunks = min(MAX_CHUNKS, -(-rows // MIN_CHUNK))
        return self.scratch.get("sums", (chunks * sums,), FLOAT64)

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        if shape[:1] != x.shape[:1] or math.prod(shape) != x.size or self._order(x) != INNERMOST:
            return super().reshape(x, shape)
        n, c, h, w = x.shape
        y = self.arena.empty(shape, x.dtype)
        self._kernel("swap", x.dtype)(address(x), address(y), n, h * w, c)
        return y

    def _rows(self, x: Array) -> Array | None:
        """Return x in the memory order of rows (M, C), a copy if it must be; None if no kernel takes it."""
        order = self._order(x)
        if x.ndim not in (2, 4) or not order:
            return None
        if x.ndim == 2 or order == INNERMOST or x.shape[1] == 1:
            return x
        n, c, h, w = x.shape
        y = self._empty(x.shape, x.dtype, INNERMOST)
        self._kernel("swap", x.dtype)(address(x), address(y), n, c, h * w)
        return y

    def _gradient(self, dy: Array, y: Array) -> tuple[Array, int]:
        """dy in the memory order of a result y, a copy if it must be, and the order; NEITHER if none fits.

        What flows back through a flattening is in C order, where the result has its channels innermost.
        """
        order = self._order(dy, y)
        fits = dy.shape == y.shape and dy.dtype == y.dtype
        if order or not fits or self._order(dy) != C_ORDER or self._order(y) != INNERMOST:
            return dy, order
        return self._rows(dy), INNERMOST

    def _kernel(self, name: str, dtype: Any) -> Callable[..., None]:
        """A kernel for arrays of a dtype."""
        kernel: Callable[..., None] = getattr(self.kernels, name)[dtype]
        return kernel

    # -- sums ----------------------------------------------------------------------------------

    def sum(self, x: Array, axes: tuple[int, ...], keepdims: bool = False) -> Array:
        rows, channels, shape = _as_rows(x, axes, keepdims)
        if not rows or self._order(x) == NEITHER:
            return super().sum(x, axes, keepdims)
        total = np.empty(shape, x.dtype)
        partial = self._sums_of_chunks(rows, channels)
        self._kernel("sum_rows", x.dtype)(address(x), address(partial), address(total), rows, channels)
        return total

    # -- element by element --------------------------------------------------------------------

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
        """A gradient that depends on dy and on the result y alone."""
        dy, order = self._gradient(dy, y)
        if not order:
            plain: Array = getattr(super(), name)(dy, y)
            return plain
        dx = self._empty(y.shape, y.dtype, order)
        self._kernel(name, y.dtype)(address(dy), address(y), address(dx), y.size)
        return dx

    # -- dropout -----------------------------------------------------------------------------

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
        order = self._order(y)
        drops = epilogue.dropout if epilogue.has_activation else None
        if drops is None or not order or not _is_numbered(y):
            return super().apply_epilogue(y, epilogue)
        out = self._empty(y.shape, y.dtype, order)
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

    # -- losses --------------------------------------------------------------------------------

    def logit_bce(self, x: Array, target: Any) -> tuple[Array, Array]:
        given = self._with_labels(x, target)
        if given is None:
            return super().logit_bce(x, target)
        labels, label, loss, gradient = given
        self._kernel("logit_bce", x.dtype)(
            address(x), labels, address(loss), address(gradient), x.size, label
        )
        return loss, gradient

    def bce(self, p: Array, target: Any, epsilon: float | None) -> tuple[Array, Array]:
        given = self._with_labels(p, target)
        if given is None:
            return super().bce(p, target, epsilon)
        labels, label, loss, gradient = given
        places = address(p), labels, address(loss), address(gradient)
        self._kernel("bce", p.dtype)(*places, p.size, label, epsilon or 0.0, epsilon is None)
        return loss, gradient

    def _with_labels(self, x: Array, target: Any) -> tuple[int | None, float, Array, Array] | None:
        """The address of the labels (None for one label), the one, memory for the loss and for the gradient.

        None if the arrays do not fit.
        """
        alone = isinstance(target, (int, float))
        order = self._order(x) if alone else self._order(x, target)
        if not order:
            return None
        loss, gradient = np.empty((), x.dtype), self._empty(x.shape, x.dtype, order)
        return (None, float(target), loss, gradient) if alone else (address(target), 0.0, loss, gradient)

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        rows = self._rows(x)
        if rows is None:
            return super().moments(x)
        channels = x.shape[1]
        count = x.size // channels
        mean, variance = np.empty(channels), np.empty(channels)
        partial = self._sums_of_chunks(count, 2 * channels)
        self._kernel("moments", x.dtype)(*map(address, (rows, partial, mean, variance)), count, channels)
        return mean, variance

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
        rows = self._rows(x)
        mean, variance = (np.ascontiguousarray(v, FLOAT64) for v in (mean, variance))
        if (
            rows is None
            or not _are_vectors(x, x.dtype, weight, bias)
            or not _are_vectors(x, FLOAT64, mean, variance)
        ):
            return super().normalize(x, mean, variance, eps, weight, bias, epilogue)
        channels = x.shape[1]
        constants = self.scratch.get("constants", (3 * channels,), x.dtype)
        y = self._empty(x.shape, x.dtype, C_ORDER if x.ndim == 2 else INNERMOST)
        self._kernel("normalize", x.dtype)(
            *map(address, (rows, mean, variance, weight, bias, constants, y)),
            *(x.size // channels, channels, eps, epilogue.slope),
        )
        return y

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
        result = y if epilogue.has_activation else dy  # with a slope of 1 the kernel makes nothing of it
        vectors = _are_vectors(x, x.dtype, weight) and _are_vectors(x, FLOAT64, mean, variance)
        if not vectors or not x.shape == dy.shape == result.shape or not x.dtype == dy.dtype == result.dtype:
            return super().normalize_backward(dy, x, y, mean, variance, eps, weight, epilogue)
        rows, grads = self._rows(x), self._rows(dy)
        signs = grads if result is dy else self._rows(result)
        if rows is None or grads is None or signs is None:
            return super().normalize_backward(dy, x, y, mean, variance, eps, weight, epilogue)
        channels = x.shape[1]
        count = x.size // channels
        partial = self._sums_of_chunks(count, 2 * channels)
        constants = self.scratch.get("constants", (4 * channels,), x.dtype)
        dx = self._empty(x.shape, x.dtype, C_ORDER if x.ndim == 2 else INNERMOST)
        dweight, dbias = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
        self._kernel("normalize_backward", x.dtype)(
            *map(address, (grads, rows, signs, mean, variance, weight, partial, constants)),
            *map(address, (dx, dweight, dbias)),
            *(count, channels, eps, epilogue.slope),
        )
        return dx, dweight, dbias

    # -- optimisers ------------------------------------------------------------------------------

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        numbers = factors()
        fitting: dict[Any, list[tuple[AdamUpdate, tuple[float, float]]]] = {}
        others = []
        for arrays, pair in zip(updates, numbers, strict=True):
            if self._order(*arrays) and _may_change(arrays[0], arrays[2], arrays[3]):
                fitting.setdefault(arrays[0].dtype, []).append((arrays, pair))
            else:
                others.append((arrays, pair))
        if others:
            super().adam_updates([a for a, _ in others], lambda: [pair for _, pair in others], **constants)
        for dtype, same in fitting.items():
            table, pairs = _table([a for a, _ in same]), np.array([pair for _, pair in same], FLOAT64)
            betas, eps, weight_decay = constants["betas"], constants["eps"], constants["weight_decay"]
            kernel = self._kernel("adam", dtype)
            kernel(address(table), address(pairs), len(same), *map(float, (*betas, eps, weight_decay)))

    def average_updates(
        self, pairs: Sequence[tuple[Array, Array]], weights: Callable[[], tuple[float, float]]
    ) -> None:
        found = weights()
        fitting: dict[Any, list[tuple[Array, Array]]] = {}
        others = []
        for pair in pairs:
            if self._order(*pair) and _may_change(pair[0]):
                fitting.setdefault(pair[0].dtype, []).append(pair)
            else:
                others.append(pair)
        if others:
            super().average_updates(others, lambda: found)
        for dtype, same in fitting.items():
            table = _table([(average, new, average, average) for average, new in same])
            numbers = np.array(found, FLOAT64)
            self._kernel("average", dtype)(address(table), address(numbers), len(same))


def order_of(x: Array) -> int:
    """How an array lies in memory. NEITHER also for NumPy's scalars, for subclasses, and where unaligned."""
    if type(x) is not np.ndarray or not (flags := x.flags).aligned:
        return NEITHER
    if flags.c_contiguous:
        return C_ORDER
    return INNERMOST if x.ndim == 4 and channels_last(x).flags.c_contiguous else NEITHER


def _is_numbered(x: Array) -> bool:
    """Whether an array without gaps lies in memory in the order of the draws of its dropout."""
    return x.ndim != 4 or channels_last(x).flags.c_contiguous


def _is_mask(mask: Array, x: Array, order: int) -> bool:
    """Whether a mask lies in memory as x does."""
    return mask.dtype == BOOL and mask.shape == x.shape and order_of(mask) == order


def _are_vectors(x: Array, dtype: Any, *vectors: Array) -> bool:
    """Whether these have one number of a dtype for each of x's channels, side by side."""
    return all(v.dtype == dtype and v.shape == x.shape[1:2] and order_of(v) for v in vectors)


def _as_rows(x: Array, axes: tuple[int, ...], keepdims: bool) -> tuple[int, int, tuple[int, ...]]:
    """Return the rows and channels that a sum along axes is one of, and its shape; 0 rows if of none."""
    if len(axes) == x.ndim:
        return (x.size, 1, (1,) * x.ndim if keepdims else ()) if x.size >= MIN_SUMMED else (0, 0, ())
    over_images = axes == (0, 2, 3) and x.ndim == 4 and (is_innermost(x) or x.shape[1] == 1)
    if not over_images and not (axes == (0,) and x.ndim == 2):
        return 0, 0, ()
    channels = x.shape[1]
    shape = (1, channels, 1, 1)[: x.ndim] if keepdims else (channels,)
    return x.size // max(channels, 1), channels, shape


def _may_change(*arrays: Array) -> bool:
    """Whether these may be written. (Of one that may not, NumPy's form says so.)"""
    return all(a.flags.writeable for a in arrays)


def _place(key: Key, counter: Counter) -> Array:
    """The place of a draw, as kernels read it: (6,)."""
    return np.array((*key, *counter), np.uint64)


def _table(updates: Sequence[tuple[Array, ...]]) -> Array:
    """Return the addresses of the arrays of each update, and their size: (updates, TABLE_WIDTH)."""
    return np.array([(*map(address, arrays), arrays[0].size) for arrays in updates], np.int64)
