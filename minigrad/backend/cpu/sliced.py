"""NumPy's forms of element-wise operations, dropout and BatchNorm: those of base.py, on slices of the batch.

Threads share the slices, and a slice's intermediate results stay in the processor's cache.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..base import Backend
from ..epilogue import NO_EPILOGUE, Epilogue
from ..optimizers import AdamUpdate, Factors
from ..philox import DRAWS_PER_BLOCK, Counter, Key
from .arena import owns_memory
from .forms import Plain
from .parallel import MIN_SLICE_BYTES, cut
from .samples import sample
from .workspace import Workspace

plain = Plain()  # the reference forms, for a slice


class SlicedBackend(Backend):
    """NumPy's forms. `pool` has the threads, `arena` memory for results, `scratch` a thread's own memory."""

    xp = np

    def __init__(self, workspace: Workspace) -> None:
        self.pool, self.scratch, self.arena = workspace.pool, workspace.scratch, workspace.arena

    # -- memory --------------------------------------------------------------------------------

    def owns_memory(self, array: Array) -> bool:
        return owns_memory(array)

    def sample(self, array: Array) -> bytes:
        return sample(array)

    # -- slices --------------------------------------------------------------------------------

    def _by_slices(self, form: Callable[..., Array], *arrays: Array) -> Array:
        """Return form(*arrays), computed for slices of the first axis.

        The arrays have the shape of the result, which has the memory order and the dtype of the last one.
        """
        slices = slices_of(arrays[-1])
        if len(slices) == 1:
            whole: Array = form(*arrays).astype(arrays[-1].dtype, copy=False)
            return whole
        out = self._empty_like(arrays[-1], arrays[-1].dtype)

        def work(s: slice) -> None:
            out[s] = form(*(array[s] for array in arrays))

        self.pool.run(work, slices)
        return out

    def _of_slices(self, form: Callable[..., tuple[Array, ...]], *arrays: Array) -> list[Array]:
        """Return the results of form(*arrays) for slices of the first axis: (slices, ...) each."""
        slices = slices_of(arrays[0])
        found: dict[int, tuple[Array, ...]] = {}

        def work(s: slice) -> None:
            found[s.start] = form(*(array[s] for array in arrays))

        self.pool.run(work, slices)
        return [np.stack(parts) for parts in zip(*(found[s.start] for s in slices), strict=True)]

    def _empty_like(self, x: Array, dtype: Any, shape: tuple[int, ...] | None = None) -> Array:
        """Return a new array in the shape of x, or in another one, channels innermost if x has them so."""
        shape = x.shape if shape is None else shape
        if is_innermost(x):
            n, c, h, w = shape
            return channels_first(self.arena.empty((n, h, w, c), dtype))
        return self.arena.empty(shape, dtype)

    # -- arrays one after another, dense layers ------------------------------------------------

    def concatenate(self, arrays: tuple[Array, ...], axis: int) -> Array:
        first = arrays[0]
        shape = list(first.shape)
        shape[axis] = sum(array.shape[axis] for array in arrays)
        return np.concatenate(arrays, axis=axis, out=self._empty_like(first, first.dtype, tuple(shape)))

    def dense(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        y = self.matmul(x, weight.T)
        return y if bias is None else np.add(y, bias, out=y)

    # -- element by element --------------------------------------------------------------------

    def leaky_relu(self, x: Array, slope: float) -> Array:
        return self._by_slices(lambda x: plain.leaky_relu(x, slope), x)

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        if slope == 0:
            return self._by_slices(lambda dy, y: masked(dy, y > 0), dy, y)
        return self._by_slices(lambda dy, y: np.maximum((y > 0).astype(y.dtype), slope) * dy, dy, y)

    def tanh(self, x: Array) -> Array:
        return self._by_slices(plain.tanh, x)

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        return self._by_slices(plain.tanh_backward, dy, y)

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        return self._by_slices(lambda mask, x: masked(x * scale, mask), mask, x)

    # -- dropout -----------------------------------------------------------------------------

    def dropout(self, x: Array, p: float, key: Key, counter: Counter) -> tuple[Array, Array]:
        if x.ndim == 0 or x.nbytes < MIN_SLICE_BYTES:
            return plain.dropout(x, p, key, counter)
        # Slices begin where a block of draws does.
        images = DRAWS_PER_BLOCK // math.gcd(x[0].size, DRAWS_PER_BLOCK)
        blocks = images * x[0].size // DRAWS_PER_BLOCK
        y, mask = self._empty_like(x, x.dtype), self._empty_like(x, np.bool_)

        def work(s: slice) -> None:
            part, place = (
                slice(s.start * images, s.stop * images),
                (counter[0] + s.start * blocks, *counter[1:]),
            )
            mask[part] = plain.dropout_mask(x[part].shape, p, key, place)
            y[part] = masked(x[part] * (1 / (1 - p)), mask[part])

        self.pool.run(work, cut(-(-len(x) // images), images * x[0].nbytes))
        return y, mask

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        means, variances, shares = self._of_slices(
            lambda part: (*plain.moments(part), len(part) / len(x)), x
        )  # (slices, C), (slices, C), (slices,)
        mean = np.average(means, axis=0, weights=shares)
        return mean, np.average(variances + (means - mean) ** 2, axis=0, weights=shares)

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
        return self._by_slices(lambda x: plain.normalize(x, mean, variance, eps, weight, bias, epilogue), x)

    def normalize_sums(self, dy: Array, x: Array, near: Array) -> tuple[Array, Array]:
        product, dbias = self._of_slices(
            lambda dy, x: plain.normalize_sums(dy, x, near), dy, x
        )  # (slices, C) each
        return product.sum(axis=0), dbias.sum(axis=0)

    def normalize_gradient(
        self, dy: Array, x: Array, near: Array, tilt: Array, shift: Array, scale: Array
    ) -> Array:
        return self._by_slices(lambda dy, x: plain.normalize_gradient(dy, x, near, tilt, shift, scale), dy, x)

    # -- optimisers ------------------------------------------------------------------------------

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        parts = [
            (tuple(np.atleast_1d(array)[s] for array in arrays), pair)
            for arrays, pair in zip(updates, factors(), strict=True)
            for s in slices_of(arrays[0])
        ]

        def work(places: slice) -> None:
            (parameter, gradient, first, second), pair = parts[places.start]
            plain.adam_updates([(parameter, gradient, first, second)], lambda: [pair], **constants)

        self.pool.run(work, [slice(i, i + 1) for i in range(len(parts))])


def masked(x: Array, mask: Array) -> Array:
    """Return x where the mask is True, 0 elsewhere, whatever x is there: its bits times 1 or 0.

    `np.where` takes several times as long.
    """
    bits: Array = x.view(f"i{x.itemsize}") * mask
    return bits.view(x.dtype)


def slices_of(x: Array) -> list[slice]:
    """Return slices of the first axis of x, for work with intermediate results of the size of x."""
    return cut(len(x), x.nbytes // max(len(x), 1)) if x.ndim else [slice(0, 1)]


def is_innermost(x: Array) -> bool:
    """Whether x is (N, C, H, W) with the channels innermost in memory, and not in C order as well."""
    return x.ndim == 4 and not x.flags.c_contiguous and channels_last(x).flags.c_contiguous


def in_shape(x: Array, shape: tuple[int, ...]) -> Array:
    """Return numbers in memory order as an array: of images (N, C, H, W) with channels innermost. No copy."""
    if len(shape) != 4:
        return x.reshape(shape)
    n, c, h, w = shape
    return channels_first(x.reshape(n, h, w, c))  # (N, C, H, W)
