"""Plugins: what a file registers, what a run says of it, and that nothing is run which nobody named."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from dcgan import (
    console,
    evaluate,
    interpolate,
    models,
    plugins,
    presets,
    recipe_files,
    sample,
    train,
)
from dcgan.errors import UserError
from dcgan.presets import PRESETS
from dcgan.recipe import layer, sizes, written
from dcgan.report.__main__ import main as report
from dcgan.run import checkpoint
from minigrad import nn

pytestmark = pytest.mark.usefixtures("digests")

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_parts.py"

IMPORTS = "from dcgan import plugins\n\n"
BACKEND = (
    f"{IMPORTS}from minigrad.backend import Backend\nimport numpy\nclass Own(Backend):\n    xp = numpy\n"
)
OWN = '''
import dataclasses

import numpy as np

import minigrad.functional as F
from dcgan import plugins, presets, steps
from dcgan.recipe import layers
from dcgan.recipe.layer import Layer
from minigrad import nn
from minigrad.backend import Backend


@plugins.loss("least_squares", probability=lambda d: d, formula="(l - 1)^2 for label 1, l^2 for label 0")
def least_squares(logits, label):
    return ((logits - label) ** 2).mean()


@plugins.step("twice")
def twice(gan, real):
    """D learns twice from each batch."""
    fake = gan.generator(gan.noise(len(real)))
    steps.update_discriminator(gan, real, fake.detach())
    cost_real, cost_fake, on_real, on_fake = steps.update_discriminator(gan, real, fake.detach())
    loss_g, judged = steps.update_generator(gan, fake)
    return steps.step_result(gan, cost_real + cost_fake, loss_g, on_real, on_fake, judged)


class Scaled(nn.Module):
    def __init__(self, features, start):
        super().__init__()
        self.weight = nn.Parameter(np.full(features, start, np.float32))

    def forward(self, x):
        return x * self.weight


@plugins.layer
class Scale(Layer):
    start: float = 1.0

    def parameters(self, shape):
        return shape[0]

    def output(self, shape):
        if len(shape) != 1:
            raise ValueError("expected rows")
        return shape

    def module(self, shape):
        return Scaled(shape[0], self.start)


@plugins.device("plain")
class Plain(Backend):
    xp = np


MINE = dataclasses.replace(
    presets.QUICK,
    name="mine",
    loss="least_squares",
    step="twice",
    batch_size=8,
    generator=(layers.Dense(64), Scale(0.5), layers.Tanh(), layers.Dense(784), layers.Tanh(),
               layers.Reshape(1, 28, 28)),
    discriminator=(layers.Flatten(), layers.Dense(1)),
)
'''


@pytest.fixture
def own(clean, tmp_path, monkeypatch, few_digits):
    """A plugin's file in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


def test_parts_of_ones_own_train_and_a_resumed_run_is_the_same(own, clean, capsys):
    whole = ["--preset", "own.py:MINE", "--device", "plain", "--seed", "3"]
    assert train.main([*whole, "--steps", "5", "--out", "whole"]) == 0
    assert train.main([*whole, "--steps", "2", "--out", "run"]) == 0
    assert "on the PLAIN" in capsys.readouterr().out
    clean()
    with pytest.raises(UserError, match=r"was made with the plugin 'own\.py' .*--plugin FILE"):
        train.main(["--resume", "run", "--steps", "5"])
    given = ["--plugin", "own.py"]
    assert train.main(["--resume", "run", "--steps", "5", "--device", "plain", *given]) == 0
    a, b = (Path(name, "checkpoint.safetensors").read_bytes() for name in ("run", "whole"))
    assert a == b
    assert sample.main(["run", "--out", "a.png", "--grid", "2x2", *given]) == 0
    assert interpolate.main(["run", "--out", "b.png", "--between", "0/1", "0/2", *given]) == 0
    assert report(["run", *given]) == 0
    page = Path("run/report.html").read_text()
    assert "Scaled" in page
    assert "l^2 for label 0" in " ".join(page.split())
    assert "--plugin own.py" in page


