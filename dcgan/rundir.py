"""A run's directory: what lies where, and the files that grow as it trains."""

import errno
import itertools
import json
import os
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from minigrad.serialize import write_whole

from . import jsonfile
from .errors import UserError
from .preset import Preset

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LINES = ("metrics.jsonl", "timing.jsonl", "vitals.jsonl", "evaluations.jsonl")


class RunDirectory:
    """The files of one run, under `path`.

    config.json             the recipe, what --data said, and what it ran on
    metrics.jsonl           a line for every step
    timing.jsonl            a line for every block of steps: images per second
    vitals.jsonl            a line for every step that is measured
    evaluations.jsonl       a line for every evaluation on the way, where there are any
    checkpoint.safetensors  the weights and all else to go on from
    checkpoints/            those before it, <step>.safetensors
    best.safetensors        the same, at the step whose evaluation was the best
    samples/                the recipe's grids
    frames/                 one grid over time, for the animation
    training_images.png     real images, as they are trained on (mnist_data.png in some recipes)
    real_and_fake.png, losses.png, vitals.png, output.gif  made at the end
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None  # of the directory, while it is locked

    @classmethod
    def create(
        cls, out: Path | None, preset: Preset, device: str, data: str, tf32: bool = False
    ) -> "RunDirectory":
        """A new directory: `out`, or runs/<preset> with a number added where that is taken.

        It is this run's alone while it is open. Raises UserError where `out` holds something already, or
        can't be made.
        """
        path = out or Path("runs") / preset.name
        try:
            if out is None:
                path = _make_free(path)
            elif path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(
                    f"--out {path}: it exists already; name another directory, move it away, or go on with "
                    f"the run in it by --resume {path}"
                )
            run = cls(path)
            for directory in (path, run.samples, run.frames):
                directory.mkdir(parents=True, exist_ok=True)
            run.lock()
            run.write_config(preset, device, data, tf32)
        except OSError as error:
            raise UserError(
                f"--out {path}: {error.strerror or error}; name a directory that can be written"
            ) from error
        return run

    @classmethod
    def reopen(cls, path: Path) -> "RunDirectory":
        """The directory of a run that goes on.

        Raises UserError where another process has it, or it can't be written.
        """
        run = cls(path)
        try:
            run.lock()
            for directory in (run.samples, run.frames):
                directory.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"--resume {path}: {error.strerror or error}") from error
        return run

    def lock(self) -> None:
        """Take the directory for this run, until `close` or the end of the process, whatever ends it.

        Raises UserError where another process has it. Where the system has no such locks, nobody does.
        """
        if fcntl is None:
            return
        self._handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise UserError(
                f"{self.path}: another process is training there; wait for it to end, or stop it"
            ) from None

    def close(self) -> None:
        """Leave the directory to others."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def forget_after(self, step: int) -> None:
        """Cut the .jsonl files off after a step, and a line that was never finished; and remove what a killed
        process was writing.
        """
        for directory in (self.path, self.samples, self.frames, self.path / "checkpoints"):
            for path in directory.glob(".*"):
                if re.fullmatch(r"\..+\.\w{8}", path.name) and path.is_file():  # of `write_whole`
                    path.unlink()
        for name in LINES:
            path = self.path / name
            if not path.exists():
                continue
            kept = "".join(line for done, line in _whole_lines(path) if done <= step).encode()
            if path.stat().st_size != len(kept):
                write_whole(path, kept)

    def config(self) -> dict[str, Any]:
        """What config.json says; nothing where it can't be read."""
        try:
            config = jsonfile.read(self.path / "config.json")
        except (OSError, ValueError):
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def frames(self) -> Path:
        return self.path / "frames"

    def write_config(self, preset: Preset, device: str, data: str, tf32: bool) -> None:
        """The recipe with every field, what --data said, and the versions and machine that train it."""
        config = {
            "preset": preset.to_json(),
            "data": data,
            "device": device,
            "tf32": tf32,
            "versions": {name: metadata.version(name) for name in ("numpy", "safetensors")}
            | {"python": platform.python_version()},
            "machine": platform.platform(),
        }
        write_whole(self.path / "config.json", (json.dumps(config, indent=2) + "\n").encode())

    def append(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to a .jsonl file: all of them, or none where that fails."""
        content = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
        with open(self.path / name, "ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                if file.write(content) != len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(before)
                raise

    def replace_last(self, name: str, line: Mapping[str, Any]) -> None:
        """Put a line in the place of the last one of a .jsonl file."""
        before = [text for _, text in _whole_lines(self.path / name)][:-1]
        write_whole(self.path / name, "".join([*before, json.dumps(line, allow_nan=False), "\n"]).encode())

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a .jsonl file, up to the first that is damaged; none where there is no such file."""
        return [json.loads(line) for _, line in _whole_lines(self.path / name)]

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; none where there is no file. UserError where it is damaged."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            return [_checked(line) for line in jsonfile.lines(path)]
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error!s:.200}): expected a JSON object of numbers in each line"
            ) from error


def _checked(line: Any) -> dict[str, Any]:
    """A line of metrics: numbers by name, null where one was not finite."""
    if not isinstance(line, dict) or type(line.get("step")) is not int:
        raise ValueError("a line that is no step")
    for name, value in line.items():
        if value is not None and not (type(value) in (int, float) and abs(value) < 2**63):
            raise ValueError(f"{name:.40}: no number of a size that is possible")
    return line


def _whole_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a .jsonl file that say their step, with it, up to the first that does not."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        while line := file.readline(jsonfile.MOST):
            try:
                value = jsonfile.parse(line)
            except ValueError:
                return
            if not line.endswith("\n") or not isinstance(value, dict) or type(value.get("step")) is not int:
                return
            yield value["step"], line


def _make_free(path: Path) -> Path:
    """Make the directory `path`, or that with the first number from 2 on that is not taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        candidate = path if number == 1 else path.with_name(f"{path.name}-{number}")
        try:
            candidate.mkdir()  # fails where another run has just made it
        except FileExistsError:
            continue
        return candidate
    raise AssertionError("there are numbers without end")
