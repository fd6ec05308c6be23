"""A convolution's weight between the order a layer keeps it in and the orders in which it multiplies.

A layer has (O, C, kh, kw). The product with the columns of im2col wants the taps outermost, (kh, kw, C, O),
so that whatever NumPy does, one side jumps: the channels of a weight lie a power of two apart as a rule, and
such addresses share so few places in the cache that each line is read again for each of its numbers. Here a
few channels at a time are first copied as they are, into rows of an odd length, and turned in the cache: four
times as fast for a weight of megabytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .parallel import Pool, Scratch, cut, steps

Array = np.ndarray[Any, Any]

NEAR = 1 << 17  # bytes of channels that are turned at a time: they stay in the cache
APART = 16  # numbers between two rows: a line of the cache


class TapOrder:
    """Copies of weights in other orders.

    Args:
        pool: the threads; input channels are shared out.
        scratch: a thread's own memory.
        empty: makes arrays, as numpy.empty.
    """

    def __init__(self, pool: Pool, scratch: Scratch, empty: Callable[[tuple[int, ...], Any], Array]) -> None:
        self.pool, self.scratch, self.empty = pool, scratch, empty

    def matrix(self, weight: Array) -> Array:
        """(O, C, kh, kw) as `Backend.kernel_matrix`: (kh * kw * C, O)."""
        o, c, kh, kw = weight.shape
        rows = weight.reshape(o, -1)  # (O, C * taps)
        matrix = self.empty((kh * kw, c, o), weight.dtype)

        def turn(s: slice, near: Array) -> None:
            near[...] = rows[:, s.start * kh * kw : s.stop * kh * kw]
            matrix[:, s] = near.reshape(o, -1, kh * kw).transpose(2, 1, 0)

        self._each_part(turn, weight.shape, weight.dtype)
        return matrix.reshape(-1, o)  # (taps * C, O)

    def summed(self, matrices: Array, shape: tuple[int, ...]) -> Array:
        """The sum of (n, kh * kw * C, O), each in the order of `matrix`, as a weight of `shape`."""
        o, c, kh, kw = shape
        parts = matrices.reshape(-1, kh * kw, c, o)
        weight = self.empty((o, c * kh * kw), matrices.dtype)

        def turn(s: slice, near: Array) -> None:
            total = self.scratch.get("total", (kh * kw, s.stop - s.start, o), matrices.dtype)
            parts[:, :, s].sum(axis=0, out=total)
            near.reshape(o, -1, kh * kw).transpose(2, 1, 0)[...] = total
            weight[:, s.start * kh * kw : s.stop * kh * kw] = near

        self._each_part(turn, shape, matrices.dtype)
        return weight.reshape(shape)

    def by_tap(self, weight: Array) -> Array:
        """(O, C, kh, kw) as (kh, kw, O, C)."""
        o, c, kh, kw = weight.shape
        rows = weight.reshape(o * c, kh * kw)
        taps = self.empty((kh * kw, o * c), weight.dtype)
        step = max(1, NEAR // (kh * kw * weight.itemsize))

        def work(s: slice) -> None:
            for part in steps(s, step):
                taps[:, part] = rows[part].T

        self.pool.run(work, cut(o * c, 8 * kh * kw * weight.itemsize))
        return taps.reshape(kh, kw, o, c)

    def _each_part(
        self, turn: Callable[[slice, Array], None], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        """Call `turn(channels, near)` for a few input channels at a time; near is (O, channels * taps)."""
        o, c, kh, kw = shape
        each = o * kh * kw * dtype.itemsize

        def work(s: slice) -> None:
            for part in steps(s, max(1, NEAR // each)):
                width = (part.stop - part.start) * kh * kw
                turn(part, self.scratch.get("near", (o, width + APART), dtype)[:, :width])

        # Turning takes several times what copying would: so it is worth sharing earlier.
        self.pool.run(work, cut(c, 8 * each))
