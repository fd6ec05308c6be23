"""One seeded generator for all that is random: weights, noise, the order of data, dropout.

It is counter-based: the k-th draw is a function of the seed, the stream and k alone (Philox;
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). So its whole state is three
integers, and what one draw takes never moves another. Numbers are drawn on the host, whatever the
device, so that runs on every device see the same ones.
"""

from typing import Any

import numpy as np

from .backend.base import Array
from .backend.ieee import ieee
from .backend.philox import Counter, Key, philox

State = dict[str, int]


class Generator:
    """Numbers from a seed.

    Args:
        seed: an integer >= 0.
        stream: an integer >= 0; generators of one seed and different streams are independent.
    """

    def __init__(self, seed: int, stream: int = 0) -> None:
        self.state = {"seed": seed, "stream": stream, "calls": 0}

    @property
    def state(self) -> State:
        """{"seed", "stream", "calls"}: all there is to know; assign it to go back to where it was."""
        return {"seed": self._seed, "stream": self._stream, "calls": self._calls}

    @state.setter
    def state(self, state: State) -> None:
        wanted = {"seed", "stream", "calls"}
        if set(state) != wanted or not all(type(v) is int and v >= 0 for v in state.values()):
            raise ValueError(f"random state: expected integers >= 0 for {sorted(wanted)}, got {state!r}")
        if max(state["stream"], state["calls"]) >= 2**64:
            raise ValueError(
                f"random state: expected integers below 2^64 for stream and calls, got {state!r}"
            )
        self._seed, self._stream, self._calls = state["seed"], state["stream"], state["calls"]
        low, high = np.random.SeedSequence(self._seed).generate_state(2, np.uint64)
        self._key = (int(low), int(high))

    def next_counter(self) -> tuple[Key, Counter]:
        """The key and the counter of the next draw, for what computes its own random numbers."""
        counter = (0, self._calls, 0, self._stream)
        self._calls += 1
        return self._key, counter

    def _draw(self) -> np.random.Generator:
        key, counter = self.next_counter()
        return np.random.Generator(philox(key, counter))

    def normal(self, shape: tuple[int, ...], dtype: Any = "float32") -> Array:
        """A NumPy array from N(0, 1)."""
        return self._draw().standard_normal(shape, np.dtype(dtype).type)

    @ieee()
    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = "float32"
    ) -> Array:
        """A NumPy array from U(low, high)."""
        unit = self._draw().random(shape, np.dtype(dtype).type)
        return unit * np.dtype(dtype).type(high - low) + np.dtype(dtype).type(low)

    def permutation(self, n: int) -> Array:
        """The integers from 0 to n - 1 in a random order."""
        return self._draw().permutation(n)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """A NumPy array of integers from low to high - 1."""
        return self._draw().integers(low, high, shape)


default = Generator(0)


def manual_seed(seed: int) -> None:
    """Start the engine's generator anew from `seed`: layers, initialisers and dropout draw from it."""
    default.state = {"seed": seed, "stream": 0, "calls": 0}


def get_state() -> State:
    """The state of the engine's generator, as integers to keep."""
    return default.state


def set_state(state: State) -> None:
    """Put the engine's generator back to where `get_state` found it."""
    default.state = state
