"""Going on with a run: its last whole checkpoint, and whether what is asked for is still the same run."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from . import checkpoint
from .checkpoint import Checkpoint
from .errors import UserError, tell
from .preset import Preset

FREE = ("epochs", "steps")  # how far a run goes is no part of its recipe


def last_checkpoint(run: Path) -> tuple[Path, Checkpoint]:
    """The run's directory and the checkpoint to go on from: the one named, or the newest that is whole.

    Args:
        run: a run directory, or a checkpoint file in it.

    Raises UserError where there is none.
    """
    if not run.is_dir():
        loaded = checkpoint.load(run)
        inside = run.parent.name == checkpoint.OLDER_NAME
        return (run.parent.parent if inside else run.parent), loaded
    problems = []
    for path in checkpoint.candidates(run):
        try:
            loaded = checkpoint.load(path)
        except UserError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            tell(f"{problem}. Going on from {path}, of step {loaded.position['step']}")
        return run, loaded
    if problems:
        raise UserError("; ".join(problems))
    raise UserError(f"--resume {run}: no {checkpoint.FILE_NAME} there, so nothing to go on from")


def checked_preset(run: Path, trained: Preset, name: str | None, overrides: Mapping[str, Any]) -> Preset:
    """The recipe to go on with: the one that was trained, but for how far it goes.

    Raises UserError, with the differences, where another one is asked for.
    """
    if name not in (None, trained.name):
        raise UserError(f"--resume {run}: its recipe is {trained.name}, not {name}")
    wanted = trained.replaced(dict(overrides))
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
