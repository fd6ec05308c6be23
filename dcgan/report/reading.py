"""The content of a run's directory, as far as it can be read."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import UserError
from ..files import jsonfile, plainfile
from ..plugins import PluginNeeded
from ..recipe import memory
from ..recipe.plan import total_steps
from ..recipe.preset import Preset
from ..run import checkpoint
from ..run.checkpoint import Checkpoint
from ..run.directory import LINES, RunDirectory
from ..run.trained import load_run

# JSON objects, not the dataclasses of the runs that write them: the page shows what there is of any version's
# lines, and of damaged ones, where a run that goes on takes whole lines only.
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Reading:
    """A run on disk, at the moment when it was read.

    Attributes:
        named: the directory or the checkpoint, as the command line has it; `directory`, the run's.
        weights: those that were asked for, None for the recipe's.
        preset: the recipe; config: what config.json says besides.
        state: the checkpoint; None where there is none, and `stateless` says why.
        metrics, timing, evaluations, vitals: the lines of those files, by rising steps.
        notes: what is damaged, in sentences.
    """

    named: Path
    directory: Path
    weights: str | None
    preset: Preset
    config: dict[str, Any]
    state: Checkpoint | None
    stateless: str
    metrics: Lines
    timing: Lines
    evaluations: Lines
    vitals: Lines
    notes: list[str]

    @property
    def step(self) -> int:
        """The last step that the files know of."""
        saved = self.state.position["step"] if self.state else 0
        return max([saved, *(line["step"] for line in (*self.metrics[-1:], *self.vitals[-1:]))])

    @property
    def diverged(self) -> dict[str, Any] | None:
        """The line of metrics with a number that is not finite, which ended the run; None where none has."""
        return next((line for line in self.metrics if None in line.values()), None)

    @property
    def total(self) -> int | None:
        """Steps of the whole run; None where only the number of images, which no file says, would tell."""
        images = re.match(r"(\d{1,12}) images", self.state.images) if self.state else None
        if images is None:
            return self.preset.steps or None
        return total_steps(self.preset, math.ceil(int(images[1]) / self.preset.batch_size))


def read(run: Path, weights: str | None, max_memory: int = memory.DEFAULT) -> Reading:
    """Read a run's directory, or that of a checkpoint file, with the checkpoint that `weights` asks for.

    Damaged or missing parts are left out, and reported in `notes`. Raises UserError where `run` is none of
    both, where the recipe can't be read, where there is not the checkpoint that was asked for by name, or
    where reading takes more than `max_memory` bytes.
    """
    if not run.exists():
        raise UserError(f"{run}: expected a run's directory or its checkpoint file")
    directory = checkpoint.directory_of(run)
    files = RunDirectory(directory)
    of_lines = sum(memory.of_lines(directory / name, max_memory) for name in LINES)
    memory.check(f"reading the lines of {directory}", of_lines, max_memory)
    state, stateless = _state(run, weights, max_memory)
    config = files.config()
    notes: list[str] = []
    metrics, timing, evaluations, vitals = (
        _lines(directory, name, notes) for name in ("metrics", "timing", "evaluations", "vitals")
    )
    return Reading(
        run,
        directory,
        weights,
        _preset(run, config, state),
        config,
        state,
        stateless,
        metrics,
        timing,
        evaluations,
        vitals,
        notes,
    )


def number(value: Any) -> float:
    """A number of a file as a float; NaN for null and for all that is no number."""
    if type(value) not in (int, float) or abs(value) > 1e300:  # an int may be larger than any float
        return math.nan
    return float(value)


def json_file(reading: Reading, name: str) -> dict[str, Any]:
    """The object of a JSON file of the run; {} where there is none that can be read."""
    try:
        plainfile.check(reading.directory / name, reading.directory)
        value = jsonfile.read(reading.directory / name)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _state(run: Path, weights: str | None, max_memory: int) -> tuple[Checkpoint | None, str]:
    """The checkpoint, or None and why."""
    try:
        state = load_run(run, weights, max_memory)
        state.check_whole(str(run))
        return state, ""
    except (memory.TooMuchMemory, PluginNeeded):
        raise
    except UserError as error:
        if weights is not None or not run.is_dir():
            raise
        if not (run / checkpoint.FILE_NAME).exists():
            return (
                None,
                "There is no checkpoint yet: the first is written with a grid, or after about a minute.",
            )
        return None, f"The checkpoint can't be used: {error}."


def _preset(run: Path, config: dict[str, Any], state: Checkpoint | None) -> Preset:
    """The recipe by config.json, which a run that goes on writes anew; else by the checkpoint."""
    try:
        return plugins.recipe_of(str(run), config)
    except PluginNeeded:
        raise
    except (UserError, ValueError, TypeError, KeyError, AttributeError) as error:
        if state is not None:
            return state.preset
        recipe = f"no recipe in its config.json ({error!s:.200})" if config else "no config.json"
        raise UserError(
            f"{run}: {recipe} and no checkpoint: expected the directory of a run that was started by "
            "dcgan train"
        ) from error


def _lines(directory: Path, name: str, notes: list[str]) -> Lines:
    """The lines of a .jsonl file, by rising steps; a note if some are damaged."""
    found = jsonfile.step_lines(directory / f"{name}.jsonl")
    if found.damaged:
        notes.append(f"{name}.jsonl: {found.damaged} damaged or repeated lines are left out.")
    lines = [json.loads(text) for text in found.texts]
    return [line for line in lines if 0 <= line["step"] < 2**31]
