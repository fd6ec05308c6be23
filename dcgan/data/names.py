"""Names of sets that --data knows without a file, and what a person may have meant by a name of nothing."""

import difflib
import os

DIGITS = "mnist"  # the digits that come with the package
FASHION = "fashion-mnist:"  # how the name of a directory with that set's files begins
SIMILAR = 0.7  # of 1, from which on a name may be a mistake for another


def canonical(name: str) -> str:
    """Return a name of --data with those of known sets as they are stored and compared.

    They are taken in any case: "MNIST" is "mnist". A file or folder of that very name comes first.
    """
    small = name.lower()
    known = small == DIGITS or small.startswith(FASHION)
    if not known or (name != DIGITS and os.path.exists(name)):
        return name
    return DIGITS if small == DIGITS else FASHION + name[len(FASHION) :]


def is_digits(name: str) -> bool:
    """Whether a name of --data means the digits that come with the package."""
    return canonical(name) == DIGITS


def similar(name: str) -> str:
    """Return "; did you mean ...?" for a name that is nearly that of a known set; "" for others."""
    start, colon, rest = name.partition(":")
    forms = {DIGITS: DIGITS, FASHION.removesuffix(":"): FASHION + (rest if colon and rest else "DIR")}
    near = difflib.get_close_matches(start.lower(), forms, n=1, cutoff=SIMILAR)
    return f"; did you mean {forms[near[0]]}?" if near else ""
