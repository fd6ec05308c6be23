"""The pool of threads: how work is cut, shared and stopped, and that BLAS gets its threads back."""

import gc
import os
import signal
import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

import minigrad as mg
from minigrad import backend
from minigrad.backend import get
from minigrad.backend.cpu import blas, parallel
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.blas import SingleThreadedBLAS
from minigrad.backend.cpu.parallel import (
    MAX_CACHED_BYTES,
    MAX_SLICE_BYTES,
    Pool,
    Scratch,
    available_threads,
    cut,
)


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@given(st.integers(0, 10_000), st.integers(0, 1 << 24))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_slices_cover_everything_once_and_are_about_even(count, bytes_each):
    slices = cut(count, bytes_each)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(count))
    sizes = [s.stop - s.start for s in slices]
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= 1 or max(sizes) * bytes_each <= MAX_SLICE_BYTES + bytes_each


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_slice_is_worked_on_once(threads):
    pool, seen = Pool(threads), []
    pool.run(lambda s: seen.append((s.start, s.stop)), cut(1000, 1 << 16))
    assert sorted(seen) == [(s.start, s.stop) for s in cut(1000, 1 << 16)]


def test_an_interrupt_while_it_waits_is_raised_and_no_more_slices_are_begun(monkeypatch):
    pool, begun, go, done = Pool(2), threading.Event(), threading.Event(), []
    main = threading.current_thread()

    def work(s):
        if threading.current_thread() is not main:
            begun.set()
            go.wait(10)
        else:
            begun.wait(10)
        done.append(s)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parallel, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.run(work, [slice(0, 1)] * 2)
    go.set()
    pool.run(lambda s: None, [slice(0, 1)] * 2)
    pool.resize(1)
    assert len(done) == 2


def test_an_interrupt_in_a_slice_is_raised_and_no_more_slices_are_begun():
    pool, main, done = Pool(2), threading.current_thread(), []
    helping, go = threading.Event(), threading.Event()

    def work(s):
        if threading.current_thread() is not main:
            helping.set()
            go.wait(10)
        else:
            assert helping.wait(10)
            go.set()
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(s)

    with pytest.raises(KeyboardInterrupt):
        pool.run(work, [slice(0, 1)] * 50)
    pool.resize(1)
    assert len(done) <= 2


def test_a_slice_may_share_work_of_its_own():
    pool, done = Pool(2), []
    pool.run(lambda s: pool.run(done.append, [slice(0, 1)] * 4), [slice(0, 1)] * 4)
    assert len(done) == 16


@pytest.mark.parametrize("threads", [1, 3])
def test_an_exception_in_a_slice_is_raised_and_the_pool_goes_on(threads):
    pool = Pool(threads)

    def work(s):
        if s.start == 500:
            raise ZeroDivisionError("in the middle")

    slices = [slice(i, i + 1) for i in range(1000)]
    with pytest.raises(ZeroDivisionError, match="in the middle"):
        pool.run(work, slices)
    done = []
    pool.run(lambda s: done.append(s.start), slices)
    assert len(done) == 1000


def test_blas_is_held_to_one_thread_in_every_thread_and_let_go_again():
    before, pool, seen = blas_threads(), Pool(2), []

    def use():
        with pool.single_threaded_blas, pool.single_threaded_blas:
            seen.append(blas_threads())

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    use()
    for thread in threads:
        thread.join()
    assert len(seen) == 9
    assert {n for threads in seen for n in threads} == {1}
    assert blas_threads() == before


def test_numpys_own_blas_is_told_directly():
    held = SingleThreadedBLAS()
    openblas = [
        library["filepath"]
        for library in threadpool_info()
        if library["internal_api"] == "openblas" and library.get("threading_layer") == "pthreads"
    ]
    assert len(held._libraries) == len(openblas)
    assert held._known == (len(openblas) == len(blas_threads()))


@pytest.mark.parametrize("known", [True, False])
def test_blas_gets_back_the_number_of_threads_that_it_had(monkeypatch, known):
    """By its own functions and by threadpoolctl, which is what any other library is held by."""
    if not known:
        monkeypatch.setattr(blas, "_openblas", lambda info: None)
    held = SingleThreadedBLAS()
    for wanted in (1, 2, 3):
        with threadpool_limits(wanted, "blas"):
            before = blas_threads()
            with held:
                with held:
                    assert set(blas_threads()) == {1}
                assert set(blas_threads()) == {1}
            assert blas_threads() == before
            with pytest.raises(ZeroDivisionError), held:
                raise ZeroDivisionError
            assert blas_threads() == before
    assert before  # there is a library


