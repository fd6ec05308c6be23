"""Records of the launches on a GPU: kernels and matrix products.

As a rule nobody listens. The cost is then a look at an empty list.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """The work of one launch.

    Attributes:
        kernel: its name with its template arguments, as "im2col<float, 4>"; "CuPy copy" for one of CuPy's
            own; "cuBLAS 6272x128 @ 128x1024" for a product.
        grid: its blocks; () where CuPy or cuBLAS chooses them.
        bytes: of the arrays that it reads and of those that it writes, each counted once.
        flop: arithmetic operations. A root, a division or an exponential is one, a multiply-add two.
    """

    kernel: str
    grid: tuple[int, ...]
    bytes: int
    flop: int

    @property
    def is_product(self) -> bool:
        """Whether it is a product by cuBLAS."""
        return self.kernel.startswith("cuBLAS")


listeners: list[Callable[[Work], None]] = []


def notify(work: Work) -> None:
    """Call every listener."""
    for listener in listeners:
        listener(work)
