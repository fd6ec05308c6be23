"""A generator in a file of its own: other programs make the same images of it, and so does this one."""

import importlib.abc
import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import (
    console,
    export,
    exporting,
    latent,
    models,
    onnx_model,
    pictures,
    presets,
    sample,
    sampling,
    train,
)
from dcgan.errors import UserError
from dcgan.recipe import preset as preset_fields
from dcgan.recipe.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)
from dcgan.report import __main__ as report
from dcgan.run import checkpoint
from minigrad import nn, serialize

TINY = (Dense(12), BatchNorm(), LeakyReLU(0.3), Dense(64), Tanh(), Reshape(1, 8, 8))
# Every layer that a recipe can name; "same" where the kernel is smaller than the stride, and where it is odd.
EVERY_LAYER = (
    Dense(18, bias=False), BatchNorm(eps=1e-3), Dropout(0.5), ReLU(), Reshape(2, 3, 3),
    ConvTranspose(3, 2, 3, "same"), BatchNorm(), LeakyReLU(0.1),  # 9 x 9
    ConvTranspose(2, 5, 2, "same", bias=False), Sigmoid(),  # 18 x 18
    Conv(4, 4, 3, "same"), Conv(2, 3, 1, 1, bias=False), Conv(3, 2, 2, "valid"),  # 6, 6, 3
    Flatten(), Dense(64), Tanh(), Reshape(1, 8, 8), Dropout(0.1),
)  # fmt: skip


def small(**overrides):
    fields = {"generator": TINY, "z_shape": (6,), "image_size": 8, "statistics": "running"}
    return presets.get("tensorflow-baseline", **{**fields, **overrides})


def lively(network, seed=0):
    """Weights that keep numbers at a size of about 1, and running statistics unlike those at the start."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, value in network.state_dict().items():
        shape = value.shape
        if name.endswith("running_var"):
            made = rng.uniform(0.5, 2, shape)
        elif len(shape) > 1:
            made = rng.normal(0, 1 / np.sqrt(np.prod(shape) / max(shape[:2])), shape)
        else:
            made = rng.normal(0.3, 0.3, shape)
        state[name] = made.astype(np.float32)
    network.load_state_dict(state)
    return network


def written(directory, preset, **seeds):
    """A run's checkpoint, with a part for every keyword."""
    directory.mkdir(exist_ok=True)
    parts = {part: lively(models.build(preset)[0], seed).state_dict() for part, seed in seeds.items()}
    checkpoint.save(directory / checkpoint.FILE_NAME, preset, {"step": 7, "epoch": 2}, parts)
    return directory


def drawn(path, z):
    """What onnxruntime makes of z."""
    session = pytest.importorskip("onnxruntime").InferenceSession(
        path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    return session.run(["images"], {"z": z})[0]


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A temporary directory, which is the current one, with a run in it: `run`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "CALIBRATION_COUNT", 500)
    written(tmp_path / "run", small(), generator=0)
    return tmp_path


RECIPES = [
    *((name, {}) for name in presets.PRESETS),
    ("pytorch", {"image_size": 32, "channels": 1, "ngf": 16}),
    ("pytorch", {"image_size": 8, "nz": 5, "ngf": 8}),
    ("flowers", {"image_size": 64, "channels": 4, "ngf": 8}),
    ("flowers", {"image_size": 8, "ngf": 8}),
    ("tensorflow-baseline", {"generator": EVERY_LAYER, "z_shape": (6,), "image_size": 8}),
]


@pytest.mark.parametrize(("name", "overrides"), RECIPES)
def test_onnxruntime_makes_the_same_images(onnx, place, capsys, name, overrides):
    preset = presets.get(name, **overrides)
    written(place / "other", preset, generator=1, generator_ema=1)
    assert export.main(["other", "--out", "g.onnx", "--statistics", "running"]) == 0
    assert re.search(r"differ from ours by \S+ at most", capsys.readouterr().out)
    generator = lively(models.build(preset)[0], 1)
    for count in (1, 5):
        z = latent.draw(preset, count, mg.Generator(3))
        ours = sampling.generate(generator, z, "running")
        theirs = drawn(place / "g.onnx", z.numpy())
        assert theirs.shape == ours.shape
        assert theirs.dtype == np.float32
        assert np.abs(theirs - ours).max() <= 1e-5
        assert ours.std() > 0.05  # not all alike


