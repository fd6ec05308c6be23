"""The convolution on a GPU: im2col and col2im by kernels, and products by cuBLAS."""

from typing import Any

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..epilogue import NO_EPILOGUE, Epilogue
from ..geometry import ConvGeometry
from .epilogue import GPUEpilogue
from .kernels.launch import contiguous, launch, pack, reshaped, types_of, vector

# The structure that `im2col` and `col2im` take by value.
GEOMETRY = np.dtype(
    [
        (name, np.int32)
        for name in (
            "height",
            "width",
            "channels",
            "out_height",
            "out_width",
            "kernel_height",
            "kernel_width",
            "stride_y",
            "stride_x",
            "dilation_y",
            "dilation_x",
            "top",
            "left",
        )
    ]
)


class GPUConvolution(GPUEpilogue):
    """The convolutions of `GPUBackend`."""

    def kernel_matrix(self, weight: Array) -> Array:
        o, c, kh, kw = weight.shape
        return reshaped(weight.transpose(2, 3, 1, 0), (kh * kw * c, o))

    @staticmethod
    def position_rows(y: Array) -> Array:
        n, o, oh, ow = y.shape
        return reshaped(channels_last(y), (n * oh * ow, o))

    def im2col(self, x: Array, geometry: ConvGeometry) -> Array:
        if x.shape[2:] != geometry.input_size:
            raise ValueError(f"im2col: expected images of {geometry.input_size}, got {x.shape[2:]}")
        n, c = x.shape[:2]
        columns = self.xp.empty((n * geometry.positions, geometry.taps * c), x.dtype)
        along_n, along_c, along_y, along_x = (s // x.itemsize for s in x.strides)
        width = pack(x.dtype, c, columns, x) if along_c == 1 else 1
        if any(s % width for s in (along_n, along_y, along_x)):
            width = 1
        count = columns.size // width
        strides = (np.int64(s) for s in (along_n, along_y, along_x, along_c))
        launch(
            "columns",
            "im2col",
            types_of(x.dtype, width),
            count,
            (x, columns, _structure(geometry, c), *strides, np.int64(count)),
        )
        return columns

    def col2im(self, columns: Array, n: int, geometry: ConvGeometry) -> Array:
        return self._gathered(columns, n, geometry)

    def _gathered(
        self,
        columns: Array,
        n: int,
        geometry: ConvGeometry,
        bias: Array | None = None,
        slope: float = 1.0,
    ) -> Array:
        """`col2im`, plus a bias, through a leaky ReLU: (N, C, H, W)."""
        columns = contiguous(columns)
        c = columns.shape[1] // geometry.taps
        if columns.shape != (n * geometry.positions, geometry.taps * c):
            raise ValueError(f"col2im: columns of {columns.shape} are not those of {n} images by {geometry}")
        x = self.xp.empty((n, *geometry.input_size, c), columns.dtype)
        width = pack(x.dtype, c, columns, x)
        count = x.size // width
        bias = np.uint64(0) if bias is None else vector(bias, c, x.dtype)
        launch(
            "columns",
            "col2im",
            types_of(x.dtype, width),
            count,
            (columns, bias, x, _structure(geometry, c), x.dtype.type(slope), np.int64(count)),
        )
        return channels_first(x)

    def convolve(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array | None]:
        return self._convolved(self.im2col(x, geometry), len(x), weight, geometry, bias, epilogue)

    def _convolved(
        self,
        columns: Array,
        n: int,
        weight: Array,
        geometry: ConvGeometry,
        bias: Array | None = None,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array | None]:
        """`convolve`, from the columns of x on."""
        rows = self.matmul(columns, self.kernel_matrix(weight))  # (N * oh * ow, O)
        mask = self.finish_rows(rows, bias, epilogue)
        shape = n, *geometry.output_size, len(weight)
        y = channels_first(rows.reshape(shape))  # (N, O, oh, ow)
        return y, None if mask is None else channels_first(mask.reshape(shape))

    def convolve_weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        return self._weight_gradient(self.im2col(x, geometry), dy, geometry)

    def _weight_gradient(self, columns: Array, dy: Array, geometry: ConvGeometry) -> Array:
        """`convolve_weight_gradient`, from the columns of x on."""
        c = columns.shape[1] // geometry.taps
        product = self.matmul(self.position_rows(dy).T, columns)  # (O, kh * kw * C)
        dw = channels_first(product.reshape(dy.shape[1], *geometry.kernel_size, c))  # (O, C, kh, kw)
        # An array that owns its memory, so that nobody copies the view.
        return self.xp.ndarray(dw.shape, dw.dtype, dw.data, dw.strides)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        columns = self.im2col(x, geometry)
        convolved, _ = self._convolved(columns, len(x), weight, geometry)
        return convolved, self._weight_gradient(columns, y, geometry)

    def convolve_input_gradient(
        self,
        dy: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> Array:
        columns = self.matmul(self.position_rows(dy), self.kernel_matrix(weight).T)
        return self._gathered(columns, len(dy), geometry, bias, epilogue.slope)


def _structure(g: ConvGeometry, channels: int) -> Any:
    """The geometry as columns.cu reads it."""
    (top, _), (left, _) = g.padding
    values = (*g.input_size, channels, *g.output_size, *g.kernel_size, *g.stride, *g.dilation, top, left)
    return np.array([tuple(values)], GEOMETRY)[0]
