"""The trained generator of the package: @quick in the place of a run, drawn without C kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forms import using
from PIL import Image

import dcgan
from dcgan import animate, evaluate, export, interpolate, models, presets, sample, sampling, train
from dcgan.errors import UserError
from dcgan.evaluation import comparison
from dcgan.recipe.layers import BatchNorm, Dense, Reshape, Tanh
from dcgan.report import __main__ as report
from dcgan.run import checkpoint, packaged
from dcgan.run.trained import load_generator, load_run
from minigrad import backend, serialize

QUICK = Path("@quick")
ROOT = Path(dcgan.__file__).parents[1]
PICTURES = Path(__file__).parents[2] / "examples" / "pictures"  # beside the tests, not an installed copy


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """A temporary directory, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_kernels(monkeypatch):
    """Fails the test if the registered backend of the CPU, which compiles kernels, is asked for."""
    monkeypatch.setattr(backend, "_backends", {})
    monkeypatch.setattr(backend, "_factories", {"cpu": lambda: pytest.fail("the kernels were loaded")})
    monkeypatch.setattr(backend, "cpu_kernels", lambda *_: pytest.fail("the kernels were asked for"))


def other_run(path):
    """A checkpoint of another recipe: one image of 8 x 8."""
    layers = (Dense(12), BatchNorm(), Dense(64), Tanh(), Reshape(1, 8, 8))
    preset = presets.get("tensorflow-baseline", generator=layers, z_shape=(6,), image_size=8)
    parts = {"generator": models.build_generator(preset).state_dict()}
    checkpoint.save(path, preset, {"step": 7, "epoch": 2}, parts)


# -- the files -----------------------------------------------------------------------------------------


def test_the_generator_is_small_and_alone():
    assert packaged.known() == ["@quick"]
    file = packaged.file_of(QUICK)
    assert file.stat().st_size <= 3_500_000
    loaded = load_run(QUICK)
    assert loaded.packaged
    assert loaded.position["step"] > 0
    assert loaded.images.startswith("60000 images")
    with pytest.raises(UserError, match="it holds a generator alone"):
        loaded.check_whole("@quick")
    models.build_generator(loaded.preset).load_state_dict(loaded.under("generator_ema"))
    assert not checkpoint.load(file).packaged  # by another name it is a file like others


def test_its_evaluation_is_of_the_same_generator():
    loaded = load_run(QUICK)
    said = json.loads((packaged.FOLDER / "quick.json").read_text())
    assert (said["recipe"], said["step"], said["epoch"]) == (
        loaded.preset.name, loaded.position["step"], loaded.position["epoch"],
    )  # fmt: skip
    assert (said["weights"], said["statistics"]) == ("ema", loaded.preset.statistics)
    assert said["count"] == 10_000
    told = (packaged.FOLDER / "README.md").read_text()
    assert f"{said['step']:,} steps" in told
    assert f"{packaged.file_of(QUICK).stat().st_size:,} bytes" in told
    assert f"Fréchet distance {said['samples']['frechet']:.1f}" in told
    assert f"score {said['samples']['score']:.2f}" in told


def test_the_picture_of_the_first_page_is_what_a_reader_gets(place):
    assert sample.main(["@quick", "--out", "digits.png"]) == 0
    shown, drawn = (
        np.asarray(Image.open(path), np.int64) for path in (PICTURES / "digits.png", place / "digits.png")
    )
    assert np.abs(shown - drawn).max() <= 2  # another processor rounds differently


# -- names ---------------------------------------------------------------------------------------------


def test_a_file_or_folder_of_that_name_comes_first(place):
    other_run(place / "@quick")
    assert not packaged.is_named(QUICK)
    assert load_run(QUICK).preset.image_size == 8
    (place / "@quick").unlink()
    (place / "@quick").mkdir()
    other_run(place / "@quick" / checkpoint.FILE_NAME)
    assert load_run(QUICK).preset.image_size == 8
    assert evaluate.parser().parse_args(["@quick"]).run == QUICK
    assert report.parser().parse_args(["@quick"]).run == QUICK
    (place / "@quick" / checkpoint.FILE_NAME).unlink()
    with pytest.raises(UserError, match=r"no checkpoint at @quick/checkpoint.safetensors"):
        load_run(QUICK)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("@quik", r"no generator of the package is called '@quik': did you mean @quick\?$"),
        ("@QUICK", r"'@QUICK': did you mean @quick\?$"),
        ("@other", r"'@other': expected @quick$"),
        ("@", r"'@': expected @quick$"),
        ("@folder/quick", r"^no checkpoint at @folder/quick: expected a run directory or a checkpoint file$"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(name, message):
    with pytest.raises(UserError, match=message):
        sample.main([name, "--out", "x.png"])


def test_messages_name_it_as_the_user_does():
    for arguments in (["--weights", "best"], ["--weights", "last"], ["--max-memory", "1M"]):
        with pytest.raises(UserError) as told:
            sample.main(["@quick", "--out", "x.png", *arguments])
        assert "pretrained" not in str(told.value)
        assert "@quick" in str(told.value) or arguments[1] == "last"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (train, ["--resume", "@quick"]),
        (train, ["--init-from", "@quick"]),
        (animate, ["@quick"]),
        (report, ["@quick"]),
        (report, ["@none"]),
    ],
)
def test_other_commands_refuse_it_and_say_which_take_it(place, capsys, command, arguments):
    with pytest.raises(SystemExit) as end:
        command.main(arguments)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert f"{arguments[-1]!r} names a trained generator of the package" in said
    assert "which sample, interpolate, export and evaluate take" in said
    assert said.count("\n") == 1
    assert not any(place.iterdir())


