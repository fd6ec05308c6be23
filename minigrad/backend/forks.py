"""Locks and forks.

A forked process has one thread, the one that forked. A lock that another thread held at that moment would
stay locked in it for ever. So a fork waits for the locks: they are taken before it, one after the other, and
given back on both sides.
"""

import itertools
import os
import threading
import weakref
from typing import Any

LOCK_TIMEOUT = 1.0  # seconds to wait for one lock: the thread that holds it may wait for the one that forks

_numbers = itertools.count()
_known: "weakref.WeakValueDictionary[int, AtFork]" = weakref.WeakValueDictionary()
_forking = threading.RLock()  # held while the locks are; a signal's handler may fork again meanwhile
_under_way: "list[list[AtFork]]" = []  # for each fork, the objects whose `before_fork` was called


class AtFork:
    """An object whose methods are called at each fork of the process, for as long as it exists.

    Attributes:
        fork_order: a fork takes the locks in this order. A thread that holds one must not wait for one of a
            lower order, or the fork and the thread could wait for each other.
    """

    fork_order = 0

    def call_at_fork(self) -> None:
        """Have the methods below called from now on."""
        _known[next(_numbers)] = self

    def before_fork(self) -> None:
        """Take the lock, in the thread that forks."""

    def after_fork(self, in_child: bool) -> None:
        """Give it back, in the same thread of either process."""


class Lock(AtFork):
    """A lock that a fork waits for. The thread that holds it may take it again.

    If a fork has waited for LOCK_TIMEOUT in vain, the child gets a new lock.

    Args:
        fork_order: see `AtFork`.
    """

    def __init__(self, fork_order: int) -> None:
        self.fork_order = fork_order
        self._lock = threading.RLock()
        self._got: list[bool] = []
        self.call_at_fork()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def before_fork(self) -> None:
        self._got.append(False)
        self._got[-1] = self._lock.acquire(timeout=LOCK_TIMEOUT)

    def after_fork(self, in_child: bool) -> None:
        if self._got.pop():
            self._lock.release()
        elif in_child:
            self._lock = threading.RLock()
            self.start_anew()

    def start_anew(self) -> None:
        """Put in order what the lock guards, in a child; a thread of the parent still held it at the fork."""


def _before() -> None:
    """Take all locks."""
    _forking.acquire()
    called: list[AtFork] = []
    _under_way.append(called)
    interrupted: BaseException | None = None
    known = [known for reference in _known.valuerefs() if (known := reference()) is not None]
    for one in sorted(known, key=lambda one: one.fork_order):
        called.append(one)
        try:
            one.before_fork()
        except BaseException as error:  # Python reports it, and forks nevertheless
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _after(in_child: bool) -> None:
    """Give them back, the last first."""
    for one in reversed(_under_way.pop()):
        one.after_fork(in_child)
    _forking.release()


def _register(**hooks: Any) -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


_register(
    before=_before,
    after_in_parent=lambda: _after(in_child=False),
    after_in_child=lambda: _after(in_child=True),
)
