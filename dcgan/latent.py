"""The generator's input z: drawn at random, or chosen by seed, by file, or on the way between two others."""

import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg

from .data import arrays
from .errors import UserError
from .recipe import memory
from .recipe.preset import MAX_GRID_IMAGES, Preset


def draw(preset: Preset, count: int, generator: mg.Generator, device: str = "cpu") -> mg.Tensor:
    """z for `count` images, (count, *z_shape), float32.

    Drawn on the host, so that every device sees the same numbers; in a captured step anew in each replay.
    """
    shape = (count, *preset.z_shape)
    if preset.z_distribution == "normal":
        return mg.from_host(lambda: generator.normal(shape), shape, device=device)
    return mg.from_host(lambda: generator.uniform(shape, -1.0, 1.0), shape, device=device)


def by_seed(preset: Preset, name: str, max_memory: int = memory.DEFAULT) -> NDArray[Any]:
    """The z (*z_shape) that "SEED" or "SEED/INDEX" names.

    INDEX counts, from 0 and row by row, the images of `dcgan.sample --seed SEED`; it is 0 where it is
    left out. Raises UserError for other words, and if the draw takes more than `max_memory` bytes.
    """
    match = re.fullmatch(r"(\d{1,18})(?:/(\d{1,9}))?", name)
    index = int(match[2] or 0) if match else MAX_GRID_IMAGES
    if match is None or index >= MAX_GRID_IMAGES:
        raise UserError(
            f"{name!r}: expected SEED or SEED/INDEX, such as 3/12 for the image number 12 (from 0) of "
            f"dcgan.sample --seed 3, INDEX below {MAX_GRID_IMAGES}"
        )
    drawn = memory.NOISE * (index + 1) * math.prod(preset.z_shape)
    memory.check(f"drawing the noise {name}", drawn, max_memory)
    # Numbers are drawn in order, so that the first ones of a longer draw are those of a shorter.
    return draw(preset, index + 1, mg.Generator(int(match[1]))).numpy()[index]


def from_file(preset: Preset, path: Path, max_memory: int = memory.DEFAULT) -> NDArray[Any]:
    """The z (n, *z_shape) of an .npy file that holds them so, or flat (n, numbers), or only one.

    Raises UserError where it holds something else, or more than fits in `max_memory` bytes.
    """
    try:
        array = arrays.open_npy(path)
    except ValueError as error:
        raise UserError(f"--z {path}: {error}") from error
    return of_array(preset, array, f"--z {path}", max_memory)


def of_array(
    preset: Preset, array: NDArray[Any], what: str = "z", max_memory: int = memory.DEFAULT
) -> NDArray[Any]:
    """The z (n, *z_shape) of an array that holds them so, or flat (n, numbers), or only one; as float32.

    Args:
        what: names the array, for messages.

    Raises UserError where it holds something else, or more than fits in `max_memory` bytes.
    """
    numbers = math.prod(preset.z_shape)
    forms = (preset.z_shape, (numbers,))  # of one z
    fits = array.shape in forms or array.shape[1:] in forms
    if not fits or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        expected = " or ".join(f"({', '.join(('n', *map(str, shape)))})" for shape in dict.fromkeys(forms))
        raise UserError(f"{what}: it holds {array.dtype} {array.shape}; expected floats {expected}")
    if len(array) > MAX_GRID_IMAGES and array.shape not in forms:
        raise UserError(f"{what}: it holds {len(array)} z; expected {MAX_GRID_IMAGES} at most")
    memory.check(f"reading {what}", array.nbytes + 5 * array.size, max_memory)  # as float32, and checked
    with np.errstate(over="ignore"):
        z = np.asarray(array, np.float32).reshape(-1, *preset.z_shape)  # (n, *z_shape)
    if not np.isfinite(z).all():
        raise UserError(f"{what}: it holds numbers that are not finite, or not as float32")
    return z


def slerp(a: NDArray[Any], b: NDArray[Any], t: float) -> NDArray[Any]:
    """The z a share t of the way from a to b, on the arc between them.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w the angle between a and b. A straight line
    would pass near 0, where noise of many numbers never is. Source: Shoemake, "Animating rotation with
    quaternion curves" (1985); White, "Sampling generative networks" (2016).
    """
    flat_a, flat_b = (v.astype(np.float64).ravel() for v in (a, b))
    lengths = np.linalg.norm(flat_a) * np.linalg.norm(flat_b)
    cosine = flat_a @ flat_b / lengths if lengths else 1.0
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    if np.sin(angle) < 1e-6:  # along one line: no arc is the shortest
        return ((1 - t) * a + t * b).astype(np.float32)
    return ((np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)).astype(np.float32)


def path_between(points: Sequence[NDArray[Any]], frames: int) -> list[NDArray[Any]]:
    """The way through all points: `frames` z's for each stretch, its start included, and the last point."""
    way = [slerp(a, b, k / frames) for a, b in itertools.pairwise(points) for k in range(frames)]
    return [*way, points[-1]]
