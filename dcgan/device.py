"""The device that --device names: whether it can be used, and what to say where it can't or is too small."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from minigrad import backend as backends
from minigrad.backend import Backend
from minigrad.backend.environment import INSTALL_CUPY

from .console import warn
from .errors import UserError, did_you_mean

# Names that people give to the GPU.
OTHER_NAMES = {"cuda": "gpu", "cuda:0": "gpu", "nvidia": "gpu"}


def canonical(name: str) -> str:
    """Return the name of a device as it has it here: "gpu" for "cuda" and "GPU"."""
    small = name.lower()
    return OTHER_NAMES.get(small, small if small in ("cpu", "gpu") else name)


def choose(name: str, tf32: bool = False) -> str:
    """The device to compute on: the CPU, with a warning that says what is missing, where there is no GPU.

    Args:
        tf32: whether a GPU may round the factors of matrix products to 10 bits of mantissa (TensorFloat-32).

    Raises UserError where the CPU can't be used as the environment says (MINIGRAD_NUM_THREADS,
    MINIGRAD_NATIVE), or tf32 is asked for on the CPU.
    """
    try:
        tell_kernels()
        backends.get("cpu")
    except ValueError as error:
        raise UserError(str(error)) from None
    if tf32 and name != "gpu":
        raise UserError("--tf32: the CPU has no TensorFloat-32; it goes with --device gpu")
    _check_known(name)
    try:
        backend = backends.get(name)
    except Exception as error:  # a plugin's device may raise anything
        if name not in ("cpu", "gpu"):
            said = f"{type(error).__name__}: {error}"
            raise UserError(f"--device {name}: it can't be used: {said:.300}") from error
        if not isinstance(error, ImportError | RuntimeError):
            raise
        warn(f"warning: --device {name}: {_missing(error, 'Going on on the CPU. ')}")
        return "cpu"
    backend.allow_tf32(tf32)
    return backend.device


def _check_known(name: str) -> None:
    """Raise UserError for the name of no device."""
    known = backends.known()
    if name not in known:
        near = did_you_mean(name, known).removeprefix(":")
        expected = f"expected one of {', '.join(known)}, or one that a plugin registers (--plugin FILE)"
        raise UserError(f"--device {name:.60}: {expected}{near and f';{near}'}")


@functools.cache
def tell_kernels() -> None:
    """Say, once, that the CPU's kernels have to be compiled, or that NumPy's forms are used, and why.

    Nothing is said where compiled ones are in the cache. Raises ValueError if MINIGRAD_NATIVE can't be used.
    """
    used = backends.cpu_kernels(lambda: warn("compiling the CPU kernels, which takes some seconds"))
    if not used.compiled:
        warn(f"warning: the CPU computes without C kernels, slower: {used.reason}")
    elif used.reason:
        warn(f"warning: the CPU kernels are compiled anew for each command: {used.reason}")


def kernels(device: str) -> str | None:
    """Return which kernels a device uses, if it is the CPU: "C, gcc 12.2.0, 64-byte vectors" or "NumPy"."""
    return backends.cpu_kernels().name if device == "cpu" else None


def require(name: str, what: str = "") -> Backend:
    """Return the backend of a device.

    Raises UserError, which says what is missing, where it can't be used. It begins with `what`, a clause that
    says what needs the device; by default with the option --device.
    """
    try:
        return backends.get(name)
    except (ImportError, RuntimeError) as error:
        raise UserError(f"{what or f'--device {name}'}: {_missing(error)}") from None


def _missing(error: Exception, goes_on: str = "") -> str:
    """Return sentences about the lack of CuPy or of a GPU, how it goes on, and the remedy."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return f"CuPy is not installed. {goes_on}To install it: {INSTALL_CUPY}"
    if isinstance(error, ImportError):
        broken = f"CuPy is installed, but can't be imported ({error})."
        return f"{broken} {goes_on}To install it anew: {INSTALL_CUPY}"
    return (
        f"CuPy is installed, but there is no GPU that it can use ({error}). {goes_on}With an NVIDIA GPU in "
        f"this machine, look at its driver (nvidia-smi) and at CuPy's CUDA version: {INSTALL_CUPY}"
    )


@contextmanager
def enough_memory(device: str, batch_size: int) -> Iterator[None]:
    """Turns a device's running out of memory into a UserError that says what was asked for and what is free.

    Raises MemoryError as it is on the CPU.
    """
    backend = backends.get(device)
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if device == "cpu" or not backend.is_out_of_memory(error):
            raise
        free = backend.free_memory()
        left = "" if free is None else f" {free / 2**20:,.0f} MiB are free."
        raise UserError(
            f"the memory of the {device.upper()} is too small for this: {error}{left} "
            f"Use a smaller --batch-size (it is {batch_size}), or end what else uses the {device.upper()}"
        ) from error
