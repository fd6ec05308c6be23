"""A trained run: its images, its logs, its evaluation, and more steps of it."""

import base64
import os
import secrets
import shutil
import weakref
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn
from minigrad.serialize import TEMPORARY_PREFIX, make_folder_of

from .. import latent, pictures
from ..errors import UserError, os_errors_as
from ..markup import tag
from ..recipe import memory
from ..recipe.preset import MAX_GRID_IMAGES, Preset
from ..run import checkpoint
from ..run.checkpoint import Checkpoint
from ..run.directory import RunDirectory
from ..run.trained import check_memory, load_generator, load_run
from ..sampling import choose_statistics, generate
from .images import Images, PathLike

if TYPE_CHECKING:
    from ..evaluation.show import Evaluation
    from ..run.logs import Metrics, Vitals
    from .fit import Callback

SHOWN = 64  # images of the grid that a notebook displays
IN_A_STRIP, MAX_FRAMES = 9, 1000  # images from one to the next, of `interpolate`: by default, at the most


class Run:
    """A trained run, as `dcgan.fit` and `dcgan.load` return it. A notebook displays its images.

    Attributes:
        named: the directory or checkpoint file, as it was named.
        path: the run's directory. One that is temporary is removed with this object: see `save`.
        preset: the recipe.
        step: the steps that its weights have been trained for.
        epoch: the epoch of the last one, from 1.
        weights: those that images are drawn with: "last", "best", "ema", or None for the recipe's.
    """

    def __init__(
        self, path: PathLike, *, weights: str | None = None, max_memory: int = memory.DEFAULT
    ) -> None:
        self.named, self.weights, self.max_memory = Path(path), weights, max_memory
        self.path = checkpoint.directory_of(self.named)
        self._finalizer: weakref.finalize[Any, Any] | None = None
        self._read()

    def _read(self) -> None:
        """Read the checkpoint, and forget all that was made of an earlier one."""
        self._loaded: Checkpoint = load_run(self.named, self.weights, self.max_memory)
        self._generators: dict[str, tuple[nn.Module, str]] = {}
        self.preset: Preset = self._loaded.preset
        self.step, self.epoch = (self._loaded.position[name] for name in ("step", "epoch"))
        for name in ("metrics", "vitals", "_shown"):
            self.__dict__.pop(name, None)

    # -- images --------------------------------------------------------------------------------------

    def sample(
        self,
        count: int = 64,
        seed: int = 0,
        *,
        z: NDArray[Any] | PathLike | None = None,
        statistics: str | None = None,
    ) -> Images:
        """Return new images: those of `dcgan sample --count COUNT --seed SEED`.

        Args:
            count: how many, from 1 to 10,000.
            seed: of the noise. The first images of a larger count are those of a smaller one, unless the
                statistics are "batch".
            z: the noise itself in the place of `count` and `seed`: an array (n, *preset.z_shape), also flat,
                or an .npy file of one.
            statistics: those of BatchNorm: "batch", of the images drawn together; "running", of training;
                "recalibrated", measured anew on 10,000 z. By default the recipe's.

        Raises UserError for other values, and if it takes more memory than `dcgan.load` allows.
        """
        if z is not None:
            return self.draw(self._noise_of(z), statistics)
        if type(count) is not int or not 1 <= count <= MAX_GRID_IMAGES:
            raise UserError(f"count={count!r:.40}: expected an integer from 1 to {MAX_GRID_IMAGES}")
        if type(seed) is not int or not 0 <= seed < 2**63:
            raise UserError(f"seed={seed!r:.40}: expected an integer of at least 0, below 2^63")
        self.check_memory(f"drawing {count} images", count, statistics)
        return self.draw(latent.draw(self.preset, count, mg.Generator(seed)).numpy(), statistics)

    def _noise_of(self, z: NDArray[Any] | PathLike) -> NDArray[Any]:
        if isinstance(z, str | os.PathLike):
            return latent.from_file(self.preset, Path(z), self.max_memory)
        return latent.of_array(self.preset, np.asarray(z), "z", self.max_memory)

    def interpolate(
        self, *between: str | int, frames: int = IN_A_STRIP, statistics: str | None = None
    ) -> Images:
        """Return the images on the way from one to the next: those of `dcgan interpolate --between`.

        Args:
            between: two or more, each "SEED" or "SEED/INDEX": "3/12" is the image number 12, from 0, of
                `sample(seed=3)`.
            frames: images from one to the next.
            statistics: as for `sample`; by default those with which an image depends on its own z alone.

        Raises UserError as `sample` does.
        """
        if len(between) < 2:
            raise UserError(f"interpolate: expected two or more of SEED or SEED/INDEX, got {between}")
        if type(frames) is not int or not 1 <= frames <= MAX_FRAMES:
            raise UserError(f"frames={frames!r:.40}: expected 1 to {MAX_FRAMES}")
        if len(between) * frames > MAX_GRID_IMAGES:
            raise UserError(f"interpolate: expected at most {MAX_GRID_IMAGES} images in all")
        points = [latent.by_seed(self.preset, str(name), self.max_memory) for name in between]
        way = np.stack(latent.path_between(points, frames))  # (frames * stretches + 1, *z_shape)
        return self.draw(way, statistics or self.own_statistics)

    @property
    def own_statistics(self) -> str:
        """Statistics of BatchNorm with which an image depends on its own z alone."""
        return "recalibrated" if self.preset.statistics == "batch" else "running"

    def draw(self, z: NDArray[Any], statistics: str | None = None) -> Images:
        """Return the images of noise, float32 (n, *preset.z_shape). Raises UserError as `sample` does."""
        self.check_memory(f"drawing {len(z)} images", len(z), statistics)
        generator, mode = self.generator(statistics, len(z))
        return Images(
            pictures.to_bytes(generate(generator, mg.tensor(z, device=device_of(generator)), mode)), z
        )

    def check_memory(self, what: str, count: int, statistics: str | None = None, further: int = 0) -> None:
        """Raise UserError if drawing `count` images, and `further` bytes, take more than `max_memory`.

        Args:
            what: what is to be done, for the message.
        """
        check_memory(what, self._loaded, statistics, count, self.max_memory, further)

    def generator(self, statistics: str | None = None, count: int = 64) -> tuple[nn.Module, str]:
        """Return the generator, ready to draw `count` images, and the statistics that `generate` takes."""
        key = str(statistics if count > 1 else (statistics, 1))
        if key not in self._generators:
            generator = load_generator(self._loaded, self.weights)
            self._generators[key] = generator, choose_statistics(generator, self.preset, statistics, count)
        return self._generators[key]

    @property
    def checkpoint(self) -> Checkpoint:
        """The content of the checkpoint, as it was when the run was loaded."""
        return self._loaded

    # -- logs and measures ---------------------------------------------------------------------------

    @cached_property
    def metrics(self) -> "Metrics":
        """The losses and judgements of each step: `run.metrics["loss_d"]` is an array."""
        from ..run.logs import Metrics

        return Metrics(RunDirectory(self.path).metrics())

    @cached_property
    def vitals(self) -> "Vitals":
        """The vital signs of the steps that were measured, and the findings."""
        from ..run import checkup
        from ..run.logs import Vitals

        return Vitals(checkup.lines(RunDirectory(self.path)))

    def evaluate(
        self,
        count: int | None = None,
        seed: int = 0,
        *,
        data: str | None = None,
        value_range: tuple[float, float] | None = None,
        statistics: str | None = None,
        out: PathLike | None = None,
    ) -> "Evaluation":
        """Measure how good the samples are, as `dcgan evaluate` does, and write it into the run's directory.

        Args:
            count: samples, from 100 on; by default 10,000, or as many as there are real images to compare.
            seed: of the noise.
            data: the real images, named as for training; by default those of the run.
            value_range: the numbers of `data` that are black and white.
            statistics: as for `sample`.
            out: the directory of evaluation.json and evaluation.png; by default the run's.

        Raises UserError if the images can't be used, or the files not be written.
        """
        from . import evaluating

        out = self.path if out is None else Path(out)
        evaluating.prepare(out, make=out != self.path)
        found = evaluating.evaluate(self, count, seed, data, value_range, statistics)
        evaluating.write(found, out)
        return found

    def report(self, out: PathLike | None = None) -> "Report":
        """Write everything that the run has left into one HTML page, as `dcgan report` does.

        Args:
            out: the file; by default report.html in the run's directory.

        Raises UserError if it can't be written.
        """
        from ..report.writing import write

        written = write(self.named, self.weights, None if out is None else Path(out), self.max_memory)
        return Report(written.path)

    # -- more steps ----------------------------------------------------------------------------------

    def resume(
        self,
        steps: int | None = None,
        *,
        images: Any = None,
        device: str | None = None,
        callbacks: "Sequence[Callback]" = (),
        every: int | None = None,
    ) -> "Run":
        """Train further, bit for bit as if the run had never stopped; returns this run, which has moved on.

        Args:
            steps: how many more; by default those that are left of what the run was to do.
            images: the images, as for `dcgan.fit`, if they lie elsewhere now.
            device: where to compute; by default as before.
            callbacks, every: as for `dcgan.fit`.

        Raises UserError if the run can't go on, or `steps` are missing in a run that is at its end.
        """
        from .fit import resumed

        resumed(self, steps, images, device, callbacks, every)
        self.named = self.path
        self._read()
        return self

    def save(self, path: PathLike) -> "Run":
        """Copy the run's directory to a new one, whole or not at all, which is the run's from now on.

        Raises UserError if there is something at `path`, or it can't be written.
        """
        target = Path(path)
        if target.exists():
            raise UserError(f"save {target}: it exists already; name a new directory")
        copy = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        with os_errors_as(f"save {target}"):
            make_folder_of(target)
            try:
                shutil.copytree(self.path, copy)
                copy.rename(target)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                raise
        if self._finalizer is not None:
            self._finalizer()
            self._finalizer = None
        if self.named.is_file():  # a checkpoint in the directory
            self.named = target / self.named.relative_to(self.path)
        else:
            self.named = target
        self.path = target
        return self

    def remove_with(self, folder: Path) -> None:
        """Remove a folder, which holds the run's directory, as soon as this object is gone."""
        self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())

    # -- for people ----------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device that the run was trained on last; "cpu" where nothing says so."""
        return str(RunDirectory(self.path).config().get("device", "cpu"))

    def __repr__(self) -> str:
        return f"<Run {self.preset.name!r} after step {self.step}, in {self.path}>"

    def _repr_html_(self) -> str:
        facts = f", step {self.step:,}, epoch {self.epoch:,}"
        place = "a temporary directory: run.save(path) keeps it" if self._finalizer else str(self.path)
        return tag(
            "figure",
            tag("figcaption", tag("b", self.preset.name), facts, tag("br"), place),
            tag("img", src=f"data:image/png;base64,{self._shown}", alt=f"images of {self.preset.name}"),
            style="margin: 0",
        )

    @cached_property
    def _shown(self) -> str:
        """The images that a notebook displays, a PNG file in base64."""
        return base64.b64encode(self.sample(SHOWN)._repr_png_() or b"").decode()


