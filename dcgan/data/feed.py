"""The batches of a run as tensors on its device; there the images lie, as bytes, from the start."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import backend as backends

from .batches import Batches

SHARE = 0.5  # of a device's free memory that images may take; the rest is for the networks
PIECE = 64 << 20  # bytes that go to the device at a time


class Feed:
    """Gives the batch of each step.

    On the CPU it is made from the images as they are. On another device they are copied once, and a batch
    takes no more than the places of its images there; where they do not fit, each batch is copied.

    Args:
        batches: which images make up which batch.
        device: "cpu" or "gpu".

    Attributes:
        on_device: whether the images lie on the device.
    """

    def __init__(self, batches: Batches, device: str) -> None:
        self.batches, self.device = batches, device
        self.backend = backends.get(device)
        images = batches.images
        first = images[0].shape
        self.given = first[2] if len(first) == 3 else 1
        self.channels = 3 if (self.given, batches.channels) == (1, 3) else self.given
        self.shapes = np.array([image.shape[:2] for image in images], np.int64)  # (images, 2)
        self.size = tuple(first[:2]) if batches.crop is None else (min(first[:2]),) * 2  # of a batch's images
        self.offsets = np.concatenate([[0], np.cumsum(self.shapes.prod(axis=1) * self.given)])
        self.on_device = device != "cpu" and self._fits()
        self._fixed: NDArray[Any] | None = None  # the squares of all images, where chance moves none
        if not self.on_device:
            return
        self.bytes = self._uploaded(images)
        if not batches.shows_at_random:
            self._fixed = self._squares_of(np.arange(len(images)))

    def _fits(self) -> bool:
        """Whether all images fit on the device, and squares of one size can be cut out of them."""
        free = self.backend.free_memory()
        if free is not None and self.offsets[-1] > SHARE * free:
            return False
        square = self.batches.crop is not None or bool((self.shapes[:, 0] == self.shapes[:, 1]).all())
        return square and len(np.unique(self.shapes.min(axis=1))) == 1

    def _uploaded(self, images: Sequence[NDArray[Any]] | NDArray[Any]) -> Any:
        """The bytes of all images, one after another, on the device: uint8 (bytes,)."""
        place = self.backend.xp.empty(int(self.offsets[-1]), "uint8")
        piece: list[NDArray[Any]] = []
        start = done = 0
        for image, stop in zip(images, self.offsets[1:], strict=True):
            piece.append(np.ascontiguousarray(image).reshape(-1))  # (H * W * C,)
            done = stop
            if done - start >= PIECE:
                place[start:done] = self.backend.asarray(np.concatenate(piece))
                piece, start = [], done
        if piece:
            place[start:done] = self.backend.asarray(np.concatenate(piece))
        return place

    def __call__(self, step: int) -> mg.Tensor:
        """The batch of a step (from 1): float32 (n, C, H, W), from -1 (black) to 1 (white)."""
        if not self.on_device:
            return mg.tensor(self.batches.batch(step), device=self.device)
        return self.batch_of(lambda: step, self.batches.count(step))

    def batch_of(self, step: Callable[[], int], count: int) -> mg.Tensor:
        """The same for images of one size, as a part of a captured step.

        Args:
            step: gives the number of the step (from 1); each replay asks for it.
            count: n, the images of the step.
        """
        if not self.on_device:
            shape = (count, self.channels, *self.size)
            return mg.from_host(lambda: self.batches.batch(step()), shape, device=self.device)
        squares = self.backend.from_host(lambda: self._squares(step()), (count, 3), "int64")
        side = self.size[0]
        cropped = self.backend.crop_images(self.bytes, squares, side, self.channels, self.given)
        return mg.Tensor(cropped, backend=self.backend)

    def _squares(self, step: int) -> NDArray[Any]:
        """Return the batch as `Backend.crop_images` takes it: int64 (n, 3)."""
        chosen = self.batches.chosen(step)
        return self._fixed[chosen] if self._fixed is not None else self._squares_of(chosen, step)

    def _squares_of(self, images: NDArray[Any], step: int | None = None) -> NDArray[Any]:
        """Return the squares that are shown of images, by their numbers: int64 (n, 3).

        Of each where its first byte lies, the bytes of a row of the image, and whether it is mirrored.
        """
        shown = self.batches.windows(self.shapes[images], step)
        row = self.shapes[images, 1] * self.given
        first = self.offsets[images] + shown.top * row + shown.left * self.given
        return np.stack([first, row, shown.mirrored], axis=1)