def test_the_engine_computes_in_several_threads_at_once():
    x = mg.tensor(np.random.default_rng(0).standard_normal((8, 16, 20, 20)).astype(np.float32))
    layer = mg.nn.Conv2d(16, 32, 5, padding=2)
    expected = layer(x).numpy()
    results = []
    threads = [threading.Thread(target=lambda: results.append(layer(x).numpy())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, expected) for result in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    a = mg.tensor(np.ones((4000, 300), np.float32))
    assert (a @ a.transpose()).shape == (4000, 4000)  # large enough for the pool's threads
    child = os.fork()
    if child == 0:
        os._exit(0 if float((a @ a.transpose()).numpy()[-1, -1]) == 300.0 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert get("cpu").pool.threads >= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_forked_in_the_middle_of_a_product_starts_anew():
    pool, inside, go = Pool(2), threading.Event(), threading.Event()

    def multiply():
        with pool.single_threaded_blas:
            inside.set()
            go.wait(10)

    def works():
        together = threading.Barrier(2)  # no thread passes it alone
        with threadpool_limits(2, "blas"):
            pool.run_products(lambda s: together.wait(5), [slice(0, 1)] * 2)
            with pool.single_threaded_blas:
                return set(blas_threads()) == {1}

    pool.run(lambda s: None, [slice(0, 1)] * 2)  # the parent has a helper
    busy = threading.Thread(target=multiply)
    busy.start()
    assert inside.wait(10)
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # rather than to wait for ever
        try:
            os._exit(0 if works() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)
    go.set()
    busy.join()
    pool.resize(1)
    assert status == 0


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "two", "", "1025", "99999", pytest.param("9" * 5000, id="9..."), "\N{FULLWIDTH DIGIT TWO}"],
)
def test_a_number_of_threads_that_is_none_is_told(monkeypatch, text):
    monkeypatch.setenv("MINIGRAD_NUM_THREADS", text)
    with pytest.raises(
        ValueError, match="MINIGRAD_NUM_THREADS='.*expected an integer from 1 to 1024"
    ) as told:
        available_threads()
    assert repr(text)[:20] in str(told.value)
    assert len(str(told.value)) < 110


@pytest.mark.parametrize(("text", "threads"), [("1", 1), ("3", 3), ("0012", 12), ("1024", 1024)])
def test_the_number_of_threads_can_be_set(monkeypatch, text, threads):
    monkeypatch.setenv("MINIGRAD_NUM_THREADS", text)
    assert available_threads() == threads


def test_the_number_of_threads_is_that_of_the_cores_otherwise(monkeypatch):
    monkeypatch.delenv("MINIGRAD_NUM_THREADS", raising=False)
    assert 1 <= available_threads() <= (os.cpu_count() or 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(5000), raising=False)
    assert available_threads() == 1024


@pytest.mark.parametrize("possible", [0, 1, 3])
def test_fewer_threads_do_the_work_if_the_system_starts_no_more(monkeypatch, possible):
    pool, start, started, done = Pool(6), threading.Thread.start, [], []

    def limited(thread):
        if len(started) == possible:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    for _ in range(2):
        pool.run(lambda s: (time.sleep(0.01), done.append(s.start)), parallel.even(16, 16))
    assert sorted(done) == sorted([*range(16)] * 2)
    assert pool.threads == possible + 1
    pool.resize(1)  # waits for those that were started
    assert not any(thread.is_alive() for thread in started)


def test_no_more_threads_are_started_than_there_are_slices():
    before = sum(thread.name.startswith("minigrad") for thread in threading.enumerate())
    pool = Pool(1024)
    pool.run(lambda s: None, parallel.even(4, 4))
    assert sum(thread.name.startswith("minigrad") for thread in threading.enumerate()) <= before + 3
    assert pool.threads == 1024
    pool.resize(1)


