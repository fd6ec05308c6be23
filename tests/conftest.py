"""Which devices a test runs on.

A module of tests that says `EVERY_DEVICE = True` runs twice: with the CPU as the default device, and with
the GPU. The second runs are marked `gpu`; where there is no CuPy or no GPU they are skipped, and counted at
the end. What is about the CPU itself (its threads, NumPy's memory) is marked `cpu_only`, with the reason, and
has no second run.

What takes minutes is marked `slow`, and only runs where `-m` asks for it.
"""

import pytest

import minigrad as mg
from minigrad import backend


def _why_no_gpu():
    try:
        backend.get("gpu")
    except (ImportError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


WHY_NO_GPU = _why_no_gpu()
ON_GPU = set()  # the ids of the tests marked so


def pytest_generate_tests(metafunc):
    if getattr(metafunc.module, "EVERY_DEVICE", False):
        devices = ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
        metafunc.parametrize("default_device", devices, indirect=True)


@pytest.fixture(autouse=True)
def default_device(request):
    """The device that tensors and layers of this test are on where it names none."""
    device = getattr(request, "param", "cpu")
    mg.set_default_device(device)
    yield device
    mg.set_default_device("cpu")


def _is_left_out(item):
    if item.get_closest_marker("slow") and "slow" not in item.config.option.markexpr:
        return True
    return item.get_closest_marker("gpu") and item.get_closest_marker("cpu_only")


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if _is_left_out(item)]
    items[:] = [item for item in items if not _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if item.get_closest_marker("gpu"):
            ON_GPU.add(item.nodeid)
            if WHY_NO_GPU:
                item.add_marker(pytest.mark.skip(reason=f"no GPU ({WHY_NO_GPU})"))


def pytest_terminal_summary(terminalreporter):
    def count(*outcomes):
        reports = (r for outcome in outcomes for r in terminalreporter.getreports(outcome))
        return sum(r.nodeid in ON_GPU for r in reports)

    skipped, ran = count("skipped"), count("passed", "failed")
    if skipped:
        terminalreporter.write_line(f"GPU tests: NOT RUN ({skipped}): {WHY_NO_GPU}")
    elif ran:
        terminalreporter.write_line(f"GPU tests: run ({ran})")