@pytest.mark.slow
def test_a_run_records_the_plugins_that_it_needs_and_no_others(own, tmp_path):
    (tmp_path / "other.py").write_text(
        "from dcgan import plugins\n\nx = plugins.step('other')(lambda gan, real: 1)\n"
    )
    train.main(["--preset", "own.py:MINE", "--plugin", "other.py", "--steps", "1", "--out", "run"])
    expected = [{"name": "own.py", "sha256": hashlib.sha256(own.read_bytes()).hexdigest()}]
    assert json.loads(Path("run/config.json").read_text())["plugins"] == expected
    metadata = mg.load_metadata("run/checkpoint.safetensors")
    assert json.loads(metadata["plugins"]) == expected
    train.main(
        ["--preset", "quick", "--plugin", "own.py", "--steps", "1", "--batch-size", "8", "--out", "plain"]
    )
    assert json.loads(Path("plain/config.json").read_text())["plugins"] == []
    train.main(
        ["--preset", "quick", "--device", "plain", "--steps", "1", "--batch-size", "8", "--out", "device"]
    )
    assert json.loads(Path("device/config.json").read_text())["plugins"] == expected
    assert json.loads(mg.load_metadata("device/checkpoint.safetensors")["plugins"]) == []


@pytest.mark.parametrize(
    "command",
    [
        lambda: sample.main(["run", "--out", "a.png"]),
        lambda: interpolate.main(["run", "--out", "a.png", "--between", "1", "2"]),
        lambda: evaluate.main(["run", "--count", "100"]),
        lambda: report(["run"]),
        lambda: train.main(["--resume", "run"]),
        lambda: train.main(["--init-from", "run"]),
        lambda: recipe_files.find("run/config.json"),
    ],
    ids=["sample", "interpolate", "evaluate", "report", "resume", "init-from", "preset"],
)
def test_a_plugin_that_only_a_run_names_is_never_run(own, clean, command):
    train.main(["--preset", "own.py:MINE", "--steps", "1", "--out", "run"])
    clean()
    own.write_text(f"raise SystemExit('it was run')\n{OWN}")
    shutil.copy(own, "run/own.py")
    with pytest.raises(plugins.PluginNeeded, match=r"plugin 'own\.py' \(SHA-256 [0-9a-f]{12}\): name"):
        command()
    assert not Path("a.png").exists()


def test_a_changed_plugin_is_told(own, clean, capsys):
    train.main(["--preset", "own.py:MINE", "--steps", "1", "--out", "run"])
    clean()
    own.write_text(f"{OWN}\n# changed\n")
    sample.main(["run", "--out", "a.png", "--grid", "1x2", "--plugin", "own.py"])
    assert "was made with another version of own.py" in capsys.readouterr().err


