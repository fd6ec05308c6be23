"""Counts of the changes to the memory of tensors."""


class VersionCounter:
    """The number of changes to memory that several tensors may share.

    A tensor has one (`Tensor.version_counter`), in common with its views and detached tensors. A node of the
    graph keeps the counter with its value: if the value is another later, an array that the node reads was
    changed in place. The name is PyTorch's ("In-place correctness checks", in its notes on autograd).

    Attributes:
        value: the number of changes.
    """

    __slots__ = ("value",)

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def bump(self) -> None:
        """Count a change."""
        self.value += 1
