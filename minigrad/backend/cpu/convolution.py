"""The convolution on the CPU: chooses the first form that pays for the sizes at hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..arrays import Array, channels_first
from ..epilogue import NO_EPILOGUE, Epilogue
from ..geometry import ConvGeometry
from .direct import DirectForm
from .elementwise import CompiledElementwise
from .forms import ColumnsForm, Form
from .frequency import FrequencyForm
from .native import FLOATS
from .winograd import WinogradForm
from .workspace import Workspace

FLOAT32 = np.dtype(np.float32)


def forms(workspace: Workspace) -> list[Form]:
    """Return the forms that there are: the first that pays is used."""
    if workspace.kernels is None:
        return [ColumnsForm(workspace)]
    return [FrequencyForm(workspace), WinogradForm(workspace), DirectForm(workspace), ColumnsForm(workspace)]


class CPUConvolution(CompiledElementwise):
    """The convolutions of `CPUBackend`."""

    _forms: Sequence[Form]

    def _form(
        self, geometry: ConvGeometry, n: int, channels: int, out_channels: int, dtype: Any = FLOAT32
    ) -> Form:
        """Return the first form that pays. Dtypes other than float32 and float64 go to the last form."""
        able = self._forms if dtype in FLOATS else self._forms[-1:]
        return next(f for f in able if f.pays(geometry, n, channels, out_channels))

    def convolve(
        self, x: Array, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        form = self._form(geometry, len(x), x.shape[1], len(weight), x.dtype)
        # A dropout goes with the activation before it: one pass has both.
        first = epilogue if epilogue.dropout is None else NO_EPILOGUE
        y = channels_first(form.convolve(x, weight, bias, geometry, first))
        return (y, None) if epilogue.dropout is None else self._finish(y, epilogue)

    def convolve_input_gradient(
        self, dy: Array, weight: Array, bias: Array | None, geometry: ConvGeometry,
        epilogue: Epilogue = NO_EPILOGUE,
    ) -> Array:  # fmt: skip
        form = self._form(geometry, len(dy), weight.shape[1], len(weight), dy.dtype)
        return channels_first(form.input_gradient(dy, weight, bias, geometry, epilogue))

    def convolve_weight_gradient(self, x: Array, dy: Array, geometry: ConvGeometry) -> Array:
        form = self._form(geometry, len(x), x.shape[1], dy.shape[1], x.dtype)
        return form.weight_gradient(x, dy, geometry)

    def convolve_and_weight_gradient(
        self, x: Array, weight: Array, y: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        form = self._form(geometry, len(x), x.shape[1], len(weight), x.dtype)
        found, dw = form.convolve_and_weight_gradient(x, weight, y, geometry)
        return channels_first(found), dw

    def convolve_gradients(
        self, x: Array, weight: Array, dy: Array, geometry: ConvGeometry
    ) -> tuple[Array, Array]:
        form = self._form(geometry, len(x), x.shape[1], len(weight), x.dtype)
        dx, dw = form.gradients(x, weight, dy, geometry)
        return channels_first(dx), dw

    def convolution_form(
        self, product: str, geometry: ConvGeometry, n: int, channels: int, out_channels: int
    ) -> str:
        return self._form(geometry, n, channels, out_channels).description
