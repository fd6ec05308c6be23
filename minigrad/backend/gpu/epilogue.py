"""The bias, leaky ReLU and dropout that follow a product on a GPU, in one launch."""

from typing import Any

import numpy as np

from ..arrays import Array
from ..base import Backend
from ..epilogue import NO_EPILOGUE, Epilogue
from ..philox import DRAWS_PER_BLOCK, Counter, Key
from ..tape import recording
from .kernels.launch import channels_innermost, in_shape_of, launch, launch_blocks, types_of, vector

DROPOUT_BLOCK = 128  # threads, of which each makes a block of Philox


class GPUEpilogue(Backend):
    """The epilogues of `GPUBackend`."""

    def dropout(self, x: Array, p: float, key: Key, counter: Counter) -> tuple[Array, Array]:
        numbers = channels_innermost(x)
        y = self.xp.empty_like(numbers)
        mask = self._dropped(numbers, y, p, key, counter)
        return in_shape_of(x, y), in_shape_of(x, mask)

    def dense(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        if bias is None or x.dtype.kind != "f":  # the kernel takes floats only
            return super().dense(x, weight, bias)
        y = self.matmul(x, weight.T)
        self.finish_rows(y, bias, NO_EPILOGUE)
        return y

    def finish_rows(self, rows: Array, bias: Array | None, epilogue: Epilogue) -> Array | None:
        """Add a bias (C,) to rows (M, C), if one is given, and apply an epilogue, in place.

        Returns the mask of its dropout (M, C), None without one.
        """
        if epilogue.dropout is not None:
            return self._dropped(rows, rows, *epilogue.dropout, bias, epilogue.slope)
        if bias is not None or epilogue.has_activation:
            channels, slope = rows.shape[1], rows.dtype.type(epilogue.slope)
            launch(
                "elementwise",
                "bias_leaky_relu",
                types_of(rows.dtype),
                rows.size,
                (rows, _pointer(bias, rows), slope, np.int32(channels), np.int64(rows.size)),
            )
        return None

    def _dropped(
        self,
        x: Array,
        y: Array,
        p: float,
        key: Key,
        counter: Counter,
        bias: Array | None = None,
        slope: float = 1.0,
    ) -> Array:
        """Dropout behind a bias along the last axis and a leaky ReLU: from x into y, which may be x.

        Returns the mask.
        """
        mask = self.xp.empty(x.shape, np.bool_)
        blocks = -(-x.size // DRAWS_PER_BLOCK)
        if blocks:
            number = x.dtype.type
            launch_blocks(
                "dropout",
                "dropout",
                types_of(x.dtype),
                (-(-blocks // DROPOUT_BLOCK),),
                (DROPOUT_BLOCK,),
                (
                    x,
                    _pointer(bias, x),
                    y,
                    mask,
                    self._place_of(key, counter),
                    np.uint32(round(p * 2**16)),
                    number(slope),
                    number(1 / (1 - p)),
                    np.int32(x.shape[-1] if x.ndim else 1),
                    np.int64(x.size),
                ),
            )
        return mask

    def _place_of(self, key: Key, counter: Counter) -> Array:
        """A place in the stream of random numbers as the kernel reads it: uint64 (6,), the key first."""
        tape = recording()
        draw = (lambda: (key, counter)) if tape is None else tape.draw_of(key, counter)

        def place() -> Any:
            key, counter = draw()
            return np.array((*key, *counter), np.uint64)

        return self.from_host(place, (6,), np.uint64)


def _pointer(bias: Array | None, x: Array) -> Any:
    """A bias along the last axis of x as a kernel reads it; 0 for none."""
    return np.uint64(0) if bias is None else vector(bias, x.shape[-1], x.dtype)
