"""The edge between a command and its terminal: output streams, messages, exit codes, signals.

Messages go through `logging`, by the logger "dcgan": information and warnings. A handler of its own prints
them. A program that calls a command puts other handlers in its place:

    logging.getLogger("dcgan").handlers = [...]

A stream may be closed, full, or connected to a program that has ended. Nothing in here raises because of
that: a long run must not end because nobody reads its output any more.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TextIO

from minigrad.backend.environment import BadEnvironment
from minigrad.tables import printable

from .errors import UserError, reason

own_files: set[str] = set()  # Python files of the user that are run, whose errors are the user's
STANDARD_STREAMS = ("stdin", "stdout", "stderr")  # by their file descriptors


def run_command(main: Callable[[Sequence[str] | None], int], program: str) -> None:
    """Run a command line and exit.

    A UserError, a file that can't be used or a lack of memory is reported in one line on the error output,
    with exit code 2. Ctrl-C, if the command does not handle it, gives exit code 130.
    """
    _open_closed_streams()
    try:
        code = main(None)
    except (UserError, BadEnvironment) as error:  # the latter where the engine is first used
        code = _fail(program, str(error))
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        code = _fail(program, f"{what}{reason(error)}")
    except MemoryError as error:
        said = f" ({error})" if str(error) else ""
        code = _fail(program, f"not enough memory{said}: use smaller images, sizes or batches")
    except KeyboardInterrupt:
        warn(f"{program}: interrupted")
        code = 130
    except Exception as error:
        code = _fail_in_own_file(program, error)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _flush(stream)
    sys.exit(code)


def _fail(program: str, message: str) -> int:
    LOGGER.error(f"{program}: {message}")
    return 2


def _fail_in_own_file(program: str, error: Exception) -> int:
    """Report an error of a user's Python file; raise any other one again."""
    for file in own_files:
        if line := line_of(error, file):
            return _fail(program, f"{file}{line}: {type(error).__name__}: {error}")
    raise error


def line_of(error: BaseException, file: str) -> str:
    """Return ", line N" for the line of a file in which an error came up; "" if it came up elsewhere."""
    line = getattr(error, "lineno", None) if getattr(error, "filename", "") == file else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


# -- messages ------------------------------------------------------------------------------------------


class ConsoleHandler(logging.Handler):
    """Prints messages as they are: warnings and errors to the error output, others to the standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr if record.levelno >= logging.WARNING else sys.stdout
        write_line(stream, record.getMessage())


LOGGER = logging.getLogger("dcgan")
CONSOLE = ConsoleHandler()
if not LOGGER.handlers:  # else the program that imports this has its own
    LOGGER.addHandler(CONSOLE)
    LOGGER.propagate = False
if LOGGER.level == logging.NOTSET:
    LOGGER.setLevel(logging.INFO)


def tell(line: str) -> None:
    """Give a message about how it goes."""
    LOGGER.info(line)


def warn(line: str) -> None:
    """Give a warning."""
    LOGGER.warning(line)


def output(text: str) -> None:
    """Print a result that was asked for, such as a table, to the standard output."""
    write_line(sys.stdout, text)


def be_quiet(quiet: bool) -> None:
    """Print warnings and errors alone, or all messages again. Other handlers have levels of their own."""
    CONSOLE.setLevel(logging.WARNING if quiet else logging.NOTSET)


def shows_progress() -> bool:
    """Whether a progress bar is wanted: a person watches, and messages are printed."""
    quiet = CONSOLE not in LOGGER.handlers or CONSOLE.level > logging.INFO
    return not quiet and LOGGER.isEnabledFor(logging.INFO) and (in_notebook() or is_terminal(sys.stderr))


def in_notebook() -> bool:
    """Whether the process is a Jupyter kernel, whose messages a browser shows."""
    ipython = sys.modules.get("IPython")  # which a kernel has imported
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


# -- streams -------------------------------------------------------------------------------------------


def write_line(stream: TextIO | None, line: str) -> None:
    """Write a line to a stream, if it still takes any; work goes on without a word otherwise.

    Letters that its encoding lacks are written in escapes.
    """
    if stream is None:
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        stream.write(printable(line).encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except (OSError, ValueError):
        _silence(stream)


class QuietStream:
    """A text stream for a progress bar: as the given one, but writing to it never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text, unless the stream is broken."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            _silence(self._stream)
            return len(text)

    def flush(self) -> None:
        """Flush the stream, unless it is broken."""
        _flush(self._stream)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches the stream."""
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):  # it is closed
        return False


def _flush(stream: TextIO | None) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Send the rest of a broken stream's output to nowhere, so that flushing it at the exit is no failure."""
    with suppress(OSError, ValueError):  # of a stream without a file descriptor
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def _open_closed_streams() -> None:
    """Connect standard streams that were closed at the start (`>&-`) to nowhere.

    Otherwise the next file that is opened would get the descriptor, and the output that goes there.
    """
    for number, name in enumerate(STANDARD_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number: this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115 it stays open


# -- signals -------------------------------------------------------------------------------------------


class StopOnSignal:
    """A context in which the first Ctrl-C, SIGTERM or SIGHUP asks to stop; a later Ctrl-C stops at once.

    A second Ctrl-C within a second counts as the same: people press twice. Signals that were ignored at the
    start (`nohup`, a background job of a script) stay ignored. Outside of the main thread, which alone
    receives signals, the context does nothing.

    Args:
        program: the command, whose process ends at a later Ctrl-C. None in a program that goes on: it raises
            KeyboardInterrupt then, and the other signals stay the program's.

    Attributes:
        asked: whether a signal came.
        signal: its number.
    """

    def __init__(self, program: str | None) -> None:
        self.program = program
        self.asked, self.signal, self._at = False, int(signal.SIGINT), 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is not threading.main_thread():
            return self
        for name in ("SIGINT", "SIGTERM", "SIGHUP") if self.program else ("SIGINT",):
            number = getattr(signal, name, None)  # Windows has no SIGHUP
            before = None if number is None else signal.getsignal(number)
            if number is not None and before not in (None, signal.SIG_IGN):  # None: not Python's to restore
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked:
            if number == signal.SIGINT and now - self._at >= 1.0:
                if self.program is None:
                    raise KeyboardInterrupt
                # Not by an exception: it would be lost if the signal came while Python frees an object.
                _write_at_once(f"\n{self.program}: interrupted\n")
                os._exit(130)
            return
        self.asked, self.signal, self._at = True, number, now
        _write_at_once("\nStopping after this step; Ctrl-C once more stops at once, without a checkpoint.\n")


def _write_at_once(text: str) -> None:
    """Write to the error output past its buffer: the signal may have come in the middle of a print.

    A stream that replaces the process's own, as in a notebook, gets nothing: its descriptor leads elsewhere.
    """
    own = sys.__stderr__
    if own is None or sys.stderr is not own:
        return
    # No exception may leave a signal handler: it would come up anywhere. The stream may be broken or closed.
    with suppress(OSError, ValueError):
        os.write(own.fileno(), text.encode())
