"""How NumPy's functions take a tensor: its values, where that loses no gradient and needs no other device.

Source of the protocols: NumPy's documentation, "Interoperability with NumPy".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .backend.base import Array

LOOKS = ("ndim", "shape", "size")  # functions of NumPy's that are attributes too


class ForNumPy:
    """The protocols that NumPy asks for; `Tensor` has them."""

    __slots__ = ()
    __array_ufunc__ = None  # so that `array * tensor` asks the tensor

    if TYPE_CHECKING:

        @property
        def data(self) -> Array: ...
        @property
        def requires_grad(self) -> bool: ...
        @property
        def dtype(self) -> Any: ...
        @property
        def device(self) -> str: ...

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The values for `numpy.asarray` and its like: on the CPU the same memory, as `numpy()` gives it.

        Args:
            dtype: another one, which takes a copy.
            copy: True for one in any case; False raises ValueError where one is needed.

        Raises TypeError where the tensor requires a gradient, which would end there silently, and for one on
        another device.
        """
        if self.requires_grad:
            raise TypeError(
                "NumPy records no gradients, and this tensor requires one: pass x.detach(), or call "
                "minigrad's functions"
            )
        if self.device != "cpu":
            raise TypeError(
                f"NumPy takes no tensor on {self.device!r}: pass x.numpy(), which copies the values"
            )
        if dtype is None or self.dtype == dtype:
            return self.data.copy() if copy else self.data
        if copy is False:
            raise ValueError(f"a {self.dtype} tensor becomes an array of another dtype by a copy only")
        return self.data.astype(dtype)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a function of NumPy's (`numpy.mean`, `numpy.stack`, ...) gives for the values.

        Raises TypeError as `__array__` does; `numpy.shape`, `ndim` and `size` take every tensor.
        """
        name = getattr(function, "__name__", "")
        if name in LOOKS and len(args) == 1 and not kwargs:
            return getattr(args[0], name)
        return function(*_as_arrays(args), **_as_arrays(kwargs))


def _as_arrays(value: Any) -> Any:
    """The same arguments with arrays in the place of tensors, at any depth."""
    if isinstance(value, ForNumPy):
        return value.__array__()
    if type(value) in (list, tuple):
        return type(value)(map(_as_arrays, value))
    if type(value) is dict:
        return {key: _as_arrays(one) for key, one in value.items()}
    return value