# -- the commands that take it -------------------------------------------------------------------------


def test_it_is_drawn_without_kernels_and_without_a_word_of_them(place, without_kernels, monkeypatch, capsys):
    assert sample.main(["@quick", "--out", "a.png"]) == 0
    monkeypatch.setattr(sampling, "CALIBRATION_COUNT", 250)
    assert sample.main(["@quick", "--each", "one", "--count", "1", "--statistics", "recalibrated"]) == 0
    assert interpolate.main(["@quick", "--out", "b.png", "--between", "0", "1"]) == 0
    assert interpolate.main(["@quick", "--out", "c.png", "--mean", "0", "--plus", "1"]) == 0
    assert export.main(["@quick", "--out", "d.safetensors"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    step = load_run(QUICK).position["step"]
    assert f"a.png: 64 images of 28 x 28 grey in 8x8, quick after step {step}\n" in said.out
    with Image.open("a.png") as picture:
        assert np.asarray(picture).std() > 10


def test_its_onnx_file_is_made_without_kernels(place, without_kernels, capsys):
    pytest.importorskip("onnxruntime")
    assert export.main(["@quick", "--out", "g.onnx"]) == 0
    assert "onnxruntime's images differ from ours by " in capsys.readouterr().out


def test_its_pictures_are_the_same_whatever_else_the_cpu_computes_by(place):
    pictures = []
    for form in (None, "numpy", "reference"):
        arguments = ["@quick", "--out", f"{form}.png", "--seed", "3"]
        if form is None:
            assert sample.main(arguments) == 0
        else:
            with using(form):
                assert sample.main(arguments) == 0
        pictures.append((place / f"{form}.png").read_bytes())
    assert pictures[0] == pictures[1] == pictures[2]
    generator = load_generator(load_run(QUICK))
    assert all(weight.backend is backend.numpy_forms() for weight in generator.parameters())


def test_its_export_draws_the_same_digits_as_a_run(place, monkeypatch):
    monkeypatch.setattr(sampling, "CALIBRATION_COUNT", 250)
    assert export.main(["@quick", "--out", "quick.safetensors"]) == 0
    (made, about), (ours, said) = map(serialize.read, (place / "quick.safetensors", packaged.file_of(QUICK)))
    assert made.keys() == ours.keys()
    assert all(np.array_equal(made[key], ours[key]) for key in ours)
    # The versions are those of this environment, and the checksum is over them.
    for metadata in (about, said):
        del metadata["versions"], metadata["checksum"]
    assert about == said
    images = []
    for run, out in (("@quick", "a"), ("quick.safetensors", "b")):
        assert sample.main([run, "--each", out, "--count", "1"]) == 0
        with Image.open(f"{out}/0.png") as image:
            images.append(np.asarray(image).astype(int))
    assert np.abs(images[0] - images[1]).max() <= 1


def test_the_program_draws_it_with_few_imports_and_compiles_nothing(place):
    code = (
        "import sys; from dcgan.__main__ import main; main(['sample', '@quick', '--out', 'digits.png']); "
        "print(*(name for name in ('matplotlib', 'av', 'tqdm', 'onnx', 'onnxruntime', 'tensorboardX') "
        "if name in sys.modules))"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    assert first.startswith("digits.png: 64 images")
    assert second == ""
    assert [path.name for path in place.iterdir()] == ["digits.png"]


# -- evaluate ------------------------------------------------------------------------------------------


def test_evaluate_needs_a_place_for_its_files(place):
    with pytest.raises(UserError, match=r"@quick: expected --out DIR: where to write evaluation.json and"):
        evaluate.main(["@quick"])
    assert not any(place.iterdir())


def test_evaluate_compares_it_with_the_digits_whatever_lies_around(place, monkeypatch):
    (place / "config.json").write_text(json.dumps({"data": "elsewhere"}))
    (place / "checkpoint.safetensors").write_bytes(b"")
    seen = []

    def real_images(data, *_, **__):
        seen.append(data)
        raise UserError("enough")

    monkeypatch.setattr(comparison, "real_images", real_images)
    with pytest.raises(UserError, match="enough"):
        evaluate.main(["@quick", "--out", "measured"])
    assert seen == ["mnist"]


def test_evaluate_writes_into_the_directory_that_is_named(place, capsys):
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28)).astype(np.uint8)
    np.save("images.npy", images)
    folder = {path: path.stat().st_mtime_ns for path in packaged.FOLDER.iterdir()}
    assert evaluate.main(["@quick", "--out", "new/measured", "--data", "images.npy", "--count", "100"]) == 0
    said = json.loads((place / "new/measured/evaluation.json").read_text())
    assert (said["recipe"], said["weights"], said["count"]) == ("quick", "ema", 100)
    assert (place / "new/measured/evaluation.png").stat().st_size > 1000
    assert {path: path.stat().st_mtime_ns for path in packaged.FOLDER.iterdir()} == folder
    assert "pretrained" not in capsys.readouterr().out
