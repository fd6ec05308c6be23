"""The report of a run as a file."""

from pathlib import Path
from typing import NamedTuple

from minigrad.serialize import write_whole

from ..files import plainfile
from ..files.destination import check_ending, writing
from ..recipe import memory
from .needed import of_page
from .page import page
from .reading import Reading, read

FILE_NAME = "report.html"


class Written(NamedTuple):
    """A report that was written.

    Attributes:
        path: the file.
        reading: what it shows.
        size: bytes of the file.
    """

    path: Path
    reading: Reading
    size: int


def write(
    run: Path, weights: str | None = None, out: Path | None = None, max_memory: int = memory.DEFAULT
) -> Written:
    """Write everything that a run has left into one HTML file.

    Args:
        run: a run's directory, or a checkpoint file.
        weights: of the generator whose layers are shown, as of `run.trained.load_generator`.
        out: the file; by default report.html in the run's directory.
        max_memory: bytes that it may take.

    Raises UserError if there is no run, it takes more memory, or the file can't be written.
    """
    if out is not None:
        check_ending("--out", out, [".html", ".htm"])
    reading = read(run, weights, max_memory)
    what = f"a page of {run}, with both networks of the recipe {reading.preset.name!r} at work,"
    memory.check(what, of_page(reading, max_memory), max_memory)
    content = page(reading).encode()
    path = out or reading.directory / FILE_NAME
    with writing("--out", path):
        write_whole(path if out is not None else plainfile.to_write(path), content)
    return Written(path, reading, len(content))
