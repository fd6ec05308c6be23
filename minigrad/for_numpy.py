"""NumPy's functions on tensors: they get the values of a tensor on the CPU that requires no gradient.

Source of the protocols: NumPy's documentation, "Interoperability with NumPy".
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .backend.arrays import Array

ATTRIBUTES = ("ndim", "shape", "size")  # functions of NumPy's that are attributes too


class ForNumPy:
    """The methods that NumPy calls; a base of `Tensor`."""

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
        """Return the values, for `numpy.asarray` and the like: the same memory, as `numpy()` gives it.

        Args:
            dtype: the dtype of the array; by default the tensor's. Another one needs a copy.
            copy: whether to copy; by default only if a copy is needed.

        Raises TypeError if the tensor requires a gradient, which NumPy would not record, or is on another
        device, and ValueError if `copy` is False and a copy is needed.
        """
        if self.requires_grad:
            raise TypeError(
                "NumPy records no gradients, and this tensor requires one: pass x.detach(), or call "
                "minigrad's functions"
            )
        if self.device != "cpu":
            raise TypeError(
                f"NumPy can't read a tensor on {self.device!r}: pass x.numpy(), which copies the values"
            )
        if dtype is None or self.dtype == dtype:
            return self.data.copy() if copy else self.data
        if copy is False:
            raise ValueError(
                f"a {self.dtype} tensor can't become an array of dtype {dtype} without a copy (copy=False)"
            )
        return self.data.astype(dtype)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Return what a function of NumPy's (`numpy.mean`, `numpy.stack`, ...) gives for the values.

        Raises TypeError as `__array__` does; `numpy.shape`, `numpy.ndim` and `numpy.size` take every tensor.
        """
        name = getattr(function, "__name__", "")
        if name in ATTRIBUTES and len(args) == 1 and not kwargs:
            return getattr(args[0], name)
        return function(*_as_arrays(args), **_as_arrays(kwargs))


def _as_arrays(value: Any) -> Any:
    """Return arguments with arrays in place of tensors, at any depth."""
    if isinstance(value, ForNumPy):
        return value.__array__()
    if type(value) in (list, tuple):
        return type(value)(map(_as_arrays, value))
    if type(value) is dict:
        return {key: _as_arrays(one) for key, one in value.items()}
    return value
