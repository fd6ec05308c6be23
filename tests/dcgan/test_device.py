"""--device: what is said where a GPU can't be used, or is too small; and TensorFloat-32."""

import gc
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from foreign import ForeignBackend

from dcgan import device as devices
from dcgan import sample
from dcgan.errors import UserError
from minigrad import backend
from minigrad.backend.cpu import native
from minigrad.backend.environment import INSTALL_CUPY

SMALL = ("--preset", "quick", "--steps", "2", "--batch-size", "8")
INSTALL = "pip install 'cupy-cuda12x[ctk]' (CUDA 12) or pip install 'cupy-cuda13x[ctk]' (CUDA 13)"
MISSING = ModuleNotFoundError("No module named 'cupy'", name="cupy")
BROKEN = ImportError("libnvrtc.so.12: cannot open shared object file")
HALF = ModuleNotFoundError("No module named 'cupy_backends'", name="cupy_backends")
NO_GPU = RuntimeError("CuPy finds no GPU: cudaErrorNoDevice")
WHAT_IS_SAID = {
    "CuPy is missing": (MISSING, f"CuPy is not installed. Going on on the CPU. To install it: {INSTALL}"),
    "CuPy is broken": (
        BROKEN,
        f"CuPy is installed, but can't be imported ({BROKEN}). Going on on the CPU. To install it anew: "
        f"{INSTALL}",
    ),
    "half of CuPy is missing": (
        HALF,
        f"CuPy is installed, but can't be imported ({HALF}). Going on on the CPU. To install it anew: "
        f"{INSTALL}",
    ),
    "there is no GPU": (
        NO_GPU,
        f"CuPy is installed, but there is no GPU that it can use ({NO_GPU}). Going on on the CPU. With an "
        "NVIDIA GPU in this machine, look at its driver (nvidia-smi) and at CuPy's CUDA version: "
        f"{INSTALL}",
    ),
}


@pytest.fixture
def as_gpu(monkeypatch):
    """Puts something in the GPU's place: a kind of backend, or an exception that making one raises."""

    def put(what):
        def make():
            if isinstance(what, Exception):
                raise what
            return what()

        monkeypatch.setitem(backend._factories, "gpu", make)
        monkeypatch.delitem(backend._backends, "gpu", raising=False)

    before = dict(backend._backends)
    yield put
    backend._backends.clear()
    backend._backends.update(before)


class Pretended(ForeignBackend):
    """A device that says it is a GPU, with as much free memory as a test wants."""

    device = "gpu"
    free = 3 * 2**20 + 2**19
    tf32 = None

    def free_memory(self):
        return self.free

    def allow_tf32(self, allowed):
        self.tf32 = allowed


def kind_of(**attributes):
    return type("Made", (Pretended,), attributes)


# ---- the CPU's kernels ----


@pytest.fixture
def kernels(monkeypatch):
    """`kernels(status)` puts a status in place of the CPU's; nothing has been said about it."""

    def put(status, compiles=False):
        def load(sources, announce):
            if compiles:
                announce()
            return native.Loaded(None, status)

        monkeypatch.setattr(native, "_loaded", None)
        monkeypatch.setattr(native, "load", load)

    devices.tell_kernels.cache_clear()
    yield put
    devices.tell_kernels()


C = "C, gcc 12.2.0, 64-byte vectors"


def test_kernels_in_the_cache_are_used_without_a_word(kernels, capsys):
    kernels(native.KernelStatus(C, Path("kernels.so")))
    assert devices.choose("cpu") == "cpu"
    assert capsys.readouterr() == ("", "")


def test_a_compilation_is_told_before_it_begins(kernels, capsys):
    kernels(native.KernelStatus(C, Path("kernels.so")), compiles=True)
    devices.tell_kernels()
    devices.tell_kernels()
    assert capsys.readouterr() == ("", "compiling the CPU kernels, which takes some seconds\n")


