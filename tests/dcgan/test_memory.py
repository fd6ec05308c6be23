"""Memory does not grow as a run goes on, and a graph goes without the garbage collector."""

import gc
import resource
import sys

import pytest

from dcgan import presets
from dcgan.benchmark.ours import our_step
from minigrad.ops import Operation


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def live_operations():
    # isinstance reads `__class__`, which raises an error on a weak proxy whose object is gone.
    return sum(issubclass(type(thing), Operation) for thing in gc.get_objects())


@pytest.mark.parametrize("name", ["quick", "tensorflow-baseline", "flux"])
def test_nothing_of_a_step_is_left_without_the_collector(no_collector, name):
    step = our_step(presets.get(name, batch_size=4))
    step()
    assert live_operations() == 0


def test_the_resident_size_is_flat(no_collector):
    step = our_step(presets.get("tensorflow-baseline", batch_size=8))
    for _ in range(50):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        step()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < (2**20 if sys.platform == "darwin" else 2**10)  # less than a MiB, in bytes or KiB
