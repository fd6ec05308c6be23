"""The forms of a convolution on the CPU: ways to compute its three products; sizes alone choose one."""

import math
from typing import Protocol

import numpy as np

from ..arrays import Array, channels_first, channels_last
from ..base import Backend
from ..epilogue import Epilogue
from ..geometry import ConvGeometry
from .parallel import cut
from .workspace import Workspace

MAX_COLUMN_BYTES = 1 << 23  # of a slice: with fewer rows, a product reads the weight too often
MAX_PARTIAL_SUMS = 8  # of a weight gradient: each is the sum over a share of the slices


class Form(Protocol):
    """One way to compute the three products, each the derivative of the others.

    `epilogue` is a leaky ReLU at most: the backend applies a dropout. Images are (N, C, H, W), results lie
    with their channels innermost: (N, height, width, channels).

    Attributes:
        description: completes the sentence "the engine computes y ...".
    """

    description: str

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """Whether this form is faster for these sizes than those after it in the backend's list."""
        ...

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        """`Backend.convolve`: (N, oh, ow, O)."""
        ...

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        """`Backend.convolve_input_gradient`: (N, H, W, C)."""
        ...

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        """`Backend.convolve_weight_gradient`: (O, C, kh, kw)."""
        ...

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`Backend.convolve_and_weight_gradient`: (N, oh, ow, O) and (O, C, kh, kw)."""
        ...

    def gradients(self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry) -> tuple[Array, Array]:
        """`Backend.convolve_gradients`: (N, H, W, C) and (O, C, kh, kw)."""
        ...


class Alone:
    """A form that computes two products one after the other, since they share nothing."""

    def convolve_and_weight_gradient(
        self: Form, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`convolve(x, weight)` and `weight_gradient(x, y)`."""
        y_found = self.convolve(x, weight, None, geometry, Epilogue())
        return y_found, self.weight_gradient(x, y, geometry)

    def gradients(
        self: Form, x: Array, weight: Array, dy: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        """`input_gradient(dy, weight)` and `weight_gradient(x, dy)`."""
        dx = self.input_gradient(dy, weight, None, geometry, Epilogue())
        return dx, self.weight_gradient(x, dy, geometry)


class Plain(Backend):
    """NumPy's plain forms, for slices of a batch."""

    device = "cpu"
    xp = np


class ColumnsForm(Alone):
    """The plain form, slice by slice of the batch: im2col, one product, col2im."""

    description = "by columns and matrix products, slice by slice of the batch (backend/cpu/forms.py)"

    def __init__(self, workspace: Workspace) -> None:
        self._space, self._plain = workspace, Plain()

    def pays(self, geometry: ConvGeometry, n: int, channels: int, out_channels: int) -> bool:
        """It takes all sizes."""
        return True

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        kernel = kernel_rows(weight).T  # (kh * kw * C, O)
        y = self._space.arena.empty((len(x), *geometry.output_size, len(weight)), x.dtype)

        def work(s: slice) -> None:
            rows = np.matmul(self._plain.im2col(x[s], geometry), kernel)  # (n * oh * ow, O)
            y[s] = self._finished(rows, bias, epilogue).reshape(y[s].shape)

        self._space.pool.run_products(work, _slices(len(x), x.shape[1], geometry, x.itemsize))
        return y

    def input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        kernel, c = kernel_rows(weight), weight.shape[1]  # (O, kh * kw * C)
        dx = self._space.arena.empty((len(dy), *geometry.input_size, c), dy.dtype)

        def work(s: slice) -> None:
            columns = np.matmul(self._plain.position_rows(dy[s]), kernel)  # (n * oh * ow, kh * kw * C)
            pixels = channels_last(self._plain.col2im(columns, len(dx[s]), geometry))  # (n, H, W, C)
            dx[s] = self._finished(pixels, bias, epilogue)

        self._space.pool.run_products(work, _slices(len(dy), c, geometry, dy.itemsize))
        return dx

    def weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        c, o = x.shape[1], dy.shape[1]
        slices = _slices(len(x), c, geometry, x.itemsize)
        each = max(1, len(slices) // MAX_PARTIAL_SUMS)  # both are powers of two
        groups = [slice(i, i + each) for i in range(0, len(slices), each)]
        partial = self._space.arena.empty((len(groups), o, geometry.taps * c), x.dtype)

        def work(group: slice) -> None:
            total = partial[group.start // each]
            total[...] = 0
            for s in slices[group]:
                total += np.matmul(self._plain.position_rows(dy[s]).T, self._plain.im2col(x[s], geometry))

        self._space.pool.run_products(work, groups)
        dw = partial.sum(axis=0).reshape(o, *geometry.kernel_size, c)  # (O, kh, kw, C)
        return np.ascontiguousarray(channels_first(dw))  # (O, C, kh, kw)

    def _finished(self, part: Array, bias: Array | None, epilogue: Epilogue) -> Array:
        """Add a bias to numbers (..., channels), in place, and apply an activation."""
        if bias is not None:
            part += bias
        return self._plain.apply_epilogue(part, epilogue)[0]


def kernel_rows(weight: Array) -> Array:
    """Return the weight (O, C, kh, kw) as a matrix (O, kh * kw * C), columns in the order of im2col."""
    return channels_last(weight).reshape(len(weight), math.prod(weight.shape[1:]))  # (O, kh * kw * C)


def _slices(n: int, channels: int, geometry: ConvGeometry, itemsize: int) -> list[slice]:
    """Return slices of n images: in each, the columns have at most MAX_COLUMN_BYTES, or it is one image."""
    return cut(n, geometry.positions * geometry.taps * channels * itemsize, MAX_COLUMN_BYTES)
