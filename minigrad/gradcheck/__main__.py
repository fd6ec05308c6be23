"""`python -m minigrad.gradcheck`: check the gradients of every operation, to the second order."""

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .. import backend as backends
from ..ops import OPERATIONS, Operation
from ..tensor import tensor
from .check import GradcheckError, gradcheck


def check_operation(operation: type[Operation], device: str) -> tuple[int, str]:
    """How many cases of the operation were checked, and what is wrong with the first bad one, or ""."""
    cases = list(operation.cases())
    for count, case in enumerate(cases, start=1):
        arrays = case.inputs(np.random.default_rng(7))
        inputs = [tensor(np.asarray(a), device=device, requires_grad=True) for a in arrays]
        try:
            gradcheck(case.call, inputs, order=2)
        except GradcheckError as error:
            return count, f"{case.label or 'plain'}: {error}"
    return len(cases), ""


def load_module(path: Path) -> list[type[Operation]]:
    """Run a Python file and give the operations that it defines."""
    before = set(OPERATIONS)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"--module {path}: expected a Python file")
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    found = [operation for name, operation in OPERATIONS.items() if name not in before]
    if not found:
        raise ValueError(f"--module {path}: it defines no operation (a subclass of minigrad.Operation)")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 where every gradient is right, 1 where one is wrong, 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(
        prog="python -m minigrad.gradcheck",
        description="Check the gradients of every operation, of both orders.",
    )
    parser.add_argument(
        "--module", type=Path, help="a Python file: check the operations it defines, not the engine's"
    )
    parser.add_argument("--device", default="cpu", help="where to compute (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        backends.get(arguments.device)
    except (ValueError, ImportError, RuntimeError) as error:
        print(f"minigrad.gradcheck: --device {arguments.device}: {error}", file=sys.stderr)
        return 2
    try:
        operations = load_module(arguments.module) if arguments.module else list(OPERATIONS.values())
    except ValueError as error:
        print(f"minigrad.gradcheck: {error}", file=sys.stderr)
        return 2
    wrong = 0
    print(f"{'operation':<28}{'cases':>6}{'seconds':>9}  result")
    for operation in operations:
        started = time.perf_counter()
        count, problem = check_operation(operation, arguments.device)
        wrong += bool(problem)
        print(
            f"{operation.name:<28}{count:>6}{time.perf_counter() - started:>9.2f}  {problem or 'right'}",
            flush=True,
        )
    print(f"{len(operations)} operations, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
