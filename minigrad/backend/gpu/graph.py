"""A CUDA graph: launches that were recorded once, and are then launched together.

Source: NVIDIA, "CUDA C++ Programming Guide", the section on CUDA graphs (stream capture).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cupy as xp
import numpy as np

from ..arrays import Array
from ..tape import CaptureError, Tape, WarmUpTape, in_order, onto

CAPTURE_ERRORS = range(900, 909)  # cudaErrorStreamCaptureUnsupported to cudaErrorStreamCaptureWrongThread
SLOTS = 4  # buffers of inputs on the host: so many replays may be under way
FROM_HOST = (
    "numbers of the host would go to the device once, and be the same in all replays: make the tensor before "
    "the step, pass it as an argument, or let minigrad.from_host(make, shape) make them in every replay"
)


class GPUGraph:
    """The launches of one function, on a stream and in memory of their own.

    Call `warm_up` first: it compiles the kernels, and gets the memory, that `capture` can't. Each of the
    three runs after all that the current stream was given before, and the current stream waits for it.

    The default stream can't be captured. All that a captured function allocates comes from a pool that
    nobody else uses, since every replay writes into the same memory. The pool lives as long as the graph,
    or as arrays of it do.

    Args:
        upload: copies an array of the host to the device.
        workspace: memory that the products work in, which has to stay where it is.
    """

    def __init__(self, upload: Callable[[Any], Array], workspace: Any) -> None:
        self._upload, self._workspace = upload, workspace
        self._stream = xp.cuda.Stream(non_blocking=True)
        self._pool = xp.cuda.MemoryPool()
        self._pool.set_limit(size=xp.get_default_memory_pool().get_limit())
        self._before, self._after = (xp.cuda.Event(disable_timing=True) for _ in range(2))
        self._size = 0  # bytes of inputs
        self._allocated: set[int] = set()  # addresses of what was allocated in the capture

    def warm_up(self, work: Callable[[], Any]) -> Any:
        """Run a function uncaptured, in the graph's memory; return its result."""
        xp.get_default_memory_pool().free_all_blocks()  # or the step's memory would be held twice
        with self._in_order(), self._own_memory():
            tape = WarmUpTape(self._upload)
            with onto(tape):
                result = work()
        self._size = tape.size
        return result

    def capture(self, work: Callable[[], Any]) -> Any:
        """Record the launches of a function. Nothing of it is done yet, on the device or on the tape.

        Returns the function's result, which each replay fills. If the function raises, its exception goes
        through, and the device is as before. Raises CaptureError for what CUDA can't capture.
        """
        with self._in_order(), self._own_memory():
            self._inputs = xp.empty(self._size, np.uint8)
            self._tape = Tape(_Places(self._inputs))
            self._allocated = {self._inputs.data.mem.ptr}
            self._stream.begin_capture()
            try:
                with onto(self._tape), _no_copies_from_the_host(), _Allocations(self._allocated):
                    result = work()
                self._graph = self._stream.end_capture()
                _free_retired()  # of a graph that this one replaces
            except BaseException as error:
                self._give_up()
                if _is_of_capture(error):
                    raise CaptureError(
                        f"it waits for the device, or CUDA can't capture it ({error})"
                    ) from error
                raise
            finally:
                self._tape.rewind()
        self._slots = [_Slot(self._tape) for _ in range(SLOTS)]
        self._turn = 0
        return result

    def owns(self, array: Array) -> bool:
        """Whether an array was allocated in the capture, so that each replay fills it anew."""
        return array.data.mem.ptr in self._allocated

    @property
    def gradients(self) -> list[tuple[Any, bool]]:
        """The tensors whose gradient the captured function assigned, and whether it was None at first."""
        return list(self._tape.gradients.values())

    def replay(self, copies: Sequence[tuple[Array, Array]], block: Array | None) -> Array | None:
        """Do the host's part of a step, copy the inputs to the device, and launch the graph.

        Args:
            copies: arrays that the graph reads, and those that are copied into them before.
            block: a contiguous array that the graph fills.

        Returns a copy of the block, which the next replay leaves alone.
        """
        slot = self._slots[self._turn]
        self._turn = (self._turn + 1) % SLOTS
        slot.free.synchronize()
        self._tape.play(slot.views)
        made = None if block is None else xp.empty_like(block)
        with self._in_order(), self._stream:
            for own, given in copies:
                own[...] = given
            if self._tape.size:
                self._inputs.data.copy_from_host_async(slot.memory.ptr, self._tape.size, self._stream)
                slot.free.record(self._stream)
            self._graph.launch(self._stream)
            if block is not None and made is not None:
                made.data.copy_from_device_async(block.data, block.nbytes, self._stream)
        return made

    def _give_up(self) -> None:
        """End a capture that failed. CUDA then says that it failed, which is known."""
        with suppress(Exception):
            self._stream.end_capture()

    def __del__(self) -> None:
        """Give the memory back: CuPy's pools do not by themselves."""
        with suppress(Exception):  # at the end of the program, too
            stream, pool = self._stream, self._pool
            stream.synchronize()
            self.__dict__.clear()
            _retired.append(pool)
            _free_retired()

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        current = xp.cuda.get_current_stream()
        self._before.record(current)
        self._stream.wait_event(self._before)
        try:
            yield
        finally:
            self._after.record(self._stream)
            current.wait_event(self._after)

    @contextmanager
    def _own_memory(self) -> Iterator[None]:
        with xp.cuda.using_allocator(self._pool.malloc), self._stream:
            yield


