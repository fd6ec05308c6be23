"""Which devices a test runs on.

A module of tests that says `EVERY_DEVICE = True` runs twice: with the CPU as the default device, and with the
GPU. The second runs are marked `gpu`; where there is no CuPy or no GPU they are skipped, and counted at the end.
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


def pytest_collection_modifyitems(items):
    if WHY_NO_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=f"no GPU ({WHY_NO_GPU})"))


def pytest_terminal_summary(terminalreporter):
    ran = [r for r in terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
           if "gpu" in r.keywords]  # fmt: skip
    skipped = [r for r in terminalreporter.getreports("skipped") if "gpu" in r.keywords]
    if skipped:
        terminalreporter.write_line(f"GPU tests: NOT RUN ({len(skipped)}): {WHY_NO_GPU}")
    elif ran:
        terminalreporter.write_line(f"GPU tests: run ({len(ran)})")
