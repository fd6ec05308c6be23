"""What --device, --tf32 and --shadow leave behind and say in whole runs."""

import json

import numpy as np
import pytest

from dcgan import device as devices
from dcgan import train
from dcgan.data import mnist
from minigrad import backend

pytestmark = pytest.mark.usefixtures("digests")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(mnist, "images", lambda split="train": images)

    def call(*arguments, out="run"):
        code = train.main([*arguments, "--out", str(tmp_path / out)])
        return code, capsys.readouterr().out

    return call


def test_a_run_on_the_cpu_does_not_say_tf32(run, tmp_path, monkeypatch, capsys):
    def none():
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setitem(backend._factories, "gpu", none)
    monkeypatch.delitem(backend._backends, "gpu", raising=False)
    run("--preset", "quick", "--steps", "1", "--batch-size", "4", "--device", "gpu", "--tf32")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["device"], config["tf32"]) == ("cpu", False)


SMALL = ("--preset", "quick", "--steps", "2", "--batch-size", "4", "--device", "gpu")


@pytest.mark.gpu
def test_the_averaged_generator_has_a_name_too(run, monkeypatch):
    """It is the first thing that runs: the frame before the first step."""
    kind = type(backend.get("gpu"))
    right = kind.normalize
    monkeypatch.setattr(kind, "normalize", lambda self, *a: right(self, *a) * 1.01)
    code, said = run(*SMALL, "--shadow", "cpu")
    assert code == 1
    assert "BatchNorm(256): normalize, forward" in said


@pytest.mark.gpu
def test_the_free_memory_is_not_more_than_the_pool_may_take():
    import cupy

    pool = cupy.get_default_memory_pool()
    try:
        pool.set_limit(size=pool.used_bytes() + 2**20)
        assert backend.get("gpu").free_memory() <= 2**20
    finally:
        pool.set_limit(size=0)


@pytest.mark.gpu
def test_a_run_without_tf32_after_one_with_it_has_none():
    gpu = backend.get("gpu")
    a = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    try:
        devices.choose("gpu", tf32=True)
        devices.choose("gpu", tf32=False)
        product = gpu.to_numpy(gpu.matmul(gpu.asarray(a), gpu.asarray(a)))
        exact = a.astype(np.float64) @ a.astype(np.float64)
        assert np.linalg.norm(product - exact) < 1e-5 * np.linalg.norm(exact)
    finally:
        gpu.allow_tf32(False)


@pytest.mark.gpu
def test_a_picture_that_differs_is_told_with_the_steps_that_were_done(run, monkeypatch):
    kind, calls = type(backend.get("gpu")), []
    right = kind.tanh

    def wrong(self, x):
        calls.append(len(x))
        return right(self, x) * (1.01 if calls.count(64) == 3 else 1)

    # Of 64 images: the grid and the frame before step 1, and the frame after it.

    monkeypatch.setattr(kind, "tanh", wrong)
    code, said = run(*SMALL, "--shadow", "cpu", "--set", "frame_every=1")
    assert code == 1
    assert "after 1 steps" in said
