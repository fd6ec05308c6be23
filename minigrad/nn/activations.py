"""The layers without parameters."""

from typing import Any

from .. import functional as F
from ..backend.arguments import as_float, as_int
from ..backend.epilogue import Epilogue
from ..tensor import Tensor
from .module import Module


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.relu(x)

    def as_epilogue(self) -> Epilogue:
        return Epilogue(slope=0.0)


class LeakyReLU(Module):
    """x where x > 0, negative_slope * x elsewhere."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = as_float(negative_slope)
        if not 0 <= self.negative_slope <= 1:
            raise ValueError(f"LeakyReLU: expected 0 <= negative_slope <= 1, got {negative_slope}")

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.leaky_relu(x, self.negative_slope)

    def as_epilogue(self) -> Epilogue:
        return Epilogue(slope=self.negative_slope)

    def describe(self) -> str:
        return f"LeakyReLU({self.negative_slope})"


class Tanh(Module):
    """The hyperbolic tangent, in (-1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), in (0, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.sigmoid(x)


class Dropout(Module):
    """In training, sets each element to 0 with probability p and scales the rest by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = as_float(p)
        if not 0 <= self.p < 1:
            raise ValueError(f"Dropout: expected 0 <= p < 1, got {p}")

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.dropout(x, self.p, self.training)

    def as_epilogue(self) -> Epilogue:
        return Epilogue(p=self.p if self.training else 0.0)

    def describe(self) -> str:
        return f"Dropout({self.p})"


class Flatten(Module):
    """(N, ...) as (N, the product of the rest)."""

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        return F.flatten(x)


class Reshape(Module):
    """(N, ...) as (N, *shape), given as ints or as one tuple; one of them may be -1."""

    def __init__(self, *shape: Any) -> None:
        super().__init__()
        given = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        sizes = [n for n in map(as_int, given) if n is not None and n >= -1]
        if len(sizes) != len(given) or sizes.count(-1) > 1:
            raise ValueError(f"Reshape: expected ints >= 0, of which one may be -1, got {given!r}")
        self.shape = tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        _check(self, x)
        if not x.ndim:
            raise ValueError(f"{self.describe()}: expected a batch (N, ...), got a tensor without axes")
        try:
            return x.reshape(x.shape[0], *self.shape)
        except ValueError:
            raise ValueError(
                f"{self.describe()}: {x.shape} does not fit (N, {', '.join(map(str, self.shape))})"
            ) from None

    def describe(self) -> str:
        return f"Reshape({', '.join(map(str, self.shape))})"


def _check(layer: Module, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{layer.describe()}: expected a Tensor, got {type(x).__name__}: minigrad.tensor(...) makes one"
        )
