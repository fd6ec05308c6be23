"""The edge between a command and the person who runs it: mistakes, interrupts, and a reader who left."""

import os
import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Something given from outside can't be used; the message says what, and what to do."""


def run_command(main: Callable[[Sequence[str] | None], int], program: str) -> None:
    """Run a command line and exit.

    A UserError, or a file that can't be used, becomes a line on the error output and exit code 2, and so
    does more than fits in memory; Ctrl-C, where the command does not handle it, exit code 130.
    """
    try:
        code = main(None)
    except UserError as error:
        code = _fail(program, str(error))
    except OSError as error:
        code = _fail(program, f"{error.filename or 'a file'}: {error.strerror or error}")
    except MemoryError as error:
        code = _fail(program, f"not enough memory ({error}): use smaller images, sizes or batches")
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _fail(program: str, message: str) -> int:
    print(printable(f"{program}: {message}"), file=sys.stderr)
    return 2


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with what would not be shown, or would move a terminal's cursor, written in escapes."""
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()


def tell(line: str) -> None:
    """Print a line. Where that fails (`| head`, a full disk), work goes on without a word.

    What the output has no letters for is written in escapes.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(printable(line).encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
