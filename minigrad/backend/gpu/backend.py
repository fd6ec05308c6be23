"""The CuPy backend: products by cuBLAS, and CUDA kernels of our own for the rest.

Each method brings its arrays into the form that its kernel reads (kernels/launch.py). Images lie with the
channels innermost, as everywhere (arrays.py).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cupy as xp
import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..epilogue import NO_EPILOGUE, Epilogue
from ..tape import CaptureError, is_capturing, recording
from .convolution import GPUConvolution
from .graph import FROM_HOST, GPUGraph
from .kernels.launch import (
    by_cupy,
    channels_innermost,
    contiguous,
    fitted,
    in_shape_of,
    launch,
    launch_blocks,
    reshaped,
    types_of,
    vector,
)
from .losses import GPULosses
from .measuring import GPUMeasuring
from .optimizers import GPUOptimizers
from .products import GPUProducts
from .sums import GPUSums

CHANNELS, ROWS = 32, 8  # of a block of the batch_norm kernels
MIN_CHUNK_ROWS = 512  # that a block of its sums takes
MAX_CHUNKS = 256
MIN_ROWS = 64  # that a block of its other passes takes
BLOCKS = 528  # of those, in all channels: four for each multiprocessor of an H100


class GPUBackend(GPUMeasuring, GPUConvolution, GPULosses, GPUOptimizers, GPUProducts, GPUSums):
    """Arrays of CuPy, on the current device.

    CuPy compiles all kernels with `-ftz=true`: in float32, subnormal numbers (below 1.2e-38) count as 0, as
    inputs and as results. On the CPU they are kept.

    Raises RuntimeError where there is none.
    """

    device = "gpu"
    xp = xp
    has_graphs = True

    def __init__(self) -> None:
        try:
            count = xp.cuda.runtime.getDeviceCount()
        except xp.cuda.runtime.CUDARuntimeError as error:
            raise RuntimeError(f"CuPy finds no GPU: {error}") from error
        if not count:
            raise RuntimeError("CuPy finds no GPU")
        super().__init__()

    # -- arrays ------------------------------------------------------------------------------

    def asarray(self, data: Any, dtype: Any = None) -> Array:
        """As the reference's. Host data of four axes, images or a kernel, comes with the channels innermost:
        products read it so, and the gradient of such a kernel has the same memory order.
        """
        given = not self.owns(data)
        if given and is_capturing() and np.ndim(data):
            raise CaptureError(FROM_HOST)
        array = super().asarray(data, dtype)
        if array.ndim != 4 or not given:
            return array
        return channels_first(contiguous(channels_last(array)))

    def copy(self, array: Array) -> Array:
        return by_cupy("copy", array.copy(order="K"), array)  # with its memory order

    def from_host(self, make: Callable[[], Any], shape: tuple[int, ...], dtype: Any) -> Array:
        tape = recording()
        if tape is None:
            return super().from_host(make, shape, dtype)
        return tape.input(make, shape, np.dtype(dtype))

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        if is_capturing():
            raise CaptureError("there are no numbers yet to look at: return the tensor, and look at it later")
        return xp.asnumpy(array)

    def numbers(self, arrays: Sequence[Array]) -> list[float]:
        if not arrays or any(a.dtype != arrays[0].dtype or a.size != 1 for a in arrays):
            return super().numbers(arrays)
        # In one array, so that the device is waited for once.
        return self.to_numpy(xp.concatenate([array.ravel() for array in arrays])).tolist()

    def graph(self) -> GPUGraph:
        return GPUGraph(self.asarray, self.workspace())

    def free_memory(self) -> int | None:
        free, _ = xp.cuda.runtime.memGetInfo()
        pool = xp.get_default_memory_pool()
        limit = pool.get_limit() or math.inf  # CUPY_GPU_MEMORY_LIMIT
        return int(min(free + pool.free_bytes(), limit - pool.used_bytes()))

    def is_out_of_memory(self, error: Exception) -> bool:
        # CuPy's own error is a MemoryError; cuBLAS and the driver have theirs, with the reason in words.
        said = str(error)
        return isinstance(error, MemoryError) or "ALLOC_FAILED" in said or "MemoryAllocation" in said

    def ones_like(self, array: Array) -> Array:
        return by_cupy("fill", xp.ones_like(array))

    # -- shapes --------------------------------------------------------------------------------

    def reshape(self, x: Array, shape: tuple[int, ...]) -> Array:
        return reshaped(x, shape)

    # -- element by element -----------------------------------------------------------------

    def add(self, a: Any, b: Any) -> Array:
        # CuPy's sum of two arrays with the channels innermost is not so itself.
        alike = self.owns(a) and self.owns(b) and a.shape == b.shape and a.dtype == b.dtype
        return xp.add(a, b, xp.empty_like(a)) if alike and a.strides == b.strides else a + b

    def _elementwise(self, kernel: str, arrays: Sequence[Array], numbers: tuple[Any, ...] = ()) -> Array:
        """A new array like the first, made by a kernel of elementwise.cu.

        The others are stretched to its shape, and converted to its dtype but for masks.
        """
        like = arrays[0]
        inputs = [channels_innermost(fitted(array, like)) for array in arrays]
        out = xp.empty_like(inputs[0])
        count = out.size
        launch("elementwise", kernel, types_of(out.dtype), count, (*inputs, out, *numbers, np.int64(count)))
        return in_shape_of(like, out)

    # -- activations -------------------------------------------------------------------------

    def leaky_relu(self, x: Array, slope: float) -> Array:
        return self._elementwise("leaky_relu", (x,), (x.dtype.type(slope),))

    def leaky_relu_backward(self, dy: Array, y: Array, slope: float) -> Array:
        return self._elementwise("leaky_relu_backward", (dy, y), (dy.dtype.type(slope),))

    def tanh(self, x: Array) -> Array:
        return self._elementwise("tanh_forward", (x,))

    def tanh_backward(self, dy: Array, y: Array) -> Array:
        return self._elementwise("tanh_backward", (dy, y))

    def sigmoid(self, x: Array) -> Array:
        return self._elementwise("sigmoid", (x,))

    def sigmoid_backward(self, dy: Array, y: Array) -> Array:
        return self._elementwise("sigmoid_backward", (dy, y))

    def softplus(self, x: Array) -> Array:
        return self._elementwise("softplus", (x,))

    # -- dropout -----------------------------------------------------------------------------

    def mask_scale(self, x: Array, mask: Array, scale: float) -> Array:
        return self._elementwise("mask_scale", (x, mask), (x.dtype.type(scale),))

    def leaky_dropout_backward(self, dy: Array, y: Array, mask: Array, slope: float, scale: float) -> Array:
        number = dy.dtype.type
        return self._elementwise("leaky_dropout_backward", (dy, y, mask), (number(slope), number(scale)))

    # -- batch normalisation -------------------------------------------------------------------

    def moments(self, x: Array) -> tuple[Array, Array]:
        if not x.size:
            return super().moments(x)
        rows = _rows(x)  # (M, C)
        mean, variance = xp.empty((2, rows.shape[1]), np.float64)
        partial, grid, sizes = _chunks(rows)
        types = types_of(x.dtype)
        _tiles("sums_forward", types, grid, (rows, partial, *sizes))
        launch(
            "batch_norm",
            "merge_forward",
            types,
            rows.shape[1],
            (rows, partial, mean, variance, *sizes[:2], np.int32(len(partial))),
        )
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
        rows = _rows(x)  # (M, C)
        y = xp.empty_like(rows)
        if rows.size:
            grid, sizes = _cut(rows)
            single = x.dtype == mean.dtype == variance.dtype == "float32"
            statistics = np.dtype("float32" if single else "float64")
            mean, variance = (vector(v, rows.shape[1], statistics) for v in (mean, variance))
            weight, bias = (vector(v, rows.shape[1], x.dtype) for v in (weight, bias))
            slope = x.dtype.type(epilogue.slope)
            _tiles(
                "normalize",
                types_of(x.dtype, statistics),
                grid,
                (rows, mean, variance, weight, bias, y, np.float64(eps), slope, *sizes),
            )
        return in_shape_of(x, y)

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
        if not x.size:
            return super().normalize_backward(dy, x, y, mean, variance, eps, weight, epilogue)
        rows, grads = _rows(x), _rows(fitted(dy, x))  # (M, C)
        # The result is not read where there is no activation.
        result = _rows(fitted(y, x)) if epilogue.has_activation else np.uint64(0)
        dtype, types, channels = x.dtype, types_of(x.dtype), rows.shape[1]
        mean, variance = (vector(v, channels, np.dtype("float64")) for v in (mean, variance))
        weight = vector(weight, channels, dtype)
        dweight, dbias = xp.empty(channels, dtype), xp.empty(channels, dtype)  # each its own: they are kept
        tilt, shift, scale = xp.empty((3, channels), dtype)
        partial, grid, sizes = _chunks(rows)
        slope = dtype.type(epilogue.slope)
        _tiles("sums_backward", types, grid, (grads, rows, result, mean, partial, slope, *sizes))
        launch(
            "batch_norm",
            "merge_backward",
            types,
            channels,
            (
                partial,
                mean,
                variance,
                weight,
                dweight,
                dbias,
                tilt,
                shift,
                scale,
                np.float64(eps),
                *sizes[:2],
                np.int32(len(partial)),
            ),
        )
        dx = xp.empty_like(rows)
        grid, sizes = _cut(rows)
        _tiles("gradient", types, grid, (grads, rows, result, mean, tilt, shift, scale, dx, slope, *sizes))
        return in_shape_of(x, dx), dweight, dbias

    def move_statistics(
        self, running: Sequence[Array | None], batch: Sequence[Array], keep: float, shares: Sequence[float]
    ) -> None:
        kept = [array for array in running if array is not None]
        alike = all(a.dtype == kept[0].dtype and a.shape == kept[0].shape for a in kept)
        if not alike or any(not array.flags.c_contiguous for array in kept):
            super().move_statistics(running, batch, keep, shares)  # in place, so that no copy will do
        elif kept:
            channels, dtype = kept[0].size, kept[0].dtype
            launch(
                "batch_norm",
                "move_statistics",
                types_of(dtype),
                channels,
                (
                    *(np.uint64(0) if array is None else array for array in running),
                    *(vector(array, channels, np.dtype("float64")) for array in batch),
                    dtype.type(keep),
                    *(np.float64(share) for share in shares),
                    np.int32(channels),
                ),
            )

    # -- batches ---------------------------------------------------------------------------------

    def crop_images(self, images: Array, squares: Array, side: int, channels: int, given: int) -> Array:
        """As the reference's, but without a check that each square lies in `images`: it must."""
        self.check_channels(channels, given)
        self.check_squares(images, squares)
        y = xp.empty((len(squares), side, side, channels), "float32")
        launch(
            "crop_images",
            "crop_images",
            "",
            y.size,
            (
                contiguous(images),
                contiguous(squares),
                y,
                np.int32(side),
                np.int32(channels),
                np.int32(given),
                np.int64(y.size),
            ),
        )
        return channels_first(y)


