"""The losses on a GPU: each with its gradient in one launch."""

from typing import Any

import numpy as np

from .arrays import Array
from .base import Backend
from .kernels import load
from .kernels.launch import fitted, launch_blocks, types_of


class GPULosses(Backend):
    """The losses of `GPUBackend`."""

    def logit_bce(self, x: Array, target: Any) -> tuple[Array, Array]:
        return self._mean_loss("logit_bce", x, target) if x.size else super().logit_bce(x, target)

    def bce(self, p: Array, target: Any, epsilon: float | None) -> tuple[Array, Array]:
        if not p.size:
            return super().bce(p, target, epsilon)
        floored = epsilon is None
        return self._mean_loss("bce", p, target, np.int32(floored), p.dtype.type(0 if floored else epsilon))

    def _mean_loss(self, kernel: str, x: Array, target: Any, *numbers: Any) -> tuple[Array, Array]:
        """Run a kernel of bce.cu on x and its labels: the loss, and its gradient in the shape of x."""
        values = self.xp.ascontiguousarray(x)
        loss, gradient = self.xp.empty((), x.dtype), self.xp.empty_like(values)
        given = self.owns(target)
        labels = self.xp.ascontiguousarray(fitted(target, x)) if given else np.uint64(0)
        label = x.dtype.type(0 if given else target)
        launch_blocks(
            "bce",
            kernel,
            types_of(x.dtype),
            (1,),
            (load.BLOCK,),
            (values, labels, label, *numbers, loss, gradient, np.int64(x.size)),
        )
        return loss, gradient.reshape(x.shape)
