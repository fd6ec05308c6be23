"""The CUDA sources: that each says what it is, is listed whole, and compiles for the GPUs of today."""

import re
from importlib import resources

import pytest

from minigrad.backend.gpu import kernels
from minigrad.backend.gpu.kernels import load

ARCHITECTURES = ["75", "80", "90"]  # Turing (T4), Ampere (A100), Hopper (H100)


def header(name):
    """The comment that a source opens with, as one line."""
    lines = []
    for line in load.source(name).splitlines():
        if not line.startswith("//"):
            break
        lines.append(line.removeprefix("//").strip())
    return " ".join(lines)


def test_every_source_is_listed():
    files = {f.name.removesuffix(".cu") for f in resources.files(kernels).iterdir() if f.name.endswith(".cu")}
    assert files == set(load.SOURCES)


@pytest.mark.parametrize("name", load.SOURCES)
def test_every_kernel_is_listed(name):
    assert set(re.findall(r"__global__ void (\w+)\(", load.source(name))) == set(load.SOURCES[name])


@pytest.mark.parametrize("name", load.SOURCES)
@pytest.mark.parametrize(
    "wanted", [r"^\w.{30,}\.", r"(M|m)ust equal (the )?Backend", "Launch: ", "Bytes: ", "Operations: "]
)
def test_every_source_opens_with_what_it_is(name, wanted):
    assert re.search(wanted, header(name))


def compiled(name, *options):
    """The compiled program of a source, to be destroyed, and its instances by their lowered names."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(load.source(name), f"{name}.cu", [], [])
    for instance in load.instances(name):
        nvrtc.addNameExpression(program, instance)
    try:
        nvrtc.compileProgram(program, (*load.OPTIONS, *options))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    lowered = [nvrtc.getLoweredName(program, instance) for instance in load.instances(name)]
    return program, [text if isinstance(text, str) else text.decode() for text in lowered]


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", load.SOURCES)
def test_every_instance_compiles(name, architecture):
    from cupy.cuda import nvrtc

    program, lowered = compiled(name, f"--gpu-architecture=compute_{architecture}")
    code = nvrtc.getPTX(program)
    nvrtc.destroyProgram(program)
    code = code if isinstance(code, str) else code.decode()
    for entry in lowered:
        assert re.search(rf"\.entry {re.escape(entry)}\(", code)


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", load.SOURCES)
def test_no_instance_spills_registers(name, architecture):
    from cupy.cuda import nvrtc

    program, lowered = compiled(name, f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v")
    said = nvrtc.getProgramLog(program)
    nvrtc.destroyProgram(program)
    for entry in lowered:
        used = said[said.index(f"Function properties for {entry}\n") :]
        assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in used.splitlines()[1]
