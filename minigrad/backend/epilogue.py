"""The activation and the dropout that an operation applies to its own result."""

from collections.abc import Collection
from dataclasses import dataclass

from .philox import Counter, Key


@dataclass(frozen=True)
class Epilogue:
    """A leaky ReLU and, behind it, a dropout, in the same pass over memory as the operation before them.

    Attributes:
        slope: of the leaky ReLU, in [0, 1]; 1 for none.
        p: of the dropout, in [0, 1); 0 for none. See `functional.dropout`.
        draw: the key and the counter of the dropout's random numbers, as `Generator.next_counter` returns
            them; None until they are drawn. `functional.conv2d` draws them at each call.
    """

    slope: float = 1.0
    p: float = 0.0
    draw: tuple[Key, Counter] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what is in it: "activation" and "dropout", in this order."""
        activation = () if self.slope == 1 else ("activation",)
        return activation if self.p == 0 else (*activation, "dropout")

    @property
    def has_activation(self) -> bool:
        """Whether there is an activation. Then the gradient depends on the sign of the result."""
        return self.slope != 1

    @property
    def dropout(self) -> tuple[float, Key, Counter] | None:
        """The arguments of `Backend.dropout` after x; None if nothing is dropped.

        Raises ValueError if the random numbers are not drawn yet.
        """
        if not self.p:
            return None
        if self.draw is None:
            raise ValueError(f"{self}: its random numbers are not drawn: call drawn(key, counter) first")
        return self.p, *self.draw

    @property
    def scale(self) -> float:
        """The factor of the elements that the dropout keeps."""
        return 1 / (1 - self.p)

    def drawn(self, key: Key, counter: Counter) -> "Epilogue":
        """Return this epilogue with the random numbers of its dropout."""
        return Epilogue(self.slope, self.p, (key, counter))

    def then(self, following: "Epilogue") -> "Epilogue | None":
        """Return both in one, or None if there is an activation behind any part, or a second dropout.

        Its random numbers are not drawn yet, even if those of a part were.
        """
        if self.slope == 1 and self.p == 0:
            return following
        if following.slope != 1 or (self.p and following.p):
            return None
        return Epilogue(self.slope, self.p or following.p)


NO_EPILOGUE = Epilogue()


def check_epilogue(function: str, epilogue: Epilogue, takes: Collection[str] = ("activation",)) -> None:
    """Raise ValueError, in the name of a function, for numbers out of range and for a part it does not take.

    Raises TypeError for anything but an Epilogue.
    """
    if not isinstance(epilogue, Epilogue):
        raise TypeError(f"{function}: expected an Epilogue, got {type(epilogue).__name__}")
    if not 0 <= epilogue.slope <= 1:
        raise ValueError(f"{function}: expected 0 <= slope <= 1, got {epilogue.slope}")
    if not 0 <= epilogue.p < 1:
        raise ValueError(f"{function}: expected 0 <= p < 1, got {epilogue.p}")
    for part in epilogue.parts:
        if part not in takes:
            raise ValueError(f"{function}: expected no {part} in its epilogue: apply it to the result")
