"""The counts that the stand-in for a GPU keeps; a real GPU keeps none."""

import ctypes

import numpy as np
import pytest

# The places of its counts.
LAUNCHES, TO_DEVICE, TO_HOST, PRODUCTS, WAITS, ALLOCATIONS, GRAPHS = 0, 1, 2, 4, 5, 6, 7


def counter(*places):
    """A function that gives these counts so far; None on a real GPU, which nobody counts for."""
    try:
        library = ctypes.CDLL("libfakecuda.so")
    except OSError:
        return None
    library.fakecuda_count.restype = ctypes.c_longlong
    return lambda: np.array([library.fakecuda_count(place) for place in places])


def required_counter(*places):
    """The same, for a test of nothing but counts, which a real GPU therefore skips."""
    found = counter(*places)
    if found is None:
        pytest.skip("a real GPU: launches and copies are counted only by the stand-in for one")
    return found
