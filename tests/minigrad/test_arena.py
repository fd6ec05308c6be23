"""Memory that is used again: never while anybody holds it, and not without bound."""

import gc
import os
import threading

import numpy as np
import pytest

from minigrad.backend import arena as arenas
from minigrad.backend.arena import MOST_KEPT, SMALLEST, Arena, owns_memory
from minigrad.backend.cpu import CPUBackend

LARGE = (SMALLEST // 4, 2)  # of float32: twice SMALLEST


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_again_once_the_array_has_gone():
    arena = Arena()
    first = arena.empty(LARGE, np.float32)
    place = address(first)
    second = arena.empty(LARGE, np.float32)
    assert address(second) != place
    del first
    assert address(arena.empty((2, SMALLEST // 8), np.float64)) == place  # of a like size, whatever the dtype


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[3:],
        lambda a: a.T,
        lambda a: a.reshape(-1)[5:9],
        lambda a: a.view(np.uint8)[1:],
        lambda a: np.lib.stride_tricks.as_strided(a, (2, 2), (8, 4)),
        lambda a: a[:, 1][::2].reshape(-1, 1).transpose(),
        lambda a: memoryview(a),
        lambda a: a.flat,
    ],
)
def test_a_view_holds_the_memory(view):
    arena = Arena()
    array = arena.empty(LARGE, np.float32)
    place, held = address(array), view(array)
    del array
    gc.collect()
    others = [arena.empty(LARGE, np.float32) for _ in range(3)]
    assert place not in map(address, others)
    del held
    gc.collect()
    assert address(arena.empty(LARGE, np.float32)) == place


def test_a_smaller_array_takes_the_least_memory_that_is_not_twice_too_large():
    arena = Arena()
    held = [arena.empty((size * SMALLEST,), np.uint8) for size in (9, 4, 3, 7)]
    places = {size: address(array) for size, array in zip((9, 4, 3, 7), held, strict=True)}
    del held
    small = arena.empty((2 * SMALLEST - 5,), np.uint8)
    assert (address(small), small.shape) == (places[3], (2 * SMALLEST - 5,))
    five = arena.empty((5 * SMALLEST,), np.uint8)
    assert address(five) == places[7]
    second = arena.empty((2 * SMALLEST,), np.uint8)
    assert address(second) == places[4]
    third = arena.empty((4 * SMALLEST,), np.uint8)  # 9 waits, but is too large
    assert address(third) not in places.values()
    assert arena._bytes == 9 * SMALLEST
    five[...] = 5
    del small, second, third
    assert arena._bytes == (9 + 3 + 4 + 4) * SMALLEST  # whole blocks come back, not what was asked of them
    assert (five == 5).all()


def test_garbage_that_is_collected_in_the_middle_comes_back_too():
    arena, wrong = Arena(), []
    before = gc.get_threshold()
    gc.set_threshold(3)  # the collector runs inside of the arena's own lines
    try:
        for i in range(3000):
            cycle = [arena.empty(((1 + i % 5) * SMALLEST,), np.uint8)]
            cycle.append(cycle)
            if cycle[0].nbytes != (1 + i % 5) * SMALLEST:
                wrong.append(i)
    finally:
        gc.set_threshold(*before)
    del cycle
    gc.collect()
    arena.empty((SMALLEST,), np.uint8)
    assert wrong == []
    assert not arena._returned
    assert arena._bytes == sum(len(m) for waiting in arena._waiting.values() for m in waiting) > 0


def test_nothing_comes_back_at_the_interpreters_end():
    arena = Arena()
    block = arena.empty((SMALLEST,), np.uint8).base
    block.__del__(at_exit=lambda: True)
    assert arena._bytes == len(arena._returned) == 0
    del block  # now it does
    assert arena._bytes == SMALLEST


def test_memory_that_comes_back_while_somebody_asks_waits_its_turn():
    arena = Arena()
    array = arena.empty((SMALLEST,), np.uint8)
    with arena._lock:
        del array
        assert (len(arena._returned), arena._bytes) == (1, 0)
    arena.empty((9 * SMALLEST,), np.uint8)
    assert not arena._returned


def test_small_arrays_are_numpys_own():
    array = Arena().empty((3,), np.float32)
    assert array.base is None
    assert owns_memory(array)


def test_an_array_of_the_arena_owns_its_memory_and_a_view_does_not():
    array = Arena().empty(LARGE, np.float32)
    assert owns_memory(array)
    assert not owns_memory(array[1:])
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert (array.shape, array.dtype) == (LARGE, np.float32)
    assert address(array) % 64 == 0


def test_what_waits_is_bounded_and_the_oldest_goes_first(monkeypatch):
    monkeypatch.setattr(arenas, "MOST_KEPT", 4 * SMALLEST)
    arena = Arena()
    sizes = [1, 2, 3]
    arrays = [arena.empty((size * SMALLEST,), np.uint8) for size in sizes]
    while arrays:
        arrays.pop(0)  # the smallest first
    assert arena._bytes == 3 * SMALLEST  # the first two had to go
    assert sum(map(len, arena._waiting.values())) == 1
    assert MOST_KEPT == 2**29


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_writes_into_memory_of_its_own():
    array = Arena().empty(LARGE, np.float32)
    array[...] = 1
    child = os.fork()
    if child == 0:
        array[...] = 2
        os._exit(int(array.sum() != 2 * array.size))
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert (array == 1).all()


def test_threads_never_get_the_same_memory():
    arena, wrong = Arena(), []

    def work(number):
        for _ in range(200):
            array = arena.empty(LARGE, np.float32)
            array[...] = number
            if (array != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert arena._bytes <= 4 * 2 * (2 * SMALLEST)  # each thread has an old array and the next


def test_the_second_step_of_a_loop_takes_no_new_memory():
    cpu = CPUBackend()  # with an arena of its own, which no other test's arrays go back to
    a = np.ones((400, 300), np.float32)
    cpu.matmul(a, a.T)
    before = cpu.arena._bytes
    assert before > 0
    for _ in range(5):
        cpu.matmul(a, a.T)
    assert cpu.arena._bytes == before
