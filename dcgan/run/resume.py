"""Continuing a run: from its last whole checkpoint, and only as the same run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .. import plugins
from ..console import tell
from ..errors import UserError
from ..plugins import PluginNeeded
from ..presets import PRESETS
from ..recipe import memory
from ..recipe.memory import TooMuchMemory
from ..recipe.preset import Preset
from . import checkpoint
from .checkpoint import Checkpoint, Unreadable
from .config import RunConfig
from .directory import LINES, RunDirectory

FREE = ("epochs", "steps")  # how far a run goes is no part of its recipe


@dataclass(frozen=True)
class Start:
    """The state that a run continues from.

    Attributes:
        preset: its recipe, with the length that was asked for last.
        state: the checkpoint; None for a run that was killed before its first one, which starts again.
        path: the checkpoint's file.
    """

    preset: Preset
    state: Checkpoint | None = None
    path: Path | None = None

    @property
    def step(self) -> int:
        """Steps that were done before."""
        return self.state.position["step"] if self.state else 0


def directory_of(named: Path) -> Path:
    """The run's directory: the one that is named, or that of the checkpoint file that is named.

    Raises UserError if it is no run.
    """
    if named.is_dir():
        return named
    if not named.is_file():
        raise checkpoint.missing(named)
    directory = checkpoint.directory_of(named)
    if not any((directory / name).is_file() for name in ("config.json", checkpoint.FILE_NAME)):
        raise UserError(
            f"--resume {named}: {directory} is no run's directory: it has no config.json and no "
            f"{checkpoint.FILE_NAME}; name a run, or a checkpoint in one"
        )
    return directory


def start(run: RunDirectory, named: Path, max_memory: int = memory.DEFAULT) -> Start:
    """The checkpoint that is named, or the newest one that is whole, with the recipe.

    Args:
        run: the directory, locked: nobody changes its checkpoints meanwhile.
        named: the directory, or a checkpoint file in it.
        max_memory: bytes that reading it, and then training, may take.

    Raises UserError if no checkpoint is whole, if there is none and no config.json either, or if it takes
    too much memory.
    """
    lines = sum(memory.of_lines(run.path / name, max_memory) for name in LINES)
    memory.check(f"reading the lines of {run.path}", lines, max_memory)
    paths = [named] if named.is_file() else checkpoint.candidates(run.path)
    problems = []
    for path in paths:
        try:
            state = checkpoint.load(path, max_memory)
            state.check_whole(f"--resume {path}")
        except (Unreadable, TooMuchMemory, PluginNeeded):  # it may be good: nothing may take its place
            raise
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            tell(f"{problem}. Going on from {path}, of step {state.position['step']}")
        return Start(_as_long_as_asked(run, state.preset), state, path)
    if problems:
        raise UserError("; ".join(problems))
    if run.config().get("init_from"):
        raise UserError(
            f"--resume {run.path}: it was stopped before the weights that it begins with were saved: start "
            "it again by --init-from, with another --out"
        )
    try:
        return Start(_configured(run))
    except PluginNeeded:
        raise
    except UserError as error:
        raise UserError(
            f"--resume {run.path}: there is no {checkpoint.FILE_NAME}, and no config.json with a recipe to "
            f"start again from ({error}): start a new run by --out"
        ) from error


def _configured(run: RunDirectory) -> Preset:
    """The recipe of config.json. Raises UserError if there is none that can be read."""
    config = run.config()
    try:
        return plugins.recipe_of(str(run.path), config)
    except PluginNeeded:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{error!s:.200}" if config else "it can't be read") from error


def _as_long_as_asked(run: RunDirectory, trained: Preset) -> Preset:
    """The recipe with the epochs and steps of config.json.

    The last command wrote there what it was asked for. Those of the checkpoint are older if a longer run was
    killed before it wrote one.
    """
    try:
        asked = _configured(run)
    except PluginNeeded:
        raise
    except UserError:
        return trained
    longer = replace(trained, **{name: getattr(asked, name) for name in FREE})
    return longer if longer == asked else trained


def checked_preset(run: Path, trained: Preset, named: Preset | None, overrides: Mapping[str, Any]) -> Preset:
    """The recipe to go on with: the one that was trained, but for how far it goes.

    Args:
        named: the recipe that --preset names. Of a preset of the package the name alone counts: the run may
            have replaced fields of it.

    Raises UserError, with the differences, if another one is asked for.
    """
    if named is not None and named.name != trained.name:
        raise UserError(f"--resume {run}: its recipe is {trained.name}, not {named.name}")
    wanted = trained.replaced(dict(overrides))
    if named is not None and named not in PRESETS.values():
        wanted = replace(named, **{name: getattr(wanted, name) for name in FREE})
    changed = [
        f"{f.name} is {getattr(trained, f.name)!s:.60}, not {getattr(wanted, f.name)!s:.60}"
        for f in fields(Preset)
        if f.name not in FREE and getattr(trained, f.name) != getattr(wanted, f.name)
    ]
    if changed:
        raise UserError(
            f"--resume {run}: a run goes on with its own recipe: {'; '.join(changed)}. Leave that out, or "
            "start a new run"
        )
    return wanted


def other_device(run: RunDirectory, device: str) -> str:
    """Return a sentence if a run goes on on another device than before; "" otherwise."""
    before = run.config().get("device", device)
    if before == device:
        return ""
    return (
        f"The run was trained on {before!s:.60} before, and goes on on {device}, with other last bits than "
        "it would have had there; --device names another"
    )


def other_kernels(run: RunDirectory, config: RunConfig) -> str:
    """Return a sentence if the CPU's kernels are others than those that trained the run; "" otherwise.

    A run of an earlier version, whose config.json names none, was trained by NumPy's forms.
    """
    before = run.config()
    trained, now = before.get("kernels", "NumPy"), config.kernels
    if before.get("device") != "cpu" or now is None or trained == now:
        return ""
    return (
        f"The CPU's kernels are other ones than before ({trained!s:.100}; now {now}): the run goes on, but "
        "with other last bits than it would have had"
    )
