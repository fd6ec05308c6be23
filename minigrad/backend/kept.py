"""Transforms of images and of kernels, kept from one use to the next.

What a forward makes of its images and of its weight serves the gradients too: an operation hands its `Memo`
to both.

Between two updates a layer's weight is used by several operations. Whether it is still the same is seen by
its bits: to compare them takes a tenth of the time of a transform (bilinear.py), and nobody has to tell. A
transform goes with the array that it was made of.

Images are not copied to be compared. A sample of their bits shows most changes.
"""

import functools
import math
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_OF_ONE = 8 << 20  # numbers that one transform may have
MOST = 16 << 20  # and all together
SAMPLE = 256  # numbers that tell most kernels apart
FEW = 64  # numbers of an array that are compared to notice changes in place


def sample(array: Array) -> bytes:
    """Return the bits of about FEW numbers a fixed distance apart; of all numbers of a small array."""
    step = array.size // FEW | 1  # odd: an even one would meet the same channel each time, of 2^k channels
    if step == 1:
        return array.tobytes()
    if array.flags.c_contiguous:
        return array.reshape(-1)[::step].tobytes()
    for lying in (array.T, array.transpose(0, 2, 3, 1)) if array.ndim == 4 else (array.T,):
        if lying.flags.c_contiguous:
            return lying.reshape(-1)[::step].tobytes()
    return array[_places(array.shape, step)].tobytes()


@functools.lru_cache(maxsize=256)
def _places(shape: tuple[int, ...], step: int) -> tuple[Array, ...]:
    """Return the indices of every `step`-th number of an array of that shape."""
    return np.unravel_index(np.arange(0, math.prod(shape), step), shape)


class Memo:
    """What was made of an operation's images, and of its weight, for as long as the operation keeps this.

    They should not change meanwhile. If they do, the transforms are made again, so that the gradients are
    those of the other forms: a weight is compared number by number, images by a `sample`.
    """

    def __init__(self) -> None:
        self._kept: tuple[Array, bytes, object, Array] | None = None
        self._kernel: Kept | None = None

    def get(self, images: Array, transform: object) -> Array | None:
        """What was kept of the very same array, made by the same transform."""
        if self._kept is None:
            return None
        kept, bits, by, made = self._kept
        return made if kept is images and by is transform and sample(images) == bits else None

    def keep(self, images: Array, transform: object, made: Array) -> None:
        """Keep what was made, which nobody is to change; what is made later, of other images, is not kept."""
        if self._kept is None:
            self._kept = images, sample(images), transform, made

    def kernel(self, weight: Array, transform: object) -> "Kept | None":
        """Return the kept transform of a weight with the same bits, or None."""
        return self._kernel if self._kernel is not None and self._kernel.is_of(weight, transform) else None

    def keep_kernel(self, kept: "Kept") -> None:
        """Keep a weight's transform, which other operations may drop."""
        self._kernel = kept


@dataclass(frozen=True)
class Kept:
    """A transform and what it was made of.

    Attributes:
        source: the array that the weight lay in.
        transform: by what it was made.
        weight: a copy.
        made: the transform of the weight; not to be changed.
    """

    source: "weakref.ref[Array]"
    transform: object
    weight: Array
    made: Array

    def is_of(self, weight: Array, transform: object) -> bool:
        """Whether this is the transform of that weight, bit for bit."""
        alike = self.weight.shape == weight.shape and self.weight.dtype == weight.dtype
        if self.transform is not transform or not alike:
            return False
        kept, bits = _bits(self.weight), _bits(weight)
        return np.array_equal(kept[:SAMPLE], bits[:SAMPLE]) and np.array_equal(kept, bits)


class KernelTransforms:
    """The transforms of the kernels that were used last."""

    def __init__(self) -> None:
        self._kept: tuple[Kept, ...] = ()  # never changed but replaced: other threads may be reading it

    def find(self, weight: Array, transform: object) -> Kept | None:
        """What the same transform made of a weight with the same bits. It is not to be changed."""
        return next((kept for kept in self._kept if kept.is_of(weight, transform)), None)

    def keep(self, weight: Array, transform: object, copy: Array, made: Array) -> Kept | None:
        """Keep what was made of a copy of the weight (whoever may have changed the weight meanwhile).

        Returns what is kept, or None for a transform that is too large.
        """
        if made.size > MOST_OF_ONE:
            return None
        new = Kept(weakref.ref(weight, self._forget), transform, copy, made)
        self._keep(new)
        return new

    def _keep(self, new: Kept) -> None:
        """Keep one more, in the place of what was in its array before, and of the oldest where it is much."""
        source = new.source()
        kept = [k for k in self._kept if k.transform is not new.transform or k.source() is not source]
        kept.append(new)
        while sum(k.made.size for k in kept) > MOST:
            del kept[0]
        self._kept = tuple(kept)

    def _forget(self, source: "weakref.ref[Array]") -> None:
        """An array has gone."""
        self._kept = tuple(k for k in self._kept if k.source is not source)


def _bits(weight: Array) -> Array:
    """Floating-point numbers as whole ones, (numbers,): 0 and -0 differ then, and NaN is equal to itself."""
    return np.ascontiguousarray(weight).reshape(-1).view(f"u{weight.itemsize}")
