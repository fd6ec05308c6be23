"""The reference convolution: columns (im2col), one matrix product, and columns added up again (col2im).

It reads and writes with the channels innermost in memory, since a product over (N * H * W, C) wants that.
"""

from collections.abc import Callable
from types import ModuleType

from .arrays import Array, channels_first, channels_last, per_channel
from .epilogue import NO_EPILOGUE, Epilogue
from .geometry import ConvGeometry


class ReferenceConvolution:
    """Three products over one geometry, each the derivative of the others: a part of `Backend`.

    The first three attributes are what it needs of the rest.
    """

    xp: ModuleType
    matmul: Callable[[Array, Array], Array]
    apply_epilogue: Callable[[Array, Epilogue], tuple[Array, Array | None]]

    def kernel_matrix(self, weight: Array) -> Array:
        """The weight (O, C, kh, kw) as a matrix (kh * kw * C, O), rows in the order of im2col."""
        o, c, kh, kw = weight.shape
        return weight.transpose(2, 3, 1, 0).reshape(kh * kw * c, o)  # (kh * kw * C, O)

    def canvas(self, x: Array, geometry: ConvGeometry) -> Array:
        """x (N, C, H, W) with its zero padding, channels innermost: (N, canvas height, width, C)."""
        (top, _), (left, _) = geometry.padding
        height, width = geometry.input_size
        n, c = x.shape[:2]
        canvas = self.xp.zeros((n, *geometry.canvas_size, c), x.dtype)
        canvas[:, top : top + height, left : left + width] = channels_last(x)
        return canvas

    def patches(self, canvas: Array, geometry: ConvGeometry) -> Array:
        """Return the patch at every position of the kernel: a view (N, oh, ow, kh, kw, C) of the canvas."""
        n, _, _, c = canvas.shape
        along_n, along_h, along_w, along_c = canvas.strides
        (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
        return self.xp.lib.stride_tricks.as_strided(
            canvas,
            shape=(n, *geometry.output_size, *geometry.kernel_size, c),
            strides=(along_n, sh * along_h, sw * along_w, dh * along_h, dw * along_w, along_c),
        )

    def im2col(self, x: Array, geometry: ConvGeometry) -> Array:
        """Every position's patch of x (N, C, H, W) as a row: (N * oh * ow, kh * kw * C)."""
        width = geometry.taps * x.shape[1]
        rows = x.shape[0] * geometry.positions
        return self.patches(self.canvas(x, geometry), geometry).reshape(rows, width)

    @staticmethod
    def position_rows(y: Array) -> Array:
        """(N, O, oh, ow) with every position as a row: (N * oh * ow, O)."""
        n, o, oh, ow = y.shape
        return channels_last(y).reshape(n * oh * ow, o)

    def col2im(self, columns: Array, n: int, geometry: ConvGeometry) -> Array:
        """The transpose of im2col: every row (kh * kw * C) is added to where its patch lay.

        Returns (N, C, H, W).
        """
        (oh, ow), (kh, kw) = geometry.output_size, geometry.kernel_size
        (sh, sw), (dh, dw) = geometry.stride, geometry.dilation
        (top, _), (left, _) = geometry.padding
        height, width = geometry.input_size
        c = columns.shape[1] // geometry.taps
        columns = columns.reshape(n, oh, ow, kh, kw, c)
        canvas = self.xp.zeros((n, *geometry.canvas_size, c), columns.dtype)
        for i in range(kh):
            down = slice(i * dh, i * dh + (oh - 1) * sh + 1, sh)
            for j in range(kw):
                right = slice(j * dw, j * dw + (ow - 1) * sw + 1, sw)
                canvas[:, down, right] += columns[:, :, :, i, j]
        return channels_first(canvas[:, top : top + height, left : left + width])

    def convolve(
        self,
        x: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array | None]:
        """Cross-correlation of x (N, C, H, W) with weight (O, C, kh, kw), through the epilogue f.

        y[n, o, p] = f(bias[o] + sum over c, i, j of weight[o, c, i, j] * x[n, c, p * stride +
        (i, j) * dilation - padding]).

        Returns y (N, O, oh, ow) and the mask of the epilogue's dropout, None without one.
        """
        rows = self.matmul(self.im2col(x, geometry), self.kernel_matrix(weight))  # (N * oh * ow, O)
        if bias is not None:
            rows += bias
        y = channels_first(rows.reshape(len(x), *geometry.output_size, len(weight)))  # (N, O, oh, ow)
        return self.apply_epilogue(y, epilogue)

    def convolve_input_gradient(
        self,
        dy: Array,
        weight: Array,
        bias: Array | None,
        geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> Array:
        """The gradient of `convolve` with respect to x: (N, O, oh, ow) to (N, C, H, W).

        It is the transposed convolution of dy with the same weight. Then `bias` (C,) is added, and the
        epilogue applied, which has no dropout.
        """
        rows = self.position_rows(dy)  # (N * oh * ow, O)
        columns = self.matmul(rows, self.kernel_matrix(weight).T)  # (N * oh * ow, kh * kw * C)
        dx = self.col2im(columns, dy.shape[0], geometry)
        if bias is not None:
            dx += per_channel(bias, 4)
        return self.apply_epilogue(dx, epilogue)[0]

    def convolve_weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        """The gradient of `convolve` with respect to the weight: (O, C, kh, kw)."""
        rows = self.position_rows(dy)  # (N * oh * ow, O)
        product = self.matmul(self.im2col(x, geometry).T, rows)  # (kh * kw * C, O)
        dw = product.reshape(*geometry.kernel_size, x.shape[1], dy.shape[1])  # (kh, kw, C, O)
        return self.xp.ascontiguousarray(dw.transpose(3, 2, 0, 1))  # (O, C, kh, kw)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`convolve(x, weight)` and `convolve_weight_gradient(x, y)`, both gradients of a transposed
        convolution: they read the same columns of x, which a backend may make once.
        """
        convolved, _ = self.convolve(x, weight, None, geometry)
        return convolved, self.convolve_weight_gradient(x, y, geometry)

    def convolve_gradients(
        self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`convolve_input_gradient(dy, weight)` and `convolve_weight_gradient(x, dy)`, both gradients of a
        convolution: what they make of dy a backend may make once.
        """
        dx = self.convolve_input_gradient(dy, weight, None, geometry)
        return dx, self.convolve_weight_gradient(x, dy, geometry)

    def convolution_form(
        self, product: str, geometry: ConvGeometry, n: int, channels: int, out_channels: int
    ) -> str:
        """In which form this backend computes one of the products above, in words for people.

        Args:
            product: the method's name, such as "convolve_input_gradient".
            n: the size of the batch.
            channels, out_channels: of the weight (out_channels, channels, kh, kw).
        """
        return "by columns and one matrix product"
