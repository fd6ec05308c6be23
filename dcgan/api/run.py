"""A trained run: its images, its logs, its evaluation, and more steps of it."""

import os
import secrets
import shutil
import weakref
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import minigrad as mg
from minigrad.serialize import TEMPORARY_PREFIX, make_folder_of

from ..errors import UserError, os_errors_as
from ..markup import png_url, tag
from ..recipe import memory
from ..sampling import STATISTICS
from . import checks
from .generator import TrainedGenerator
from .images import PathLike

if TYPE_CHECKING:
    from ..evaluation.show import Evaluation
    from ..run.directory import RunDirectory
    from ..run.logs import Metrics, Vitals
    from .training import Callback

SHOWN = 64  # images of the grid that a notebook displays


class Run(TrainedGenerator):
    """A trained run, as `dcgan.fit` and `dcgan.load` return it. A notebook displays its images.

    Attributes:
        path: the run's directory. One that is temporary is removed with this object: see `save`.
        named: the directory or checkpoint file, as it was named; or "@quick".
        preset: the recipe.
        step: the steps that its weights have been trained for.
        epoch: the epoch of the last one, from 1.
        weights: those that images are drawn with: "last", "best", "ema", or None for the recipe's.
        max_memory: bytes that reading and drawing may take.
    """

    _finalizer: "weakref.finalize[Any, Any] | None" = None

    def reload(self) -> None:
        """Read the run again, which may have been trained further."""
        super().reload()
        self._metrics: Metrics | None = None
        self._vitals: Vitals | None = None

    @property
    def _directory(self) -> "RunDirectory":
        from ..run.directory import RunDirectory  # it imports all that reads images, which drawing need not

        return RunDirectory(self.path)

    # -- logs and measures ---------------------------------------------------------------------------

    @property
    def metrics(self) -> "Metrics":
        """The losses and judgements of each step: `run.metrics["loss_d"]` is an array."""
        from ..run.logs import Metrics

        if self._metrics is None:
            self._check_own("metrics")
            self._metrics = Metrics(self._directory.metrics())
        return self._metrics

    @property
    def vitals(self) -> "Vitals":
        """The vital signs of the steps that were measured, and the findings."""
        from ..run import checkup
        from ..run.logs import Vitals

        if self._vitals is None:
            self._check_own("vitals")
            self._vitals = Vitals(checkup.lines(self._directory))
        return self._vitals

    def evaluate(
        self,
        count: int | None = None,
        seed: int = 0,
        *,
        data: PathLike | None = None,
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
            out: the directory of evaluation.json and evaluation.png; by default the run's. Of a generator
                alone, which has none, nothing is written by default.

        Raises UserError if the images can't be used, or the files not be written.
        """
        from . import evaluating

        count = None if count is None else checks.whole("count", count, 0)
        seed = checks.whole("seed", seed, 0)
        if statistics is not None:
            checks.one_of("statistics", statistics, STATISTICS)
        if data is not None and not isinstance(data, str):
            data = str(checks.path("data", data))
        place = None if self.is_alone else self.path
        if out is not None:
            place = checks.path("out", out)
        elif place is not None:
            self._check_own("evaluate")
        if place is not None:
            evaluating.prepare(place, make=out is not None)
        with mg.random.isolated():
            found = evaluating.evaluate(self, count, seed, data, value_range, statistics)
        if place is not None:
            evaluating.write(found, place)
        return found

    def report(self, out: PathLike | None = None) -> "Report":
        """Write everything that the run has left into one HTML page, as `dcgan report` does.

        Args:
            out: the file; by default report.html in the run's directory.

        Raises UserError if it can't be written.
        """
        from ..report.writing import write

        self._check_own("report")
        place = None if out is None else checks.path("out", out)
        written = write(self.named, self.weights, place, self.max_memory)
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
        from . import training  # it imports as much as `dcgan train`

        self._check_own("resume")
        options = training.options(images, self.device if device is None else device, every)
        try:
            training.resume(self.named, steps, options, callbacks)
        except BaseException as error:
            if self.named == self.path:
                with suppress(UserError):  # as far as it came, if there is a checkpoint
                    self.reload()
            if isinstance(error, training.RunDiverged):
                error.run = self
            raise
        self.named = self.path
        self.reload()
        return self

    def save(self, path: PathLike) -> "Run":
        """Copy the run's directory to a new one, whole or not at all, which is the run's from now on.

        Raises UserError if there is something at `path`, or it can't be written.
        """
        self._check_own("save")
        target = checks.path("path", path).absolute()
        if target.exists():
            raise UserError(f"save {target}: it exists already; name a new directory")
        # The folder around a temporary run is removed with it.
        own = self.path if self._finalizer is None else self.path.parent
        if target.resolve().is_relative_to(own.resolve()):
            raise UserError(f"save {target}: it lies in the run's own directory; name another place")
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

    def export(self, path: PathLike, *, statistics: str | None = None) -> Path:
        """Write the generator alone, as `dcgan export` does. Returns the path.

        Args:
            path: an .onnx file (needs the package onnx), or a .safetensors file, which `dcgan.load` reads.
            statistics: those of BatchNorm: "running" or "recalibrated"; by default running where the recipe's
                samples use them.

        Raises UserError if the file can't be written, or a layer has no ONNX operator.
        """
        from ..exporting import export

        if statistics is not None:
            checks.one_of("statistics", statistics, ("running", "recalibrated"))
        return export(self._loaded, checks.path("path", path), self.weights, statistics, self.max_memory).path

    def _check_own(self, what: str) -> None:
        """Raise UserError if there is a generator alone, or the run's directory has gone."""
        if self.is_alone:
            raise UserError(
                f"{what}: {self.named} is a generator alone, without a run: it can be sampled, interpolated, "
                "exported and evaluated; dcgan.fit trains a run of your own"
            )
        if not self.path.is_dir():
            raise UserError(f"{what}: {self.path} has gone: the run's directory was moved or removed")

    def __reduce__(self) -> Any:
        if self._finalizer is not None:
            raise TypeError(
                "a run in a temporary directory, which goes with its object, can't be copied or pickled: "
                "run.save(path) keeps it"
            )
        return _reopened, (self.named, self.weights, self.max_memory)

    def remove_with(self, folder: Path) -> None:
        """Remove a folder, which holds the run's directory, as soon as this object is gone."""
        self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())

    # -- for people ----------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The device that the run was trained on last; "cpu" where nothing says so."""
        return str(self._directory.config().get("device", "cpu"))

    def __repr__(self) -> str:
        place = self.named if self.is_alone else self.path
        return f"<Run {self.preset.name!r} after step {self.step}, in {place}>"

    def _repr_html_(self) -> str:
        shown = self.sample(SHOWN).grid()._repr_png_()
        facts = f", step {self.step:,}, epoch {self.epoch:,}"
        place = str(self.named if self.is_alone else self.path)
        if self._finalizer is not None:
            place = "a temporary directory: run.save(path) keeps it"
        return tag(
            "figure",
            tag("figcaption", tag("b", self.preset.name), facts, tag("br"), place),
            tag("img", src=png_url(shown), alt=f"images of {self.preset.name}"),
            style="margin: 0",
        )


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
        # Its script runs in the frame alone, without access to the notebook. A notebook that is not
        # trusted yet shows no frames: it has the path.
        frame = tag(
            "iframe", srcdoc=page, sandbox="allow-scripts", width="100%", height="800", style="border: 0"
        )
        return tag("figure", tag("figcaption", self.path), frame, style="margin: 0")


def load(path: PathLike, *, weights: str | None = None, max_memory: int = memory.DEFAULT) -> Run:
    """Return a trained run.

        >>> import dcgan
        >>> run = dcgan.load("@quick")
        >>> run
        <Run 'quick' after step 16000, in @quick>
        >>> run.sample(64, seed=3).grid()
        <Picture of 484 x 484 pixels>

    Args:
        path: a run's directory, a checkpoint file, or "@quick", the generator that comes with the package.
        weights: those that images are drawn with: "last", of the last step; "ema", averaged over the last
            steps; "best", of the best evaluation on the way. By default the recipe's, averaged where it
            averages.
        max_memory: bytes that reading, and later drawing, may take.

    Raises UserError if there is no run, or it is damaged, or needs a plugin that is not loaded (see
    `dcgan.plugins.load`).
    """
    run = Run(path, weights=weights, max_memory=max_memory)
    run.make_absolute()
    return run


def _reopened(named: Path, weights: str | None, max_memory: int) -> Run:
    return Run(named, weights=weights, max_memory=max_memory)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child process, which has the object too
        shutil.rmtree(folder, ignore_errors=True)
