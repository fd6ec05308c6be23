"""A run's directory: which file lies where, who may write there, and the log files that grow."""

import errno
import io
import itertools
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minigrad.serialize import is_temporary, write_whole

from ..data import names, scale, sources
from ..data.scale import Range
from ..errors import UserError, reason
from ..files import jsonfile, plainfile
from ..files.plainfile import entries
from ..steps import StepLine
from .config import RunConfig

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LINES = ("metrics.jsonl", "timing.jsonl", "vitals.jsonl", "evaluations.jsonl")
IMAGES_NAME = "images.npy"  # the images of a run that was given an array
FOLDERS = ("samples", "frames", "checkpoints", "tensorboard")
ENDINGS = (".png", ".gif", ".json", ".jsonl", ".safetensors", ".tfevents")  # of a run's files
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)  # of some network file systems


class Follower:
    """Is told of lines and pictures right after they are written. This one does nothing with them.

    Its methods raise nothing: what was written is written.

    Attributes:
        option: the part of a command line that asks for it.
    """

    option = ""

    def lines(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Take lines that were added to the file `name`."""

    def picture(self, name: str, step: int) -> None:
        """Take the picture `name`, such as "samples/a.png", of so many steps."""


class RunDirectory:
    """The files of one run, under `path`.

    config.json             the recipe, the data, and the versions and machine that train it
    metrics.jsonl           a line for every step
    timing.jsonl            a line for every block of steps: images per second
    vitals.jsonl            a line for every step that is measured
    evaluations.jsonl       a line for every evaluation during training
    checkpoint.safetensors  the weights and everything else that training continues from
    checkpoints/            those before it, <step>.safetensors
    best.safetensors        the same, at the step whose evaluation was the best
    samples/                the recipe's grids
    frames/                 one grid over time, for the animation
    tensorboard/            with --log tensorboard: the lines and grids, as TensorBoard reads them
    images.npy              the images, if they were given as an array: bytes (n, H, W, C)
    training_images.png     real images, as they are trained on (mnist_data.png in some recipes)
    real_and_fake.png, losses.png, vitals.png, output.gif  made at the end

    Everything else in it is the user's, and is neither changed nor removed.

    Attributes:
        follower: is told of what is written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.follower = Follower()
        self._handle: int | None = None  # of the directory, while it is locked
        self._identity: tuple[int, int] | None = None  # device and inode of the directory that was locked
        self._made: list[Path] = []  # directories that `create` made, the innermost first

    @classmethod
    def create(cls, out: Path | None, config: RunConfig) -> "RunDirectory":
        """Make a new directory: `out`, or runs/<preset> with a number added if that is taken.

        It belongs to this run until `close`. Raises UserError if `out` holds something already or can't be
        made.
        """
        path, run = out or Path("runs") / config.preset.name, None
        try:
            run = _claim_free(path) if out is None else _claim(path)
            if run is None:
                raise UserError(
                    f"--out {path}: it exists already; name another directory, move it away, or go on with "
                    f"the run in it by --resume {path}"
                )
            run.write_config(config)
            run.make_folders()
        except OSError as error:
            if run is not None:
                run.discard()
                run.close()
            raise UserError(f"--out {path}: {reason(error)}; name a directory that can be written") from error
        return run

    @classmethod
    def reopen(cls, path: Path) -> "RunDirectory":
        """Take the directory of an earlier run, to continue it.

        Raises UserError if another process has it, or if a file or folder of the run is a symbolic link or a
        special file: writing to it, or removing it, would change something outside of the run.
        """
        run = cls(path)
        try:
            run.lock()
            _check_entries(_own_files(path))
            for folder in (path / name for name in FOLDERS):
                _check_entries([folder])
                _check_entries(_own_files(folder))
        except (OSError, UserError) as error:
            run.close()
            if isinstance(error, UserError):
                raise
            raise UserError(f"--resume {error.filename or path}: {reason(error)}") from error
        return run

    def make_folders(self) -> None:
        """Make the folders for pictures, if they do not exist. Raises OSError if they can't be made."""
        self.samples.mkdir(exist_ok=True)
        self.frames.mkdir(exist_ok=True)

    # -- whose it is ---------------------------------------------------------------------------------

    def lock(self) -> None:
        """Take the directory for this run until `close` or the end of the process.

        Raises UserError if another process has it. File systems without locks give it to anybody.
        """
        if fcntl is not None:
            self._handle = os.open(self.path, os.O_RDONLY)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.close()
                raise UserError(
                    f"{self.path}: another process is training there; wait for it to end, or stop it"
                ) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    self.close()
                    raise
        held = os.stat(self.path if self._handle is None else self._handle)
        self._identity = (held.st_dev, held.st_ino)
        self.check_place()

    def close(self) -> None:
        """Leave the directory to others."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def check_place(self) -> None:
        """Raise OSError if the directory was moved or removed since it was locked.

        Another run may train in a directory of the same name by then: its files must not be touched.
        """
        if self._identity is None:
            return
        found = os.stat(self.path)
        if (found.st_dev, found.st_ino) != self._identity:
            raise OSError(errno.ESTALE, "another directory has taken its place", str(self.path))

    def is_in_place(self) -> bool:
        """Whether `check_place` finds nothing wrong."""
        with suppress(OSError):
            self.check_place()
            return True
        return False

    def place(self, name: str) -> Path:
        """The path to write the file `name` at, such as "samples/a.png". Check this before every write.

        Raises OSError as `check_place` does, or if the file or its folder is a symbolic link.
        """
        self.check_place()
        path = self.path / name
        if path.parent != self.path and not stat.S_ISDIR(os.lstat(path.parent).st_mode):
            raise OSError(errno.ENOTDIR, "not a folder of the run, but a link or a file", str(path.parent))
        return plainfile.to_write(path)

    def discard(self) -> None:
        """Remove a directory in which nothing was trained, with what `create` and the first pictures left."""
        if not self.is_in_place() or any((self.path / name).exists() for name in UNTRAINED_LACKS):
            return
        for folder in (*(self.path / name for name in FOLDERS), self.path):
            for path in _own_files(folder):
                path.unlink(missing_ok=True)
            if folder != self.path:
                with suppress(OSError):
                    folder.rmdir()
        (self.path / IMAGES_NAME).unlink(missing_ok=True)
        for path in self._made:
            with suppress(OSError):  # something of the user's is in it
                path.rmdir()

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def frames(self) -> Path:
        return self.path / "frames"

    def write_config(self, config: RunConfig) -> None:
        """Write config.json: how the run is trained from now on."""
        if config.data == str(self._own_images):
            config = replace(config, data=IMAGES_NAME)
        content = json.dumps(config.to_json(), indent=2) + "\n"
        write_whole(self.place("config.json"), content.encode())

    def config(self) -> dict[str, Any]:
        """Return the content of config.json; {} if it can't be read."""
        try:
            config = jsonfile.read(self.path / "config.json")
        except (OSError, ValueError):
            return {}
        return config if isinstance(config, dict) else {}

    @property
    def _own_images(self) -> Path:
        """The place of images that were given as an array. config.json has no directory: runs get moved."""
        return (self.path / IMAGES_NAME).resolve()

    def write_images(self, images: Sequence[NDArray[Any]] | NDArray[Any]) -> None:
        """Write the images that the run is trained on, bytes (n, H, W, C), so that it needs no other file."""
        content = io.BytesIO()
        np.save(content, np.asarray(images), allow_pickle=False)
        write_whole(self.place(IMAGES_NAME), content.getbuffer())

    def data(self) -> tuple[str, Range | None] | None:
        """The images of the run, as --data and --range name them; None if there is no config.json.

        Raises UserError if config.json does not say it.
        """
        path = self.path / "config.json"
        if not path.exists():
            return None
        try:
            config = jsonfile.read(path)
            data, value_range = config.get("data", names.DIGITS), config.get("range")
            if not isinstance(data, str):
                raise TypeError("expected the name of the data")
            if data == IMAGES_NAME:
                data = str(self._own_images)
            return data, None if value_range is None else scale.checked(value_range)
        except (OSError, TypeError, ValueError, AttributeError) as error:
            said = f"{path} does not say what the run was trained on: name it with --data"
            raise UserError(said) from error

    def images(self, data: str | None, value_range: Range | None) -> tuple[str | None, Range | None]:
        """The images that --data and --range name, or else those of the run, with their range.

        The run's range holds for its own images alone. Raises UserError as `data` does.
        """
        stored = self.data() if data is None or value_range is None else None
        if stored is None:
            return data, value_range
        if data is not None and sources.absolute(data) != stored[0]:
            return data, value_range
        return data or stored[0], value_range or stored[1]

    # -- the log files -------------------------------------------------------------------------------

    def append(self, name: str, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add lines to a .jsonl file: all of them, or none if that fails (OSError)."""
        jsonfile.append(self.place(name), lines)
        self.follower.lines(name, lines)

    def replace_last(self, name: str, line: Mapping[str, Any]) -> None:
        """Put a line in the place of the last one of a .jsonl file."""
        before = jsonfile.step_lines(self.path / name).texts[:-1]
        content = "".join([*before, json.dumps(line, allow_nan=False), "\n"]).encode()
        write_whole(self.place(name), content)
        self.follower.lines(name, [line])

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a .jsonl file, but for damaged ones; none if there is no such file."""
        return [json.loads(text) for text in jsonfile.step_lines(self.path / name).texts]

    def metrics(self) -> list[StepLine]:
        """Return the lines of metrics.jsonl; none if there is no file. Raises UserError if it is damaged."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        try:
            return [StepLine.from_json(line) for line in jsonfile.lines(path)]
        except (OSError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error!s:.200}): expected a JSON object of numbers in each line"
            ) from error

    def forget_after(self, step: int) -> list[str]:
        """Cut the log files off after a step, and remove files that a killed process left half-written.

        Damaged lines, and those that repeat a step, are removed too. Returns a sentence about each file
        that had some, or that lacks steps.
        """
        for folder in (self.path, *(self.path / name for name in FOLDERS)):
            for path in entries(folder):
                if is_temporary(path.name) and path.is_file():
                    path.unlink()
        return [said for name in LINES for said in self._cut(name, step)]

    def _cut(self, name: str, step: int) -> Iterator[str]:
        path = self.path / name
        if not path.exists():
            return
        found = jsonfile.step_lines(path)
        kept = [text for done, text in zip(found.steps, found.texts, strict=True) if done <= step]
        content = "".join(kept).encode()
        held = path.stat()
        # A file with a second name (`cp -al`) is written anew: lines that are added would show there too.
        if held.st_size != len(content) or held.st_nlink > 1:
            write_whole(self.place(name), content)
        if found.damaged:
            yield f"{name}: {found.damaged} damaged or repeated lines were removed"
        if name == "metrics.jsonl" and len(kept) < step:
            yield f"{name} lacks {step - len(kept)} of the {step} steps so far"


# A directory with one of these was trained in.
UNTRAINED_LACKS = (*LINES, "checkpoint.safetensors", "best.safetensors", "checkpoints")


def _claim(path: Path) -> RunDirectory | None:
    """Make and lock a directory, or lock one that is empty; None if it holds something."""
    run = RunDirectory(path)
    if path.exists() and not _is_empty(path):
        return None
    run._made = [place for place in (path, *path.parents) if not place.exists()]
    path.mkdir(parents=True, exist_ok=True)
    run.lock()
    if not _is_empty(path):  # another run has just begun there, and ended
        run.close()
        return None
    for left in entries(path):
        left.unlink()
    return run


def _claim_free(path: Path) -> RunDirectory:
    """The same for `path`, or for the first of path-2, path-3, ... that is free."""
    for number in itertools.count(1):
        with suppress(UserError):  # another run begins there at this moment
            run = _claim(path if number == 1 else path.with_name(f"{path.name}-{number}"))
            if run is not None:
                return run
    raise AssertionError("there are numbers without end")


def _is_empty(path: Path) -> bool:
    """Whether a directory holds nothing but temporary files, of a process that was killed at its start."""
    return path.is_dir() and all(is_temporary(entry.name) for entry in entries(path))


def _own_files(folder: Path) -> list[Path]:
    return [path for path in entries(folder) if path.name.endswith(ENDINGS) or is_temporary(path.name)]


def _check_entries(paths: Sequence[Path]) -> None:
    """Raise UserError if a folder of a run, or what may be a file of it, is a link or a special file."""
    for path in paths:
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            continue
        folder = path.name in FOLDERS
        if not (stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode)):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a plain file"
            raise UserError(
                f"--resume {path}: it is {kind}; a run goes on in plain files and folders of its own: "
                f"put a {'folder' if folder else 'plain file'} in its place"
            )