@pytest.mark.parametrize("reason", ["MINIGRAD_NATIVE=0", "no C compiler was found: install gcc or clang"])
def test_that_there_are_no_kernels_is_told_once(kernels, capsys, reason):
    kernels(native.KernelStatus("NumPy", reason=reason))
    for _ in range(2):
        assert devices.choose("cpu") == "cpu"
    assert capsys.readouterr() == ("", f"warning: the CPU computes without C kernels, slower: {reason}\n")


def test_kernels_that_can_not_be_kept_are_told(kernels, capsys):
    kernels(native.KernelStatus(C, reason="others can write to /x: chmod go-w /x"))
    devices.tell_kernels()
    expected = (
        "warning: the CPU kernels are compiled anew for each command: others can write to /x: chmod go-w /x\n"
    )
    assert capsys.readouterr() == ("", expected)


def test_a_command_without_a_device_tells_of_missing_kernels(run, kernels, tmp_path, capsys):
    run(*SMALL)
    devices.tell_kernels.cache_clear()
    kernels(native.KernelStatus("NumPy", reason="a test"))
    assert sample.main([str(tmp_path / "run"), "--out", str(tmp_path / "a.png")]) == 0
    assert capsys.readouterr().err == "warning: the CPU computes without C kernels, slower: a test\n"


@pytest.mark.parametrize("value", ["2", ""])
def test_a_setting_of_the_kernels_that_is_none_is_told(tmp_path, value):
    command = [sys.executable, "-m", "dcgan.train", *SMALL, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "MINIGRAD_NATIVE": value}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    expected = f"MINIGRAD_NATIVE={value!r}: expected 0 (NumPy's forms) or 1 (C kernels)"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"dcgan train: {expected}\n")


# ---- which device ----


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize(("error", "said"), WHAT_IS_SAID.values(), ids=WHAT_IS_SAID)
def test_what_is_missing_is_told_once_and_the_cpu_goes_on(as_gpu, capsys, error, said, tf32):
    as_gpu(error)
    assert devices.choose("gpu", tf32) == "cpu"
    assert capsys.readouterr() == ("", f"warning: --device gpu: {said}\n")


def test_other_mistakes_of_a_backend_are_not_taken_for_a_missing_gpu(as_gpu, capsys):
    as_gpu(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        devices.choose("gpu")
    assert capsys.readouterr().err == ""


def test_a_device_that_can_be_used_is_taken_without_a_word(as_gpu, capsys):
    as_gpu(Pretended)
    assert devices.choose("cpu") == "cpu"
    assert devices.choose("gpu") == "gpu"
    assert not backend.get("gpu").tf32
    assert capsys.readouterr() == ("", "")


def test_tf32_is_for_a_gpu_alone(as_gpu, capsys):
    as_gpu(Pretended)
    with pytest.raises(
        UserError, match=r"^--tf32: the CPU has no TensorFloat-32; it goes with --device gpu$"
    ):
        devices.choose("cpu", tf32=True)
    assert devices.choose("gpu", tf32=True) == "gpu"
    assert backend.get("gpu").tf32 is True
    assert capsys.readouterr() == ("", "")


def test_the_cpu_itself_has_no_tf32():
    backend.get("cpu").allow_tf32(False)
    with pytest.raises(ValueError, match="'cpu' has no TensorFloat-32"):
        backend.get("cpu").allow_tf32(True)


def test_a_cpu_that_can_not_be_used_as_asked_is_a_users_mistake(as_gpu, monkeypatch):
    as_gpu(Pretended)
    monkeypatch.setenv("MINIGRAD_NUM_THREADS", "none")
    backend._backends.pop("cpu", None)
    for name in ("cpu", "gpu"):
        with pytest.raises(UserError, match=r"^MINIGRAD_NUM_THREADS='none': expected an integer"):
            devices.choose(name)


def test_the_command_tells_a_mistaken_tf32_before_it_makes_anything(run, tmp_path):
    with pytest.raises(UserError, match="--tf32: the CPU has no TensorFloat-32"):
        run(*SMALL, "--tf32")
    assert not (tmp_path / "run").exists()


def test_a_shadow_needs_another_device(run, tmp_path):
    with pytest.raises(UserError, match=r"^--shadow cpu: it needs another device to look at: --device gpu, "):
        run(*SMALL, "--shadow", "cpu")
    assert not (tmp_path / "run").exists()


def test_without_a_gpu_there_is_nothing_to_shadow(run, tmp_path, as_gpu, capsys):
    as_gpu(MISSING)
    with pytest.raises(UserError, match="--shadow cpu: it needs another device to look at"):
        run(*SMALL, "--device", "gpu", "--shadow", "cpu")
    assert "CuPy is not installed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_mistaken_shadow_ends_the_command_with_2(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "dcgan.train", *SMALL, "--shadow", "cpu", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dcgan train: --shadow cpu: it needs another device")
    assert not out.exists()


