"""The host's part of a captured step: the work that each replay does anew.

A captured step is a list of launches with fixed arguments. All that differs from step to step (random
numbers, the rate of an optimizer, the images of a batch) is made on the host and copied into a fixed place on
the device before the launches. While a step is captured, a `Tape` records how it is made; each replay plays
the tape.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from .arrays import Array, channels_first
from .philox import Counter, Key

Host = np.ndarray[Any, Any]
Make = Callable[[], Any]
ALIGNMENT = 256  # bytes: kernels read 16 at a time


class Generator(Protocol):
    """The part of `minigrad.Generator` that a tape needs."""

    state: dict[str, int]

    def next_counter(self) -> tuple[Key, Counter]: ...


class Graph(Protocol):
    """Launches that are recorded once and launched together: see `GPUGraph`."""

    @property
    def gradients(self) -> list[tuple[Any, bool]]: ...

    def warm_up(self, work: Callable[[], Any]) -> Any: ...

    def capture(self, work: Callable[[], Any]) -> Any: ...

    def replay(self, copies: Sequence[tuple[Array, Array]], block: Array | None) -> Array | None: ...

    def owns(self, array: Array) -> bool: ...


class CaptureError(RuntimeError):
    """A step does something that a captured step can't do."""


class Tape:
    """The actions of the host in one step, in their order.

    Args:
        place: takes an offset in bytes, a shape and a dtype, and returns the array there on the device.

    Attributes:
        size: bytes that the inputs take.
    """

    def __init__(self, place: Callable[[int, tuple[int, ...], Any], Array]) -> None:
        self.size = 0
        self._place = place
        self._actions: list[Callable[[list[Host]], object]] = []
        self._inputs: list[tuple[int, tuple[int, ...], Any]] = []
        self._draws: dict[tuple[Key, Counter], list[tuple[Key, Counter]]] = {}
        self._states: dict[int, tuple[Generator, dict[str, int]]] = {}
        # Tensors whose gradient was assigned, and whether the first assignment was None.
        self.gradients: dict[int, tuple[Any, bool]] = {}

    def assigned(self, tensor: Any, gradient: Any) -> None:
        """Record an assignment to the gradient of a tensor."""
        self.gradients.setdefault(id(tensor), (tensor, gradient is None))

    def action(self, do: Callable[[], object]) -> None:
        """Record an action. It is not done now."""
        self._actions.append(lambda _: do())

    def input(self, make: Make, shape: tuple[int, ...], dtype: Any) -> Array:
        """Record numbers that come from the host; return the array on the device that will hold them."""
        index, offset = len(self._inputs), self.size
        self._inputs.append((offset, shape, dtype))
        self.size += _room(shape, dtype)

        def fill(views: list[Host]) -> None:
            views[index][...] = checked(make(), shape, dtype)

        self._actions.append(fill)
        return self._place(offset, shape, dtype)

    def drew(self, generator: Generator, key: Key, counter: Counter) -> None:
        """Record a draw from a generator, at the place (key, counter) of its stream."""
        again = self._draws[key, counter] = [(key, counter)]
        before = {**generator.state, "calls": counter[1]}
        self._states.setdefault(id(generator), (generator, before))

        def draw() -> None:
            again[0] = generator.next_counter()

        self.action(draw)

    def draw_of(self, key: Key, counter: Counter) -> Callable[[], tuple[Key, Counter]]:
        """Return a function that gives the place of a draw in each replay; a fixed one for no generator's."""
        again = self._draws.get((key, counter), [(key, counter)])
        return lambda: again[0]

    def rewind(self) -> None:
        """Put the generators back to where they were before the step was captured."""
        for generator, state in self._states.values():
            generator.state = state

    def views(self, buffer: Host) -> list[Host]:
        """Return the inputs as arrays in a buffer of `size` bytes on the host."""
        return [in_order(shape, _place_in(buffer, offset, dtype)) for offset, shape, dtype in self._inputs]

    def play(self, views: list[Host]) -> None:
        """Do the host's part of one step: the inputs go into `views`."""
        for act in self._actions:
            act(views)


class WarmUpTape(Tape):
    """A tape of a step that is not captured: all is done at once, and `size` is measured.

    Args:
        upload: copies an array of the host to the device.
    """

    def __init__(self, upload: Callable[[Host], Array]) -> None:
        super().__init__(lambda offset, shape, dtype: None)
        self._upload = upload

    def action(self, do: Callable[[], object]) -> None:
        do()

    def input(self, make: Make, shape: tuple[int, ...], dtype: Any) -> Array:
        self.size += _room(shape, dtype)
        return self._upload(checked(make(), shape, dtype))

    def drew(self, generator: Generator, key: Key, counter: Counter) -> None:
        pass


class _Recording(threading.local):
    tape: Tape | None = None


_recording = _Recording()


def recording() -> Tape | None:
    """Return the tape of the step that this thread captures or warms up now; None as a rule."""
    return _recording.tape


def is_capturing() -> bool:
    """Whether this thread captures a step now."""
    tape = _recording.tape
    return tape is not None and not isinstance(tape, WarmUpTape)


@contextmanager
def onto(tape: Tape) -> Iterator[None]:
    """A context in which this thread's step is recorded on a tape."""
    _recording.tape = tape
    try:
        yield
    finally:
        _recording.tape = None


def each_time(action: Callable[[], object]) -> None:
    """Do something on the host in each call of a captured step.

    A replay does not run the Python code of the step. An action that has to happen in every one, such as
    counting the steps, goes through here. Outside of a capture it is done at once. While a step is captured
    it is recorded, and each replay does it, before its launches and in order with the others.

    Args:
        action: a function without arguments. What it returns is ignored.
    """
    tape = recording()
    if tape is None:
        action()
    else:
        tape.action(action)


def _place_in(buffer: Host, offset: int, dtype: Any) -> Callable[[tuple[int, ...]], Host]:
    """Return a function that makes an array of a shape over a part of a buffer."""
    return lambda shape: np.ndarray(shape, dtype, buffer, offset)


def in_order(shape: tuple[int, ...], make: Callable[[tuple[int, ...]], Array]) -> Array:
    """Return an array of a shape, made by `make` in the memory order of the device: images (N, C, H, W) with
    the channels innermost.
    """
    if len(shape) != 4:
        return make(shape)
    n, c, h, w = shape
    return channels_first(make((n, h, w, c)))  # (N, C, H, W)


def _room(shape: tuple[int, ...], dtype: Any) -> int:
    """Return the bytes from the beginning of an input to that of the next."""
    return -(-int(np.prod(shape, dtype=np.int64)) * dtype.itemsize // ALIGNMENT) * ALIGNMENT


def checked(value: Any, shape: tuple[int, ...], dtype: Any) -> Host:
    """Return what a function of `from_host` gave. Raises ValueError for another shape or dtype."""
    array = np.asarray(value) if hasattr(value, "dtype") else np.asarray(value, dtype)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(
            f"from_host: expected numbers of shape {shape} and dtype {dtype}, as was said, got "
            f"{array.dtype} of {array.shape}"
        )
    return array
