"""The C kernels: compiled at first use, kept in the user's cache directory, and called through ctypes.

The environment variable MINIGRAD_NATIVE tells whether they are used. 0: NumPy's forms are used instead. 1: it
is an error if there are no kernels. Not set: the kernels are used if there are any.
"""

import ctypes
import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..environment import BadEnvironment
from ..forks import Lock
from . import compiler, library_cache
from .compiler import Compiler, CompilerError, CompilerTimeout
from .library_cache import CacheError

TYPES = {"*": ctypes.c_void_p, "int64_t": ctypes.c_int64, "double": ctypes.c_double}
# In NumPy's C interface, an array's object has the address of its data right behind every object's header.
DATA = object.__basicsize__
_word_at = ctypes.c_void_p.from_address  # `array.ctypes.data` takes six times as long
FLOATS = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
KERNEL = re.compile(r"^KERNEL\((\w+)\)\(([^)]*)\)", re.MULTILINE)


@dataclass(frozen=True)
class KernelStatus:
    """The kernels that the CPU uses.

    Attributes:
        name: the compiler and the vectors of C kernels, such as "C, gcc 12.2.0, 64-byte vectors"; or "NumPy".
        path: the library in the cache directory; None if there is none.
        reason: why there is no library in the cache directory; "" if there is one. Without one there are no C
            kernels, or they were compiled for this process only.
    """

    name: str
    path: Path | None = None
    reason: str = ""

    @property
    def compiled(self) -> bool:
        """Whether they are C kernels."""
        return self.name != "NumPy"

    def __str__(self) -> str:
        if self.path is not None:
            return f"{self.name}, in {self.path}"
        alone = ", compiled for this process alone" if self.compiled else ""
        return f"{self.name}{alone}: {self.reason}"


class LibraryError(Exception):
    """A library can't be loaded, or lacks a function."""


class Kernels:
    """The functions of a compiled library: `kernels.adam[dtype](...)`, with addresses for arrays.

    Attributes:
        name: the compiler and the size of the vectors.
        vector_bytes: the size of the vectors, on which the number of columns of a tile depends.
        set_members: the function of that name in kernels/threads.h.

    Raises LibraryError if the library can't be loaded.
    """

    def __init__(self, path: Path, texts: Mapping[str, str]) -> None:
        try:
            self._library = ctypes.CDLL(str(path))
            compiled_by = ctypes.c_char_p.in_dll(self._library, "compiled_by").value or b""
            self.vector_bytes: int = ctypes.c_int64.in_dll(self._library, "vector_bytes").value
            self.set_members = self._function("set_members", [ctypes.c_int64])
            for text in texts.values():
                for name, types in signatures(text).items():
                    kinds = {dtype: self._function(f"{name}_{kind}", types) for dtype, kind in FLOATS.items()}
                    setattr(self, name, kinds)
        except (
            OSError,
            ValueError,
            AttributeError,
        ) as error:  # it is no library; a value or a function is missing
            raise LibraryError(f"the compiled library can't be loaded ({error!s:.200})") from None
        self.name = f"C, {compiled_by.decode()}, {self.vector_bytes}-byte vectors"

    def _function(self, name: str, types: list[Any]) -> Any:
        function = getattr(self._library, name)
        function.argtypes, function.restype = types, None
        return function

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no kernel is called {name!r}")


class Loaded(NamedTuple):
    """The kernels, or None, and their status."""

    kernels: Kernels | None
    status: KernelStatus


Announce = Callable[[], object]
Make = Callable[[Path], Path]  # write a library in an empty folder, return its path


def nothing() -> None:
    """Announce nothing."""


_loading = Lock(fork_order=3)  # a thread that holds BLAS (1) or memory (2) may wait for it
_loaded: Loaded | None = None


def kernels() -> Kernels | None:
    """Return the kernels, or None if there are none: NumPy's forms are used then.

    The first call compiles them, if they are not in the cache. Raises BadEnvironment if MINIGRAD_NATIVE is
    neither 0 nor 1, or if it is 1 and there are none.
    """
    return (_loaded or _load_once()).kernels


def status(announce: Announce = nothing) -> KernelStatus:
    """Return which kernels are used and where they lie, or why there are none. They are loaded first.

    Args:
        announce: called before a compilation, which takes seconds.
    """
    return (_loaded or _load_once(announce)).status


def address(array: Any) -> int:
    """Return the address of the first number of an `ndarray`, which must not be a NumPy scalar."""
    return _word_at(id(array) + DATA).value or 0


