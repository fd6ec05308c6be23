"""The list of a step's launches: complete for every recipe, and the page that shows one."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from counting import LAUNCHES, PRODUCTS, counter
from drawing import DARK
from matplotlib import rc_context
from PIL import Image

import minigrad as mg
from dcgan import launches as command
from dcgan import presets
from dcgan.describe import launches
from dcgan.errors import UserError
from dcgan.steps import RULES
from minigrad import backend
from minigrad.inspect import Launch, Launches
from minigrad.inspect.names import Names

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "how_a_step_is_captured.md"
gpu = pytest.mark.gpu


def recipe(name):
    narrow = {"ngf": 8, "ndf": 8} if name in ("flowers", "pytorch") else {}
    return presets.get(name, batch_size=4, **narrow)


@functools.cache
def one_step(name):
    """The list of a step of a recipe, and the launches and products that were counted meanwhile."""
    preset, count, counted = recipe(name), counter(LAUNCHES, PRODUCTS) or (lambda: np.zeros(2, int)), []
    rule = RULES[preset.step]

    def step(gan, real):
        before = count()
        result = rule(gan, real)
        counted.extend((count() - before).tolist())
        return result

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RULES, preset.step, step)
        return launches.watch(preset).launches, counted


@gpu
@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_launch_and_product_of_a_step_is_listed(name):
    if counter(LAUNCHES, PRODUCTS) is None:
        pytest.skip("a real GPU: launches are counted only by the stand-in for one")
    found, counted = one_step(name)
    products = sum(each.is_product for each in found)
    assert counted == [len(found) - products, products]


@gpu
@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_layer_with_parameters_is_in_the_list(name):
    found, _ = one_step(name)
    placed = {(each.layer.split(" ")[0], each.phase) for each in found}
    for network in launches.NETWORKS:
        for i, layer in enumerate(getattr(recipe(name), network)):
            if type(layer).__name__ in ("Dense", "Conv", "ConvTranspose", "BatchNorm"):
                assert {(f"{network}.{i}", phase) for phase in ("forward", "backward")} <= placed
        assert (network, "step") in placed


@gpu
def test_the_operations_of_flux_by_hand():
    """Two generator's passes of 128 images; D on 256 and on 128; and the gradients that are wanted."""
    found = command_output().splitlines()
    products = [line for line in found if "cuBLAS" in line]
    n = 128
    g = [n * 100 * 12544, n * 49 * 256 * 3200, n * 49 * 128 * 1024, n * 196 * 64 * 16]
    d = [n * 196 * 16 * 64, n * 49 * 1024 * 128, n * 6272]  # of 128 images
    forward = 2 * sum(g) + 3 * sum(d)
    # D's half: the gradients of the weights, for 256 images, and of what D's layers but the first read. G's
    # half: through D to the images, then both gradients of G's layers, but for that of z.
    backward = 2 * (sum(d) + d[1] + d[2]) + sum(d) + 2 * sum(g) - g[0]
    assert sum(float(line.split()[-1].replace(",", "")) for line in products) == pytest.approx(
        2 * (forward + backward) / 1e6, abs=0.001 * len(products)
    )


# -- the command and the page -----------------------------------------------------------------------------


def command_output():
    """The output of the command for flux. The stand-in for a GPU computes nothing for it: only counts."""
    done = subprocess.run(
        [sys.executable, "-m", "dcgan.launches"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "FAKECUDA_NOEXEC": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def page():
    return PAGE.read_text(encoding="utf-8")


@gpu
def test_the_page_shows_what_the_command_writes():
    (block,) = re.findall(r"^```\n( +operation .*?)^```$", page(), re.MULTILINE | re.DOTALL)
    assert block == command_output(), f"put what dcgan launches writes into {PAGE.name}"


@pytest.mark.parametrize("device", ["cpu", pytest.param("gpu", marks=gpu)])
def test_the_code_of_the_page_is_captured_on_a_gpu(device, capsys):
    (code,) = re.findall(r"^```python\n(.*?)^```$", page(), re.MULTILINE | re.DOTALL)
    mg.set_default_device(device)
    names = {}
    exec(code, names)
    assert capsys.readouterr().out == f"{device == 'gpu'}\n"
    assert names["loss"].device == device
    assert names["optimizer"].steps == [5] * 4


def test_what_the_page_points_at_is_there():
    for target in re.findall(r"\]\(([^)]+)\)", page()):
        assert (PAGE.parent / target).exists()
    files = re.findall(r"`((?:backend/)?[a-z_]+\.py|[a-z_]+\.cu)`", page())
    assert len(files) >= 5
    for name in files:
        assert list((ROOT / "minigrad").rglob(Path(name).name))


@gpu
def test_the_command_writes_a_list_and_a_picture(tmp_path, capsys):
    out, picture = tmp_path / "list.txt", tmp_path / "list.png"
    options = ("--preset", "tensorflow-baseline", "--batch-size", "3")
    assert command.main([*options, "--out", str(out), "--picture", str(picture)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: ")
    with Image.open(picture) as image:
        assert image.width > image.height > 300
    assert command.main(options) == 0
    assert capsys.readouterr().out == out.read_text()
    assert "cuBLAS 3x100 @ 100x" in out.read_text()


def test_without_a_gpu_the_command_says_so(monkeypatch):
    def missing(device):
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")

    monkeypatch.setattr(backend, "get", missing)
    with pytest.raises(UserError, match=r"on a GPU only: CuPy is not installed\. To install it: pip install"):
        command.main([])


def test_a_picture_is_a_png():
    with pytest.raises(UserError, match=r"--picture list\.txt: expected a name that ends in \.png"):
        command.main(["--picture", "list.txt"])


def test_the_list_and_the_picture_are_two_files(tmp_path):
    for other in (tmp_path / "a.png", tmp_path / "none" / ".." / "a.png"):
        with pytest.raises(UserError, match=r"--picture .*a\.png: --out names the same file"):
            command.main(["--picture", str(tmp_path / "a.png"), "--out", str(other)])


def test_a_batch_of_one_is_refused_as_training_refuses_it():
    with pytest.raises(UserError, match="--batch-size 1: a BatchNorm needs two images or more"):
        command.main(["--preset", "quick", "--batch-size", "1"])


@pytest.mark.slow
def test_the_picture_shows_each_launch(tmp_path):
    made = [
        Launch("cuBLAS 2x3 @ 3x4", (), 10**6, 10**6, "generator.0 Dense(3, 4)", "dense", "forward"),
        Launch("tanh_forward<float>", (1,), 10**4, 10**2, "generator.1 Tanh()", "tanh", "forward"),
        Launch("CuPy add", (), 12, 1, "", "add", "forward"),
        Launch("adam<float>", (64, 2), 10**5, 10**4, "generator", "Adam", "step"),
    ]
    colours = []
    for shown in (made, made[:1] * 4):
        path = tmp_path / "picture.png"
        with rc_context(DARK):
            launches.save_picture(Launches(Names(None), shown), path)
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
        assert pixels[0].tolist() == [255, 255, 255]
        colours.append({tuple(p) for p in np.unique(pixels, axis=0).tolist()})
    blue, orange, grey = (31, 119, 180), (255, 127, 14), (115, 115, 115)
    assert {blue, orange, grey} <= colours[0]
    assert blue in colours[1]
