"""Mistakes of the person who runs a command."""

import difflib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

MAX_NEAR = 4  # names that a message proposes


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


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean A or B?" for the known names that are near to a wrong one; "" for none.

    Case does not count. Names that begin with the wrong one, or of which it is a part, count as near.
    """
    wrong, names = name.lower().lstrip("-"), {other.lower(): other for other in known}
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.78)
    parts = [other for other in names if wrong in re.split(r"[_-]", other)]
    starts = [other for other in names if len(wrong) > 1 and other.lstrip("-").startswith(wrong)]
    found = list(dict.fromkeys([*starts, *parts, *near]))[:MAX_NEAR]
    return f": did you mean {' or '.join(names[other] for other in found)}?" if found else ""
