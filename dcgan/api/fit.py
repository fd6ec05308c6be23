"""`dcgan.fit`: train a recipe from a program."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Unpack

import minigrad as mg

from .. import presets, recipe_files
from ..errors import UserError, os_errors_as
from ..recipe import memory
from ..recipe.preset import Preset
from ..run import checkpoint, opening
from ..run.opening import Initial
from . import checks, training
from .fields import Fields
from .images import PathLike
from .run import Run
from .training import Callback, RunDiverged


def fit(
    recipe: str | PathLike | Preset = presets.FLUX.name,
    images: Any = None,
    *,
    steps: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str = "cpu",
    out: PathLike | None = None,
    callbacks: Sequence[Callback] = (),
    value_range: tuple[float, float] | None = None,
    every: int | None = None,
    init_from: PathLike | Run | None = None,
    max_memory: int = memory.DEFAULT,
    **fields: Unpack[Fields],
) -> Run:
    """Train a recipe, as `dcgan train` does, and return the run.

        >>> import dcgan
        >>> run = dcgan.fit("quick", "mnist", steps=2, batch_size=8)
        >>> run.step
        2
        >>> run.sample(4).shape
        (4, 28, 28, 1)
        >>> run.resume(steps=1).step
        3
        >>> len(run.metrics["loss_d"])
        3

    Ctrl-C (in a notebook: interrupting the kernel) stops the run after its current step; all that was trained
    is kept, and returned: `run.resume()` goes on with it. A second Ctrl-C raises KeyboardInterrupt. The
    engine's random state is left as it was, and runs in several threads do not disturb each other.

    Messages go through `logging`, by the logger "dcgan"; `logging.getLogger("dcgan").setLevel("WARNING")`
    silences them, and the progress bar.

    Args:
        recipe: a preset's name, a .toml or .json file, "FILE.py:NAME", or a `Preset`.
        images: an array (n, H, W), (n, H, W, C) or (n, C, H, W), which is copied into the run's directory; a
            folder or .zip of images, a file of many, "mnist" or "fashion-mnist:DIR". By default MNIST.
        steps, epochs: the length of the run, in updates or in passes over the images.
        batch_size: images a step.
        seed: of all that is random. Equal calls give equal results, bit for bit.
        device: "cpu", "gpu", or a plugin's.
        out: the run's directory, which must be new or empty; by default a temporary one, which is removed
            when the run is gone (`Run.save` keeps it).
        callbacks: functions that are called with a `TrainingState` after each step. What one raises ends the
            run, which is kept, and is raised again; KeyboardInterrupt is taken as `TrainingState.stop`.
        value_range: the numbers of the images that are black and white; by default by their type.
        every: steps between two evaluations of the samples, the best of which are kept ("best" of
            `dcgan.load`); by default none.
        init_from: a run whose weights this one begins with.
        max_memory: bytes that a recipe which somebody else may have made may take.
        fields: any other field of the recipe, such as `lr_generator=1e-4` or `ema_decay=0.999`.

    Raises UserError for anything that can't be used, and RunDiverged if a loss is no finite number any more.
    """
    own = {"steps": steps, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    given = {name: value for name, value in own.items() if value is not None}
    for name in ("steps", "epochs"):
        if name in given:
            given[name] = checks.whole(name, given[name], 1)
    replaced = {**fields, **given}
    preset = find(recipe).replaced(replaced)
    initial = None if init_from is None else _initial(init_from, max_memory)
    options = training.options(images, device, every, value_range, max_memory)
    foreign = not isinstance(recipe, Preset) and recipe not in presets.PRESETS
    training.check_callbacks(callbacks)
    temporary = _temporary() if out is None else None
    folder = checks.path("out", out) if temporary is None else temporary / preset.name
    try:
        with ExitStack() as stack, mg.random.isolated():
            opened = opening.begin(preset, options, folder, stack, initial, foreign)
            training.train(opened, callbacks)
        run = Run(folder)
    except BaseException as error:
        trained = (folder / checkpoint.FILE_NAME).is_file()
        if isinstance(error, RunDiverged) and trained:
            error.run = _owned(Run(folder), temporary)
        elif temporary is not None and trained:
            error.add_note(f"The run so far is kept until this program ends: dcgan.load({str(folder)!r})")
            atexit.register(shutil.rmtree, temporary, ignore_errors=True)
        elif temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        raise
    return _owned(run, temporary)


def find(recipe: str | PathLike | Preset) -> Preset:
    """Return the recipe that a name or a file says, or that is given. Raises UserError if there is none."""
    if isinstance(recipe, Preset):
        return recipe
    if not isinstance(recipe, str | os.PathLike):
        raise UserError(f"recipe: expected a preset's name, a file or a Preset, got {type(recipe).__name__}")
    return recipe_files.find(os.fspath(recipe))


def _initial(init_from: PathLike | Run, max_memory: int) -> Initial:
    """Return the weights of a run, or of the run or checkpoint of that name."""
    if not isinstance(init_from, Run):
        return Initial.load(checks.path("init_from", init_from), max_memory)
    init_from.checkpoint.check_whole(f"init_from={init_from}")
    return Initial(init_from.named, init_from.checkpoint)


def _temporary() -> Path:
    with os_errors_as("a temporary directory"):
        return Path(tempfile.mkdtemp(prefix="dcgan-"))


def _owned(run: Run, temporary: Path | None) -> Run:
    """Return the run, with which its temporary directory goes, if it has one."""
    run.make_absolute()
    if temporary is not None:
        run.remove_with(temporary)
    return run
