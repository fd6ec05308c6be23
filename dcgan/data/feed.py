"""The batches of a run as tensors on its device; there the images lie, as bytes, from the start."""

import math
from collections.abc import Sequence
from itertools import accumulate
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
        self.shapes = [image.shape for image in images]
        self.on_device = device != "cpu" and self._fits()
        if not self.on_device:
            return
        self.given = self.shapes[0][2] if len(self.shapes[0]) == 3 else 1
        self.offsets = [0, *accumulate(map(math.prod, self.shapes))]
        self.bytes = self._uploaded(images)

    def _fits(self) -> bool:
        """Whether all images fit on the device, and squares of one size can be cut out of them."""
        free = self.backend.free_memory()
        if free is not None and sum(map(math.prod, self.shapes)) > SHARE * free:
            return False
        square = self.batches.crop is not None or all(s[0] == s[1] for s in self.shapes)
        return square and len({min(s[:2]) for s in self.shapes}) == 1

    def _uploaded(self, images: Sequence[NDArray[Any]] | NDArray[Any]) -> Any:
        """The bytes of all images, one after another, on the device: uint8 (bytes,)."""
        place = self.backend.xp.empty(self.offsets[-1], "uint8")
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
        windows = self.batches.windows(step)
        squares = np.array([self._square(i, *window) for i, window in windows], np.int64)  # (n, 3)
        side = windows[0][1].height
        channels = self.batches.channels or self.given
        where = self.backend.asarray(squares)
        return mg.Tensor(self.backend.crop_images(self.bytes, where, side, channels, self.given))

    def _square(
        self, image: int, top: int, left: int, height: int, width: int, mirrored: bool
    ) -> tuple[int, int, int]:
        """As `Backend.crop_images` takes it: the first byte, the bytes of a row, whether mirrored."""
        row = self.shapes[image][1] * self.given
        return self.offsets[image] + top * row + left * self.given, row, int(mirrored)
