"""Batches of images, each a function of the seed and the step, and of nothing else."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import minigrad as mg

LOOKED_AT = 64  # images, for a fingerprint of earlier versions


class Batches:
    """Batches of a set of images.

    Args:
        images: uint8, (H, W) or (H, W, C) each; an array of them, or a sequence whose images differ in
            height and width.
        batch_size: images a step; the last batch of an epoch holds what is left.
        generator: its seed and stream fix the order of every epoch, and the crops and flips.
        channels: of the batches; grey images (C = 1) are repeated where it is 3.
        crop: what is cut out of each image, a square as high or as wide as it is: "center", or
            "random_or_center", with equal chance a random one or that in the centre. None leaves
            images, all of one size, as they are.
        flip: the chance that an image is mirrored.
        shuffle: "every_epoch" has an order of its own, or all share the one drawn "once".
    """

    def __init__(
        self,
        images: Sequence[NDArray[Any]] | NDArray[Any],
        batch_size: int,
        generator: mg.Generator,
        *,
        channels: int | None = None,
        crop: str | None = None,
        flip: float = 0.0,
        shuffle: str = "every_epoch",
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.channels = channels
        self.crop, self.flip, self.shuffle = crop, flip, shuffle
        self._start = generator.state
        self._order: tuple[int, NDArray[Any]] = (-1, np.empty(0, np.int64))

    def fingerprint(self) -> str:
        """The number of images and a SHA-256 over the shape and the bytes of each."""
        return f"{len(self.images)} images, all {self._digest(range(len(self.images)))}"

    def matches(self, fingerprint: str) -> bool:
        """Whether a fingerprint is of this set. Those of earlier versions, of 64 images, count too."""
        if ", all " in fingerprint:
            return fingerprint == self.fingerprint()
        count = len(self.images)
        some = sorted({count * k // LOOKED_AT for k in range(LOOKED_AT)} if count else ())
        return fingerprint == f"{count} images, {self._digest(some)}"

    def _digest(self, chosen: Iterable[int]) -> str:
        digest = hashlib.sha256()
        for i in chosen:
            image = np.ascontiguousarray(self.images[i])
            digest.update(f"{i} {image.shape}\n".encode())
            digest.update(image.reshape(-1).data)
        return digest.hexdigest()

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch, the partial one included."""
        return math.ceil(len(self.images) / self.batch_size)

    def epoch_of(self, step: int) -> int:
        """The epoch, from 1, that the step (from 1) belongs to."""
        return (step - 1) // self.per_epoch + 1

    def ends_epoch(self, step: int) -> bool:
        """Whether the step (from 1) is the last of its epoch."""
        return step % self.per_epoch == 0

    def batch(self, step: int) -> NDArray[Any]:
        """The batch of a step (from 1): float32 (n, C, H, W), from -1 (black) to 1 (white)."""
        return self._prepared(self.chosen(step), step)

    def count(self, step: int) -> int:
        """The images of a step (from 1)."""
        place = (step - 1) % self.per_epoch
        return min(self.batch_size, len(self.images) - place * self.batch_size)

    @property
    def shows_at_random(self) -> bool:
        """Whether chance decides which part of an image a batch shows, or whether it is mirrored."""
        return bool(self.flip) or self.crop == "random_or_center"

    def windows(self, shapes: NDArray[Any], step: int | None = None) -> "Windows":
        """Return the parts that are shown of images of these heights and widths, int64 (n, 2).

        Args:
            step: that they are the batch of, in its order. It may be left out where `shows_at_random` is
                False.
        """
        draws = np.ones((len(shapes), 4), np.float32) if step is None else self._draws(len(shapes), step)
        return _windows(shapes, draws, self.crop, self.flip)

    def chosen(self, step: int) -> NDArray[Any]:
        """Return the numbers of the images of a step (from 1)."""
        epoch, place = divmod(step - 1, self.per_epoch)
        order = self._permutation(0 if self.shuffle == "once" else epoch)
        return order[place * self.batch_size : (place + 1) * self.batch_size]

    def first(self, count: int) -> NDArray[Any]:
        """The first `count` images in the order of training, or all: as a batch, for a person to see."""
        return self._prepared(self._permutation(0)[:count], 1)

    def first_bytes(self, count: int) -> NDArray[Any]:
        """The same images as bytes (n, H, W, C)."""
        shown = self._shown(self._permutation(0)[:count], 1)  # (n, H, W, C)
        return shown.repeat(3, axis=3) if (shown.shape[3], self.channels) == (1, 3) else shown

    def _prepared(self, chosen: NDArray[Any], step: int) -> NDArray[Any]:
        """The chosen images, cropped, flipped and scaled."""
        shown = self._shown(chosen, step)  # (n, H, W, C)
        pixels = shown.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
        pixels = pixels.transpose(0, 3, 1, 2)  # (n, C, H, W)
        return pixels.repeat(3, axis=1) if (pixels.shape[1], self.channels) == (1, 3) else pixels

    def _shown(self, chosen: NDArray[Any], step: int) -> NDArray[Any]:
        """Return the windows of the batch on its images, as bytes (n, H, W, C)."""
        if isinstance(self.images, np.ndarray) and not self.flip and self._needs_no_crop(self.images):
            picked = self.images[chosen]
            return picked if picked.ndim == 4 else picked[..., None]
        draws = self._draws(len(chosen), step)
        return np.stack(
            [_cut(self.images[i], draw, self.crop, self.flip) for i, draw in zip(chosen, draws, strict=True)]
        )

    def _draws(self, count: int, step: int) -> NDArray[Any]:
        """Four numbers from 0 to 1 for each image, whatever becomes of them, so that what one image needs
        never moves another: for the kind of crop, its two places, and the flip.
        """
        return self._generator(_AUGMENT_CALLS + step).uniform((count, 4))

    def _needs_no_crop(self, images: NDArray[Any]) -> bool:
        return self.crop is None or images.shape[1] == images.shape[2]

    def _generator(self, calls: int) -> mg.Generator:
        generator = mg.Generator(self._start["seed"], self._start["stream"])
        generator.state = {**self._start, "calls": self._start["calls"] + calls}
        return generator

    def _permutation(self, epoch: int) -> NDArray[Any]:
        if self._order[0] != epoch:
            self._order = (epoch, self._generator(epoch).permutation(len(self.images)))
        return self._order[1]