def readable(x: Any) -> Any:
    """Return an array that a kernel can read: a copy if it is not aligned, as in packed records."""
    return x if x.flags.aligned else x.copy()


def sources() -> dict[str, str]:
    """Return the texts of the files of the library by their names."""
    folder = resources.files(f"{__package__}.kernels")
    files = [f for f in folder.iterdir() if f.name.endswith((".c", ".h"))]
    return {f.name: f.read_text(encoding="utf-8") for f in sorted(files, key=lambda f: f.name)}


def signatures(text: str) -> dict[str, list[Any]]:
    """Return the argument types, for ctypes, of each kernel that a text defines.

    Raises TypeError for an argument that is neither a pointer nor one of TYPES.
    """
    return {
        name: [_type_of(argument, name) for argument in arguments.split(",") if argument.strip()]
        for name, arguments in KERNEL.findall(text)
    }


def _type_of(argument: str, kernel: str) -> Any:
    words = argument.split()
    kind = "*" if "*" in argument else words[-2] if len(words) > 1 else ""
    if kind not in TYPES:
        raise TypeError(
            f"KERNEL({kernel}): expected pointers, int64_t or double as arguments, got {argument.strip()!r}"
        )
    return TYPES[kind]


def _load_once(announce: Announce = nothing) -> Loaded:
    global _loaded
    with _loading:  # only one thread compiles
        if _loaded is None:
            _loaded = load(sources(), announce)
        return _loaded


def load(texts: Mapping[str, str], announce: Announce = nothing) -> Loaded:
    """Return the kernels of these sources, from the cache or compiled now, unless MINIGRAD_NATIVE is 0.

    Args:
        texts: sources by file name, with `threads.c` and `kernels.c` (compiler.py).
        announce: called before a compilation.

    Raises BadEnvironment as `kernels` does.
    """
    wanted = os.environ.get("MINIGRAD_NATIVE")
    if wanted not in (None, "0", "1"):
        raise BadEnvironment(f"MINIGRAD_NATIVE={wanted!r:.40}: expected 0 (NumPy's forms) or 1 (C kernels)")
    if wanted == "0":
        return Loaded(None, KernelStatus("NumPy", reason="MINIGRAD_NATIVE=0"))
    try:
        return _compiled(texts, announce)
    except (CompilerError, LibraryError, OSError) as error:
        if wanted == "1":
            raise BadEnvironment(
                f"MINIGRAD_NATIVE=1: there are no C kernels: {error}. Without MINIGRAD_NATIVE, NumPy's "
                "forms are used"
            ) from None
        return Loaded(None, KernelStatus("NumPy", reason=str(error)))


def _compiled(texts: Mapping[str, str], announce: Announce) -> Loaded:
    """Return the C kernels. Raises CompilerError, LibraryError or OSError if that fails."""
    if os.name != "posix":
        raise CompilerError("the C kernels need a POSIX system")
    found = compiler.find()
    key = _key(texts, found)

    def make(folder: Path) -> Path:
        announce()
        return found.compile(texts, folder)

    try:
        return _cached(key, texts, make)
    except CompilerTimeout:
        raise
    except (CacheError, CompilerError, LibraryError) as error:  # a full disk can show as any of them
        return _private(texts, make, str(error))


def _key(texts: Mapping[str, str], found: Compiler) -> str:
    """Return a digest of all that a library depends on."""
    parts = repr((sorted(texts.items()), found, compiler.ALTERNATIVES, compiler.processor()))
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _cached(key: str, texts: Mapping[str, str], make: Make) -> Loaded:
    """Return the kernels of the library in the cache, which is compiled if none there can be loaded."""
    path = library_cache.find(key)
    if path is not None:
        try:
            return _from(path, texts)
        except LibraryError:
            library_cache.remove(path)
    return _from(library_cache.store(key, make), texts)


def _from(path: Path, texts: Mapping[str, str]) -> Loaded:
    made = Kernels(path, texts)
    return Loaded(made, KernelStatus(made.name, path))


def _private(texts: Mapping[str, str], make: Make, reason: str) -> Loaded:
    """Return kernels compiled for this process only. A library needs no file once it is loaded."""
    with tempfile.TemporaryDirectory(prefix="minigrad-") as folder:
        made = Kernels(make(Path(folder)), texts)
    return Loaded(made, KernelStatus(made.name, reason=reason))
