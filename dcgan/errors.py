"""Mistakes of the person who runs a command, and text that is safe to show them."""


class UserError(Exception):
    """Something given from outside can't be used; the message says what, and what to do."""


def printable(text: str, keep: str = "\n\t") -> str:
    """The text with what would not be shown, or would move a terminal's cursor, written in escapes."""
    return "".join(c if c.isprintable() or c in keep else _escape(c) for c in text)


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
