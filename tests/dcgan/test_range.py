"""--range on the way from the command line and config.json to the images; and the sets that take none."""

import argparse
import gzip
import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan import arguments as options
from dcgan import evaluate, models, presets
from dcgan.data import folder, sources
from dcgan.errors import UserError
from dcgan.evaluation import comparison
from dcgan.recipe.layers import Dense, Reshape, Tanh
from dcgan.run import checkpoint
from dcgan.run.directory import RunDirectory

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
MASK = np.random.default_rng(0).integers(0, 2, (40, 4, 4)).astype(np.uint8)


def as_idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


# ---- the command line ----


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0,1", (0, 1)), ("-1,1", (-1, 1)), ("0,4095", (0, 4095)), ("-0.5,1e3", (-0.5, 1000)),
     (" 0 , 255 ", (0, 255)), ("-3,-2", (-3, -2)), ("-1e300,1e300", (-1e300, 1e300))],
)  # fmt: skip
def test_a_range_is_two_numbers(text, expected):
    assert options.value_range(text) == expected
    parser = argparse.ArgumentParser()
    options.add_range(parser)
    for arguments in (["--range", text], [f"--range={text}"]):
        assert parser.parse_args(arguments).range == expected
    assert parser.parse_args([]).range is None


@pytest.mark.parametrize(
    "text",
    ["", ",", "1", "0,", ",1", "0,1,2", "1,0", "1,1", "0,nan", "nan,1", "-inf,1", "0,inf", "0,1e301",
     "0;1", "a,b", "0,0x10", "0..1", "[0,1]"],
)  # fmt: skip
def test_what_is_no_range_is_told(text, capsys):
    with pytest.raises(argparse.ArgumentTypeError, match="expected LOW,HIGH, two finite numbers"):
        options.value_range(text)
    parser = argparse.ArgumentParser()
    options.add_range(parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args([f"--range={text}"])
    assert stop.value.code == 2
    assert (
        f"argument --range: expected LOW,HIGH, two finite numbers, the lower first, such as 0,1 or 0,4095, "
        f"got {text!r}" in capsys.readouterr().err
    )


@given(st.text("-+0123456789.,einfa_ ", max_size=12))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_text_is_a_range_or_is_told(text):
    try:
        low, high = options.value_range(text)
    except argparse.ArgumentTypeError:
        return
    assert np.isfinite(high - low)
    assert low < high


# ---- sets ----


@pytest.mark.parametrize("value_range", [(0, 1), (0, 255)])
def test_mnist_takes_no_range(few_digits, value_range):
    shown = f"{value_range[0]},{value_range[1]}"
    message = f"--range {shown} with --data mnist: its bytes go from 0 to 255; leave --range out"
    for load in (
        lambda: sources.load("mnist", 28, 1, value_range),
        lambda: comparison.real_images("mnist", presets.get("quick"), value_range=value_range),
    ):
        with pytest.raises(UserError) as told:
            load()
        assert str(told.value) == message
    assert sources.load("mnist", 28, 1).value_range is None


def test_fashion_mnist_takes_no_range_and_its_directory_does(tmp_path):
    name = f"fashion-mnist:{tmp_path}"
    (tmp_path / IMAGES).write_bytes(as_idx(MASK * np.uint8(9)))
    found = sources.load(name, 4, 1)
    assert found.value_range is None
    assert found.notes == [f"40 images of {IMAGES}, 4 x 4 grey, 0 as black, 255 as white"]
    with pytest.raises(UserError) as told:
        sources.load(name, 4, 1, (0, 9))
    assert str(told.value) == (
        f"--range 0,9 with --data {name}: its bytes go from 0 to 255; leave --range out, or name the "
        f"directory alone ({tmp_path})"
    )
    found = sources.load(str(tmp_path), 4, 1, (0, 9))
    assert found.value_range == (0, 9)
    assert np.array_equal(found.images[..., 0], MASK * np.uint8(255))


@pytest.mark.parametrize(
    "value_range", [(1, 0), (0, float("nan")), (0, float("inf")), (0,), "01", [0, "1"], 5]
)
@pytest.mark.parametrize("name", ["mnist", "d.npy"])
def test_a_range_that_is_none_is_told_whatever_it_is_for(name, value_range):
    with pytest.raises(UserError, match="^--range .*: expected "):
        sources.load(name, 4, 1, value_range)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("form", ["file", "pair", "directory"])
def test_idx_files_of_zeros_and_ones_ask_for_the_range(tmp_path, form, compressed):
    pack, ending = (gzip.compress, ".gz") if compressed else (bytes, "")
    images, labels = tmp_path / f"{IMAGES}{ending}", tmp_path / f"{LABELS}{ending}"
    images.write_bytes(pack(as_idx(MASK)))
    labels.write_bytes(pack(as_idx(MASK[:, 0, 0])))
    name = {"file": str(images), "pair": f"{images},{labels}", "directory": str(tmp_path)}[form]
    with pytest.raises(UserError) as told:
        sources.load(name, 4, 1)
    words = str(told.value)
    assert words.startswith(f"--data {name}: ")
    assert words.endswith("with --range LOW,HIGH, such as --range 0,1")
    assert ("" if form == "file" else f"{images.name}: ") + "its numbers go from 0 to 1 (uint8)" in words
    found = sources.load(name, 4, 1, (0, 1))
    assert found.value_range == (0, 1)
    assert found.notes == [f"40 images of {images.name}, 4 x 4 grey, 0 as black, 1 as white"]
    assert np.array_equal(found.images[..., 0], MASK * np.uint8(255))
    images.write_bytes(pack(as_idx(MASK * np.uint8(2))))
    found = sources.load(name, 4, 1)
    assert found.value_range == (0, 255)
    assert found.notes == [f"40 images of {images.name}, 4 x 4 grey, 0 as black, 255 as white"]
    assert np.array_equal(found.images[..., 0], MASK * np.uint8(2))


def test_a_folder_is_given_the_range_and_keeps_it(tmp_path, monkeypatch):
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    assert sources.load(str(tmp_path), 4, 1).value_range is None
    seen, read = [], folder.read
    monkeypatch.setattr(folder, "read", lambda *given_: (seen.append(given_), read(*given_))[1])
    for value_range in (None, (0.0, 4095.0)):
        assert sources.load(str(tmp_path), 4, 1, value_range).value_range == value_range
    assert seen == [(tmp_path, 4, 1, None), (tmp_path, 4, 1, (0.0, 4095.0))]


# ---- evaluation ----


class Stopped(Exception):
    """Ends an evaluation early."""


@pytest.fixture
def evaluated(tmp_path, monkeypatch, capsys):
    """Calls dcgan.evaluate on a run with a config.json, up to the judge; gives what it says of its data."""
    preset = presets.get(
        "tensorflow-baseline", generator=(Dense(784), Tanh(), Reshape(1, 28, 28)), z_shape=(10,),
        statistics="running",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    generator, _ = models.build(preset)
    checkpoint.save(
        tmp_path / checkpoint.FILE_NAME,
        preset,
        {"step": 7, "epoch": 2},
        {"generator": generator.state_dict()},
    )
    np.save("d.npy", np.random.default_rng(0).random((40, 28, 28), np.float32) * 2)
    np.save("other.npy", np.random.default_rng(0).random((40, 28, 28), np.float32))

    def stop(data):
        raise Stopped

    def call(config, *arguments):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(Stopped):
            evaluate.main([str(tmp_path), *arguments])
        return capsys.readouterr().out

    monkeypatch.setattr(comparison, "judge_of", stop)

    return call


def test_evaluation_reads_the_images_as_training_did(evaluated):
    config = {"data": "d.npy", "range": [0, 2]}
    form = "40 images of {}, 28 x 28 grey, {} as black, {} as white\n"
    assert evaluated(config) == form.format("d.npy", 0, 2)
    assert evaluated(config, "--range", "-1,4") == form.format("d.npy", -1, 4)
    other = ("--data", "other.npy")  # whose scale is its own
    assert evaluated(config, *other) == form.format("other.npy", 0, 1)
    assert evaluated(config, *other, "--range", "0,4") == form.format("other.npy", 0, 4)
    for old in ({"data": "d.npy"}, {"data": "d.npy", "range": None}):
        with pytest.raises(UserError, match=r"^--data d\.npy: .*such as --range 0,2$"):
            evaluated(old)
    with pytest.raises(UserError, match=r"^--range 0,1 with --data mnist: "):
        evaluated(config, "--data", "mnist", "--range", "0,1")


def test_real_images_are_scaled_by_the_range(tmp_path):
    images = np.random.default_rng(0).integers(0, 4096, (40, 8, 8, 3)).astype(np.uint16)
    np.save(tmp_path / "d.npy", images)
    preset = presets.get("pytorch", image_size=8, ngf=2, ndf=2)
    real = comparison.real_images(str(tmp_path / "d.npy"), preset, value_range=(0, 4095))
    found = {image.tobytes() for image in real.training}
    assert found == {np.rint(image / 4095 * 255).astype(np.uint8).tobytes() for image in images}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"range": [0, 1]}, ("mnist", (0.0, 1.0))),
        ({"data": "/d.npy", "range": [-1.0, 1.0]}, ("/d.npy", (-1.0, 1.0))),
        ({"data": "/d.npy", "range": None}, ("/d.npy", None)),
    ],
)  # fmt: skip
def test_a_config_says_the_data_and_their_range(tmp_path, config, expected):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (RunDirectory(tmp_path).data() or ("mnist", None)) == expected


@pytest.mark.parametrize(
    "value",
    ["[]", "[0]", "[0, 1, 2]", "[1, 0]", "[1, 1]", '["0", "1"]', "[false, true]", "[null, 1]", "[0, [1]]",
     "{}", '"01"', "5", "true", "[0, NaN]", "[-Infinity, 1]", "[0, 1e400]", "[0, 1e301]", f"[0, {10**400}]",
     f"[-{10**400}, {10**400}]"],
)  # fmt: skip
def test_a_config_with_a_damaged_range_is_told(tmp_path, value):
    (tmp_path / "config.json").write_text(f'{{"data": "d.npy", "range": {value}}}')
    with pytest.raises(UserError, match=r"config\.json does not say what the run was trained on: .*--data"):
        RunDirectory(tmp_path).data()
