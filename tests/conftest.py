"""Which devices a test runs on.

A module of tests that says `EVERY_DEVICE = True` runs twice: with the CPU as the default device, and with
the GPU. The second runs are marked `gpu`; where there is no CuPy or no GPU they are skipped, and counted at
the end. What is about the CPU itself (its threads, NumPy's memory) is marked `cpu_only`, with the reason, and
has no second run.

A test marked `every_form` runs once more with NumPy's forms, and once with the reference forms, in place of
the C kernels on the CPU.

A test that calls the C kernels is marked `native`. Where MINIGRAD_NATIVE is 0 or there is no C compiler,
it is skipped and counted. Where there is a compiler and yet no kernels, it fails, and says why there are
none.

What looks at a page in a browser is marked `browser`. Where there is no Chromium, or nothing to drive it by,
it is skipped and counted likewise.

What takes minutes is marked `slow`, and only runs where `-m` asks for it.
"""

import importlib.util
import os
import shutil
import sys
import threading

import pytest
from forms import FORMS, using

import minigrad as mg
from minigrad import backend
from minigrad.backend.cpu import compiler


def _why_no_gpu():
    try:
        backend.get("gpu")
    except (ImportError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _why_no_browser():
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    missing += ["selenium"] if importlib.util.find_spec("selenium") is None else []
    return f"no {' and no '.join(missing)}" if missing else ""


def _why_no_kernels():
    if os.environ.get("MINIGRAD_NATIVE") == "0":
        return "MINIGRAD_NATIVE=0"
    if os.name != "posix":
        return "they need a POSIX system"
    found = "CC" in os.environ or any(map(shutil.which, compiler.NAMES))
    return "" if found else "no C compiler"


# By the marker of tests that need something of the machine: why they can't run, "" where they can.
WHY_NOT = {"gpu": _why_no_gpu(), "browser": _why_no_browser(), "native": _why_no_kernels()}


def pytest_generate_tests(metafunc):
    devices = ["cpu"]
    if metafunc.definition.get_closest_marker("every_form"):
        # Without the C kernels, NumPy's forms are what the CPU computes by.
        devices += ["reference"] if WHY_NOT["native"] else ["numpy", "reference"]
    if getattr(metafunc.module, "EVERY_DEVICE", False):
        devices.append(pytest.param("gpu", marks=pytest.mark.gpu))
    if len(devices) > 1:
        metafunc.parametrize("default_device", devices, indirect=True)


@pytest.fixture(autouse=True)
def default_device(request):
    """The device that tensors and layers of this test are on where it names none."""
    device = getattr(request, "param", "cpu")
    if device in FORMS:
        with using(device):
            yield "cpu"
        return
    mg.set_default_device(device)
    yield device
    mg.set_default_device("cpu")


@pytest.fixture
def at_once():
    """`at_once(work, count)` calls work(0), ..., work(count - 1) in threads that take turns all the time."""
    interval = sys.getswitchinterval()

    def run(work, count):
        wrong = []

        def watched(number):
            try:
                work(number)
            except Exception as error:  # a thread's own would be a warning, not a failure
                wrong.append(error)

        threads = [threading.Thread(target=watched, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []

    sys.setswitchinterval(1e-6)
    yield run
    sys.setswitchinterval(interval)


def _is_left_out(item):
    if item.get_closest_marker("slow") and "slow" not in item.config.option.markexpr:
        return True
    elsewhere = item.get_closest_marker("gpu") or _device(item) == "reference"
    return elsewhere and item.get_closest_marker("cpu_only")


def _device(item):
    callspec = getattr(item, "callspec", None)
    return callspec and callspec.params.get("default_device")


def pytest_collection_modifyitems(config, items):
    left_out = [item for item in items if _is_left_out(item)]
    items[:] = [item for item in items if not _is_left_out(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        for marker, why in WHY_NOT.items():
            if why and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"no {marker} ({why})"))


def pytest_runtest_setup(item):
    if item.get_closest_marker("native") and not (status := backend.cpu_kernels()).compiled:
        pytest.fail(f"there is a C compiler, but there are no C kernels: {status.reason}", pytrace=False)


def pytest_terminal_summary(terminalreporter):
    def count(marker, *outcomes):
        reports = (r for outcome in outcomes for r in terminalreporter.getreports(outcome))
        # A marker is a keyword of its tests, which any process's reports have. (So no test may be called so.)
        return sum(marker in r.keywords for r in reports)

    for marker, name in (("gpu", "GPU"), ("browser", "browser"), ("native", "C kernels'")):
        skipped, ran = count(marker, "skipped"), count(marker, "passed", "failed")
        if skipped:
            terminalreporter.write_line(f"{name} tests: NOT RUN ({skipped}): {WHY_NOT[marker]}")
        elif ran:
            terminalreporter.write_line(f"{name} tests: run ({ran})")
