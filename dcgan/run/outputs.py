"""The pictures that a run writes as it trains, and when each is due."""

import re
from collections.abc import Callable
from string import Formatter
from typing import Any

import minigrad as mg
from minigrad import nn

from .. import animations, latent, pictures
from ..data.batches import Batches
from ..files.plainfile import entries
from ..recipe.preset import Preset
from ..sampling import generate
from .directory import RunDirectory

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
        self._pattern = _pattern(preset.sample_name)
        self.fixed_z = latent.draw(preset, count, mg.Generator(preset.seed, FIXED_STREAM), device)

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
            z = latent.draw(self.preset, len(z), generator, self.device)
        self._save_enlarged(self._fakes(z), f"samples/{self._name(step)}", step)

    def _name(self, step: int) -> str:
        """The recipe's name of the grid after a step."""
        epoch = self.batches.epoch_of(max(step, 1))
        return self.preset.sample_name.format(step=step, epoch=epoch - 1)

    def grids_before(self, step: int) -> list[tuple[int, str]]:
        """The steps and names, such as "samples/a.png", of the run's grids of earlier steps, in order."""
        found = [(self._steps_of(path.name), path.name) for path in entries(self.run.samples)]
        last = [(steps[-1], f"samples/{name}") for steps, name in found if steps]
        return sorted((drawn, name) for drawn, name in last if drawn < step)

    def write_frame(self, step: int) -> None:
        """A frame of the animation."""
        pictures.save_png(self._fakes(self.fixed_z), self.run.place(f"frames/{step:08d}.png"))

    def write_real(self) -> None:
        """Real images, as they are trained on."""
        self._save_enlarged(self._reals(), self.preset.real_name, 0)

    def write_curves(self) -> None:
        """The losses so far, as metrics.jsonl has them."""
        if lines := self.run.metrics():
            pictures.save_losses(lines, self.run.place("losses.png"))

    def forget_after(self, step: int, reached: int) -> None:
        """Remove grids and frames past a step, and those of a run's end that another step would not have.

        Args:
            reached: the last step that the run can have drawn before it stopped. Pictures that are numbered
                beyond it are not the run's.
        """
        for path in self.run.samples.iterdir():
            steps = self._steps_of(path.name)
            if steps and steps[0] <= reached and (steps[-1] > step or not self.sample_is_due(steps[-1])):
                path.unlink()
        for path in animations.frame_files(self.run.frames, reached):
            drawn = int(path.stem)
            if drawn > step or not self.frame_is_due(drawn):
                path.unlink()

    def _steps_of(self, name: str) -> range:
        """The steps whose grid has this name: one, or all of an epoch; none if it is no name of a grid."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return range(0)
        found, epoch = match.groupdict(), self.batches.per_epoch
        last = int(found["step"]) if "step" in found else (int(found["epoch"]) + 1) * epoch
        if self._name(last) != name:
            return range(0)
        return range(last, last + 1) if "step" in found else range(last - epoch + 1, last + 1)

    def final(self, step: int) -> dict[str, Callable[[], None]]:
        """Return the functions that draw the pictures of a run's end, after `step`, by their names."""
        last: dict[str, Callable[[], None]] = {}
        if not (self.run.samples / self._name(step)).exists() or not self.sample_is_due(step):
            last["the last grid"] = lambda: self.write_sample(step)
        if not (self.run.frames / f"{step:08d}.png").exists():
            last["the last frame"] = lambda: self.write_frame(step)
        return {
            **last,
            "losses.png": self.write_curves,
            "real_and_fake.png": self._write_side_by_side,
            "output.gif": lambda: self._write_animation(step),
        }

    def _write_side_by_side(self) -> None:
        grids = {"real": self._reals(), "generated": self._fakes(self.fixed_z)}
        pictures.save_side_by_side(grids, self.run.place("real_and_fake.png"))

    def _write_animation(self, step: int) -> None:
        animations.animate(self.run.frames, self.run.place("output.gif"), last=step)

    def _fakes(self, z: mg.Tensor) -> Any:
        """The grid of z's images, bytes (height, width, C)."""
        return self._grid(generate(self.sampler, z, self.preset.statistics))

    def _reals(self) -> Any:
        """A grid of as many real images."""
        return self._grid(self.batches.first(len(self.fixed_z)))

    def _grid(self, images: Any) -> Any:
        return pictures.grid(pictures.to_bytes(images), self.preset.grid_rows, self.preset.grid_columns)

    def _save_enlarged(self, grid: Any, name: str, step: int) -> None:
        pictures.save_png(pictures.enlarged(grid), self.run.place(name))
        self.run.follower.picture(name, step)


def _pattern(name: str) -> re.Pattern[str]:
    """An expression for the names that a recipe's `sample_name` gives; its groups are "step" and "epoch"."""
    parts, seen = [], set[str]()
    for text, field, _, _ in Formatter().parse(name):
        parts.append(re.escape(text))
        if field:
            parts.append(r"\d{1,12}" if field in seen else rf"(?P<{field}>\d{{1,12}})")
            seen.add(field)
    return re.compile("".join(parts))