def test_a_killed_run_without_a_checkpoint_asks_for_its_plugin(own, clean):
    train.main(["--preset", "own.py:MINE", "--steps", "1", "--out", "run"])
    Path("run/checkpoint.safetensors").unlink()
    clean()
    with pytest.raises(plugins.PluginNeeded):
        train.main(["--resume", "run"])
    assert train.main(["--resume", "run", "--plugin", "own.py", "--device", "plain"]) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero, line 1"),
        ("x = 1\nx = = 2", "SyntaxError: .*line 2"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        (
            IMPORTS + "plugins.loss('bce', probability=abs)(pow)",
            "'bce' is one of the package already",
        ),
        (IMPORTS + "plugins.step('same_fakes')(pow)", "'same_fakes' is one of the package"),
        (BACKEND + "plugins.device('cpu')(Own)", "'cpu' is one of the package"),
        (BACKEND + "plugins.device('cuda')(Own)", "'cuda' is one of the package"),
        (IMPORTS + "plugins.device('own')(object)", "expected a subclass of Backend with an attribute xp"),
        (
            IMPORTS + "plugins.loss('own', probability=abs)(abs)",
            "expected a function of D's outputs and a label",
        ),
        (IMPORTS + "@plugins.step\ndef own(gan, real): ...", "plugins.step: expected a name, such as 'mine'"),
        (IMPORTS + "plugins.layer(int)", "expected a subclass of dcgan.recipe.layer.Layer"),
        (
            f"{IMPORTS}from dcgan.recipe.layer import Layer\n@plugins.layer\nclass Dense(Layer):\n    pass",
            "the layer 'Dense' is one of the package already",
        ),
        (b"\xff\xfe", "it can't be run"),
        ("#" * 2**20 + "\n", "bytes: expected 1048576 at most"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused(clean, tmp_path, content, message):
    path = tmp_path / "bad.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as refused:
        plugins.load(path)
    assert str(refused.value).startswith(f"--plugin {path}: ")


def test_two_plugins_do_not_take_each_others_names(clean, tmp_path):
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(
            "from dcgan import plugins\n\nplugins.step('mine')(lambda gan, real: 1)\n"
        )
    plugins.load(tmp_path / "a.py")
    plugins.load(tmp_path / "a.py")
    with pytest.raises(UserError, match=r"the step 'mine' is one of a\.py already"):
        plugins.load(tmp_path / "b.py")


def test_a_file_is_run_once_and_again_when_it_has_changed(clean, tmp_path):
    path = tmp_path / "counted.py"
    path.write_text("import sys\n\nsys.counted = getattr(sys, 'counted', 0) + 1\n")
    try:
        first = plugins.load(path)
        assert plugins.load(path) is first
        assert sys.counted == 1
        path.write_text(path.read_text() + "\n")
        assert plugins.load(path) is not first
        assert sys.counted == 2
    finally:
        del sys.counted


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return ((logits - label) ** 2).mean()", "return None", "the loss 'least_squares' returned None"),
        ("return ((logits - label) ** 2).mean()", "return logits", r"returned a tensor of shape \(8, 1\)"),
        (
            "return steps.step_result",
            "return 3 or steps.step_result",
            "the step 'twice' returned 3: expected",
        ),
        ("return ((logits - label) ** 2).mean()", "return 1 / 0", r"own\.py, line 16: ZeroDivisionError"),
        ("return Scaled(shape[0], self.start)", "return {}[0]", "its module can't be made or run: KeyError"),
        (
            "    xp = np",
            "    xp = np\n\n    def __init__(self, x): ...",
            "it can't be used: TypeError",
        ),
    ],
)
def test_what_goes_wrong_in_a_plugin_is_told_in_one_line(own, capsys, old, new, message):
    assert old in OWN
    own.write_text(OWN.replace(old, new))
    arguments = ["--preset", "own.py:MINE", "--device", "plain", "--steps", "2", "--out", "run"]
    with pytest.raises(SystemExit) as end:
        console.run_command(lambda _: train.main(arguments), "dcgan train")
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert re.fullmatch(f"dcgan train: [^\n]*{message}[^\n]*\n", said)


def test_a_renamed_plugin_is_known_by_its_content(own, clean):
    train.main(["--preset", "own.py:MINE", "--steps", "1", "--out", "run"])
    clean()
    own.rename("renamed.py")
    assert sample.main(["run", "--out", "a.png", "--grid", "1x2", "--plugin", "renamed.py"]) == 0


@pytest.mark.slow
def test_a_recipe_in_python_is_the_plugin_of_its_run(own, clean, capsys):
    train.main(["--preset", "own.py:MINE", "--steps", "1", "--device", "plain", "--out", "run"])
    clean()
    capsys.readouterr()
    assert train.main(["--resume", "run", "--preset", "own.py:MINE", "--steps", "2"]) == 0
    assert "The run was trained on plain before, and goes on on cpu" in capsys.readouterr().out
    clean()
    assert train.main(["--init-from", "run", "--preset", "own.py:MINE", "--steps", "1", "--out", "next"]) == 0