@pytest.mark.parametrize("what", ["gpu", "foreign"])
def test_a_shadow_is_the_cpu_s_alone(run, capsys, what):
    with pytest.raises(SystemExit) as stop:
        run(*SMALL, "--shadow", what)
    assert stop.value.code == 2
    assert "--shadow" in capsys.readouterr().err


# ---- enough memory ----

ASKED = "Out of memory allocating 6,422,528 bytes (allocated so far: 512 bytes)."


def test_a_gpu_that_is_too_small_is_told_with_what_was_asked_and_what_is_free(as_gpu):
    as_gpu(Pretended)
    cause = MemoryError(ASKED)
    with pytest.raises(UserError) as caught, devices.enough_memory("gpu", 96):
        raise cause
    assert str(caught.value) == (
        f"the memory of the GPU is too small for this: {ASKED} 4 MiB are free. "
        "Use a smaller --batch-size (it is 96), or end what else uses the GPU"
    )
    assert caught.value.__cause__ is cause


@pytest.mark.parametrize(
    ("free", "said"),
    [(2**20, "1 MiB"), (0, "0 MiB"), (12_345 * 2**20, "12,345 MiB"), (None, None)],
)
def test_the_free_memory_is_told_where_it_is_known(as_gpu, free, said):
    as_gpu(kind_of(free=free))
    with pytest.raises(UserError) as caught, devices.enough_memory("gpu", 7):
        raise MemoryError("none left.")
    left = f" {said} are free." if said else ""
    assert f"too small for this: none left.{left} Use a smaller --batch-size (it is 7)" in str(caught.value)


def test_an_error_that_the_device_knows_to_be_about_memory_counts_too(as_gpu):
    as_gpu(kind_of(is_out_of_memory=lambda self, error: "full" in str(error)))
    with pytest.raises(UserError, match="too small for this: it is full"), devices.enough_memory("gpu", 7):
        raise RuntimeError("it is full")


@pytest.mark.parametrize(
    "error", [RuntimeError("backward a second time"), ValueError("full"), KeyError("full")], ids=repr
)
def test_errors_that_are_not_about_memory_pass(as_gpu, error):
    as_gpu(Pretended)
    with pytest.raises(type(error)) as caught, devices.enough_memory("gpu", 7):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [MemoryError("none left"), RuntimeError("MemoryAllocation")], ids=repr)
def test_on_the_cpu_every_error_passes(error):
    with pytest.raises(type(error)) as caught, devices.enough_memory("cpu", 7):
        raise error
    assert caught.value is error


def test_where_all_goes_well_nothing_is_done(as_gpu):
    as_gpu(Pretended)
    done = []
    with devices.enough_memory("gpu", 7):
        done.append(True)
    assert done == [True]


# ---- on a GPU ----


@pytest.fixture
def gpu():
    device = backend.get("gpu")
    yield device
    device.allow_tf32(False)


def error_of_a_product(gpu):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64, 200)), rng.standard_normal((200, 48))
    product = gpu.matmul(*(gpu.asarray(factor.astype(np.float32)) for factor in (a, b)))
    return np.linalg.norm(gpu.to_numpy(product) - a @ b) / np.linalg.norm(a @ b)


@pytest.mark.gpu
def test_tf32_rounds_the_factors_of_products_and_can_be_taken_back(gpu):
    assert error_of_a_product(gpu) < 1e-6
    gpu.allow_tf32(True)
    assert 1e-4 < error_of_a_product(gpu) < 1e-3
    gpu.allow_tf32(False)
    assert error_of_a_product(gpu) < 1e-6


