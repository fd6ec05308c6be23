"""A trained generator: the checkpoint that holds it, and the images that it draws."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn

from .. import latent, pictures
from ..errors import UserError
from ..recipe import memory
from ..recipe.preset import MAX_GRID_IMAGES, Preset
from ..run import checkpoint, packaged
from ..run.checkpoint import Checkpoint
from ..run.trained import WEIGHTS, check_memory, load_discriminator, load_generator, load_run
from ..sampling import STATISTICS, choose_statistics, fixed_statistics, generate
from . import checks
from .images import Images, PathLike

IN_A_STRIP, MAX_FRAMES = 9, 1000  # images from one to the next, of `interpolate`: by default, at the most


class TrainedGenerator:
    """The generator of a checkpoint, which draws images.

    Attributes:
        named: the directory or checkpoint file, as it was named; or "@quick".
        path: the run's directory.
        preset: the recipe.
        step: the steps that its weights have been trained for.
        epoch: the epoch of the last one, from 1.
        weights: those that images are drawn with: "last", "best", "ema", or None for the recipe's.
        max_memory: bytes that reading and drawing may take.
    """

    def __init__(
        self, path: PathLike, *, weights: str | None = None, max_memory: int = memory.DEFAULT
    ) -> None:
        if weights is not None:
            checks.one_of("weights", weights, WEIGHTS)
        self.named, self.weights = checks.path("path", path), weights
        self.max_memory = checks.whole("max_memory", max_memory, 1)
        self.path = checkpoint.directory_of(packaged.file_of(self.named))
        self.reload()

    def make_absolute(self) -> None:
        """Keep absolute paths: the program may change its current directory."""
        self.path = self.path.absolute()
        if not self._loaded.packaged:
            self.named = self.named.absolute()

    def reload(self) -> None:
        """Read the checkpoint again: the run may have been trained further."""
        self._loaded: Checkpoint = load_run(self.named, self.weights, self.max_memory)
        self._drawing: dict[str, tuple[nn.Module, str]] = {}  # by the statistics that were asked for
        self.preset: Preset = self._loaded.preset
        self.step, self.epoch = (self._loaded.position[name] for name in ("step", "epoch"))

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
        count, seed = checks.whole("count", count, 1, MAX_GRID_IMAGES), checks.whole("seed", seed, 0)
        self.check_memory(f"drawing {count} images", count, statistics)
        return self.draw(latent.draw_array(self.preset, count, mg.Generator(seed)), statistics)

    def _noise_of(self, z: NDArray[Any] | PathLike) -> NDArray[Any]:
        if isinstance(z, str | os.PathLike):
            return latent.from_file(self.preset, Path(z), self.max_memory)
        return latent.of_array(self.preset, checks.array("z", z), "z", self.max_memory)

    def interpolate(
        self, *between: str | int, frames: int = IN_A_STRIP, statistics: str | None = None
    ) -> Images:
        """Return the images on the way from one to the next: those of `dcgan interpolate --between`.

            >>> import dcgan
            >>> walk = dcgan.load("@quick").interpolate("3/12", 5, frames=24)
            >>> walk
            <25 images of 28 x 28 grey>
            >>> walk.animation()
            <Animation of 25 frames, 3.92 s>

        Args:
            between: two or more, each "SEED" or "SEED/INDEX": "3/12" is the image number 12, from 0, of
                `sample(seed=3)`.
            frames: images from one to the next.
            statistics: as for `sample`; by default those with which an image depends on its own z alone.

        Raises UserError as `sample` does.
        """
        if len(between) < 2:
            raise UserError(f"interpolate: expected two or more of SEED or SEED/INDEX, got {between}")
        frames = checks.whole("frames", frames, 1, MAX_FRAMES)
        if len(between) * frames > MAX_GRID_IMAGES:
            raise UserError(f"interpolate: expected at most {MAX_GRID_IMAGES} images in all")
        points = [latent.by_seed(self.preset, str(name), self.max_memory) for name in between]
        way = np.stack(latent.path_between(points, frames))  # (frames * stretches + 1, *z_shape)
        return self.draw(way, statistics or self.own_statistics)

    @property
    def own_statistics(self) -> str:
        """Statistics of BatchNorm with which an image depends on its own z alone."""
        return fixed_statistics(self.preset)

    def draw(self, z: NDArray[Any], statistics: str | None = None) -> Images:
        """Return the images of noise, float32 (n, *preset.z_shape). Raises UserError as `sample` does."""
        if statistics is not None:
            checks.one_of("statistics", statistics, STATISTICS)
        self.check_memory(f"drawing {len(z)} images", len(z), statistics)
        generator, mode = self._ready(statistics, len(z))
        if mode == "batch":  # which changes the generator for a while: another thread may draw, too
            generator = copy.deepcopy(generator)
        return Images(pictures.to_bytes(generate(generator, z, mode)), z)

    def check_memory(self, what: str, count: int, statistics: str | None = None, further: int = 0) -> None:
        """Raise UserError if drawing `count` images, and `further` bytes, take more than `max_memory`.

        Args:
            what: what is to be done, for the message.
        """
        check_memory(what, self._loaded, statistics, count, self.max_memory, further)

    def generator(self) -> nn.Module:
        """Return a new copy of the trained generator, on the CPU.

        Of "@quick" it computes by NumPy's forms: `.to("cpu")` moves it to where new tensors are.

        Raises UserError if the checkpoint has no such weights, or they do not fit its recipe.
        """
        return load_generator(self._loaded, self.weights)

    def discriminator(self) -> nn.Module:
        """Return a new copy of the trained discriminator, on the CPU. Raises UserError as `generator`."""
        return load_discriminator(self._loaded)

    def _ready(self, statistics: str | None, count: int) -> tuple[nn.Module, str]:
        """Return a generator that is ready to draw `count` images, and the statistics for `generate`."""
        key = str(statistics if count > 1 else (statistics, 1))
        if key not in self._drawing:
            generator = self.generator().eval()
            self._drawing[key] = generator, choose_statistics(generator, self.preset, statistics, count)
        return self._drawing[key]

    @property
    def is_alone(self) -> bool:
        """Whether there is a generator alone, without a run: "@quick", or what `export` has written."""
        if self._loaded.packaged:
            return True
        return self._loaded.is_generator_alone and not (self.path / "config.json").is_file()

    @property
    def checkpoint(self) -> Checkpoint:
        """The content of the checkpoint, as it was when the run was loaded."""
        return self._loaded
