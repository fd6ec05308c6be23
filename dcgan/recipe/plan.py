"""The length of a run, and the check that a recipe and a set of images go together."""

from ..errors import UserError
from . import layers
from .preset import Preset


def check_batches(preset: Preset, count: int) -> None:
    """Raise UserError where the set is less than a batch, or some batch would hold one image that a
    BatchNorm has no statistics of.
    """
    in_d, in_g = (
        any(isinstance(layer, layers.BatchNorm) for layer in network)
        for network in (preset.discriminator, preset.generator)
    )
    if count < preset.batch_size:
        smaller = f"use --batch-size {count} or less, or more images" if count > 1 else "use more images"
        raise UserError(f"{count} images are less than a batch of {preset.batch_size}: {smaller}")
    last = count % preset.batch_size
    fakes_follow = preset.step != "fresh_noise"  # as many fakes as real images, on the last batch too
    if preset.batch_size == 1 and (in_d or in_g):
        raise UserError("--batch-size 1: a BatchNorm needs two images or more; use a larger batch")
    if last == 1 and (in_d or (in_g and fakes_follow)):
        raise UserError(
            f"--batch-size {preset.batch_size}: the last batch of {count} images would hold one, and a "
            f"BatchNorm needs more; use {_next_size(preset.batch_size, count)}, or another size"
        )


def _next_size(batch_size: int, count: int) -> int:
    """The first larger batch size that leaves no image alone, of `count` of them."""
    return next(size for size in range(batch_size + 1, count + 1) if count % size != 1)


def total_steps(preset: Preset, per_epoch: int) -> int:
    """Return the steps that the recipe asks for: its epochs or its steps, whichever ends first."""
    return min(steps for steps in (preset.epochs * per_epoch, preset.steps) if steps)


def too_short(preset: Preset, total: int) -> str:
    """A sentence for a run of `total` steps that ends before its samples show anything; "" for others."""
    if total >= preset.enough_steps:
        return ""
    return (
        f"{total} steps are too few to show anything: with {preset.name} the first samples worth looking at "
        f"come after about {preset.enough_steps}: --steps {preset.enough_steps}"
    )
