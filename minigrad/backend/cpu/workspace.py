"""The kernels, threads and memory that the CPU backend works with."""

from dataclasses import dataclass

from .arena import Arena
from .native import Kernels
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
