"""Devices: a name, "cpu" or "gpu", gives the `Backend` that computes there.

Importing this package imports no CuPy; a backend is made the first time it is asked for.
"""

import copyreg
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .arguments import as_int
from .base import Backend
from .geometry import ConvGeometry

if TYPE_CHECKING:
    from .cpu.blas import SingleThreadedBLAS
    from .cpu.native import KernelStatus
    from .cpu.parallel import Pool

__all__ = [
    "Backend",
    "ConvGeometry",
    "backend_of",
    "cpu_kernels",
    "get",
    "known",
    "num_threads",
    "numpy_forms",
    "register",
    "set_default",
    "set_num_threads",
    "single_threaded_blas",
    "using",
    "with_graphs",
]


def _make_cpu() -> Backend:
    from .cpu.backend import CPUBackend
    from .cpu.native import kernels

    return CPUBackend(kernels())


def _make_gpu() -> Backend:
    from .gpu.backend import GPUBackend  # imports CuPy

    return GPUBackend()


_factories: dict[str, Callable[[], Backend]] = {"cpu": _make_cpu, "gpu": _make_gpu}
_backends: dict[str, Backend] = {}
_default = "cpu"


class _InThisThread(threading.local):
    """The backend of the innermost `using` context; None outside."""

    backend: Backend | None = None


_in_this_thread = _InThisThread()


def register(device: str, factory: Callable[[], Backend]) -> None:
    """Make `device` a name that `get` knows; `factory()` is called once, when it is first needed."""
    _factories[device] = factory
    _backends.pop(device, None)


def known() -> list[str]:
    """The names of the devices that there are backends for."""
    return sorted(_factories)


def set_default(device: str) -> None:
    """Make `device` the one that new tensors and layers are on where none is named; at first it is "cpu".

    Raises as `get` does.
    """
    global _default
    _default = get(device).device


def set_num_threads(threads: int) -> None:
    """Let the CPU backend use so many threads; results do not depend on it.

    At first it is MINIGRAD_NUM_THREADS, or the cores that this process may run on. Raises ValueError
    unless it is an integer from 1 to 1024.
    """
    from .cpu.parallel import MAX_THREADS

    count = as_int(threads)
    if count is None or not 1 <= count <= MAX_THREADS:
        raise ValueError(f"set_num_threads: expected an integer from 1 to {MAX_THREADS}, got {threads!r}")
    _pool().resize(count)


def num_threads() -> int:
    """Return how many threads the CPU backend uses: fewer than were set if the system can't start more."""
    return _pool().threads


def cpu_kernels(announce: Callable[[], object] = lambda: None) -> "KernelStatus":
    """Return which kernels the CPU uses: those in C, with where they lie, or NumPy's forms, and why.

    Args:
        announce: called before they are compiled, which takes seconds. It happens at the first use; they are
            kept in the user's cache directory.

    Raises ValueError if MINIGRAD_NATIVE holds neither 0 (NumPy's forms) nor 1 (C kernels), or holds 1 and
    there are none.
    """
    from .cpu import native

    return native.status(announce)


def single_threaded_blas() -> "SingleThreadedBLAS":
    """Return a context in which BLAS has one thread, for products of NumPy arrays outside of the engine.

    The order in which BLAS adds up a product depends on its number of threads, and so do the last digits.
    One thread of the process at a time can be in the context, and it may enter it again.
    """
    return _pool().single_threaded_blas


def _pool() -> "Pool":
    from .cpu.backend import CPUBackend

    cpu = get("cpu")
    assert isinstance(cpu, CPUBackend)
    return cpu.pool


def get(device: str | None = None) -> Backend:
    """The backend of a device, or of the default one.

    Raises ValueError for a device that nobody registered, and whatever the factory raises
    where the device can't be used on this machine.
    """
    device = device or _default
    used = _in_this_thread.backend
    if used is not None and used.device == device:
        return used
    if device in _backends:
        return _backends[device]
    if device not in _factories:
        expected = ", ".join(map(repr, known()))
        raise ValueError(f"unknown device {device!r}: expected one of {expected}")
    made = _factories[device]()
    copyreg.pickle(type(made), _by_name)
    _backends[device] = made
    return made


@contextmanager
def using(backend: Backend) -> Iterator[None]:
    """A context in which `backend` is the one that `get` returns for its device, for this thread only.

    Tensors and layers that are made in the context belong to `backend` and stay with it. They do not mix with
    tensors of another backend, even if both are on the same device. Contexts may be nested; the innermost one
    counts, and for other devices `get` returns the registered backends.
    """
    before, _in_this_thread.backend = _in_this_thread.backend, backend
    try:
        yield
    finally:
        _in_this_thread.backend = before


@functools.cache
def numpy_forms() -> Backend:
    """Return a backend of the CPU that computes by NumPy's forms, whether or not there are C kernels.

    It is made without compiling or loading the kernels, which suits small networks that are run once: see
    `using`. It has threads of its own, as many as MINIGRAD_NUM_THREADS or the cores allow; results do not
    depend on their number.
    """
    from .cpu.backend import CPUBackend

    made: Backend = CPUBackend(kernels=None)
    copyreg.pickle(type(made), _by_name)
    return made


def with_graphs() -> Backend | None:
    """Return a backend that was made and has graphs (`Backend.graph`), or None."""
    return next((backend for backend in _backends.values() if backend.has_graphs), None)


def _by_name(backend: Backend) -> tuple[Callable[[str], Backend], tuple[str]]:
    """Copy and pickle a backend by its device's name."""
    return get, (backend.device,)


def backend_of(array: object) -> Backend | None:
    """The backend that `array` belongs to, or None where it is no backend's array."""
    # An array of a device exists only after that device's backend was made; only "cpu" may be lazy.
    cpu = get("cpu")
    if cpu.owns(array):
        return cpu
    return next((backend for backend in _backends.values() if backend.owns(array)), None)
