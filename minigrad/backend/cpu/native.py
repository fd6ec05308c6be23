"""The C kernels: compiled when they are first needed, and called through ctypes."""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

OPTIONS = (
    *("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    *("-std=gnu11", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"),
)
TYPES = {"*": ctypes.c_void_p, "int64_t": ctypes.c_int64, "double": ctypes.c_double}
# An array's object begins with what every object has, and then the address of its data: NumPy's C interface.
DATA = object.__basicsize__
FLOATS = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
_word_at = ctypes.c_void_p.from_address  # `array.ctypes.data` takes six times as long
KERNEL = re.compile(r"^KERNEL\((\w+)\)\(([^)]*)\)", re.MULTILINE)


def sources() -> dict[str, str]:
    """Return the text of each file of the library, by its name."""
    folder = resources.files(f"{__package__}.kernels")
    files = [f for f in folder.iterdir() if f.name.endswith((".c", ".h"))]
    return {f.name: f.read_text(encoding="utf-8") for f in sorted(files, key=lambda f: f.name)}


def signatures(text: str) -> dict[str, list[Any]]:
    """Return the types of the arguments of each kernel that a file defines, for ctypes."""
    found = {}
    for name, arguments in KERNEL.findall(text):
        kinds = ("*" if "*" in a else a.split()[-2] for a in arguments.split(","))
        found[name] = [TYPES[kind] for kind in kinds]
    return found


class Kernels:
    """The functions of a compiled library.

    `kernels.adam[dtype](...)` calls one, with addresses for arrays.
    """

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.set_members.argtypes = [ctypes.c_int64]
        self._library.set_members.restype = None
        for text in sources().values():
            for name, types in signatures(text).items():
                setattr(
                    self, name, {d: self._function(f"{name}_{kind}", types) for d, kind in FLOATS.items()}
                )

    def _function(self, name: str, types: list[Any]) -> Any:
        function = getattr(self._library, name)
        function.argtypes, function.restype = types, None
        return function

    def set_members(self, members: int) -> None:
        """Let calls have so many threads, the caller's own included."""
        self._library.set_members(members)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no kernel is called {name!r}")


@functools.cache
def kernels() -> Kernels | None:
    """Return the kernels, or None where there are none: NumPy's forms are used then."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if os.environ.get("MINIGRAD_NATIVE") == "0" or compiler is None:
        return None
    texts = sources()
    name = hashlib.sha256(repr((texts, OPTIONS, compiler)).encode()).hexdigest()[:32]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "minigrad", f"{name}.so")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            for file, text in texts.items():
                Path(folder, file).write_text(text, encoding="utf-8")
            made = Path(folder, "kernels.so")
            subprocess.run([compiler, *OPTIONS, "-o", made, Path(folder, "kernels.c"), "-lm"], check=True)
            os.replace(made, path)
    return Kernels(path)


def address(array: Any) -> int:
    """Return the address of the first number of an `ndarray`. (Not of a NumPy scalar, which is no array.)"""
    return _word_at(id(array) + DATA).value or 0
