"""The C compiler of this machine: finding it, and compiling the kernels to a library."""

import contextlib
import functools
import itertools
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

TIMEOUT = 300.0  # seconds; the kernels take seven on two cores, and a minute with sanitizers
WAIT = 0.2  # seconds: of one wait for a compiler
NAMES = ("cc", "gcc", "clang")  # where CC names none
OPTIONS = (
    # As fast as with -O3, which takes twice as long to compile.
    *("-O2", "-ftree-vectorize"),
    "-ffp-contract=fast",  # a * b + c as one instruction, with one rounding
    # These two change no result. (-ffast-math would: it changes the order of sums, assumes that there is no
    # NaN or infinity, and makes subnormal numbers 0 in the whole process.)
    "-fno-math-errno",  # sqrt as an instruction: nobody reads errno
    "-fno-trapping-math",  # both sides of a choice in vectors: nobody traps floating-point exceptions
    "-std=gnu11",  # vector extensions, atomics
    *("-fPIC", "-fvisibility=hidden"),  # a library that exports its kernels only
    "-pthread",
)
# Of each line, the first option that a compiler knows is used.
ALTERNATIVES = (
    ("-march=native", "-mcpu=native"),  # all instructions of this processor
    ("-fvect-cost-model=dynamic",),  # loops of unknown length, too, become loops of vectors
)
# Files that are compiled at the same time, with their options.
UNITS = (("threads.c",), ("kernels.c",), ("kernels.c", "-DDOUBLE"))
FAMILY = (
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "flags",
    "CPU implementer",
    "CPU part",
    "Features",
)


class CompilerError(Exception):
    """There is no compiler, or it failed; the message says which one and why."""


class CompilerTimeout(CompilerError):
    """A compiler did not end within TIMEOUT."""


class Compiler(NamedTuple):
    """A compiler that can be called.

    Attributes:
        command: the program and the arguments that come with it.
        version: the output of `--version`.
        options: its options, besides the files.
    """

    command: tuple[str, ...]
    version: str
    options: tuple[str, ...]

    def compile(self, sources: Mapping[str, str], folder: Path) -> Path:
        """Compile sources and return the library, which lies in `folder`.

        Args:
            sources: texts by file name.
            folder: an empty folder; all files are written there.

        Raises CompilerError if the compiler fails or takes longer than TIMEOUT, and OSError if the folder
        can't be written to.
        """
        for name, text in sources.items():
            (folder / name).write_text(text, encoding="utf-8")
        command = (*self.command, *self._known(folder), *self.options)
        objects = [f"{number}.o" for number in range(len(UNITS))]
        units = zip(UNITS, objects, strict=True)
        _run(*((*command, "-c", *unit, "-o", name) for unit, name in units), folder=folder)
        made = folder / "kernels.so"
        _run((*command, "-shared", *objects, "-o", str(made), "-lm"), folder=folder)
        if not made.is_file():
            raise CompilerError(f"{shlex.join(self.command)} ended without an error, but wrote no library")
        return made

    def _known(self, folder: Path) -> list[str]:
        """Return the options of ALTERNATIVES that this compiler knows."""
        (folder / "empty.c").touch()
        found: list[str] = []
        for options in ALTERNATIVES:
            found += [option for option in options if self._knows(option, folder)][:1]
        return found

    def _knows(self, option: str, folder: Path) -> bool:
        """Whether this compiler knows an option."""
        try:
            _run((*self.command, option, "-E", "empty.c"), folder=folder)
        except CompilerTimeout:
            raise
        except CompilerError:
            return False
        return True


def find() -> Compiler:
    """Return the compiler that the environment variable CC names, or else the first of NAMES.

    CC may have arguments ("ccache gcc"). MINIGRAD_CFLAGS adds options, for debugging.

    Raises CompilerError if there is none, or it does not tell its version.
    """
    extra, named = _words("MINIGRAD_CFLAGS"), _words("CC")
    found = next(filter(None, map(shutil.which, named[:1] or NAMES)), None)
    if found is None and named:
        raise CompilerError(
            f"CC={shlex.join(named)!r:.80}: there is no such program: unset CC, or correct it"
        )
    if found is None:
        raise CompilerError(f"no C compiler was found: install gcc or clang ({', '.join(NAMES)} in PATH)")
    command = (os.path.abspath(found), *named[1:])  # it is run in another folder
    return Compiler(command, _run((*command, "--version")), (*OPTIONS, *extra))


def _words(variable: str) -> tuple[str, ...]:
    """Return the words of an environment variable; () if it is not set."""
    text = os.environ.get(variable, "")
    try:
        return tuple(shlex.split(text))
    except ValueError as error:  # an open quotation mark
        raise CompilerError(f"{variable}={text!r:.80}: {error}") from None


@functools.cache
def processor() -> str:
    """Return a text that identifies the processor: its model and its instructions."""
    return "\n".join((platform.system(), platform.machine(), *_family()))


def _family() -> Sequence[str]:
    if sys.platform == "darwin":
        with contextlib.suppress(CompilerError):
            return [_run(("sysctl", "-n", "machdep.cpu.brand_string"))]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first_core = list(itertools.takewhile(str.strip, file))  # of many cores, all would take long
    except OSError:
        return [platform.processor()]
    return [line for line in first_core if line.partition(":")[0].strip() in FAMILY]


def _run(*commands: Sequence[str], folder: Path | None = None) -> str:
    """Run programs at the same time; return the output of the first.

    All are killed, with their children, after TIMEOUT, if one of them fails, or if this process is
    interrupted.

    Raises CompilerError if one can't be run, fails or takes too long (CompilerTimeout).
    """
    started: list[subprocess.Popen[bytes]] = []
    end = time.monotonic() + TIMEOUT
    try:
        started.extend(_start(command, folder) for command in commands)
        said = [_output(process, end) for process in started]
        return said[0]
    finally:
        for process in started:
            _end(process)


def _start(command: Sequence[str], folder: Path | None) -> "subprocess.Popen[bytes]":
    """Start a program, in a session of its own so that it can be killed with its children."""
    environment = {**os.environ, "LC_ALL": "C"} | ({"TMPDIR": str(folder)} if folder else {})
    try:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CompilerError(f"{command[0]} can't be run: {error.strerror or error}") from None


def _output(process: "subprocess.Popen[bytes]", end: float) -> str:
    """Wait for a program and return its output."""
    assert isinstance(process.args, Sequence)
    while True:
        left = end - time.monotonic()
        try:
            # In short waits: the system may give Ctrl-C to another thread, which does not wake this one.
            out, err = process.communicate(timeout=max(min(left, WAIT), 0.0))
            break
        except subprocess.TimeoutExpired:
            if left > WAIT:
                continue
        _kill(process)
        raise CompilerTimeout(f"{process.args[0]!s} has not ended after {TIMEOUT:g} s")
    if process.returncode:
        said = _first_error(err.decode(errors="replace"))
        raise CompilerError(f"{process.args[0]!s} failed with exit code {process.returncode}: {said}")
    return out.decode(errors="replace")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program if it still runs, and close its streams."""
    if process.poll() is None:
        _kill(process)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program and its children: a compiler's driver starts the compiler itself as a child."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _first_error(text: str) -> str:
    """Return the first line of a compiler's output that names an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    found = next(
        (line for line in lines if "error" in line.lower()), lines[0] if lines else "it said nothing"
    )
    return f"{found:.200}"
