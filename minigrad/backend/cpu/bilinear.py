"""Convolution between transforms: few products of channels, between matrices that make and undo them.

A convolution is linear in x and in w. Written out it multiplies each tap by each pixel it meets; but there
are ways to the same numbers that multiply far less. All of them look like this, for each channel of x and y:

    y = A ((B x) . (G w)),

where B, G and A are matrices of constants and the point stands for products row by row. Fourier's matrices
are in frequency.py; how to get there and back fast is here:

- At each row the channels meet in one product of matrices, (N x C) by (C x O), which BLAS does at full speed.
- The transforms are products by small matrices too, for all channels at once. Their rows are written once,
  and read where they lie.
- With a stride s the pixels that are s apart belong together, and so do the taps (see phases.py): each such
  phase has a transform of its own, and counts as further channels.

The other two products of a convolution (ops/conv.py) are the transposes of this one: the same three matrices,
transposed. Nothing else need be derived, and no padding argued about again.

Source of the form: Winograd, "Arithmetic complexity of computations" (1980), chapter 3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..geometry import ConvGeometry, Pair
from ..kept import KernelTransforms, Memo
from .parallel import NOTHING, Stage, cut, side_by_side
from .workspace import Workspace

Array = np.ndarray[Any, Any]
Finish = Callable[[Array, slice], None]


@dataclass(frozen=True)
class Transform:
    """The matrices of a geometry, all phases of the stride side by side.

    Attributes:
        stride: the geometry's.
        size: the height and width of a phase; what only some of them have is zero in the others.
        image: B, phase by phase, (phases, rows, height * width).
        kernel: G, (rows * phases, kh * kw), the phases innermost.
        back: A, (oh * ow, rows).
        turned: whether a kernel's transform lies in memory with the channels of x innermost.
    """

    stride: Pair
    size: Pair
    image: Array
    kernel: Array
    back: Array
    turned: bool

    @property
    def phases(self) -> int:
        """Kinds of pixels."""
        return len(self.image)

    @property
    def rows(self) -> int:
        """Products of an image's channels by a kernel's."""
        return self.back.shape[1]


def cost(n: int, channels: int, out_channels: int, geometry: ConvGeometry, rows: int, phases: int = 1) -> int:
    """Multiply-adds of a convolution of n images by a transform: the products', the transforms'."""
    inner = phases * channels
    pixels = geometry.input_size[0] * geometry.input_size[1]  # those of all phases together
    images = n * (pixels * channels + geometry.positions * out_channels)
    return rows * (n * inner * out_channels + images + geometry.taps * inner * out_channels)


def plain_cost(n: int, channels: int, out_channels: int, geometry: ConvGeometry) -> int:
    """Multiply-adds of the plain form."""
    return n * geometry.positions * geometry.taps * channels * out_channels


def _nothing() -> None:
    """What is done of a transform that is kept already."""


@dataclass(frozen=True)
class Kernel:
    """A weight's transform.

    Attributes:
        made: (rows, phases * C, O); not to be changed.
        there: the stage that makes it.
        keep: to be called once it is made.
    """

    made: Array
    there: Stage = NOTHING
    keep: Callable[[], None] = _nothing


class BilinearForm:
    """The three products of a convolution, between transforms.

    `finish(y, s)` changes the images s of a result (N, height, width, channels) in place, in the cache.
    `memo` is where the transforms of x (of y, in a transposed convolution) and of the weight are left for the
    gradients.

    Args:
        workspace: threads, which share out images in transforms and rows in products; and memory.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.pool, self.scratch, self.empty = workspace.pool, workspace.scratch, workspace.arena.empty
        self._kernels = KernelTransforms()

    def convolve(
        self, x: Array, weight: Array, geometry: ConvGeometry, t: Transform, finish: Finish | None = None,
        memo: Memo | None = None,
    ) -> Array:  # fmt: skip
        """`Backend.convolve` without a bias, channels innermost: (N, oh, ow, O)."""
        kernel = self._of_weight(weight, t, memo)
        image, images_there = self._of_images(x, t, memo)
        y, *stages = self._convolved(image, kernel.made, geometry, t, finish)
        self._work_off(kernel, side_by_side(kernel.there, images_there), *stages)
        return y

    def input_gradient(
        self, dy: Array, weight: Array, geometry: ConvGeometry, t: Transform, finish: Finish | None = None,
        memo: Memo | None = None,
    ) -> Array:  # fmt: skip
        """`Backend.convolve_input_gradient` without a bias, channels innermost: (N, H, W, C)."""
        kernel = self._of_weight(weight, t, memo)
        result, results_there = self._of_results(dy, t, memo)
        dx, *stages = self._laid(result, kernel.made, weight.shape[1], geometry, t, finish)
        self._work_off(kernel, side_by_side(kernel.there, results_there), *stages)
        return dx

    def weight_gradient(
        self, x: Array, dy: Array, geometry: ConvGeometry, t: Transform, memo: Memo | None = None
    ) -> Array:
        """`Backend.convolve_weight_gradient`: (O, C, kh, kw)."""
        image, images_there = self._of_images(x, t, memo)
        result, results_there = self._of_results(dy, t, memo)
        dw, *stages = self._weights(image, result, geometry, t)
        self.pool.run_stages(side_by_side(images_there, results_there), *stages)
        return dw

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry, t: Transform,
        memo: Memo | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """`convolve(x, weight)` and `weight_gradient(x, y)`, with one transform of x."""
        kernel = self._of_weight(weight, t, memo)
        image, images_there = self._of_images(x, t)
        result, results_there = self._of_results(y, t, memo)
        convolved, *of_convolved = self._convolved(image, kernel.made, geometry, t)
        dw, *of_dw = self._weights(image, result, geometry, t)
        there = side_by_side(kernel.there, images_there, results_there)
        self._work_off(kernel, there, *map(side_by_side, of_convolved, of_dw))
        return convolved, dw

    def gradients(
        self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry, t: Transform,
        memo: Memo | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """`input_gradient(dy, weight)` and `weight_gradient(x, dy)`, with one transform of dy."""
        kernel = self._of_weight(weight, t, memo)
        image, images_there = self._of_images(x, t, memo)
        result, results_there = self._of_results(dy, t)
        dx, *of_dx = self._laid(result, kernel.made, weight.shape[1], geometry, t)
        dw, *of_dw = self._weights(image, result, geometry, t)
        there = side_by_side(kernel.there, images_there, results_there)
        self._work_off(kernel, there, *map(side_by_side, of_dx, of_dw))
        return dx, dw

    def _work_off(self, kernel: Kernel, *stages: Stage) -> None:
        """Do the work; the kernel's transform is kept once it is made."""
        self.pool.run_stages(*stages)
        kernel.keep()

    # -- there -----------------------------------------------------------------------------------

    def _of_images(self, x: Array, t: Transform, memo: Memo | None = None) -> tuple[Array, Stage]:
        """B x, of (N, C, H, W): (N, rows, phases * C)."""
        n, c = x.shape[:2]
        pixels = x.transpose(0, 2, 3, 1)  # (N, H, W, C)

        def make() -> tuple[Array, Stage]:
            made = self.empty((n, t.rows, t.phases, c), x.dtype)
            rows = made.transpose(2, 0, 1, 3)  # (phases, N, rows, C)

            def images_there(s: slice) -> None:
                np.matmul(t.image[:, None], self._apart(pixels[s], t), out=rows[:, s])

            whole = made.reshape(n, t.rows, -1)  # (N, rows, phases * C)
            return whole, Stage(images_there, cut(n, made[:1].nbytes))

        return _remembered(memo, x, t.image, make)

    def _of_results(self, y: Array, t: Transform, memo: Memo | None = None) -> tuple[Array, Stage]:
        """The transpose of A, of (N, O, oh, ow): (N, rows, O)."""
        n, o = y.shape[:2]

        def make() -> tuple[Array, Stage]:
            made = self.empty((n, t.rows, o), y.dtype)

            def results_there(s: slice) -> None:
                pixels = np.ascontiguousarray(y[s].transpose(0, 2, 3, 1))  # (n, oh, ow, O)
                np.matmul(t.back.T, pixels.reshape(len(pixels), -1, o), out=made[s])

            return made, Stage(results_there, cut(n, made[:1].nbytes))

        return _remembered(memo, y, t.back, make)

    def _apart(self, x: Array, t: Transform) -> Array:
        """Images (n, H, W, C) phase by phase, (phases, n, height * width, C), in this thread's memory."""
        (n, height, width, c), (h, w) = x.shape, t.size
        if t.phases == 1:
            return np.ascontiguousarray(x).reshape(1, n, h * w, c)
        near = self.scratch.get("phases", (*t.stride, n, h, w, c), x.dtype)
        if (height, width) == (h * t.stride[0], w * t.stride[1]):
            near[...] = _by_phase(x, t)
            return near.reshape(t.phases, n, h * w, c)
        near[...] = 0
        for i, j in np.ndindex(t.stride):
            part = x[:, i :: t.stride[0], j :: t.stride[1]]
            near[i, j, :, : part.shape[1], : part.shape[2]] = part
        return near.reshape(t.phases, n, h * w, c)

    def _together(self, matrices: Array, rows: Array, x: Array, t: Transform) -> None:
        """x (n, H, W, C), the phases of which are matrices (phases, 1, height * width, rows) by rows
        (phases, n, rows, C).
        """
        (n, height, width, c), (h, w) = x.shape, t.size
        if t.phases == 1:
            np.matmul(matrices, rows, out=x.reshape(1, n, h * w, c))
            return
        near = self.scratch.get("phases", (*t.stride, n, h, w, c), x.dtype)
        np.matmul(matrices, rows, out=near.reshape(t.phases, n, h * w, c))
        if (height, width) == (h * t.stride[0], w * t.stride[1]):
            _by_phase(x, t)[...] = near
            return
        for i, j in np.ndindex(t.stride):
            part = x[:, i :: t.stride[0], j :: t.stride[1]]
            part[...] = near[i, j, :, : part.shape[1], : part.shape[2]]

    def _of_weight(self, weight: Array, t: Transform, memo: Memo | None = None) -> Kernel:
        """G w, of (O, C, kh, kw): made before for the same numbers, or to be made by a stage.

        BLAS is slower by a fifth where it has to read a factor by its columns. So in a layer that uses it
        transposed, on the way forward, it lies in memory that way.
        """
        known = None if memo is None else memo.kernel(weight, t)
        if known is None:
            known = self._kernels.find(weight, t)
        if known is not None:
            if memo is not None:
                memo.keep_kernel(known)
            return Kernel(known.made)
        own = self.empty(weight.shape, weight.dtype)  # a copy: the weight may change until it is compared
        make = self._of_weight_turned if t.turned else self._of_weight_plain
        made, there = make(weight, own, t)

        def keep() -> None:
            new = self._kernels.keep(weight, t, own, made)
            if memo is not None and new is not None:
                memo.keep_kernel(new)

        return Kernel(made, there, keep)

    def _of_weight_plain(self, weight: Array, own: Array, t: Transform) -> tuple[Array, Stage]:
        """G w, of what the stage copies to `own`: (rows, phases * C, O)."""
        o, c = weight.shape[:2]
        by_tap = own.reshape(o, c, -1).transpose(2, 1, 0)  # (taps, C, O)
        made = self.empty((len(t.kernel), c, o), weight.dtype)

        def kernel_there(s: slice) -> None:
            own[:, s] = weight[:, s]
            near = self.scratch.get("taps", (len(by_tap), s.stop - s.start, o), weight.dtype)
            near[...] = by_tap[:, s]
            flat = near.reshape(len(near), -1)  # (taps, channels * O)
            np.matmul(t.kernel, flat, out=made[:, s].reshape(len(made), -1))

        whole = made.reshape(t.rows, -1, o)  # (rows, phases * C, O)
        return whole, Stage(kernel_there, cut(c, made[:, :1].nbytes))

    def _of_weight_turned(self, weight: Array, own: Array, t: Transform) -> tuple[Array, Stage]:
        """The same, with phases * C innermost in memory."""
        o, c = weight.shape[:2]
        by_tap = own.reshape(o, c, -1).transpose(0, 2, 1)  # (O, taps, C)
        made = self.empty((t.rows, o, t.phases, c), weight.dtype)
        kernel = t.kernel.reshape(t.rows, t.phases, 1, -1).transpose(1, 2, 0, 3)  # (phases, 1, rows, taps)
        by_phase = made.transpose(2, 1, 0, 3)  # (phases, O, rows, C)

        def turned_kernel_there(s: slice) -> None:
            own[s] = weight[s]
            near = self.scratch.get("taps", by_tap[s].shape, weight.dtype)
            near[...] = by_tap[s]
            np.matmul(kernel, near, out=by_phase[:, s])

        whole = made.reshape(t.rows, o, -1).transpose(0, 2, 1)  # (rows, phases * C, O)
        return whole, Stage(turned_kernel_there, cut(o, made[:, :1].nbytes))

    # -- the products, row by row ------------------------------------------------------------------

    def _products(self, images: Array, kernel: Array) -> tuple[Array, Stage]:
        """(N, rows, A) by (rows, A, B): (N, rows, B)."""
        (n, rows, a), b = images.shape, kernel.shape[2]
        made = self.empty((n, rows, b), images.dtype)
        by_row, result = images.transpose(1, 0, 2), made.transpose(1, 0, 2)  # (rows, N, A), (rows, N, B)

        def products(s: slice) -> None:
            np.matmul(by_row[s], kernel[s], out=result[s])

        return made, Stage(products, _row_slices(rows, n, a, b, images.itemsize))

    def _weights(
        self, image: Array, result: Array, geometry: ConvGeometry, t: Transform
    ) -> tuple[Array, Stage, Stage]:
        """`weight_gradient`, from the transforms of x and dy on."""
        (n, rows, inner), o, dtype = image.shape, result.shape[2], image.dtype
        made = self.empty((rows, inner, o), dtype)
        x_rows, y_rows = image.transpose(1, 2, 0), result.transpose(1, 0, 2)  # (rows, inner, N), (rows, N, O)

        def sums_of_products(s: slice) -> None:
            np.matmul(x_rows[s], y_rows[s], out=made[s])

        slices = _row_slices(rows, n, inner, o, dtype.itemsize)
        by_phase = made.reshape(len(t.kernel), -1, o)  # (rows * phases, C, O)
        dw, back = self._to_kernel(by_phase, geometry, t)
        return dw, Stage(sums_of_products, slices), back

    # -- and back --------------------------------------------------------------------------------

    def _convolved(
        self,
        image: Array,
        kernel: Array,
        geometry: ConvGeometry,
        t: Transform,
        finish: Finish | None = None,
    ) -> tuple[Array, Stage, Stage]:
        """`convolve`, from the transforms of x and of the weight on."""
        made, products = self._products(image, kernel)
        (n, _, o), size = made.shape, geometry.output_size
        y = self.empty((n, *size, o), made.dtype)
        flat = y.reshape(n, -1, o)  # (N, oh * ow, O)

        def results_back(s: slice) -> None:
            np.matmul(t.back, made[s], out=flat[s])
            if finish is not None:
                finish(y, s)

        return y, products, Stage(results_back, cut(n, made[:1].nbytes))

    def _laid(
        self,
        result: Array,
        kernel: Array,
        channels: int,
        geometry: ConvGeometry,
        t: Transform,
        finish: Finish | None = None,
    ) -> tuple[Array, Stage, Stage]:
        """`input_gradient`, from the transforms of dy and of the weight on."""
        made, products = self._products(result, kernel.transpose(0, 2, 1))
        n, rows, _ = made.shape
        by_phase = made.reshape(n, rows, t.phases, channels).transpose(2, 0, 1, 3)  # (phases, N, rows, C)
        dx = self.empty((n, *geometry.input_size, channels), made.dtype)

        def images_back(s: slice) -> None:
            self._together(t.image.transpose(0, 2, 1)[:, None], by_phase[:, s], dx[s], t)
            if finish is not None:
                finish(dx, s)

        return dx, products, Stage(images_back, cut(n, made[:1].nbytes))

    def _to_kernel(self, made: Array, geometry: ConvGeometry, t: Transform) -> tuple[Array, Stage]:
        """The transpose of `_of_weight`: (rows * phases, C, O) to (O, C, kh, kw)."""
        c, o = made.shape[1:]
        dw = self.empty((o, c, t.kernel.shape[1]), made.dtype)

        def kernel_back(s: slice) -> None:
            flat = made[:, s].reshape(len(made), -1)  # (rows * phases, channels * O)
            near = self.scratch.get("taps", (t.kernel.shape[1], flat.shape[1]), made.dtype)
            np.matmul(t.kernel.T, flat, out=near)
            dw[:, s] = near.reshape(len(near), -1, o).transpose(2, 1, 0)

        return dw.reshape(o, c, *geometry.kernel_size), Stage(kernel_back, cut(c, made[:, :1].nbytes))


def _remembered(
    memo: Memo | None, images: Array, matrix: Array, make: Callable[[], tuple[Array, Stage]]
) -> tuple[Array, Stage]:
    """What the memo has of the images, and nothing to do; or what `make` gives, left there.

    It goes by the matrix, not by the whole transform: x and dy may be one array, which has two then.
    """
    known = None if memo is None else memo.get(images, matrix)
    if known is not None:
        return known, NOTHING
    made, stage = make()
    if memo is not None:
        memo.keep(images, matrix, made)
    return made, stage


def _by_phase(x: Array, t: Transform) -> Array:
    """A view of (n, H, W, C), where both are multiples of the stride: (*stride, n, height, width, C)."""
    (n, _, _, c), (h, w), (sh, sw) = x.shape, t.size, t.stride
    return x.reshape(n, h, sh, w, sw, c).transpose(2, 4, 0, 1, 3, 5)


def _row_slices(rows: int, n: int, a: int, b: int, itemsize: int) -> list[slice]:
    """Slices of the rows of a product of (n, a), (a, b) and (n, b) each.

    They may be twice as large as others, since a row fits in the cache by itself: each begins and ends with a
    line of Python, for which the threads wait for each other.
    """
    return cut(rows, (a * b + n * (a + b)) * itemsize // 2)
