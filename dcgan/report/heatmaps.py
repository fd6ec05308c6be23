"""Numbers as colours: blue below 0, red above it, almost white at 0."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .embedded import png

MIDDLE = 127  # of the colours 0 to 254 that numbers have; 255 is nothing, and transparent
NOTHING = 255
ANCHORS = ((16, 52, 140), (92, 152, 222), (246, 246, 246), (232, 132, 92), (150, 20, 36))  # -1 to 1
SHARE = 0.995  # of the numbers lie within the scale: a few large ones would leave the others white


def limit_of(*values: NDArray[Any]) -> float:
    """The number that has the full colour: the 99.5th percentile of sizes, or the largest where that is 0."""
    sizes = np.abs(np.concatenate([v.ravel() for v in values])).astype(np.float64)
    sizes = sizes[np.isfinite(sizes)]
    if not sizes.size:
        return 1.0
    return float(np.quantile(sizes, SHARE)) or float(sizes.max()) or 1.0


def indices(values: NDArray[Any], limit: float) -> NDArray[Any]:
    """Numbers of any shape as colours, bytes: -limit is 0, 0 is 127, limit is 254, NaN 255."""
    scaled = np.clip(np.asarray(values, np.float64) / limit, -1.0, 1.0)
    coloured = np.rint(MIDDLE * (1.0 + np.nan_to_num(scaled)))
    return np.where(np.isnan(scaled), NOTHING, coloured).astype(np.uint8)


def palette() -> NDArray[Any]:
    """The colours by their index, (256, 3) bytes."""
    at = np.linspace(0, 2 * MIDDLE, len(ANCHORS))
    channels = [np.interp(np.arange(2 * MIDDLE + 1), at, anchor) for anchor in np.transpose(ANCHORS)]
    return np.rint(np.pad(np.stack(channels, axis=1), ((0, 1), (0, 0)))).astype(np.uint8)  # (256, 3)


def heatmap(values: NDArray[Any], limit: float) -> bytes:
    """A matrix (H, W) as a PNG file, a pixel for each number; what is NaN is transparent."""
    image = Image.fromarray(indices(values, limit)).convert("P")
    image.putpalette(palette().tobytes())
    return png(image, transparency=NOTHING)


def tiled(maps: NDArray[Any], columns: int) -> NDArray[Any]:
    """Maps (N, H, W) row by row in one matrix, a row or column of NaN between them."""
    n, height, width = maps.shape
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan, np.float32)
    for i in range(n):
        y, x = i // columns * (height + 1), i % columns * (width + 1)
        canvas[y : y + height, x : x + width] = maps[i]
    return canvas


def square(maps: NDArray[Any]) -> NDArray[Any]:
    """Maps (N, H, W) in as many rows as columns, or one less."""
    return tiled(maps, math.ceil(math.sqrt(len(maps))))


def strip(values: NDArray[Any], width: int = 64) -> NDArray[Any]:
    """Numbers (N,) in rows of `width`, NaN where the last row has none left."""
    columns = min(width, len(values))
    rows = math.ceil(len(values) / columns)
    filled = np.full(rows * columns, np.nan, np.float32)
    filled[: len(values)] = values
    return filled.reshape(rows, columns)  # (rows, columns)
