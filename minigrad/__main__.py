"""`python -m minigrad`: the versions, the devices and the kernels that this engine has on this machine."""

import argparse
import platform
import sys
from collections.abc import Sequence

import numpy as np
from threadpoolctl import threadpool_info

import minigrad as mg
from minigrad import backend
from minigrad.backend.environment import BadEnvironment
from minigrad.tables import table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 for an environment variable that can't be used."""
    argparse.ArgumentParser(
        prog="python -m minigrad",
        description="Show the versions, the devices and the CPU kernels that minigrad uses on this machine.",
        epilog="MINIGRAD_NUM_THREADS sets the number of threads. MINIGRAD_NATIVE=0 uses NumPy's forms in "
        "place of the C kernels; with MINIGRAD_NATIVE=1 their absence is an error.",
    ).parse_args(argv)
    try:
        print(table(report(), "<<"))
    except BadEnvironment as error:
        print(f"minigrad: {error}", file=sys.stderr)
        return 2
    return 0


def report() -> list[tuple[str, str]]:
    """Return the lines: names and what they are. Raises BadEnvironment."""
    return [
        ("minigrad", mg.__version__),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
        ("NumPy", f"{np.__version__}, {_blas()}"),
        ("CPU", f"{_processor()}, {_threads(backend.num_threads())}"),
        ("CPU kernels", str(backend.cpu_kernels())),
        ("GPU", _gpu()),
    ]


def _blas() -> str:
    libraries = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return ", ".join(f"{b['internal_api']} {b['version']}" for b in libraries) or "a BLAS that is not known"


def _processor() -> str:
    """Return the model of the processor, as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            model = next((line for line in file if line.startswith("model name")), "")
    except OSError:
        model = ""
    return model.partition(":")[2].strip() or platform.processor() or platform.machine()


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _gpu() -> str:
    """Return what the GPU is, or why there is none."""
    try:
        return backend.get("gpu").describe()
    except ModuleNotFoundError as error:
        return "none: CuPy is not installed" if error.name == "cupy" else f"none: {error}"
    except (ImportError, RuntimeError) as error:
        return f"none: {error}"


if __name__ == "__main__":
    sys.exit(main())