def _rows(x: Array) -> Array:
    """(N, C) or (N, C, H, W) as (M, C), one row for each value of a channel; a copy only if it must be."""
    x = channels_innermost(x)
    return x.reshape(-1, x.shape[-1])  # (M, C)


def _chunks(rows: Array) -> tuple[Array, tuple[int, int], tuple[Any, ...]]:
    """Cut (M, C) for sums by batch_norm.cu: room for each chunk's, the grid, and (M, C, rows a chunk)."""
    m, c = rows.shape
    chunk = max(MIN_CHUNK_ROWS, -(-m // MAX_CHUNKS))
    grid, sizes = _grid_of(m, c, chunk)
    return xp.empty((grid[1], 2, c), np.float64), grid, sizes


def _cut(rows: Array) -> tuple[tuple[int, int], tuple[Any, ...]]:
    """Cut (M, C) for a pass of batch_norm.cu that adds nothing up: the grid, and (M, C, rows a chunk).

    In more chunks than for sums, as nothing is left to be merged.
    """
    m, c = rows.shape
    return _grid_of(m, c, max(MIN_ROWS, -(-m * -(-c // CHANNELS) // BLOCKS)))


def _grid_of(m: int, c: int, chunk: int) -> tuple[tuple[int, int], tuple[Any, ...]]:
    grid = -(-c // CHANNELS), -(-m // chunk)
    return grid, (np.int64(m), np.int32(c), np.int64(chunk))


def _tiles(kernel: str, types: str, grid: tuple[int, int], args: tuple[Any, ...]) -> None:
    launch_blocks("batch_norm", kernel, types, grid, (CHANNELS, ROWS), args)
