"""The kernels, threads and memory that the CPU backend works with."""

from dataclasses import dataclass

import numpy as np

from ..arrays import Array, channels_last
from .arena import Arena
from .native import Kernels, address, readable
from .parallel import Pool, Scratch, available_threads


@dataclass(frozen=True)
class Workspace:
    """The kernels, threads and memory of the CPU backend.

    Attributes:
        kernels: the C kernels; None for NumPy's forms.
        pool: threads for NumPy's forms; its number of threads is that of the kernels too.
        scratch: memory of a thread's own, for intermediate results.
        arena: memory for results, used again once they are freed.
    """

    kernels: Kernels | None
    pool: Pool
    scratch: Scratch
    arena: Arena

    @classmethod
    def of(cls, kernels: Kernels | None) -> "Workspace":
        """Return a new workspace with `available_threads()` threads."""
        resized = [] if kernels is None else [kernels.set_members]
        return cls(kernels, Pool(available_threads(), *resized), Scratch(), Arena())

    def pixels(self, x: Array) -> Array:
        """Return (N, C, H, W) as (N, H, W, C) in C order, for a kernel; no copy if it lies in memory so."""
        x = readable(x)
        if self.kernels is None or not x.flags.c_contiguous:
            return np.ascontiguousarray(channels_last(x))
        n, c, h, w = x.shape
        pixels = self.arena.empty((n, h, w, c), x.dtype)
        self.kernels.swap[x.dtype](address(x), address(pixels), n, c, h * w)
        return pixels