def _is_of_capture(error: BaseException) -> bool:
    """Whether CUDA, or CuPy before it, refused something because the stream is being captured."""
    if getattr(error, "status", 0) in CAPTURE_ERRORS:
        return True
    return type(error) is RuntimeError and "is capturing" in str(error)  # by CuPy's `ndarray.get`


# Pools of graphs that are gone. Gradients that a replay had left may still lie in them.
_retired: list[Any] = []


def _free_retired() -> None:
    """Give the memory of pools back to the device that nothing lies in any more."""
    for pool in _retired:
        pool.free_all_blocks()
    _retired[:] = [pool for pool in _retired if pool.total_bytes()]


class _Allocations(xp.cuda.MemoryHook):
    """A context that adds the addresses of all that this thread allocates to a set."""

    name = "minigrad_allocations"

    def __init__(self, addresses: set[int]) -> None:
        self._addresses = addresses

    def malloc_postprocess(self, **block: Any) -> None:
        self._addresses.add(block["mem_ptr"])


class _Places:
    """The places of the inputs on the device.

    Args:
        inputs: the memory for all of them, uint8 (bytes,).
    """

    def __init__(self, inputs: Array) -> None:
        self._inputs = inputs

    def __call__(self, offset: int, shape: tuple[int, ...], dtype: Any) -> Array:
        place = in_order(shape, lambda stored: xp.ndarray(stored, dtype, self._inputs.data + offset))
        if offset + place.nbytes > self._inputs.nbytes:
            raise CaptureError("the step takes more numbers from the host than in the call before")
        return place


class _Slot:
    """A buffer of inputs in memory of the host that a copy to the device may read while the host goes on.

    Attributes:
        memory, views: the buffer, and the inputs in it.
        free: an event, after which the last copy out of it is done.
    """

    def __init__(self, tape: Tape) -> None:
        self.memory = xp.cuda.alloc_pinned_memory(max(tape.size, 1))
        self.views = tape.views(np.frombuffer(self.memory, np.uint8, tape.size))
        self.free = xp.cuda.Event(disable_timing=True)


@contextmanager
def _no_copies_from_the_host() -> Iterator[None]:
    """A context in which this thread can't copy anything of the host's to the device.

    CuPy copies by way of a buffer that it gives to others later, while each replay would read it.
    """
    thread, allocate = threading.get_ident(), xp.get_default_pinned_memory_pool().malloc

    def refuse(size: int) -> Any:
        if threading.get_ident() == thread:
            raise CaptureError(FROM_HOST)
        return allocate(size)

    xp.cuda.set_pinned_memory_allocator(refuse)
    try:
        yield
    finally:
        xp.cuda.set_pinned_memory_allocator(allocate)
