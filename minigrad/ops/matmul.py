"""The matrix product."""

from collections.abc import Iterable

from ..backend.base import Array
from ..tensor import Tensor
from .elementwise import normal
from .operation import Case, Operation, as_tensor


class Matmul(Operation):
    """Y = A B: dA = dY B^T, dB = A^T dY, for every matrix of a stack."""

    keep_inputs = True

    @classmethod
    def cases(cls) -> Iterable[Case]:
        yield Case(matmul, normal((3, 4), (4, 2)))
        yield Case(matmul, normal((2, 1, 3, 4), (5, 4, 2)), label="stacks, broadcast")
        yield Case(matmul, normal((1, 1), (1, 1)), label="1x1")

    def forward(self, a: Array, b: Array) -> Array:
        return self.backend.matmul(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = self.inputs
        return (
            matmul(dy, _flipped(b)) if self.needs[0] else None,
            matmul(_flipped(a), dy) if self.needs[1] else None,
        )


def _flipped(x: Tensor) -> Tensor:
    """The transpose of every matrix of a stack."""
    return x.transpose(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a @ b for (..., n, k) and (..., k, m); vectors count as one row, or one column."""
    like = a if isinstance(a, Tensor) else b
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