def test_arguments_of_convolutions_that_no_recipe_uses(onnx, place):
    """Sides that differ, output_padding and dilation."""
    preset = small(z_shape=(2, 5, 7))
    sides = ((0, 2), (1, 0))
    network = nn.Sequential(
        nn.ConvTranspose2d(2, 3, (3, 4), (2, 3), sides, output_padding=(1, 2), dilation=(1, 2)),
        nn.ConvTranspose2d(3, 3, 2, (3, 2), "same", dilation=(1, 2)),
        nn.Conv2d(3, 2, (3, 2), (2, 1), sides, dilation=(2, 3)),
    )
    loaded = checkpoint.Checkpoint(preset, {"step": 0, "epoch": 0}, {})
    model = onnx_model.to_onnx(onnx, network, loaded, "last", "running")
    (place / "g.onnx").write_bytes(model.SerializeToString())
    z = latent.draw(preset, 3, mg.Generator(0))
    with mg.no_grad():
        ours = network(z).numpy()
    assert np.abs(drawn(place / "g.onnx", z.numpy()) - ours).max() <= 1e-5


def test_a_layer_without_an_operator_is_named(onnx):
    class Doubled(nn.Module):
        def forward(self, x):
            return x + x

    loaded = checkpoint.Checkpoint(small(), {"step": 0, "epoch": 0}, {})
    with pytest.raises(UserError, match=r"layer 1, Doubled\(\): there is no ONNX operator"):
        onnx_model.to_onnx(onnx, nn.Sequential(nn.Dense(6, 6), Doubled()), loaded, "last", "running")


