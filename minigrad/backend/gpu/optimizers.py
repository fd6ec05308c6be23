"""The updates of parameters on a GPU, many of them in one launch."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..arrays import Array, channels_last
from ..base import Backend
from ..optimizers import AdamUpdate, Factors
from .kernels import load
from .kernels.launch import contiguous, fitted, launch_blocks, types_of

MAX_PARAMETERS = 48  # in one launch
BLOCKS = 264  # for each parameter at the most: two for each multiprocessor of an H100
EACH = 4  # elements of a thread, where that makes fewer blocks

# The structure that `adam` takes: addresses and sizes of the parameters, and the places of their factors.
TABLE = np.dtype(
    [
        *((name, np.uint64, MAX_PARAMETERS) for name in ("parameter", "gradient", "first", "second")),
        *((name, np.int64, MAX_PARAMETERS) for name in ("size", "place")),
    ]
)

# The structure that `average` takes.
PAIRS = np.dtype(
    [
        *((name, np.uint64, MAX_PARAMETERS) for name in ("average", "fresh")),
        ("size", np.int64, MAX_PARAMETERS),
    ]
)


class GPUOptimizers(Backend):
    """The updates of `GPUBackend`."""

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        fitting: dict[Any, list[tuple[int, AdamUpdate]]] = {}
        values: dict[Any, Array] = {}  # by dtype: (rate, correction) of each update
        for place, (parameter, gradient, first, second) in enumerate(updates):
            dtype = parameter.dtype
            if dtype not in values:
                make = partial(_table_of, factors, dtype)
                values[dtype] = self.from_host(make, (len(updates), 2), dtype)
            in_order = _order_of(parameter)
            if all(in_order(a).flags.c_contiguous and a.dtype == dtype for a in (parameter, first, second)):
                gradient = contiguous(in_order(fitted(gradient, parameter)))
                fitting.setdefault(dtype, []).append((place, (parameter, gradient, first, second)))
            else:  # changed in place, so that no copy will do
                rate, correction = values[dtype][place]
                self.adam_update(
                    parameter, gradient, first, second, rate=rate, correction=correction, **constants
                )
        for dtype, same in fitting.items():
            for start in range(0, len(same), MAX_PARAMETERS):
                self._adam(dtype, same[start : start + MAX_PARAMETERS], values[dtype], **constants)

    def _adam(
        self,
        dtype: Any,
        updates: Sequence[tuple[int, AdamUpdate]],
        factors: Array,
        *,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ) -> None:
        """One launch: at most MAX_PARAMETERS updates, each with its place among the factors.

        The four arrays of each are alike in memory.
        """
        beta1, beta2 = betas
        table = np.zeros((), TABLE)
        for i, (place, arrays) in enumerate(updates):
            for name, array in zip(("parameter", "gradient", "first", "second"), arrays, strict=True):
                table[name][i] = array.data.ptr
            table["size"][i], table["place"][i] = arrays[0].size, place
        numbers = (beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay)
        launch_blocks(
            "adam",
            "adam",
            types_of(dtype),
            _grid(table["size"], len(updates)),
            (load.BLOCK,),
            (table[()], factors, *(dtype.type(n) for n in numbers)),
        )

    def average_updates(
        self, pairs: Sequence[tuple[Array, Array]], weights: Callable[[], tuple[float, float]]
    ) -> None:
        fitting: dict[Any, list[tuple[Array, Array]]] = {}
        values: dict[Any, Array] = {}  # by dtype: (keep, share)
        for average, new in pairs:
            dtype = average.dtype
            if dtype not in values:
                values[dtype] = self.from_host(partial(_as_array, weights, dtype), (2,), dtype)
            in_order = _order_of(average)
            if in_order(average).flags.c_contiguous:
                fresh = contiguous(in_order(fitted(new, average)))
                fitting.setdefault(dtype, []).append((average, fresh))
            else:  # changed in place, so that no copy will do
                average *= values[dtype][0]
                average += values[dtype][1] * new
        for dtype, same in fitting.items():
            for start in range(0, len(same), MAX_PARAMETERS):
                self._average(dtype, same[start : start + MAX_PARAMETERS], values[dtype])

    def _average(self, dtype: Any, pairs: Sequence[tuple[Array, Array]], weights: Array) -> None:
        """One launch: at most MAX_PARAMETERS pairs of contiguous arrays, all of `dtype`."""
        table = np.zeros((), PAIRS)
        for i, (average, new) in enumerate(pairs):
            table["average"][i], table["fresh"][i] = average.data.ptr, new.data.ptr
            table["size"][i] = average.size
        grid, args = _grid(table["size"], len(pairs)), (table[()], weights)
        launch_blocks("average", "average", types_of(dtype), grid, (load.BLOCK,), args)


def _grid(sizes: Any, count: int) -> tuple[int, int]:
    """Return the grid for `count` arrays of these sizes: enough blocks for the largest, for each of them."""
    return max(1, min(BLOCKS, -(-int(sizes.max()) // (EACH * load.BLOCK)))), count


def _order_of(x: Array) -> Callable[[Array], Array]:
    """Return a function that shows arrays of x's shape with the axes as they lie in x's memory.

    They lie as they are, or x (O, C, kh, kw) has the channels innermost.
    """
    innermost = x.ndim == 4 and not x.flags.c_contiguous and channels_last(x).flags.c_contiguous
    return channels_last if innermost else lambda array: array


def _table_of(factors: Factors, dtype: Any) -> Any:
    """Return (rate, correction) of each update: (n, 2)."""
    return _as_array(factors, dtype).reshape(-1, 2)  # (n, 2)


def _as_array(make: Callable[[], Any], dtype: Any) -> Any:
    return np.array(make(), dtype)