@pytest.mark.gpu
def test_the_command_s_tf32_reaches_the_products(gpu, capsys):
    assert devices.choose("gpu") == "gpu"
    assert error_of_a_product(gpu) < 1e-6
    assert devices.choose("gpu", tf32=True) == "gpu"
    assert error_of_a_product(gpu) > 1e-4
    assert capsys.readouterr() == ("", "")


@pytest.mark.gpu
def test_float64_is_never_rounded(gpu):
    gpu.allow_tf32(True)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((64, 200)), rng.standard_normal((200, 48))
    product = gpu.to_numpy(gpu.matmul(gpu.asarray(a), gpu.asarray(b)))
    assert np.linalg.norm(product - a @ b) < 1e-13 * np.linalg.norm(a @ b)


@pytest.mark.gpu
def test_the_library_s_own_errors_about_memory_are_known(gpu):
    from cupy.cuda import cublas
    from cupy.cuda.memory import OutOfMemoryError
    from cupy.cuda.runtime import CUDARuntimeError

    assert all(
        map(gpu.is_out_of_memory, (OutOfMemoryError(8, 8), CUDARuntimeError(2), cublas.CUBLASError(3)))
    )
    others = (CUDARuntimeError(700), cublas.CUBLASError(13), RuntimeError("CuPy finds no GPU"))
    assert not any(map(gpu.is_out_of_memory, others))


@pytest.mark.gpu
def test_the_free_memory_holds_what_the_pool_would_give_again(gpu):
    """A large array, beside which it does not count what the driver rounds up or another process takes."""
    import cupy

    size = 2**28
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    before = gpu.free_memory()
    array = cupy.empty(size, np.uint8)
    assert gpu.free_memory() < before - size / 2
    del array
    assert pool.free_bytes() >= size
    assert gpu.free_memory() > before - size / 2
    pool.free_all_blocks()


@pytest.mark.gpu
def test_a_run_that_does_not_fit_ends_with_a_users_mistake(gpu, run):
    import cupy

    pool = cupy.get_default_memory_pool()
    try:
        gc.collect()  # what an earlier test left must not make room later
        pool.free_all_blocks()
        pool.set_limit(size=pool.total_bytes() + 2**18)
        with pytest.raises(UserError, match=r"^the memory of the GPU is too small for this: Out of memory"):
            run(*SMALL, "--device", "gpu")
    finally:
        pool.set_limit(size=0)
    assert run(*SMALL, "--device", "gpu", out="again")[0] == 0


@pytest.mark.gpu
def test_the_command_ends_with_2_and_without_a_traceback_where_the_memory_is_too_small(tmp_path):
    command = [sys.executable, "-m", "dcgan.train", "--preset", "quick", "--batch-size", "300"]
    done = subprocess.run(
        [*command, "--device", "gpu", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env={**os.environ, "CUPY_GPU_MEMORY_LIMIT": "30000000"},
    )  # fmt: skip
    assert done.returncode == 2
    assert re.fullmatch(
        r"dcgan train: the memory of the GPU is too small for this: Out of memory allocating [\d,]+ bytes .*"
        r"[\d,]+ MiB are free\. Use a smaller --batch-size \(it is 300\), or end what else uses the GPU\n",
        done.stderr,
    )
    assert "on the GPU" in done.stdout


@pytest.mark.gpu
def test_a_run_says_which_device_it_is_on(gpu, run, tmp_path):
    code, said = run(*SMALL, "--device", "gpu")
    assert code == 0
    assert "2 steps of 8, on the GPU, each step one CUDA graph, seed 0" in said
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["device"], config["tf32"], config["graph"]) == ("gpu", False, True)


def test_the_packages_of_the_hint_are_those_of_the_extras():
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    named = [extras[name][0].partition(">")[0] for name in ("gpu", "gpu-cuda13")]
    assert re.findall(r"'(.*?)'", INSTALL_CUPY) == named
