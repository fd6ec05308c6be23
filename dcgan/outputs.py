"""The pictures that a run writes as it trains, and when each is due."""

import re
from pathlib import Path
from string import Formatter
from typing import Any

import minigrad as mg
from minigrad import nn

from . import noise, pictures
from .animate import animate
from .data.batches import Batches
from .preset import Preset
from .rundir import RunDirectory
from .sampling import generate

FIXED_STREAM, SAMPLE_STREAM = 3, 4  # of the run's seed


class Outputs:
    """Grids, frames, curves, and real images, of one run.

    Args:
        sampler: the generator that samples are drawn with.

    Attributes:
        fixed_z: the noise of the frames, and of the grids where the recipe keeps it.
    """

    def __init__(
        self, preset: Preset, batches: Batches, run: RunDirectory, sampler: nn.Module, device: str
    ) -> None:
        self.preset, self.batches, self.run = preset, batches, run
        self.sampler, self.device = sampler, device
        count = preset.grid_rows * preset.grid_columns
        self.fixed_z = noise.draw(preset, count, mg.Generator(preset.seed, FIXED_STREAM), device)

    def sample_is_due(self, step: int) -> bool:
        """Whether the recipe has a grid after so many steps."""
        every, early = self.preset.sample_every, self.preset.sample_early
        if every == 0:
            return step > 0 and self.batches.ends_epoch(step)
        return step % (early if early and step < every else every) == 0

    def frame_is_due(self, step: int) -> bool:
        """Whether the animation has a frame after so many steps."""
        return step % self.preset.frame_every == 0

    def write_sample(self, step: int) -> None:
        """The recipe's grid."""
        z = self.fixed_z
        if self.preset.sample_noise == "new":
            generator = mg.Generator(self.preset.seed, SAMPLE_STREAM)
            generator.state = {**generator.state, "calls": step}  # of this step, in whatever run
            z = noise.draw(self.preset, len(z), generator, self.device)
        self._save_enlarged(self._fakes(z), self.run.samples / self._name(step))

    def _name(self, step: int) -> str:
        """The recipe's name of the grid after a step."""
        epoch = self.batches.epoch_of(max(step, 1))
        return self.preset.sample_name.format(step=step, epoch=epoch - 1)

    def write_frame(self, step: int) -> None:
        """A frame of the animation."""
        pictures.save_png(self._fakes(self.fixed_z), self.run.frames / f"{step:08d}.png")

    def write_real(self) -> None:
        """Real images, as they are trained on."""
        self._save_enlarged(self._reals(), self.run.path / self.preset.real_name)

    def write_curves(self) -> None:
        """The losses so far, as metrics.jsonl has them."""
        if metrics := self.run.metrics():
            pictures.save_losses(metrics, self.run.path / "losses.png")

    def forget_after(self, step: int) -> None:
        """Remove grids and frames past a step, and those of a run's end that another step would not have."""
        due = {self._name(s) for s in range(step + 1) if self.sample_is_due(s)}
        pattern = re.compile(
            "".join(
                re.escape(text) + (r"\d+" if field else "")
                for text, field, _, _ in Formatter().parse(self.preset.sample_name)
            )
        )
        for path in self.run.samples.iterdir():
            if path.name not in due and pattern.fullmatch(path.name):
                path.unlink()
        for path in self.run.frames.glob("*.png"):
            if path.stem.isdecimal() and (int(path.stem) > step or not self.frame_is_due(int(path.stem))):
                path.unlink()

    def finish(self, step: int) -> None:
        """The last grid and frame, the curves, real beside generated, and the animation."""
        if not self.sample_is_due(step):
            self.write_sample(step)
        if not self.frame_is_due(step):
            self.write_frame(step)
        self.write_curves()
        pictures.save_side_by_side(
            {"real": self._reals(), "generated": self._fakes(self.fixed_z)},
            self.run.path / "real_and_fake.png",
        )
        animate(self.run.frames, self.run.path / "output.gif")

    def _fakes(self, z: mg.Tensor) -> Any:
        """The grid of z's images, bytes (height, width, C)."""
        return self._grid(generate(self.sampler, z, self.preset.statistics))

    def _reals(self) -> Any:
        """A grid of as many real images."""
        return self._grid(self.batches.first(len(self.fixed_z)))

    def _grid(self, images: Any) -> Any:
        return pictures.grid(pictures.to_bytes(images), self.preset.grid_rows, self.preset.grid_columns)

    @staticmethod
    def _save_enlarged(grid: Any, path: Path) -> None:
        pictures.save_png(pictures.enlarged(grid), path)