_AUGMENT_CALLS = 2**40  # draws of crops are counted from here on, those of orders from 0


class Windows(NamedTuple):
    """The parts of images that a batch shows: rows and columns from a corner on, and whether mirrored.

    Each is (n,), of integers but for `mirrored`.
    """

    top: NDArray[Any]
    left: NDArray[Any]
    height: NDArray[Any]
    width: NDArray[Any]
    mirrored: NDArray[Any]


def _windows(shapes: NDArray[Any], draws: NDArray[Any], crop: str | None, flip: float) -> Windows:
    """Return the windows on images: squares, or all of each where nothing is cropped.

    Args:
        shapes: their heights and widths, int64 (n, 2).
        draws: four numbers from 0 to 1 for each (see `Batches._draws`), (n, 4).
    """
    sizes = shapes if crop is None else np.repeat(shapes.min(axis=1, keepdims=True), 2, axis=1)  # (n, 2)
    spare = shapes - sizes  # one of the two is 0, or both
    corner = spare // 2
    if crop == "random_or_center":
        # In the draws' own precision, so that a corner does not depend on how many are computed at once.
        anywhere = (draws[:, 1:3] * (spare + 1).astype(draws.dtype)).astype(np.int64)
        corner = np.where(draws[:, :1] < 0.5, np.minimum(anywhere, spare), corner)
    return Windows(corner[:, 0], corner[:, 1], sizes[:, 0], sizes[:, 1], draws[:, 3] < flip)


def _cut(image: NDArray[Any], draw: NDArray[Any], crop: str | None, flip: float) -> NDArray[Any]:
    """Cut the window out of an image (H, W) or (H, W, C): (S, S, C), S its shorter side, or all of it."""
    image = image if image.ndim == 3 else image[..., None]
    shapes = np.array([image.shape[:2]], np.int64)
    windows = _windows(shapes, draw[None], crop, flip)
    top, left, height, width, mirrored = (values[0] for values in windows)
    shown = image[top : top + height, left : left + width]
    return shown[:, ::-1] if mirrored else shown
