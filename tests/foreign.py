"""A device whose arrays NumPy can't touch: whatever goes past the backend fails on it.

Its arrays are NumPy's, in a box that has operators and methods but refuses to be converted, as
CuPy's do. So the engine can be shown to stand on any backend, where there is no other device.
"""

import operator
from types import SimpleNamespace

import numpy as np

from minigrad.backend import Backend


class BoxedArray:
    """An array of the device; `inside` is its memory."""

    __array_ufunc__ = None

    def __init__(self, inside):
        self.inside = np.asarray(inside)

    def __array__(self, *args, **kwargs):
        raise TypeError("implicit conversion of a device's array to NumPy")

    def __getattr__(self, name):
        if name not in (
            "shape",
            "ndim",
            "size",
            "dtype",
            "strides",
            "base",
            "T",
            "itemsize",
            "nbytes",
        ) and not callable(getattr(self.inside, name)):
            raise AttributeError(name)
        value = getattr(self.inside, name)
        return boxed(value) if not callable(value) else lambda *a, **k: boxed(value(*opened(a), **opened(k)))

    def __getitem__(self, index):
        return boxed(self.inside[opened(index)])

    def __setitem__(self, index, value):
        self.inside[opened(index)] = opened(value)

    def __len__(self):
        return len(self.inside)

    def __bool__(self):
        return bool(self.inside)


def opened(value):
    """NumPy's arrays for boxed ones, at any depth; a bare NumPy array is refused."""
    if isinstance(value, BoxedArray):
        return value.inside
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("a NumPy array where one of the device is expected")
    if isinstance(value, tuple | list):
        return type(value)(opened(v) for v in value)
    if isinstance(value, dict):
        return {k: opened(v) for k, v in value.items()}
    return value


def boxed(value):
    return BoxedArray(value) if isinstance(value, np.ndarray | np.generic) else value


def _operator(function, swapped=False):
    if swapped:
        return lambda a, b: boxed(function(opened(b), a.inside))
    return lambda a, *b: boxed(function(a.inside, *opened(b)))


def _in_place(function):
    def apply(a, b):
        a.inside = function(a.inside, opened(b))
        return a

    return apply


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "pow",
    "matmul",
    "and",
    "lt",
    "le",
    "gt",
    "ge",
    "eq",
    "ne",
    "neg",
    "abs",
):
    _function = getattr(operator, f"__{_name}__")
    setattr(BoxedArray, f"__{_name}__", _operator(_function))
    setattr(BoxedArray, f"__r{_name}__", _operator(_function, swapped=True))
    if hasattr(operator, f"__i{_name}__"):
        setattr(BoxedArray, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__")))


class BoxedModule:
    """NumPy's functions over boxed arrays."""

    ndarray = BoxedArray
    lib = SimpleNamespace(
        stride_tricks=SimpleNamespace(
            as_strided=lambda x, **k: boxed(np.lib.stride_tricks.as_strided(x.inside, **k))
        )
    )
    add = SimpleNamespace(at=lambda x, index, values: np.add.at(x.inside, opened(index), opened(values)))
    finfo = staticmethod(np.finfo)

    def __getattr__(self, name):
        function = getattr(np, name)
        return lambda *a, **k: boxed(function(*opened(a), **opened(k)))


class ForeignBackend(Backend):
    """The reference bodies over boxed arrays."""

    device = "foreign"
    xp = BoxedModule()

    def asarray(self, data, dtype=None):
        return data if isinstance(data, BoxedArray) and dtype is None else boxed(np.array(data, dtype))

    def to_numpy(self, array):
        return array.inside
