"""One seeded generator for all that is random: weights, noise, the order of data, dropout.

It is counter-based: the k-th draw is a function of the seed, the stream and k alone (Philox;
Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011). So its whole state is three
integers, and what one draw takes never moves another. Numbers are drawn on the host, whatever the
device, so that runs on every device see the same ones.
"""

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from .backend.arguments import as_int, float_type
from .backend.arrays import Array
from .backend.ieee import ieee
from .backend.philox import Counter, Key, philox
from .backend.tape import CaptureError, is_capturing, recording

State = dict[str, int]


@functools.lru_cache(maxsize=64)
def _key_of(seed: int) -> Key:
    """Return the key of all streams of a seed."""
    low, high = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    return int(low), int(high)


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
        if is_capturing():
            raise CaptureError(
                "a random generator is made, or its state set, in the capture and not in the replays: do it "
                "outside of the step"
            )
        wanted = {"seed", "stream", "calls"}
        given = state.items() if isinstance(state, Mapping) else ()
        numbers = {name: n for name, value in given if (n := as_int(value)) is not None and n >= 0}
        if set(numbers) != wanted or len(given) != len(wanted):
            raise ValueError(f"random state: expected integers >= 0 for {sorted(wanted)}, got {state!r}")
        if max(numbers["stream"], numbers["calls"]) >= 2**64:
            raise ValueError(
                f"random state: expected integers below 2^64 for stream and calls, got {state!r}"
            )
        self._seed, self._stream, self._calls = numbers["seed"], numbers["stream"], numbers["calls"]
        self._key = _key_of(self._seed)

    def next_counter(self) -> tuple[Key, Counter]:
        """The key and the counter of the next draw, for what computes its own random numbers."""
        counter = (0, self._calls, 0, self._stream)
        self._calls += 1
        tape = recording()
        if tape is not None:
            tape.drew(self, self._key, counter)
        return self._key, counter

    def _draw(self) -> np.random.Generator:
        key, counter = self.next_counter()
        return np.random.Generator(philox(key, counter))

    def normal(self, shape: tuple[int, ...], dtype: Any = "float32") -> Array:
        """A NumPy array from N(0, 1), of dtype "float32" (the default, also for None) or "float64"."""
        kind = np.dtype(float_type(dtype, "Generator.normal")).type
        return self._draw().standard_normal(shape, kind)

    @ieee()
    def uniform(
        self, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0, dtype: Any = "float32"
    ) -> Array:
        """A NumPy array from U(low, high); dtypes as those of `normal`."""
        kind = np.dtype(float_type(dtype, "Generator.uniform")).type
        return self._draw().random(shape, kind) * kind(high - low) + kind(low)

    def permutation(self, n: int) -> Array:
        """The integers from 0 to n - 1 in a random order."""
        count = as_int(n)
        if count is None or count < 0:
            raise ValueError(f"Generator.permutation: expected an integer >= 0, got {n!r:.80}")
        return self._draw().permutation(count)

    def integers(self, low: int, high: int, shape: tuple[int, ...]) -> Array:
        """A NumPy array of integers from low to high - 1."""
        return self._draw().integers(low, high, shape)


default = Generator(0)


class _Thread(threading.local):
    """The engine's generator of this thread: `default`, but within `isolated`."""

    generator = default


_thread = _Thread()


def current() -> Generator:
    """Return the engine's generator: `default`, or within `isolated` that of the context."""
    return _thread.generator


@contextmanager
def isolated(seed: int = 0) -> Iterator[Generator]:
    """Give the engine a generator of its own in this thread, and at the end the one that it had.

    Numbers that are drawn in the context depend on the seed alone, not on earlier draws or on other threads.
    They change no later draw outside of it. Contexts may be nested.

        with minigrad.random.isolated(seed=3):
            layer = nn.Dense(4, 2)  # the same weights each time
    """
    before = _thread.generator
    _thread.generator = Generator(seed)
    try:
        yield _thread.generator
    finally:
        _thread.generator = before


def manual_seed(seed: int) -> None:
    """Start the engine's generator anew from `seed`: layers, initialisers and dropout draw from it."""
    current().state = {"seed": seed, "stream": 0, "calls": 0}


def get_state() -> State:
    """The state of the engine's generator, as integers to keep."""
    return current().state


def set_state(state: State) -> None:
    """Put the engine's generator back to where `get_state` found it."""
    current().state = state
