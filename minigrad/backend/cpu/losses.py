"""Losses and their gradients by the C kernels (`kernels/bce.c`)."""

from typing import Any

import numpy as np

from ..arrays import Array
from .calls import KernelCalls
from .native import address


class CompiledLosses(KernelCalls):
    """The losses of `CPUBackend`."""

    def logit_bce(self, x: Array, target: Any) -> tuple[Array, Array]:
        given = self._with_labels(x, target)
        if given is None:
            return super().logit_bce(x, target)
        labels, label, loss, gradient = given
        self._kernel("logit_bce", x.dtype)(
            address(x), labels, address(loss), address(gradient), x.size, label
        )
        return loss, gradient

    def bce(self, p: Array, target: Any, epsilon: float | None) -> tuple[Array, Array]:
        given = self._with_labels(p, target)
        if given is None:
            return super().bce(p, target, epsilon)
        labels, label, loss, gradient = given
        places = address(p), labels, address(loss), address(gradient)
        self._kernel("bce", p.dtype)(*places, p.size, label, epsilon or 0.0, epsilon is None)
        return loss, gradient

    def _with_labels(self, x: Array, target: Any) -> tuple[int | None, float, Array, Array] | None:
        """Return the address of the labels, the label, and memory for the loss and the gradient.

        The address is None if there is one label for all. Returns None if no kernel takes the arrays.
        """
        alone = isinstance(target, (int, float))
        order = self._order(x) if alone else self._order(x, target)
        if not order:
            return None
        loss, gradient = np.empty((), x.dtype), self._empty(x.shape, x.dtype, order)
        return (None, float(target), loss, gradient) if alone else (address(target), 0.0, loss, gradient)
