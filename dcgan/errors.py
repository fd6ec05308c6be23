"""The edge between a command and the person who runs it: mistakes, interrupts, and a reader who left."""

import os
import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Something given from outside can't be used; the message says what, and what to do."""


def run_command(main: Callable[[Sequence[str] | None], int], program: str) -> None:
    """Run a command line and exit.

    A UserError becomes a line on the error output and exit code 2; Ctrl-C, where the command does
    not handle it, exit code 130.
    """
    try:
        code = main(None)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def tell(line: str) -> None:
    """Print a line. Where that fails (`| head`, a full disk), work goes on without a word."""
    try:
        print(line, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
