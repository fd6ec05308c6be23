"""Mistakes of the person who runs a command, and text that is safe to show them."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Something given from outside can't be used; the message says what, and what to do."""


def reason(error: OSError) -> str:
    """Return the cause of an error without its path, such as "No space left on device"."""
    return error.strerror or str(error)


@contextmanager
def os_errors_as(what: str) -> Iterator[None]:
    """Turn an OSError within the context into a UserError that begins with `what`, such as "--out FILE"."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{what}: {reason(error)}") from error


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with what would not be shown, or would move a terminal's cursor, written in escapes."""
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
