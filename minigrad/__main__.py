"""`python -m minigrad`: the versions, the devices and the kernels that this engine has on this machine."""

import argparse
import platform
import sys
from collections.abc import Sequence

import numpy as np

import minigrad as mg
from minigrad import backend
from minigrad.backend.environment import BadEnvironment
from minigrad.machine import blas, processor
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
    threads = backend.num_threads()
    return [
        ("minigrad", mg.__version__),
        ("Python", f"{platform.python_version()}, {platform.platform()}"),
        ("NumPy", f"{np.__version__}, {blas()}"),
        ("CPU", f"{processor()}, {threads} thread{'' if threads == 1 else 's'}"),
        ("CPU kernels", str(backend.cpu_kernels())),
        ("GPU", _gpu()),
    ]


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