class Report:
    """A written report, which a notebook displays in a frame.

    Attributes:
        path: of the HTML file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<Report {self.path}>"

    def __fspath__(self) -> str:
        return str(self.path)

    def _repr_html_(self) -> str:
        page = self.path.read_text(encoding="utf-8")
        # Its script runs in the frame alone, without access to the notebook.
        return tag(
            "iframe", srcdoc=page, sandbox="allow-scripts", width="100%", height="800", style="border: 0"
        )


def load(path: PathLike, *, weights: str | None = None, max_memory: int = memory.DEFAULT) -> Run:
    """Return a trained run.

    Args:
        path: a run's directory, a checkpoint file, or "@quick", the generator that comes with the package.
        weights: those that images are drawn with: "last", of the last step; "ema", averaged over the last
            steps; "best", of the best evaluation on the way. By default the recipe's, averaged where it
            averages.
        max_memory: bytes that reading, and later drawing, may take.

    Raises UserError if there is no run, or it is damaged, or needs a plugin that is not loaded (see
    `dcgan.plugins.load`).
    """
    return Run(path, weights=weights, max_memory=max_memory)


def device_of(module: nn.Module) -> str:
    """Return the device of a network."""
    return next(module.parameters()).device


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child process, which has the object too
        shutil.rmtree(folder, ignore_errors=True)