def test_what_the_file_says(onnx, place):
    assert export.main(["run", "--out", "g.onnx"]) == 0
    model = onnx.load(place / "g.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert "'tensorflow-baseline' after step 7" in model.graph.doc_string
    assert "(batch, 6)" in model.graph.input[0].doc_string
    assert "-1 (black) to 1 (white)" in model.graph.output[0].doc_string
    shapes = [
        (value.name, [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim])
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [("z", ["batch", 6]), ("images", ["batch", 1, 8, 8])]
    kinds = ["Gemm", "BatchNormalization", "LeakyRelu", "Gemm", "Tanh", "Reshape"]
    assert [node.op_type for node in model.graph.node] == kinds
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    for name, value in lively(models.build(small())[0]).state_dict().items():
        assert np.array_equal(weights[name], value.numpy())


def test_the_same_run_gives_the_same_file(onnx, place):
    for name in ("a.onnx", "b.onnx"):
        assert export.main(["run", "--out", name, "--statistics", "recalibrated"]) == 0
    assert (place / "a.onnx").read_bytes() == (place / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("statistics", "arguments", "used"),
    [
        ("running", [], "running"),
        ("batch", [], "recalibrated"),
        ("running", ["--statistics", "recalibrated"], "recalibrated"),
        ("batch", ["--statistics", "running"], "running"),
    ],
)
def test_the_statistics_are_those_asked_for_or_fixed_ones_of_the_recipe(
    onnx, place, capsys, statistics, arguments, used
):
    preset = small(statistics=statistics)
    written(place / "other", preset, generator=0)
    assert export.main(["other", "--out", "g.onnx", *arguments]) == 0
    assert f"after step 7, statistics {used};" in capsys.readouterr().out
    generator, z = lively(models.build(preset)[0]), latent.draw(preset, 4, mg.Generator(0))
    running = sampling.generate(generator, z, "running")
    sampling.recalibrate(generator, preset)
    images = {"running": running, "recalibrated": sampling.generate(generator, z, "running")}
    theirs = drawn(place / "g.onnx", z.numpy())
    assert {name: np.abs(theirs - ours).max() <= 1e-5 for name, ours in images.items()} == {
        name: name == used for name in images
    }


@pytest.mark.parametrize(("arguments", "seed"), [([], 2), (["--weights", "last"], 1)])
def test_averaged_weights_are_taken_where_the_recipe_has_them(onnx, place, arguments, seed):
    preset = small(ema_decay=0.9)
    written(place / "other", preset, generator=1, generator_ema=2)
    assert export.main(["other", "--out", "g.onnx", *arguments]) == 0
    z = latent.draw(preset, 4, mg.Generator(0))
    ours = sampling.generate(lively(models.build(preset)[0], seed), z, "running")
    assert np.abs(drawn(place / "g.onnx", z.numpy()) - ours).max() <= 1e-5


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_file_that_makes_other_images_is_not_left(onnx, place, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    (place / "g.onnx").write_bytes(b"old")
    before, right = files(place), exporting.to_onnx
    other = lively(models.build(small())[0], 5)
    monkeypatch.setattr(exporting, "to_onnx", lambda onnx, generator, *about: right(onnx, other, *about))
    assert export.main(["run", "--out", "g.onnx"]) == 1
    assert re.search(r"differ from ours by \S+, more than 1e-05: nothing is written", capsys.readouterr().out)
    assert files(place) == before


def test_without_onnxruntime_the_file_is_written_and_said_to_be_unchecked(onnx, place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert export.main(["run", "--out", "new/er/g.onnx"]) == 0
    assert (
        "not checked, since onnxruntime is not installed: pip install onnxruntime\n"
        in capsys.readouterr().out
    )
    onnx.checker.check_model(onnx.load(place / "new/er/g.onnx"))


def test_without_onnx_a_line_says_what_to_install(place, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sys, "argv", ["dcgan", "run", "--out", "g.onnx"])
    with pytest.raises(SystemExit) as stop:
        console.run_command(export.main, "dcgan.export")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said == "dcgan.export: ONNX files need the package onnx: pip install onnx onnxruntime\n"
    assert not (place / "g.onnx").exists()


@pytest.fixture
def broken(monkeypatch):
    """Makes the import of a package raise an error, as one does that was built for another NumPy."""

    class Broken(importlib.abc.MetaPathFinder):
        def __init__(self, package, error):
            self.package, self.error = package, error

        def find_spec(self, name, path=None, target=None):
            if name == self.package:
                raise self.error

    def break_(package, error):
        monkeypatch.delitem(sys.modules, package, raising=False)
        monkeypatch.setattr(sys, "meta_path", [Broken(package, error), *sys.meta_path])

    return break_


FAILURES = {
    "an AttributeError": AttributeError("_ARRAY_API not found"),
    "an ImportError": ImportError("numpy.core.multiarray failed to import"),
    "something of its own missing": ModuleNotFoundError("No module named 'flatbuffers'", name="flatbuffers"),
    "a SystemError": SystemError("built for another\nPython"),
}


@pytest.mark.parametrize("what", FAILURES)
def test_an_onnxruntime_that_fails_to_be_imported_is_told_with_the_reason(onnx, place, broken, capsys, what):
    broken("onnxruntime", FAILURES[what])
    assert export.main(["run", "--out", "g.onnx"]) == 0
    said = capsys.readouterr().out
    reason = str(FAILURES[what]).replace("\n", " ")
    assert (
        f"not checked, since onnxruntime can't be imported ({type(FAILURES[what]).__name__}: {reason})"
        in said
    )
    assert "not installed" not in said
    assert (place / "g.onnx").exists()


@pytest.mark.parametrize("what", FAILURES)
def test_an_onnx_that_fails_to_be_imported_is_told_with_the_reason(place, broken, what):
    broken("onnx", FAILURES[what])
    with pytest.raises(UserError) as told:
        export.main(["run", "--out", "g.onnx"])
    reason = str(FAILURES[what]).replace("\n", " ")
    assert f"the package onnx, which can't be imported ({type(FAILURES[what]).__name__}: {reason})" in str(
        told.value
    )
    assert not (place / "g.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--out", "g.png"], r"--out g.png: expected a name that ends in .onnx or .safetensors"),
        (["nowhere", "--out", "g.onnx"], r"no checkpoint at nowhere"),
        (
            ["run", "--out", "run/checkpoint.safetensors/g.onnx"],
            r"the folder .* can't be made",
        ),
        (["run", "--out", "best.safetensors"], r"--out best.safetensors: a run's checkpoints are called so"),
        (
            ["run", "--out", "run/checkpoint.safetensors"],
            r"choose another name, such as generator.safetensors",
        ),
        (["run", "--out", "checkpoints/00000007.safetensors"], r"a run's checkpoints are called so"),
        (["run", "--out", "g.safetensors", "--weights", "ema"], r"--weights ema: this checkpoint has none"),
        (["run", "--out", "g.onnx", "--weights", "ema"], r"--weights ema: this checkpoint has none"),
        (["run", "--out", "g.onnx", "--weights", "best"], r"--weights best: there is no run/best"),
    ],
)
def test_a_mistake_leaves_nothing(onnx, place, arguments, message):
    before = files(place)
    with pytest.raises(UserError, match=message):
        export.main(arguments)
    assert files(place) == before


def test_a_full_disk_leaves_what_was_there(onnx, place, monkeypatch):
    (place / "g.onnx").write_bytes(b"old")
    before = files(place)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialize.os, "fsync", full)
    with pytest.raises(UserError, match="--out g.onnx: No space left on device"):
        export.main(["run", "--out", "g.onnx"])
    assert files(place) == before


