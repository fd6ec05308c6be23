"""The log of a run for TensorBoard: an event file that follows the run's lines and grids.

tensorboardX has the messages and the checksum. Its `SummaryWriter` is not used: it writes from a thread of
its own, which ends at the first write that fails, as on a full disk; then `add_scalar` waits without end for
the queue to empty. Here each write is done when its call returns, so that nothing is lost with a process
that is killed, and nothing needs to be closed.
"""

import os
import re
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from ..errors import UserError, reason
from ..files import plainfile
from . import tags
from .directory import LINES, Follower, RunDirectory
from .training import Training

FOLDER = "tensorboard"
EVENTS = re.compile(r"events\.(\d{1,12})\.tfevents")  # by the time in seconds
MAX_PICTURE = 2**25  # bytes of a grid's file
DAMAGED = (KeyError, TypeError, ValueError)  # of a line that somebody else may have written


def check() -> None:
    """Raise UserError if tensorboardX is not installed, or can't be imported."""
    try:
        import tensorboardX  # noqa: F401 to see whether it can be imported
    except Exception as error:  # a build for another protobuf may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorboardX":
            raise UserError(
                "--log tensorboard needs the package tensorboardX: pip install tensorboardX"
            ) from None
        said = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
        raise UserError(
            f"--log tensorboard needs the package tensorboardX, which can't be imported ({said}); install a "
            "version that fits the other packages"
        ) from error


def follow(training: Training) -> None:
    """Write the log of a run from now on. Without one of its steps until now, that is written first.

    A failure to write is reported once, as a warning.
    """
    board = TensorBoard(training.run, training.done, training.progress.say)
    if not board.goes_on:
        board.catch_up(training.outputs.grids_before(training.done))
    training.run.follower = board


class TensorBoard(Follower):
    """Writes what it is told of into a new event file.

    Lines that can't be written are kept for the next time, pictures are left out. Neither raises anything;
    the first failure is reported.

    Args:
        done: steps of the run so far. TensorBoard forgets those after them that earlier files have.
        say: prints a line.

    Attributes:
        goes_on: whether there are earlier files, of an earlier part of the run.
    """

    option = " --log tensorboard"

    def __init__(self, run: RunDirectory, done: int, say: Callable[[str], None]) -> None:
        self.run, self.done, self.say = run, done, say
        matches = [EVENTS.fullmatch(path.name) for path in plainfile.entries(run.path / FOLDER)]
        earlier = [int(match[1]) for match in matches if match]
        self.goes_on = bool(earlier)
        # TensorBoard reads the files in the order of their names.
        self._name = f"{FOLDER}/events.{max([int(time.time()), *(n + 1 for n in earlier)])}.tfevents"
        self._size = 0  # bytes of whole records in the file
        self._pending = _start(done + 1)  # records that are not yet in it
        self._failed = False

    def catch_up(self, grids: Sequence[tuple[int, str]]) -> None:
        """Write what the run's files hold.

        Args:
            grids: the steps and names of the grids so far.
        """
        for name in LINES:
            self.lines(name, self.run.lines(name))
        for step, name in grids:
            self.picture(name, step)

    def lines(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write lines of the run's file `name`. Those that are damaged are left out."""
        self._try(lambda: self._add(name, lines))

    def picture(self, name: str, step: int) -> None:
        """Write a picture of the run, as its file has it. A run that goes on draws some a second time."""
        if self.goes_on and step <= self.done:
            return
        self._try(lambda: self._write(_record(_of_picture(self.run.path / name, self.run.path, step))))

    def _add(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        records = []
        for line in lines:
            with suppress(*DAMAGED):
                records.append(_record(_of_line(name, line)))
        self._pending += b"".join(records)
        self._write()

    def _write(self, more: bytes = b"") -> None:
        """Write the records that are kept, and `more` of them."""
        self.run.check_place()
        (self.run.path / FOLDER).mkdir(exist_ok=True)
        content = self._pending + more
        plainfile.append(self.run.place(self._name), content, self._end)
        self._size += len(content)
        self._pending = b""

    def _end(self, file: FileIO) -> int:
        """Return where the last whole record ends."""
        return min(self._size, file.seek(0, os.SEEK_END))

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except Exception as error:  # a log ends no run
            if not self._failed:
                self._failed = True
                cause = reason(error) if isinstance(error, OSError) else str(error)
                said = cause[:300] or type(error).__name__
                self.say(f"warning: {self.run.path / self._name} could not be written: {said}")


# -- records -------------------------------------------------------------------------------------------


def _start(step: int) -> bytes:
    """Return the records that begin a file: TensorBoard forgets `step` and later ones of files before it."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    version = Event(wall_time=time.time(), file_version="brain.Event:2")
    begin = Event(wall_time=time.time(), step=step, session_log=SessionLog(status=SessionLog.START))
    return _record(version) + _record(begin)


def _of_line(name: str, line: Mapping[str, Any]) -> Any:
    """Return the event of a line. Raises one of DAMAGED."""
    values = [{"tag": tag, "simple_value": number} for tag, number in tags.numbers(name, line).items()]
    if text := tags.findings(name, line):
        values.append({"tag": tags.FINDINGS, **_text(text)})
    return _event(line["step"], values)


def _text(text: str) -> dict[str, Any]:
    return {
        "metadata": {"plugin_data": {"plugin_name": "text"}},
        "tensor": {
            "dtype": "DT_STRING",
            "string_val": [text.encode()],
            "tensor_shape": {"dim": [{"size": 1}]},
        },
    }


def _of_picture(path: Path, run: Path, step: int) -> Any:
    """Return the event of a PNG file. Raises OSError or ValueError if it is none, or too large."""
    plainfile.check(path, run)
    with open(path, "rb") as file:
        content = file.read(MAX_PICTURE + 1)
    if len(content) > MAX_PICTURE or content[:8] != b"\x89PNG\r\n\x1a\n" or content[12:16] != b"IHDR":
        raise ValueError(f"{path} is no PNG file of at most {MAX_PICTURE} bytes")
    width, height = struct.unpack_from(">II", content, 16)
    image = {"width": width, "height": height, "encoded_image_string": content}
    return _event(step, [{"tag": tags.PICTURES[path.parent != run], "image": image}])


def _event(step: int, values: Sequence[Mapping[str, Any]]) -> Any:
    from tensorboardX.proto.event_pb2 import Event

    return Event(wall_time=time.time(), step=step, summary={"value": values})


def _record(event: Any) -> bytes:
    """Return an event as a file has it: its length and itself, each with its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data)))
    )
