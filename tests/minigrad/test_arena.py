"""Memory that is used again: never while anybody holds it, and not without bound."""

import gc
import itertools
import mmap
import os
import sys
import threading

import numpy as np
import pytest

from minigrad.backend.cpu import arena as arenas
from minigrad.backend.cpu.arena import MIN_BLOCK, Arena, owns_memory
from minigrad.backend.cpu.backend import CPUBackend

LARGE = (MIN_BLOCK // 4, 2)  # of float32: twice MIN_BLOCK


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_comes_again_once_the_array_has_gone():
    arena = Arena()
    first = arena.empty(LARGE, np.float32)
    place = address(first)
    second = arena.empty(LARGE, np.float32)
    assert address(second) != place
    del first
    double = arena.empty((2, MIN_BLOCK // 8), np.float64)
    assert address(double) == place  # of a like size, whatever the dtype


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


def blocks(arena, *sizes):
    """Arrays of so many times MIN_BLOCK, one after the other."""
    return [arena.empty((size * MIN_BLOCK,), np.uint8) for size in sizes]


def test_an_array_lies_where_least_is_left_over():
    arena = Arena()
    nine, _, four, _, six, _ = held = blocks(arena, 9, 1, 4, 1, 6, 1)
    places = [address(array) for array in held]
    del nine, four, six
    held[0] = held[2] = held[4] = None
    (five,) = blocks(arena, 5)
    assert address(five) == places[4]
    small = arena.empty((4 * MIN_BLOCK - 5,), np.uint8)
    assert (address(small), small.shape) == (places[2], (4 * MIN_BLOCK - 5,))
    first, second = blocks(arena, 2, 7)
    assert [address(first), address(second)] == [places[0], places[0] + 2 * MIN_BLOCK]
    (beside,) = blocks(arena, 1)
    assert address(beside) == places[4] + 5 * MIN_BLOCK  # what was left of the six


def test_neighbours_that_are_free_are_one_place():
    arena = Arena()
    held = blocks(arena, 3, 2, 4, 1)
    place = address(held[0])
    for i in (0, 2, 1):  # the last lies between the others
        held[i] = None
    (whole,) = blocks(arena, 9)
    assert address(whole) == place


def test_arrays_of_all_sizes_keep_what_was_written_in_them():
    arena, rng, held = Arena(), np.random.default_rng(0), {}
    for number in range(600):
        if held and rng.random() < 0.5:
            key = rng.choice(list(held))
            assert (held.pop(key) == key % 251).all()
        held[number] = arena.empty((int(rng.integers(1, 30 * MIN_BLOCK)),), np.uint8)
        held[number][...] = number % 251
    places = sorted((address(array), array.nbytes) for array in held.values() if array.nbytes >= MIN_BLOCK)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(places))
    assert all((array == key % 251).all() for key, array in held.items())


def test_a_region_that_is_full_gets_another_beside_it(monkeypatch):
    monkeypatch.setattr(arenas, "MIN_REGION", 8 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "HUGE_PAGE", 2 * MIN_BLOCK)
    arena = Arena()
    held = blocks(arena, 5, 5, 3, 3)
    sizes = [len(region) // MIN_BLOCK for region in arena._regions.values()]
    assert sizes == [8, 8]
    assert arena._free.total == 0
    held += blocks(arena, 11)  # larger than a region: one of its own, of whole large pages
    assert [len(region) // MIN_BLOCK for region in arena._regions.values()] == [8, 8, 12]
    assert arena._free.total == MIN_BLOCK
    for i, array in enumerate(held):
        array[...] = i
    assert all((array == i).all() for i, array in enumerate(held))
    held.clear()
    del array
    (nine,) = blocks(arena, 9)
    assert nine.base.start == 2 * (8 * MIN_BLOCK + arenas.GAP)  # two regions are never one place


def test_garbage_that_is_collected_in_the_middle_comes_back_too():
    arena, wrong = Arena(), []
    before = gc.get_threshold()
    gc.set_threshold(3)  # the collector runs inside of the arena's own lines
    try:
        for i in range(3000):
            cycle = [arena.empty(((1 + i % 5) * MIN_BLOCK,), np.uint8)]
            cycle.append(cycle)
            if cycle[0].nbytes != (1 + i % 5) * MIN_BLOCK:
                wrong.append(i)
    finally:
        gc.set_threshold(*before)
    del cycle
    gc.collect()
    arena.empty((MIN_BLOCK,), np.uint8)
    assert wrong == []
    assert not arena._returned
    assert arena._free.total == sum(map(len, arena._regions.values())) > 0


def in_use(arena):
    """Bytes that are handed out."""
    return sum(map(len, arena._regions.values())) - arena._free.total


def test_nothing_comes_back_at_the_interpreters_end():
    arena = Arena()
    block = arena.empty((MIN_BLOCK,), np.uint8).base
    block.__del__(at_exit=lambda: True)
    assert (in_use(arena), len(arena._returned)) == (MIN_BLOCK, 0)
    del block  # now it does
    assert in_use(arena) == 0


def test_memory_that_comes_back_while_somebody_asks_waits_its_turn():
    arena, holding, go = Arena(), threading.Event(), threading.Event()

    def ask():
        with arena._lock:
            holding.set()
            go.wait(10)

    array, asking = arena.empty((MIN_BLOCK,), np.uint8), threading.Thread(target=ask)
    asking.start()
    assert holding.wait(10)
    del array
    assert (len(arena._returned), in_use(arena)) == (1, MIN_BLOCK)
    go.set()
    asking.join()
    (nine,) = blocks(arena, 9)
    assert not arena._returned
    assert in_use(arena) == nine.nbytes


def test_what_interrupts_the_arena_gets_other_memory(monkeypatch):
    """A signal's handler may compute, and garbage be collected, while its thread is looking for room."""
    arena, found = Arena(), []
    lost = blocks(arena, 2)
    grow = Arena._grow

    def interrupted(own, size):
        lost.clear()
        found.append((own.empty((MIN_BLOCK,), np.uint8), len(own._returned), own._free.total))
        grow(own, size)

    monkeypatch.setattr(Arena, "_grow", interrupted)
    room = arena._free.total
    (large,) = blocks(arena, room // MIN_BLOCK + 3)
    ((fresh, waiting, free),) = found
    assert fresh.base is None
    assert (waiting, free) == (1, room)  # nothing was done behind the arena's back
    blocks(arena, 1)
    assert in_use(arena) == large.nbytes


def test_small_arrays_are_numpys_own():
    array = Arena().empty((3,), np.float32)
    assert array.base is None
    assert owns_memory(array)


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.bool_])
@pytest.mark.parametrize("innermost", [True, False], ids=["channels innermost", "channels first"])
def test_arrays_joined_lie_as_the_first_of_them_in_memory_of_the_arena(innermost, dtype, axis):
    engine, rng = CPUBackend(None), np.random.default_rng(0)
    sizes = [(4, 24, 20, 36)] * 3
    sizes[1] = tuple(7 if i == axis % 4 else size for i, size in enumerate(sizes[1]))
    parts = [rng.integers(0, 2 if dtype is np.bool_ else 100, size).astype(dtype) for size in sizes]
    other = [np.ascontiguousarray(part.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for part in parts]
    given = (other[0], parts[1], other[2]) if innermost else (parts[0], other[1], parts[2])
    joined = engine.concatenate(given, axis)
    ends = [0, *itertools.accumulate(part.shape[axis] for part in parts)]
    assert (joined.dtype, joined.shape[axis]) == (dtype, ends[-1])
    for part, (start, stop) in zip(parts, itertools.pairwise(ends), strict=True):
        assert np.array_equal(np.moveaxis(joined, axis, 0)[start:stop], np.moveaxis(part, axis, 0))
    assert (joined.transpose(0, 2, 3, 1) if innermost else joined).flags.c_contiguous
    assert isinstance((joined.base if innermost else joined).base, arenas._Block)


def test_an_array_of_the_arena_owns_its_memory_and_a_view_does_not():
    array = Arena().empty(LARGE, np.float32)
    assert owns_memory(array)
    assert not owns_memory(array[1:])
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert (array.shape, array.dtype) == (LARGE, np.float32)
    assert address(array) % 64 == 0


def test_regions_that_nobody_uses_go_where_much_is_free(monkeypatch):
    monkeypatch.setattr(arenas, "MIN_REGION", 4 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "MAX_FREE", 8 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "HUGE_PAGE", MIN_BLOCK)
    arena = Arena()
    first, second, third, fourth = blocks(arena, 4, 3, 4, 4)
    regions = list(arena._regions)
    assert len(regions) == 4
    del first, third
    assert arena._free.total == 9 * MIN_BLOCK - 4 * MIN_BLOCK  # the third went, as the last that was free
    assert list(arena._regions) == [regions[0], regions[1], regions[3]]
    fourth[...] = 4
    del second
    assert arena._free.total == 8 * MIN_BLOCK  # not more than may be
    (again,) = blocks(arena, 4)
    assert again.base.start == regions[0]
    assert (fourth == 4).all()


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere pages that are given back keep what was in them"
)
def test_pages_go_back_where_a_region_is_held_by_one_array(monkeypatch):
    monkeypatch.setattr(arenas, "MIN_REGION", 8 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "MAX_FREE", 12 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "HUGE_PAGE", MIN_BLOCK)
    arena = Arena()
    held = blocks(arena, 1, 7, 1, 7, 1, 7)
    for array in held:
        array[...] = 5
    regions = list(arena._regions)
    held[1] = array = None
    (seven,) = blocks(arena, 7)
    assert (seven == 5).all()  # not too much is free
    seven = held[3] = None  # now it is: of two one must go back
    held[5] = None  # what came back since is little again
    assert list(arena._regions) == regions
    assert arena._used == 7 * MIN_BLOCK
    assert sorted(int(array.max()) for array in blocks(arena, 7, 7, 7)) == [0, 5, 5]
    assert all((held[i] == 5).all() for i in (0, 2, 4))


def test_a_place_comes_back_where_its_array_could_not_be_made(monkeypatch):
    arena = Arena()
    monkeypatch.setattr(arenas, "_Block", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        blocks(arena, 3)
    assert in_use(arena) == 0


def test_where_no_whole_region_is_to_be_had_one_of_the_size_is(monkeypatch):
    wanted, whole = [], arenas.mmap.mmap

    def scarce(number, size, **flags):
        wanted.append(size)
        if size >= arenas.MIN_REGION:
            raise OSError(12, "Cannot allocate memory")
        return whole(number, size, **flags)

    monkeypatch.setattr(arenas.mmap, "mmap", scarce)
    arena = Arena()
    first, second = blocks(arena, 1, 33)
    assert wanted == [arenas.MIN_REGION, arenas.HUGE_PAGE, arenas.MIN_REGION, 2 * arenas.HUGE_PAGE]
    first[...], second[...] = 1, 2
    assert (first.sum(dtype=int), second.sum(dtype=int)) == (first.size, 2 * second.size)
    with pytest.raises(OSError, match="Cannot allocate"):
        arena.empty((arenas.MIN_REGION,), np.uint8)


def test_a_system_without_large_pages_does_without(monkeypatch):
    class Plain(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(arenas.mmap, "mmap", Plain)
    (array,) = blocks(Arena(), 2)
    array[...] = 3
    assert (array == 3).all()


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
    arena.empty(LARGE, np.float32)  # whatever came back while another thread was asking is sorted in
    assert in_use(arena) == 0
    assert list(arena._regions) == [0]  # no thread needed another region


def test_threads_may_ask_while_regions_come_and_go(monkeypatch, at_once):
    monkeypatch.setattr(arenas, "MIN_REGION", 4 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "MAX_FREE", 4 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "HUGE_PAGE", MIN_BLOCK)
    arena = Arena()

    def work(number):
        rng, held = np.random.default_rng(number), []
        for _ in range(300):
            held = held[-int(rng.integers(0, 5)) :] + blocks(arena, int(rng.integers(1, 6)))
            held[-1][:9] = number
            assert all((array[:9] == number).all() for array in held)

    at_once(work, 4)


def test_regions_are_looked_up_while_nobody_else_changes_them(monkeypatch):
    """Threads would meet there too seldom to be seen."""
    held, right = [], Arena._where
    monkeypatch.setattr(Arena, "_where", lambda own, at: held.append(own._busy) or right(own, at))
    blocks(Arena(), 3, 1)
    assert held == [True, True]


def test_a_loop_takes_no_new_memory_after_its_first_round(monkeypatch):
    monkeypatch.setattr(arenas, "MIN_REGION", 16 * MIN_BLOCK)
    monkeypatch.setattr(arenas, "HUGE_PAGE", MIN_BLOCK)
    cpu = CPUBackend()  # with an arena of its own, which no other test's arrays go back to
    a, b = np.ones((400, 300), np.float32), np.ones((300, 700), np.float32)

    def step():
        product = cpu.matmul(a, b)
        square = cpu.matmul(a, a.T)
        del product
        return cpu.matmul(square, cpu.matmul(a, b))

    step()
    before = {start: len(region) for start, region in cpu.arena._regions.items()}
    assert sum(before.values()) >= 16 * MIN_BLOCK
    for _ in range(5):
        step()
    assert {start: len(region) for start, region in cpu.arena._regions.items()} == before
