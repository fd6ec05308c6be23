"""A run's directory: what lies where, and the files that grow as it trains."""

import itertools
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from minigrad.serialize import write_whole

from . import jsonfile
from .errors import UserError
from .preset import Preset


class RunDirectory:
    """The files of one run, under `path`.

    config.json             the recipe, what --data said, and what it ran on
    metrics.jsonl           a line for every step
    timing.jsonl            a line for every block of steps: images per second
    evaluations.jsonl       a line for every evaluation on the way, where there are any
    checkpoint.safetensors  the weights and all else to go on from
    best.safetensors        the same, at the step whose evaluation was the best
    samples/                the recipe's grids
    frames/                 one grid over time, for the animation
    training_images.png     real images, as they are trained on (mnist_data.png in some recipes)
    real_and_fake.png, losses.png, output.gif  made at the end
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(
        cls, out: Path | None, preset: Preset, device: str, data: str, tf32: bool = False
    ) -> "RunDirectory":
        """A new directory: `out`, or runs/<preset> with a number added where that is taken.

        Raises UserError where `out` holds something already, or can't be made.
        """
        path = out or Path("runs") / preset.name
        try:
            if out is None:
                path = _make_free(path)
            elif path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(f"--out {path}: it exists already; name another directory, or move it away")
            run = cls(path)
            for directory in (path, run.samples, run.frames):
                directory.mkdir(parents=True, exist_ok=True)
            run.write_config(preset, device, data, tf32)
        except OSError as error:
            raise UserError(
                f"--out {path}: {error.strerror or error}; name a directory that can be written"
            ) from error
        return run

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
        """Add lines to a .jsonl file, in one write."""
        with open(self.path / name, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))

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
