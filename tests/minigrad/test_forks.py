"""A forked process never waits for a thread that only its parent has."""

import os
import re
import signal
import threading
import weakref
from pathlib import Path

import forks as stress
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

import dcgan
import minigrad as mg
from minigrad import backend, figures
from minigrad.backend import forks
from minigrad.backend.cpu.arena import Arena
from minigrad.backend.cpu.parallel import Pool

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
LARGE = (300, 300)


def in_fork(check):
    """Fork; whether `check()` is true in the child within 10 seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)  # rather than to wait for ever
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def computes():
    """Whether all that has a lock works: products, memory, a figure."""
    a = mg.tensor(np.ones(LARGE, np.float32))
    with figures._drawing:
        return float((a @ a + a).numpy().sum()) == 301.0 * 300 * 300


def locks():
    cpu = backend.get("cpu")
    return {"arena": cpu.arena, "blas": cpu.pool.single_threaded_blas, "drawing": figures._drawing}


class Holder(threading.Thread):
    """Holds a lock until `let_go(holder)` returns."""

    def __init__(self, lock, let_go):
        super().__init__()
        self.lock, self.let_go = lock, let_go
        self.holding, self.done, self.leaving = threading.Event(), threading.Event(), False
        self.start()
        assert self.holding.wait(10)

    def run(self):
        with self.lock:
            self.holding.set()
            self.let_go(self)
            self.leaving = True


@pytest.mark.parametrize("name", ["arena", "blas", "drawing"])
def test_a_fork_waits_for_the_thread_that_holds_a_lock(monkeypatch, name):
    monkeypatch.setattr(forks, "LOCK_TIMEOUT", 10.0)
    lock = locks()[name]

    def until_a_fork_waits(holder):
        while not any(lock in called for called in forks._under_way):
            holder.done.wait(0.001)

    holder = Holder(lock, until_a_fork_waits)
    assert in_fork(lambda: holder.leaving and computes())
    holder.join()
    assert computes()


@pytest.mark.parametrize("name", ["arena", "blas", "drawing"])
def test_a_fork_does_not_wait_for_ever_and_its_child_has_a_new_lock(monkeypatch, name):
    monkeypatch.setattr(forks, "LOCK_TIMEOUT", 0.01)
    lock = locks()[name]
    holder = Holder(lock, lambda holder: holder.done.wait(10))
    assert in_fork(lambda: not holder.leaving and computes())
    assert not lock._lock.acquire(blocking=False)  # the parent's is still held
    holder.done.set()
    holder.join()
    assert computes()


@pytest.mark.parametrize("name", ["arena", "blas", "drawing"])
def test_a_thread_may_fork_while_it_holds_a_lock(name):
    lock = locks()[name]

    def another_thread_gets_it():
        got = []

        def take():
            got.append(lock._lock.acquire(timeout=5))
            lock._lock.release()

        other = threading.Thread(target=take)
        other.start()
        other.join()
        return got == [True]

    with lock:
        child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            os._exit(0 if computes() and another_thread_gets_it() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert another_thread_gets_it()


def test_blas_has_its_threads_in_a_child_that_was_forked_in_the_middle_of_a_product(monkeypatch):
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    monkeypatch.setattr(forks, "LOCK_TIMEOUT", 0.01)
    with threadpool_limits(2, "blas"):
        before = threads()
        holder = Holder(locks()["blas"], lambda holder: holder.done.wait(10))
        assert threads() == {1}
        assert in_fork(lambda: threads() == before)
        holder.done.set()
        holder.join()
        assert threads() == before


def test_an_arena_that_a_dead_thread_left_half_done_goes_on_with_new_memory(monkeypatch):
    monkeypatch.setattr(forks, "LOCK_TIMEOUT", 0.01)
    arena = Arena()
    kept, gone = arena.empty(LARGE, np.float32), arena.empty(LARGE, np.float32)
    kept[...] = 1

    def halfway(holder):
        arena._busy = True
        arena._free.take(1 << 16)
        holder.done.wait(10)
        arena._busy = False

    def goes_on():
        nonlocal gone
        del gone  # its place is known to the new list of what is free
        arrays = [arena.empty(LARGE, np.float32) for _ in range(3)]
        for i, array in enumerate(arrays):
            array[...] = i
        right = all((array == i).all() for i, array in enumerate(arrays)) and (kept == 1).all()
        return right and all(array.base is not None for array in arrays)

    holder = Holder(arena, halfway)
    assert in_fork(goes_on)
    holder.done.set()
    holder.join()


def test_a_fork_in_the_middle_of_the_arenas_work_goes_on_in_both(monkeypatch):
    """So does a signal's handler that forks."""
    arena, grow, children = Arena(), Arena._grow, []

    def interrupted(own, size):
        children.append(os.fork())
        if children[-1] == 0:
            signal.alarm(10)
        grow(own, size)

    monkeypatch.setattr(Arena, "_grow", interrupted)
    array = arena.empty(LARGE, np.float32)
    array[...] = 2
    right = (array == 2).all() and arena.empty(LARGE, np.float32).base is not None
    if children[-1] == 0:
        os._exit(0 if right else 1)
    assert right
    assert os.waitpid(children[-1], 0)[1] == 0


