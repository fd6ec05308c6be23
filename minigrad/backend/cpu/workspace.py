"""All that a form of an operation works with on the CPU: threads, memory of a thread's own, and the arena."""

from dataclasses import dataclass

from .arena import Arena
from .native import Kernels
from .parallel import Pool, Scratch, available_threads


@dataclass(frozen=True)
class Workspace:
    """The threads and the memory of the CPU backend.

    Attributes:
        kernels: the C kernels; None for NumPy's forms.
        pool: threads over slices of the batch.
        scratch: a thread's own memory, with whatever it held before.
        arena: memory for results, used again once nobody holds them.
    """

    kernels: Kernels | None
    pool: Pool
    scratch: Scratch
    arena: Arena

    @classmethod
    def of(cls, kernels: Kernels | None) -> "Workspace":
        """Return a new workspace, with as many threads as `available_threads` says."""
        resized = [] if kernels is None else [kernels.set_members]
        return cls(kernels, Pool(available_threads(), *resized), Scratch(), Arena())
