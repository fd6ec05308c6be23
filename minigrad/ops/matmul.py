"""Matrix products: of two matrices, and of a layer's input with its weight."""

from collections.abc import Iterable

from .. import naive
from ..backend.arrays import Array
from ..tensor import Tensor
from .cases import Case, normal
from .operation import Operation, as_tensor, require_tensor


class Matmul(Operation):
    """Y = A B: dA = dY B^T, dB = A^T dY, for every matrix of a stack."""

    keep_inputs = True

    def forward(self, a: Array, b: Array) -> Array:
        return self.backend.matmul(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (
            matmul(dy, _flipped(b)) if self.needs[0] else None,
            matmul(_flipped(a), dy) if self.needs[1] else None,
        )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(matmul, normal((3, 4), (4, 2)))
        yield Case(matmul, normal((2, 1, 3, 4), (5, 4, 2)), label="stacks, broadcast")
        yield Case(matmul, normal((1, 1), (1, 1)), label="1x1")


class Dense(Operation):
    """Y = X W^T + b, with W (out, in) as a layer keeps it: dX = dY W, dW = dY^T X, db = sum of dY's rows.

    `matmul` of X and the transpose of W gives the same numbers, but its gradient lies in memory as the
    transpose does: an optimizer would then read W and its gradient in different orders.
    """

    keep_inputs = True

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return self.backend.dense(x, weight, bias)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *bias = self.inputs
        return (
            matmul(dy, weight) if self.needs[0] else None,
            matmul(dy.transpose(), x) if self.needs[1] else None,
            *(dy.sum(axis=0) if self.needs[2] else None for _ in bias),
        )

    def fused_backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The same without nodes for the products and the sum."""
        x, weight, *bias = self.inputs
        gradients = [
            self.backend.matmul(dy.data, weight.data) if self.needs[0] else None,
            self.backend.matmul(dy.data.T, x.data) if self.needs[1] else None,
            *(self.backend.sum(dy.data, (0,)) if self.needs[2] else None for _ in bias),
        ]
        return tuple(None if d is None else Tensor(d, backend=self.backend) for d in gradients)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(dense, normal((3, 4), (2, 4)), lambda x, w: naive.matmul(x, w.T))
        yield Case(dense, normal((1, 1), (1, 1)), lambda x, w: x * w, "1x1")
        yield Case(dense, normal((3, 4), (2, 4), (2,)), lambda x, w, b: naive.matmul(x, w.T) + b, "bias")


def _flipped(x: Tensor) -> Tensor:
    """The transpose of every matrix of a stack."""
    return x.transpose(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for (..., n, k) and (..., k, m); vectors count as one row, or one column."""
    like = a if isinstance(a, Tensor) else b
    require_tensor("matmul", like)
    a, b = as_tensor(a, like, "matmul"), as_tensor(b, like, "matmul")
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or not a.ndim or not b.ndim:
        raise ValueError("matmul: expected two tensors of at least one axis; for a number use *")
    if a.shape[-1] != b.shape[0 if b.ndim == 1 else -2]:
        raise ValueError(f"matmul: shapes {a.shape} and {b.shape} do not fit: (..., n, k) @ (..., k, m)")
    if a.ndim == 1 and b.ndim == 1:
        return (a * b).sum()
    if a.ndim == 1:
        return matmul(a.reshape(1, -1), b)[..., 0, :]
    if b.ndim == 1:
        return matmul(a, b.reshape(-1, 1))[..., 0]
    return Matmul()(a, b)


def dense(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x @ weight^T + bias: (N, in) by a weight (out, in) and a bias (out,) gives (N, out)."""
    require_tensor("dense", x, weight, *(() if bias is None else (bias,)))
    if weight.ndim != 2 or x.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"dense: expected x (N, in) and a weight (out, in), got {x.shape} and {weight.shape}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"dense: expected a bias of shape {weight.shape[:1]}, got {bias.shape}")
    return Dense()(x, weight) if bias is None else Dense()(x, weight, bias)
