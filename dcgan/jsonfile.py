"""JSON that somebody else may have written: of a bounded size and depth, and no numbers but finite ones."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

MOST = 2**20  # characters of one value


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for anything else, or more than MOST characters."""
    if len(text) > MOST:
        raise ValueError(f"{len(text)} characters of JSON: expected {MOST} at most")
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def read(path: Path) -> Any:
    """The value of a JSON file. Raises OSError or ValueError where it holds none, or is no plain file."""
    _check_plain(path)
    with open(path, encoding="utf-8") as file:
        return parse(file.read(MOST + 1))


def lines(path: Path) -> Iterator[Any]:
    """The values of a .jsonl file, line by line. Raises as `read` does, and names the line."""
    _check_plain(path)
    with open(path, encoding="utf-8") as file:
        number = 1
        while line := file.readline(MOST + 1):  # a file without an end of line is not read whole
            try:
                yield parse(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            number += 1


def _check_plain(path: Path) -> None:
    if not path.is_file():  # a pipe would wait for its other end
        raise ValueError("not a plain file")


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is too large a number")
    return number
