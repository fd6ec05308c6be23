"""Transforms of images and of kernels, kept from one use to the next.

What a forward makes of its images and of its weight serves the gradients too: an operation hands its `Memo`
to both.

Between two updates a layer's weight is used by several operations. Whether it is still the same is seen by
its bits: to compare them takes a tenth of the time of a transform (bilinear.py), and nobody has to tell. A
transform goes with the array that it was made of.
"""

import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MOST_OF_ONE = 8 << 20  # numbers that one transform may have
MOST = 16 << 20  # and all together
SAMPLE = 256  # numbers that tell most kernels apart


class Memo:
    """What was made of an operation's images, and of its weight, for as long as the operation keeps this.

    (They must not change meanwhile; the graph sees to that. So nothing need be compared.)
    """

    def __init__(self) -> None:
        self._kept: tuple[Array, object, Array] | None = None
        self._kernel: tuple[Array, object, Array] | None = None

    def get(self, images: Array, transform: object) -> Array | None:
        """What was kept of the very same array, made by the same transform."""
        return _made_of(images, transform, self._kept)

    def keep(self, images: Array, transform: object, made: Array) -> None:
        """Keep what was made, which nobody is to change; what is made later, of other images, is not kept."""
        if self._kept is None:
            self._kept = images, transform, made

    def kernel(self, weight: Array, transform: object) -> Array | None:
        """What was kept of the very same weight, likewise."""
        return _made_of(weight, transform, self._kernel)

    def keep_kernel(self, weight: Array, transform: object, made: Array) -> None:
        """Keep a weight's transform, if it is so small that it is kept for other operations, too."""
        if made.size <= MOST_OF_ONE:
            self._kernel = weight, transform, made


def _made_of(array: Array, transform: object, kept: tuple[Array, object, Array] | None) -> Array | None:
    """The last of the three, if the others are these."""
    if kept is None or kept[0] is not array or kept[1] is not transform:
        return None
    return kept[2]


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

    def find(self, weight: Array, transform: object) -> Array | None:
        """What the same transform made of a weight with the same bits. It is not to be changed."""
        for kept in self._kept:
            if kept.is_of(weight, transform):
                return kept.made
        return None

    def keep(self, weight: Array, transform: object, copy: Array, made: Array) -> None:
        """Keep what was made of a copy of the weight (whoever may have changed the weight meanwhile)."""
        if made.size <= MOST_OF_ONE:
            self._keep(Kept(weakref.ref(weight, self._forget), transform, copy, made))

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
