"""The machine and the versions that a benchmark runs on."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

import minigrad as mg

from . import backend

BLAS = {"openblas": "OpenBLAS", "mkl": "MKL", "blis": "BLIS", "flexiblas": "FlexiBLAS"}


def machine(torch: Any = None) -> dict[str, Any]:
    """Return the processor, its threads and kernels, and the versions, as the JSON of a benchmark has them.

    Args:
        torch: the module; None without PyTorch.
    """
    versions = {"minigrad": mg.__version__, "numpy": np.__version__, "blas": blas()}
    return {
        "processor": processor(),
        "threads": backend.num_threads(),
        "kernels": backend.cpu_kernels().name,
        "versions": versions | ({"torch": torch.__version__} if torch else {}),
    }


def described(found: dict[str, Any]) -> str:
    """Return what `machine` found in a line, for people."""
    versions, threads = found["versions"], found["threads"]
    parts = [
        found["processor"],
        f"{threads} thread{'' if threads == 1 else 's'}",
        f"minigrad {versions['minigrad']}",
        f"NumPy {versions['numpy']}",
        versions["blas"],
        *([f"PyTorch {versions['torch']}"] if "torch" in versions else []),
        f"kernels: {found['kernels']}",
    ]
    return ", ".join(parts)


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor, or of its family where the system gives no other.

    Args:
        cpuinfo: Linux's file about the processor's cores.
    """
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    fields = (line.partition(":") for line in text.splitlines())
    names = (value.strip() for field, _, value in fields if field.strip() == "model name")
    return next(names, "") or platform.processor() or platform.machine()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def blas() -> str:
    """Return the name and version of NumPy's BLAS: "OpenBLAS 0.3.31".

    It is the first that the process loaded, since the engine imports NumPy before anything else that may have
    one. Where threadpoolctl knows none, it is the one that NumPy was built with.
    """
    loaded = ThreadpoolController().select(user_api="blas").info()
    if loaded:
        name, version = loaded[0]["internal_api"], loaded[0]["version"]
    else:
        built: Any = np.show_config(mode="dicts")
        found = built["Build Dependencies"]["blas"]
        name, version = found.get("name", "BLAS"), found.get("version")
    return f"{BLAS.get(name, name)} {version or 'of unknown version'}"
