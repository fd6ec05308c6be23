"""The files that a command is told to write."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from minigrad.serialize import make_folder_of

from ..errors import UserError, os_errors_as


def check_ending(option: str, path: Path, endings: Sequence[str]) -> None:
    """Raise UserError unless the name of a file that an option names has one of the endings."""
    if path.suffix.lower() in endings:
        return
    *others, last = endings
    either = f"{', '.join(others)} or {last}" if others else last
    raise UserError(f"{option} {path}: expected a name that ends in {either}")


@contextmanager
def writing(option: str, path: Path) -> Iterator[None]:
    """Make the folder of the file that an option names, and report what fails within under that name.

    Folders that were made are removed again if an exception leaves them empty.

    Args:
        option: such as "--out".
        path: of the file.

    Raises UserError, in place of OSError, if the folder can't be made, or the file not be written.
    """
    missing = [folder for folder in path.parents if not folder.exists()]  # the innermost first
    with os_errors_as(f"{option} {path}"):
        try:
            make_folder_of(path)
            yield
        except BaseException:
            for folder in missing:
                with suppress(OSError):
                    folder.rmdir()
            raise
