"""Batch normalisation by the C kernels (`kernels/batch_norm.c`)."""

from typing import Any

import numpy as np

from ..arrays import Array
from ..epilogue import NO_EPILOGUE, Epilogue
from .calls import C_ORDER, FLOAT64, INNERMOST, KernelCalls, order_of
from .native import address


class CompiledBatchNorm(KernelCalls):
    """The batch normalisation of `CPUBackend`."""

    def moments(self, x: Array) -> tuple[Array, Array]:
        rows = self._rows(x)
        if rows is None:
            return super().moments(x)
        channels = x.shape[1]
        count = x.size // channels
        mean, variance = np.empty(channels), np.empty(channels)
        partial = self._sums_of_chunks(count, 2 * channels)
        self._kernel("moments", x.dtype)(*map(address, (rows, partial, mean, variance)), count, channels)
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
        rows = self._rows(x)
        mean, variance = (np.ascontiguousarray(v, FLOAT64) for v in (mean, variance))
        if (
            rows is None
            or not _are_vectors(x, x.dtype, weight, bias)
            or not _are_vectors(x, FLOAT64, mean, variance)
        ):
            return super().normalize(x, mean, variance, eps, weight, bias, epilogue)
        channels = x.shape[1]
        constants = self.scratch.get("constants", (3 * channels,), x.dtype)
        y = self._empty(x.shape, x.dtype, C_ORDER if x.ndim == 2 else INNERMOST)
        self._kernel("normalize", x.dtype)(
            *map(address, (rows, mean, variance, weight, bias, constants, y)),
            *(x.size // channels, channels, eps, epilogue.slope),
        )
        return y

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
        result = y if epilogue.has_activation else dy  # without an activation the kernel reads no signs
        vectors = _are_vectors(x, x.dtype, weight) and _are_vectors(x, FLOAT64, mean, variance)
        if not vectors or not x.shape == dy.shape == result.shape or not x.dtype == dy.dtype == result.dtype:
            return super().normalize_backward(dy, x, y, mean, variance, eps, weight, epilogue)
        rows, grads = self._rows(x), self._rows(dy)
        signs = grads if result is dy else self._rows(result)
        if rows is None or grads is None or signs is None:
            return super().normalize_backward(dy, x, y, mean, variance, eps, weight, epilogue)
        channels = x.shape[1]
        count = x.size // channels
        partial = self._sums_of_chunks(count, 2 * channels)
        constants = self.scratch.get("constants", (4 * channels,), x.dtype)
        dx = self._empty(x.shape, x.dtype, C_ORDER if x.ndim == 2 else INNERMOST)
        dweight, dbias = np.empty(channels, x.dtype), np.empty(channels, x.dtype)
        self._kernel("normalize_backward", x.dtype)(
            *map(address, (grads, rows, signs, mean, variance, weight, partial, constants)),
            *map(address, (dx, dweight, dbias)),
            *(count, channels, eps, epilogue.slope),
        )
        return dx, dweight, dbias


def _are_vectors(x: Array, dtype: Any, *vectors: Array) -> bool:
    """Whether these are contiguous vectors of a dtype, with one number for each channel of x."""
    shape = x.shape[1:2]
    return all(v.dtype == dtype and v.shape == shape and order_of(v) for v in vectors)
