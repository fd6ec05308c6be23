"""New tensors from numbers, lists and arrays."""

from collections.abc import Callable
from typing import Any

from . import backend as backends
from .backend.arrays import Array, refuse_masked
from .backend.ieee import ieee
from .tensor import FLOATS, Tensor


@ieee()
def tensor(data: Any, dtype: Any = None, device: str | None = None, requires_grad: bool = False) -> Tensor:
    """Return a new tensor that holds a copy of `data`.

    Args:
        data: a number, a (nested) list, a NumPy array, an array of a device, or a Tensor. Of subclasses
            of numpy.ndarray the values are taken.
        dtype: "float32" or "float64"; by default an array keeps its own, and Python numbers and
            lists become float32.
        device: "cpu" or "gpu"; by default where the data are, if that is a device's array or a tensor, and
            the default device for what comes from the host (`minigrad.set_default_device`).
        requires_grad: whether gradients with respect to it are wanted.

    Raises TypeError for data without numbers, for float16 and complex numbers, and for masked arrays.
    """
    array = data.data if isinstance(data, Tensor) else data
    source = data.backend if isinstance(data, Tensor) else backends.backend_of(array)
    if source is None:
        source, array = backends.get("cpu"), _numbers(array, dtype)
    array = source.plain(array)
    stays = device is None and (isinstance(data, Tensor) or source.device != "cpu")
    target = source if stays else backends.get(device)
    # Complex numbers stay so, and are refused: no dtype makes up for their imaginary parts.
    wanted = array.dtype if dtype is None or array.dtype.kind == "c" else source.xp.dtype(dtype)
    if wanted.kind not in "iub" and str(wanted) not in FLOATS:
        raise TypeError(f"tensor: expected float32, float64, integers or booleans, got {wanted}")
    if target is not source:
        array = target.asarray(source.to_numpy(array))
    return Tensor(array.astype(wanted), requires_grad, backend=target)


def from_host(
    make: Callable[[], Any], shape: tuple[int, ...], dtype: Any = "float32", device: str | None = None
) -> Tensor:
    """Return a new tensor of numbers that `make()` gives on the host.

    In a captured step (`minigrad.capture`) each replay calls `make` again, and copies what it gives to the
    device. So a step draws noise, or reads the images of a batch:

        z = mg.from_host(lambda: generator.normal((128, 100)), (128, 100), device="gpu")

    Args:
        make: a function without arguments that returns a NumPy array, of this shape and dtype.
        shape, dtype: of the array.
        device: "cpu" or "gpu"; by default the default device (`minigrad.set_default_device`).

    Raises ValueError if `make` returns another shape or dtype.
    """
    backend = backends.get(device)
    return Tensor(backend.from_host(make, tuple(shape), dtype), backend=backend)


def _numbers(data: Any, dtype: Any) -> Array:
    """Return numbers and lists as an array on the CPU: float32 where the caller names no dtype."""
    cpu = backends.get("cpu")
    _check_elements(data)
    try:
        array = cpu.asarray(data)
    except (TypeError, ValueError):  # lists of unequal lengths
        array = cpu.asarray(None)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: expected numbers in lists of equal length, got {data!r:.80}")
    return array.astype(dtype or "float32")


def _check_elements(data: Any) -> None:
    """Raise TypeError for a list with a masked array, whose mask NumPy would ignore, or with a tensor that
    requires a gradient or is on another device.
    """
    if not isinstance(data, list | tuple) or set(map(type, data)) <= {bool, int, float}:
        return
    for element in data:
        refuse_masked(element, "tensor")
        _check_elements(element)
        if isinstance(element, Tensor) and (element.requires_grad or element.device != "cpu"):
            raise TypeError(
                "tensor: the list holds a tensor that requires a gradient or is on another device: "
                "minigrad.stack([...]) joins such tensors, or pass the values, x.detach().numpy()"
            )
