"""The machine of a benchmark: its processor, its BLAS and the versions, in JSON and for people."""

import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, machine

FOUND = {
    "processor": "A processor",
    "threads": 2,
    "kernels": "C, gcc 12.2.0",
    "versions": {"minigrad": "0.1", "numpy": "2.4", "blas": "OpenBLAS 0.3", "torch": "2.13"},
}


def test_what_is_found_has_all_that_a_figure_depends_on(monkeypatch):
    monkeypatch.setattr(machine, "processor", lambda: "A processor")
    monkeypatch.setattr(machine, "blas", lambda: "OpenBLAS 0.3")
    versions = {"minigrad": mg.__version__, "numpy": np.__version__, "blas": "OpenBLAS 0.3"}
    kernels = backend.cpu_kernels().name
    threads = backend.num_threads()
    alone = {"processor": "A processor", "threads": threads, "kernels": kernels, "versions": versions}
    assert machine.machine() == alone
    beside = machine.machine(SimpleNamespace(__version__="2.13"))
    assert beside == {**alone, "versions": {**versions, "torch": "2.13"}}


def test_a_line_says_it_to_people():
    versions = "minigrad 0.1, NumPy 2.4, OpenBLAS 0.3"
    assert (
        machine.described(FOUND)
        == f"A processor, 2 threads, {versions}, PyTorch 2.13, kernels: C, gcc 12.2.0"
    )
    alone = {name: version for name, version in FOUND["versions"].items() if name != "torch"}
    one = machine.described({**FOUND, "threads": 1, "versions": alone})
    assert one == f"A processor, 1 thread, {versions}, kernels: C, gcc 12.2.0"


@pytest.fixture
def on_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")


def test_linux_names_the_processor_in_a_file(on_linux, tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel\t\t: 6\nmodel name\t: A: B\n\nprocessor\t: 1\nmodel name\t: C\n")
    assert machine.processor(path) == "A: B"


@pytest.mark.parametrize("text", [None, "processor\t: 0\nBogoMIPS\t: 100.00\n"], ids=["none", "without it"])
def test_where_no_file_names_it_its_family_is_given(on_linux, tmp_path, text):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert machine.processor(path) == "aarch64"


def test_a_mac_names_the_processor_by_a_command(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    answers = iter([SimpleNamespace(stdout="A chip\n"), FileNotFoundError("sysctl")])

    def run(command, **_):
        assert command == ("sysctl", "-n", "machdep.cpu.brand_string")
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", run)
    assert machine.processor() == "A chip"
    assert machine.processor() == "arm64"


@pytest.fixture
def loaded(monkeypatch):
    """Sets the libraries that threadpoolctl finds."""

    def found(*libraries):
        controller = SimpleNamespace(info=lambda: [dict(zip(KEYS, one, strict=True)) for one in libraries])
        monkeypatch.setattr(
            machine, "ThreadpoolController", lambda: SimpleNamespace(select=lambda user_api: controller)
        )

    return found


KEYS = ("internal_api", "version")


def test_the_blas_is_the_first_of_the_process(loaded):
    loaded(("openblas", "0.3.31"), ("mkl", "2025.1"))
    assert machine.blas() == "OpenBLAS 0.3.31"
    loaded(("new", None))
    assert machine.blas() == "new of unknown version"


def test_a_blas_that_threadpoolctl_does_not_know_is_the_one_of_numpy_s_build(loaded, monkeypatch):
    loaded()
    built = {"Build Dependencies": {"blas": {"name": "accelerate", "version": "unknown"}}}
    monkeypatch.setattr(np, "show_config", lambda mode: built)
    assert machine.blas() == "accelerate unknown"
    monkeypatch.setattr(np, "show_config", lambda mode: {"Build Dependencies": {"blas": {}}})
    assert machine.blas() == "BLAS of unknown version"


def test_this_machine_has_a_processor_and_a_blas():
    assert machine.processor()
    name, _, version = machine.blas().partition(" ")
    assert name
    assert version
