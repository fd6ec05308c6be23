"""The losses on a GPU: each with its gradient in one launch, where there are as few numbers as logits."""

from typing import Any

import numpy as np

from ..arrays import Array
from ..base import Backend
from .kernels import load
from .kernels.launch import contiguous, fitted, launch_blocks, types_of

MOST = 2**16  # elements for one block of threads; more are worth the launches of a chain of operations


class GPULosses(Backend):
    """The losses of `GPUBackend`."""

    def logit_bce(self, x: Array, target: Any) -> tuple[Array, Array]:
        if not 0 < x.size <= MOST:
            return super().logit_bce(x, target)
        return self._mean_loss("logit_bce", x, target)

    def bce(self, p: Array, target: Any, epsilon: float | None) -> tuple[Array, Array]:
        if not 0 < p.size <= MOST:
            return super().bce(p, target, epsilon)
        floored = epsilon is None
        return self._mean_loss("bce", p, target, np.int32(floored), p.dtype.type(0 if floored else epsilon))

    def _mean_loss(self, kernel: str, x: Array, target: Any, *numbers: Any) -> tuple[Array, Array]:
        """Run a kernel of bce.cu on x and its labels: the loss, and its gradient in the shape of x."""
        values = contiguous(x)
        loss, gradient = self.xp.empty((), x.dtype), self.xp.empty_like(values)
        given = self.owns(target)
        labels = contiguous(fitted(target, x)) if given else np.uint64(0)
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
