"""The error that is the user's to mend: told in a line, without a traceback, with exit code 2."""

import sys
from collections.abc import Callable, Sequence


class UserError(Exception):
    """Something given from outside can't be used; the message says what, and what to do."""


def run_command(main: Callable[[Sequence[str] | None], int], program: str) -> None:
    """Run a command line and exit; a UserError becomes a line on the error output and exit code 2."""
    try:
        code = main(None)
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