# -- ONNX files that say how images are drawn ----------------------------------------------------------


def opened(path):
    """An ONNX file in onnxruntime, and its metadata."""
    session = pytest.importorskip("onnxruntime").InferenceSession(
        path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    return session, session.get_modelmeta().custom_metadata_map


def draw_by(said, numbers):
    """z as the metadata of an ONNX file say, drawn by a generator of NumPy."""
    shape, parameters = (4, *json.loads(said["z_shape"])), json.loads(said["z_parameters"])
    if said["z_distribution"] == "normal":
        return numbers.normal(parameters["mean"], parameters["std"], shape).astype(np.float32)
    assert said["z_distribution"] == "uniform"
    return numbers.uniform(parameters["low"], parameters["high"], shape).astype(np.float32)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_images_are_drawn_with_what_the_file_says_alone(onnx, place, distribution):
    written(place / "other", small(z_distribution=distribution), generator=0)
    assert export.main(["other", "--out", "g.onnx"]) == 0
    session, said = opened(place / "g.onnx")
    assert said["z"].startswith("Noise (batch, 6): numbers drawn independently from the ")
    z = draw_by(said, np.random.default_rng(0))
    assert session.get_inputs()[0].shape == ["batch", *json.loads(said["z_shape"])]
    (images,) = session.run(None, {session.get_inputs()[0].name: z})
    low, high = json.loads(said["images_range"])
    assert (images >= low).all()
    assert (images <= high).all()
    assert images.shape == (4, *json.loads(said["images_shape"]))
    assert said["images_layout"] == "batch, channels, height, width"
    assert said["images_colours"] == "grey"
    ours = latent.draw_array(small(z_distribution=distribution), 20_000, mg.Generator(0))
    theirs = np.concatenate([draw_by(said, np.random.default_rng(k)) for k in range(3000)])
    for measure in (np.mean, np.std, np.min, np.max):
        assert measure(theirs) == pytest.approx(measure(ours), abs=0.7 if distribution == "normal" else 0.02)
    assert theirs.std() == pytest.approx(ours.std(), rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "statistics"), [([], "running"), (["--statistics", "recalibrated"], None)]
)
def test_the_file_says_its_recipe_step_weights_and_statistics(onnx, place, arguments, statistics):
    preset = small(ema_decay=0.9, channels=1)
    written(place / "other", preset, generator=1, generator_ema=2)
    assert export.main(["other", "--out", "g.onnx", *arguments]) == 0
    _, said = opened(place / "g.onnx")
    assert type(preset).from_json(json.loads(said["recipe"])) == preset
    facts = {key: said[key] for key in ("preset", "step", "weights", "statistics")}
    assert facts == {
        "preset": preset.name, "step": "7", "weights": "ema", "statistics": statistics or "recalibrated",
    }  # fmt: skip
    assert export.main(["other", "--out", "h.onnx", "--weights", "last"]) == 0
    assert opened(place / "h.onnx")[1]["weights"] == "last"


def test_every_distribution_of_recipes_is_described():
    assert set(onnx_model.DISTRIBUTIONS) == set(preset_fields._CHOICES["z_distribution"])


@pytest.mark.parametrize("statistics", ["running", "batch"])
def test_one_image_alone_is_the_same_of_an_onnx_file_as_of_the_command(onnx, place, statistics):
    written(place / "other", small(statistics=statistics), generator=0)
    assert export.main(["other", "--out", "g.onnx"]) == 0
    assert sample.main(["other", "--each", "one", "--count", "1", "--seed", "3"]) == 0
    with Image.open(place / "one/0.png") as png:
        ours = np.asarray(png).astype(int)
    theirs = pictures.to_bytes(drawn(place / "g.onnx", np.load(place / "one/z.npy")))[0, ..., 0]
    assert np.abs(ours - theirs).max() <= 1
    assert ours.std() > 10


