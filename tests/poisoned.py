"""Memory that nobody may read before it is written, with guard zones around it that nobody may write."""

from contextlib import contextmanager
from unittest import mock

import numpy as np

from minigrad.backend.cpu import arena

GUARD = 64  # bytes


@contextmanager
def guarded():
    """Memory that is asked for meanwhile is full of NaN, between guard zones that are whole at the end."""
    made, empty = [], np.empty

    def with_guards(shape, dtype=float, **_):
        dtype = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        raw = empty(size + 2 * GUARD, np.uint8)
        raw[:] = 0xA5
        inner = raw[GUARD : GUARD + size]
        inner[:] = 0xFF
        made.append(raw)
        return inner.view(dtype).reshape(shape)

    with mock.patch.object(np, "empty", with_guards), mock.patch.object(arena, "MIN_BLOCK", 1 << 60):
        yield
    assert made
    for raw in made:
        assert (raw[:GUARD] == 0xA5).all(), "written before an array"
        assert (raw[-GUARD:] == 0xA5).all(), "written behind an array"