def test_two_files_of_one_name_are_refused(clean, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(f"x = {folder!r}\n")
    plugins.load(tmp_path / "a" / "own.py")
    with pytest.raises(UserError, match="is loaded, and has the same name: rename one of them"):
        plugins.load(tmp_path / "b" / "own.py")


def test_a_plugin_imports_a_file_beside_it(clean, tmp_path):
    (tmp_path / "beside_a_plugin.py").write_text("value = 7\n")
    (tmp_path / "own.py").write_text("from beside_a_plugin import value\n")
    before = list(sys.path)
    assert plugins.load(tmp_path / "own.py").value == 7
    assert sys.path == before


@pytest.mark.parametrize("value", [3, {}, ["x"], [{"name": "a"}], [{"name": 1, "sha256": "x"}], [None] * 30])
def test_a_record_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="expected a"):
        plugins.recorded(value)


def test_a_checkpoint_with_a_damaged_record_is_refused(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.plugins, "of", lambda preset: (plugins.Plugin("a" * 400, "b"),))
    path = tmp_path / "checkpoint.safetensors"
    checkpoint.save(path, PRESETS["quick"], {"step": 0, "epoch": 0}, {})
    with pytest.raises(UserError, match="does not say which plugins it needs"):
        checkpoint.load(path)


def test_a_device_of_plain_numpy_computes_as_the_cpu_does(own):
    plugins.load(own)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 2, 8, 8)).astype(np.float32)

    def gradients(device):
        mg.manual_seed(1)
        network = nn.Sequential(
            nn.Conv2d(2, 4, 4, 2, 1), nn.BatchNorm(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Dense(64, 1)
        ).to(device)
        x = mg.tensor(images, device=device)
        F.binary_cross_entropy_with_logits(network(x), 1.0).backward()
        assert {p.grad.device for p in network.parameters()} == {device}
        return [p.grad.numpy() for p in network.parameters()]

    for a, b in zip(gradients("plain"), gradients("cpu"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    here = mg.tensor([1.0, 2.0])
    there = here.to("plain")
    assert not np.shares_memory(here.data, there.data)
    with pytest.raises(ValueError, match="tensors on 'cpu' and 'plain'"):
        here + there


def test_a_layer_that_says_wrong_sizes_is_refused(clean):
    @plugins.layer
    class Silent(layer.Layer):
        def module(self, shape):
            return nn.Dense(shape[0], 3)

    @plugins.layer
    class Wide(Silent):
        def parameters(self, shape):
            return 3 * shape[0] + 3

    usual = PRESETS["tensorflow-baseline"].generator
    for kind, message in ((Silent, "its module learns 15 numbers"), (Wide, r"its module makes \(3,\)")):
        preset = presets.get("tensorflow-baseline", z_shape=(4,), generator=(kind(), *usual))
        with pytest.raises(UserError, match=f"generator, layer 0 .*{message}"):
            models.build(preset)


def test_a_kind_of_ones_own_is_written_and_read(own):
    plugins.load(own)
    scale = layer.KINDS["Scale"](0.25)
    assert written.to_text(scale) == "Scale(0.25)"
    assert written.parse("Scale(start=0.25)") == (scale,)
    assert written.from_json(json.loads(json.dumps(written.to_json(scale)))) == scale
    found = sizes.of_layers((scale,), (7,), "network")
    assert (found[0].made, found[0].parameters) == ((7,), 7)
    with pytest.raises(UserError, match="expected rows"):
        sizes.of_layers((scale,), (7, 1, 1), "network")


@pytest.mark.slow
def test_the_example_trains_and_goes_on(tmp_path):
    def dcgan(*arguments):
        command = [sys.executable, "-m", "dcgan", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path).stdout

    recipe = ["--preset", f"{EXAMPLE}:SMOOTH", "--device", "counting", "--batch-size", "8"]
    said = dcgan("train", *recipe, "--steps", "2", "--out", "smooth")
    assert f"dcgan sample smooth --out more.png --grid 8x8 --seed 1 --plugin {EXAMPLE}" in said
    assert "matrix products" in said
    assert "1 images" in dcgan("sample", "smooth", "--out", "a.png", "--grid", "1x1", "--plugin", EXAMPLE)
