"""How fast a device is at most: measured by one large matrix product and one large copy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import backend
from ..backend.base import Backend
from ..markup import paragraph

ENOUGH = 0.005  # seconds: work that takes as long hides what it costs to start it
SIDES = tuple(2**n for n in range(8, 14))  # of square matrices, 256 to 8192
COPIED = tuple(2**n for n in range(20, 30))  # bytes, 1 MiB to 512 MiB
REPEATS = 3


@dataclass(frozen=True)
class Limits:
    """The highest speeds of a device that were measured.

    Attributes:
        product: operations a second of a matrix product in float32, in 1e9; a multiply-add is two. Under
            `allow_tf32`, of one in TensorFloat-32.
        copy: bytes a second of a copy on the device, those read and those written, in 1e9.
        side: of the square matrices that were multiplied.
    """

    product: float
    copy: float
    side: int

    def __str__(self) -> str:
        return f"{self.product:,.0f} GFLOP/s, a large matrix product; {self.copy:,.0f} GB/s, a large copy"

    def _repr_html_(self) -> str:
        return paragraph(self)


def limits(device: str | None = None) -> Limits:
    """Measure the limits of a device; None for the default one.

    Each is the best of a few runs, at a size that is doubled until a run takes 5 ms, as far as a quarter of
    the free memory allows. On a GPU it is of 8192 x 8192 matrices and 512 MiB: a tenth of a second. Raises as
    `backend.get` does.
    """
    engine = backend.get(device)
    side, seconds = _fastest(engine, SIDES, lambda n: 3 * 4 * n * n, _product)
    copied, copying = _fastest(engine, COPIED, lambda n: 2 * n, _copy)
    return Limits(2 * side**3 / seconds / 1e9, 2 * copied / copying / 1e9, side)


def occupy(device: str, found: Limits, seconds: float) -> None:
    """Queue about so many seconds of matrix products on a device, and return.

    Work that is queued next starts only after these products. If it is queued within that time, the device
    never waits for the host, and the time between two marks is the device's own.
    """
    engine = backend.get(device)
    work = _product(engine, found.side)
    for _ in range(1 + int(seconds * found.product * 1e9 / (2 * found.side**3))):
        work()


def _fastest(
    engine: Backend,
    sizes: tuple[int, ...],
    needed: Callable[[int], int],
    make: Callable[[Backend, int], Callable[[], Any]],
) -> tuple[int, float]:
    """Return the size at which work was measured, and the seconds of its fastest run.

    Args:
        needed: the bytes that work of a size takes.
        make: prepares work of a size.
    """
    timer = engine.timer()
    size, best = sizes[0], 0.0
    for size in sizes:
        work = make(engine, size)
        work()  # the first one chooses and loads its kernel
        best = min(_seconds(timer, work) for _ in range(REPEATS))
        free = engine.free_memory()
        if best >= ENOUGH or (free is not None and 4 * needed(2 * size) > free):
            break
    return size, best


def _seconds(timer: Any, work: Callable[[], Any]) -> float:
    begin = timer.mark()
    work()
    return float(timer.seconds(begin, timer.mark()))


def _product(engine: Backend, side: int) -> Callable[[], Any]:
    # Numbers of all kinds: a GPU multiplies equal ones with less power, and so faster.
    numbers = engine.xp.arange(side * side, dtype="float32") % 251 / 251 - 0.5
    a = numbers.reshape(side, side)  # (side, side)
    return lambda: engine.matmul(a, a)


def _copy(engine: Backend, count: int) -> Callable[[], Any]:
    source = engine.xp.zeros(count // 4, "float32")
    target = engine.xp.empty_like(source)
    return lambda: engine.xp.copyto(target, source)