def test_a_computation_that_was_shared_with_the_parents_threads_ends_with_an_error_in_the_child():
    """A signal's handler may fork in the middle of one, and return there."""
    pool, main = Pool(2), threading.current_thread()
    helping, go, done, children = threading.Event(), threading.Event(), [], []

    def work(piece):
        if threading.current_thread() is not main:
            helping.set()
            go.wait(10)
        elif not children:
            assert helping.wait(10)
            children.append(os.fork())
            if children[-1] == 0:
                signal.alarm(10)
            go.set()
        done.append(piece)

    def run():
        pool.run(work, [slice(i, i + 1) for i in range(4)])

    error = None
    try:
        run()
    except RuntimeError as told:
        error = str(told)
    if children[-1] == 0:
        children.append(None)
        done.clear()
        run_again = threading.Barrier(2)  # no thread passes it alone
        pool.run(lambda _: run_again.wait(5), [slice(0, 1)] * 2)
        os._exit(0 if error is not None and "compute it again" in error else 1)
    assert os.waitpid(children[-1], 0)[1] == 0
    assert error is None
    assert len(done) == 4
    pool.resize(1)


def test_forks_of_several_threads_at_once(at_once):
    def fork(_):
        for _ in range(5):
            assert in_fork(computes)

    at_once(fork, 3)
    assert forks._under_way == []


def test_a_fork_takes_locks_in_their_order_and_gives_them_back_in_the_other():
    """Who has BLAS may ask for memory, so a fork that had memory first would wait for it."""
    done = []

    class Noted(forks.AtFork):
        def __init__(self, fork_order):
            self.fork_order = fork_order
            self.call_at_fork()

        def before_fork(self):
            done.append(self.fork_order)

        def after_fork(self, in_child):
            done.append(-self.fork_order)

    noted = [Noted(fork_order) for fork_order in (3, 1, 2)]
    assert in_fork(lambda: done == [1, 2, 3, -3, -2, -1])
    assert done == [1, 2, 3, -3, -2, -1]
    found = locks()
    assert found["drawing"].fork_order < found["blas"].fork_order < found["arena"].fork_order
    del noted


def test_a_problem_of_one_lock_leaves_no_other_taken(monkeypatch):
    class Interrupted(forks.Lock):
        def before_fork(self):
            super().before_fork()
            raise KeyboardInterrupt

    first = Interrupted(fork_order=-1)
    told = []
    monkeypatch.setattr("sys.unraisablehook", lambda problem: told.append(problem.exc_type))
    assert in_fork(computes)
    assert told == [KeyboardInterrupt]
    assert forks._under_way == []
    assert first._got == []


@pytest.mark.parametrize("make", [Arena, lambda: Pool(2), lambda: forks.Lock(0)])
def test_what_is_told_of_forks_may_go(make):
    made = make()
    reference = weakref.ref(made)
    assert any(known() is made for known in forks._known.valuerefs())
    del made
    assert reference() is None


def test_every_lock_is_one_that_forks_wait_for():
    """Others are made for one computation: in a child that was not forked in it, nobody waits for them."""
    found = {
        (path.name, call)
        for package in (mg, dcgan)
        for path in Path(package.__file__).parent.rglob("*.py")
        for call in re.findall(
            r"\b(R?Lock|Condition|Semaphore|Barrier|cached_property)\b(?=\(|\n)", path.read_text()
        )
    }
    assert found == {
        ("forks.py", "RLock"),
        ("forks.py", "Lock"),  # the class
        ("arena.py", "Lock"),  # the class
        ("native.py", "Lock"),
        ("blas.py", "Lock"),
        ("figures.py", "Lock"),
        ("budget.py", "Condition"),  # of threads that a command waits for
        ("archive.py", "Lock"),  # likewise, while one archive is read
    }


@pytest.mark.slow
def test_no_child_of_computing_threads_hangs():
    found = stress.run(forks=250, threads=3, patience=20.0)
    assert (found["hung"], found["other results"]) == (0, 0)
    assert found["rounds in the parent"] > 250