def test_scratch_memory_is_used_again_and_grows():
    scratch = Scratch()
    first = scratch.get("a", (10,), np.float64)
    assert np.shares_memory(first, scratch.get("a", (5,), np.float32))
    assert not np.shares_memory(first, scratch.get("b", (5,), np.float32))
    assert scratch.get("a", (3, 100), np.float32).shape == (3, 100)


def test_every_product_of_the_engine_holds_blas_to_one_thread(monkeypatch):
    multiply, seen = np.matmul, []

    def watched(*arguments, **options):
        seen.append(blas_threads())
        return multiply(*arguments, **options)

    monkeypatch.setattr(np, "matmul", watched)
    monkeypatch.setitem(backend._backends, "cpu", CPUBackend())  # NumPy's forms
    x = mg.tensor(np.ones((4, 8, 9, 9), np.float32), requires_grad=True)
    for layer in (mg.nn.Conv2d(8, 8, 3), mg.nn.ConvTranspose2d(8, 8, 3)):
        layer(x).sum().backward()
    rows = x.reshape(4, -1)
    (rows @ rows.transpose()).sum().backward()
    (x @ x).sum().backward()
    assert len(seen) >= 12
    assert {n for threads in seen for n in threads} == {1}


def test_a_large_use_of_scratch_memory_is_not_kept():
    scratch = Scratch()
    large = scratch.get("a", (MAX_CACHED_BYTES + 1,), np.uint8)
    assert not np.shares_memory(large, scratch.get("a", (MAX_CACHED_BYTES + 1,), np.uint8))


def test_a_helper_that_comes_late_holds_no_array():
    pool, begun, go = Pool(2), threading.Event(), threading.Event()
    busy = threading.Thread(target=pool.run, args=(lambda s: (begun.set(), go.wait(10)), [slice(0, 1)] * 2))
    busy.start()
    assert begun.wait(10)
    array = np.ones(10)
    held = weakref.ref(array)
    pool.run(lambda s, array=array: array.sum(), [slice(0, 1)] * 4)  # all by this thread: the helper waits
    del array
    try:
        assert held() is None
    finally:
        go.set()
        busy.join()
        pool.resize(1)


@pytest.mark.parametrize("known", [True, False])
def test_an_interrupt_on_the_way_in_leaves_the_door_open(monkeypatch, known):
    held = SingleThreadedBLAS()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    before = blas_threads()
    with monkeypatch.context() as patch:
        patch.setattr(held, "_known", known)
        patch.setattr(held, "_libraries", [blas.Library(interrupted, interrupted) for _ in held._libraries])
        patch.setattr(held._controller, "limit", interrupted)
        with pytest.raises(KeyboardInterrupt), held:
            pass
    assert blas_threads() == before
    entered = []

    def enter():
        if held._lock.acquire(timeout=5):
            held._lock.release()
            with held:
                entered.append(set(blas_threads()))

    other = threading.Thread(target=enter)
    other.start()
    other.join()
    assert entered == [{1}]


@pytest.mark.parametrize("known", [True, False])
def test_an_interrupt_before_blas_is_held_puts_nothing_back(monkeypatch, known):
    if not known:
        monkeypatch.setattr(blas, "_openblas", lambda info: None)
    held, put_back = SingleThreadedBLAS(), []
    with held:  # an earlier time, of which something is remembered
        pass

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    if known:
        libraries = [blas.Library(interrupted, put_back.append)] * len(held._libraries)
        monkeypatch.setattr(held, "_libraries", libraries)
        held._before = [7] * len(libraries)
    else:
        monkeypatch.setattr(type(held._limit), "restore_original_limits", lambda self: put_back.append(self))
        monkeypatch.setattr(held._controller, "limit", interrupted)
    with pytest.raises(KeyboardInterrupt), held:
        raise AssertionError
    assert put_back == []


@pytest.mark.parametrize("threads", [1, 2])
def test_a_failure_holds_none_of_the_work_once_it_is_handled(threads):
    pool, array = parallel.Pool(threads), np.zeros(10)
    gone = weakref.ref(array)

    def fail(s, array=array):
        raise ZeroDivisionError

    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError) as caught:
            pool.run_products(fail, parallel.even(8, 8))
        del array, fail, caught
        pool.resize(1)
        assert gone() is None
    finally:
        gc.enable()
