"""The updates of many arrays in one call of a C kernel (`kernels/adam.c`)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arrays import Array
from ..optimizers import AdamUpdate, Factors
from .calls import FLOAT64, KernelCalls
from .native import address


class CompiledOptimizers(KernelCalls):
    """The updates of `CPUBackend`."""

    def adam_updates(self, updates: Sequence[AdamUpdate], factors: Factors, **constants: Any) -> None:
        numbers = factors()
        fitting: dict[Any, list[tuple[AdamUpdate, tuple[float, float]]]] = {}
        others = []
        for arrays, pair in zip(updates, numbers, strict=True):
            if self._order(*arrays) and _may_change(arrays[0], arrays[2], arrays[3]):
                fitting.setdefault(arrays[0].dtype, []).append((arrays, pair))
            else:
                others.append((arrays, pair))
        if others:
            super().adam_updates([a for a, _ in others], lambda: [pair for _, pair in others], **constants)
        for dtype, same in fitting.items():
            table, pairs = _table([a for a, _ in same]), np.array([pair for _, pair in same], FLOAT64)
            betas, eps, weight_decay = constants["betas"], constants["eps"], constants["weight_decay"]
            kernel = self._kernel("adam", dtype)
            kernel(address(table), address(pairs), len(same), *map(float, (*betas, eps, weight_decay)))

    def average_updates(
        self, pairs: Sequence[tuple[Array, Array]], weights: Callable[[], tuple[float, float]]
    ) -> None:
        found = weights()
        fitting: dict[Any, list[tuple[Array, Array]]] = {}
        others = []
        for pair in pairs:
            if self._order(*pair) and _may_change(pair[0]):
                fitting.setdefault(pair[0].dtype, []).append(pair)
            else:
                others.append(pair)
        if others:
            super().average_updates(others, lambda: found)
        for dtype, same in fitting.items():
            table = _table([(average, new, average, average) for average, new in same])
            numbers = np.array(found, FLOAT64)
            self._kernel("average", dtype)(address(table), address(numbers), len(same))


def _may_change(*arrays: Array) -> bool:
    """Whether these arrays are writeable. (If one is not, NumPy's form raises the error.)"""
    return all(a.flags.writeable for a in arrays)


def _table(updates: Sequence[tuple[Array, ...]]) -> Array:
    """Return the addresses of the arrays of each update, and their size: (updates, TABLE_WIDTH)."""
    return np.array([(*map(address, arrays), arrays[0].size) for arrays in updates], np.int64)