# -- checkpoints of a generator alone ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "prefix", "seed"),
    [
        ([], "generator_ema", 2),
        (["--weights", "last"], "generator", 1),
        (["--weights", "ema"], "generator_ema", 2),
    ],
)
def test_a_checkpoint_of_the_generator_alone_draws_as_the_run_does(place, capsys, arguments, prefix, seed):
    preset = small(ema_decay=0.9)
    written(place / "other", preset, generator=1, generator_ema=2, discriminator=3)
    assert export.main(["other", "--out", "new/g.safetensors", *arguments]) == 0
    assert "the generator alone, 0.0 MB" in capsys.readouterr().out
    loaded = checkpoint.load(place / "new/g.safetensors")
    assert loaded.preset == preset
    assert loaded.position == {"step": 7, "epoch": 2}
    expected = lively(models.build(preset)[0], seed).state_dict()
    assert loaded.tensors.keys() == {f"{prefix}.{key}" for key in expected}
    for key, value in loaded.under(prefix).items():
        assert np.array_equal(value, expected[key].numpy())
    for run, out, given in (("other", "a", arguments), ("new/g.safetensors", "b", [])):
        assert sample.main([run, "--each", out, "--count", "3", *given]) == 0
    assert files(place / "a") == files(place / "b")


def test_the_images_that_a_run_was_trained_on_are_kept(place):
    run = checkpoint.load(place / "run")
    checkpoint.save(
        place / "run/checkpoint.safetensors", run.preset, run.position, {"": run.tensors}, "9 images"
    )
    assert export.main(["run", "--out", "g.safetensors"]) == 0
    assert checkpoint.load(place / "g.safetensors").images == "9 images"


def test_a_checkpoint_holds_the_statistics_that_are_asked_for(place):
    assert export.main(["run", "--out", "a.safetensors"]) == 0
    assert export.main(["run", "--out", "b.safetensors", "--statistics", "recalibrated"]) == 0
    generator = lively(models.build(small())[0])
    sampling.recalibrate(generator, small())
    kept, measured = (checkpoint.load(place / name).tensors for name in ("a.safetensors", "b.safetensors"))
    for key, value in generator.state_dict().items():
        assert np.array_equal(measured[f"generator.{key}"], value.numpy())
        assert np.array_equal(kept[f"generator.{key}"], value.numpy()) == ("running" not in key)


def test_neither_onnx_nor_onnxruntime_is_needed_for_a_checkpoint(place, monkeypatch):
    for package in ("onnx", "onnxruntime"):
        monkeypatch.setitem(sys.modules, package, None)
    assert export.main(["run", "--out", "g.safetensors"]) == 0
    assert export.main(["g.safetensors", "--out", "h.safetensors"]) == 0
    assert (place / "g.safetensors").read_bytes() == (place / "h.safetensors").read_bytes()


REFUSED = [
    (train, ["--resume", "run/g.safetensors"], "--resume run/g.safetensors: it holds a generator alone"),
    (
        train,
        ["--init-from", "run/g.safetensors"],
        "--init-from run/g.safetensors: it holds a generator alone",
    ),
    (report, ["run/g.safetensors"], "run/g.safetensors: it holds a generator alone"),
]


@pytest.mark.parametrize(("command", "arguments", "message"), REFUSED)
def test_what_needs_the_rest_of_a_checkpoint_refuses_a_generator_alone(place, command, arguments, message):
    assert export.main(["run", "--out", "run/g.safetensors"]) == 0
    (place / "run/config.json").write_text(json.dumps({"preset": small().to_json()}))
    before = files(place)
    with pytest.raises(UserError, match=message):
        command.main(arguments)
    assert files(place) == before


def test_a_run_goes_on_from_the_checkpoint_before_a_generator_alone(place):
    assert export.main(["run", "--out", "g.safetensors"]) == 0
    (place / "run/checkpoint.safetensors").write_bytes((place / "g.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"checkpoint.safetensors: it holds a generator alone"):
        train.main(["--resume", "run"])


def test_the_file_of_quick_is_small(place):
    preset = presets.QUICK
    generator = models.build_generator(preset).state_dict()
    checkpoint.save(
        place / "quick.safetensors", preset, {"step": 1, "epoch": 1}, {"generator_ema": generator}
    )
    assert export.main(["quick.safetensors", "--out", "g.safetensors"]) == 0
    assert (place / "g.safetensors").stat().st_size < 3_500_000
