"""`python -m minigrad.gradcheck`: check every operation, to the second order, as a table.

For each operation, over all of its cases: the worst error of its gradients of both orders against
differences (check.py), the element where it is, the adjoint test (adjoint.py), and the time.
"""

import argparse
import difflib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import backend as backends
from ..backend.environment import INSTALL_CUPY
from ..ops import OPERATIONS, Operation
from . import table
from .suite import check_operation


def load_module(path: Path) -> list[type[Operation]]:
    """Run a Python file and give the operations that it defines; all, where it registers a device alone.

    Raises ValueError where it can't be run, or does neither.
    """
    before, devices = dict(OPERATIONS), backends.known()
    spec = importlib.util.spec_from_file_location(f"checked_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"--module {path}: expected a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses look for the names of types
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"--module {path}: it can't be imported: {type(error).__name__}: {error}") from error
    found = [operation for name, operation in OPERATIONS.items() if before.get(name) is not operation]
    if not found and backends.known() == devices:
        raise ValueError(
            f"--module {path}: it defines no operation (a subclass of minigrad.Operation) and registers no "
            "device (minigrad.backend.register)"
        )
    return found or list(OPERATIONS.values())


def chosen(operations: list[type[Operation]], names: Sequence[str]) -> list[type[Operation]]:
    """The operations of these names, in this order; ValueError for a name that none has."""
    by_name = {operation.name: operation for operation in operations}
    for name in names:
        if name not in by_name:
            near = difflib.get_close_matches(name, by_name, n=4)
            advice = f"did you mean {', '.join(near)}?" if near else f"expected one of {', '.join(by_name)}"
            raise ValueError(f"--operation {name}: there is none of this name; {advice}")
    return [by_name[name] for name in dict.fromkeys(names)]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 where every gradient is right, 1 where one is wrong, 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.gradcheck",
        description="Check the gradients of every operation, of both orders.",
        epilog=table.LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--module",
        type=Path,
        metavar="FILE",
        help="check the operations that a Python file defines instead, or all if it registers a device",
    )
    parser.add_argument("--operation", nargs="+", metavar="NAME", help="check these alone")
    parser.add_argument("--device", default="cpu", help="where to compute (default: %(default)s)")
    arguments = parser.parse_args(argv)
    device = "gpu" if arguments.device.lower() == "cuda" else arguments.device
    try:
        operations = load_module(arguments.module) if arguments.module else list(OPERATIONS.values())
        operations = chosen(operations, arguments.operation) if arguments.operation else operations
    except ValueError as error:
        print(f"minigrad.gradcheck: {error}", file=sys.stderr)
        return 2
    try:
        backends.get(device)
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"minigrad.gradcheck: --device {device}: {_missing(error)}", file=sys.stderr)
        return 2
    return run(operations, device)


def _missing(error: Exception) -> str:
    """Why a device can't be used; where CuPy is not there, what to do."""
    if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
        return f"CuPy is not installed. To install it: {INSTALL_CUPY}"
    return str(error)


def run(operations: list[type[Operation]], device: str) -> int:
    """Check the operations and print the table, line by line; 1 where something is wrong, else 0."""
    width = max(len(operation.name) for operation in operations)
    width = max(width, len("operation"))
    tell(table.head(width))
    rows = []
    for operation in operations:
        rows.append(check_operation(operation, device))
        tell(table.line(rows[-1], width))
    tell(table.total(rows, width))
    tell(f"\n{table.notes(rows)}")
    return 1 if any(row.failures for row in rows) else 0


def tell(text: str) -> None:
    """Print. If that fails (`| head`, a full disk), the checks go on, for what the exit code says.

    Letters that the output lacks are written in escapes.
    """
    if sys.stdout is None:  # it was closed at the start
        return
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command() -> int:
    """Run the command line; 130 where Ctrl-C ended it."""
    try:
        return main()
    except KeyboardInterrupt:
        print("minigrad.gradcheck: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(command())
