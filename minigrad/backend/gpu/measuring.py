"""Measuring on the GPU: time by CUDA events, memory as CuPy's pools hand it out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cupy as xp
import numpy as np

from ..measuring import Measuring, Peak, Timer


class EventTimer(Timer):
    """Marks are CUDA events on the current stream: to record one costs some microseconds and no wait.

    The resolution is half a microsecond. Source: CUDA Runtime API, cudaEventElapsedTime.
    """

    runs_later = True

    def mark(self) -> Any:
        event = xp.cuda.Event()
        event.record()
        return event

    def seconds(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(xp.cuda.get_elapsed_time(begin, end)) / 1e3


class _PoolPeak(xp.cuda.MemoryHook, Peak):
    """Counts the bytes in use of what this thread has allocated since the hook was entered, in any pool."""

    name = "minigrad_peak"

    def __init__(self) -> None:
        self.bytes: int = 0
        self._in_use, self._sizes = 0, dict[int, int]()

    def malloc_postprocess(self, **block: Any) -> None:
        self._sizes[block["pmem_id"]] = block["mem_size"]
        self._in_use += block["mem_size"]
        self.bytes = max(self.bytes, self._in_use)

    def free_postprocess(self, **block: Any) -> None:
        self._in_use -= self._sizes.pop(block["pmem_id"], 0)


class GPUMeasuring(Measuring):
    """The part of the GPU's backend that measures."""

    def synchronize(self) -> None:
        xp.cuda.Device().synchronize()

    def timer(self) -> Timer:
        return EventTimer()

    @contextmanager
    def memory_peak(self) -> Iterator[Peak]:
        with _PoolPeak() as peak:
            yield peak

    def release_memory(self) -> None:
        xp.get_default_memory_pool().free_all_blocks()

    def describe(self) -> str:
        runtime = xp.cuda.runtime
        properties = runtime.getDeviceProperties(xp.cuda.Device().id)
        return (
            f"{properties['name'].decode()}, compute capability {properties['major']}.{properties['minor']}, "
            f"CUDA {_version(runtime.runtimeGetVersion())} (driver {_version(runtime.driverGetVersion())}), "
            f"CuPy {xp.__version__}, NumPy {np.__version__}"
        )


def _version(number: int) -> str:
    """12090, as CUDA numbers its versions, is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"
