"""JSON files. Somebody else may have written what is read: its size, depth and numbers are bounded."""

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from . import plainfile

MAX_CHARACTERS = 2**20  # characters of one value


def parse(text: str) -> Any:
    """The value of a JSON text. ValueError for anything else, or more than MAX_CHARACTERS of them."""
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"{len(text)} characters of JSON: expected {MAX_CHARACTERS} at most")
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def read(path: Path) -> Any:
    """The value of a JSON file. Raises OSError or ValueError where it holds none, or is no plain file."""
    _check_plain(path)
    with open(path, encoding="utf-8") as file:
        return parse(file.read(MAX_CHARACTERS + 1))


def lines(path: Path) -> Iterator[Any]:
    """The values of a .jsonl file, line by line. Raises as `read` does, and names the line."""
    _check_plain(path)
    with open(path, encoding="utf-8") as file:
        number = 1
        while line := file.readline(MAX_CHARACTERS + 1):  # a file without an end of line is not read whole
            try:
                yield parse(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error
            number += 1


def append(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Add lines to a .jsonl file: all of them, or none if that fails (OSError).

    Anything after the last complete line is cut off first: a killed process left it half-written.
    """
    content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
    plainfile.append(path, content, _end_of_last_line)


def _end_of_last_line(file: FileIO) -> int:
    """Return the offset at which the last complete line of a file ends."""
    end: int = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read(1) in (b"\n", b""):
        return end
    start = max(0, end - MAX_CHARACTERS)
    file.seek(start)
    return start + int(file.read(end - start).rfind(b"\n")) + 1


class StepLines(NamedTuple):
    """The lines of a log file.

    Attributes:
        steps: the steps that the lines are of, rising.
        texts: the lines, with their ends.
        damaged: how many other complete lines there are.
    """

    steps: list[int]
    texts: list[str]
    damaged: int


def step_lines(path: Path) -> StepLines:
    """The lines of a .jsonl file that name their step; none if there is no such file.

    A line that is damaged, or not of a later step than the one before it, is left out and counted. The end
    of the file without an end of line is left out: a process was killed while it wrote it, or is writing it
    now. After a line of more than MAX_CHARACTERS bytes nothing is read any more.
    """
    found = StepLines([], [], 0)
    if not _is_plain(path):
        return found
    damaged = 0
    with open(path, "rb") as file:
        while (line := file.readline(MAX_CHARACTERS + 1)).endswith(b"\n"):
            step = _step_of(line)
            *_, before, last = (0, 0, *found.steps[-2:])
            if step is not None and before < step < last:  # the line before it names a wrong step
                found.steps.pop()
                found.texts.pop()
                damaged += 1
            elif step is None or (found.steps and step <= last):
                damaged += 1
                continue
            found.steps.append(step)
            found.texts.append(line.decode())
    return found._replace(damaged=damaged + (len(line) > MAX_CHARACTERS))


def _step_of(line: bytes) -> int | None:
    """The step that a line is of; None if it is damaged."""
    try:
        step = parse(line.decode())["step"]
    except (ValueError, TypeError, KeyError):
        return None
    return step if type(step) is int else None


def _check_plain(path: Path) -> None:
    if not _is_plain(path):
        raise ValueError("not a plain file")


def _is_plain(path: Path) -> bool:
    """Whether there is a file: a pipe would wait for its other end, and a link lead to a file of another."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text:.40} is too large a number")
    return number
