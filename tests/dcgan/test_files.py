"""Pictures and checkpoints: what they hold, and that none is ever half-written."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import minigrad as mg
from dcgan import animations, pictures, presets
from dcgan.errors import UserError
from dcgan.files.destination import check_ending, writing
from dcgan.run import checkpoint
from dcgan.run.ema import WeightAverage
from dcgan.sampling import generate
from dcgan.steps import StepLine
from minigrad import nn, serialize
from minigrad.serialize import write_whole


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 20), st.sampled_from([1, 3]))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_grid_shows_each_image_in_its_place(rows, columns, n, channels):
    images = np.random.default_rng(0).integers(100, 256, (n, 5, 7, channels)).astype(np.uint8)
    grid = pictures.grid(images, rows, columns, gap=3)
    assert grid.shape == (rows * 8 + 3, columns * 10 + 3, channels)
    for i in range(rows * columns):
        y, x = 3 + 8 * (i // columns), 3 + 10 * (i % columns)
        tile = grid[y : y + 5, x : x + 7]
        assert np.array_equal(tile, images[i]) if i < n else np.all(tile == tile[0, 0])


def test_bytes_are_rounded_and_bounded():
    images = np.array([-2.0, -1.0, 0.0, 1.0, 1.5, np.nan], np.float32).reshape(1, 1, 1, 6)
    assert pictures.to_bytes(images).reshape(-1).tolist() == [0, 0, 128, 255, 255, 128]


def test_every_byte_of_an_image_survives_training_scale():
    values = np.arange(256, dtype=np.uint8)
    scaled = values.astype(np.float32) * np.float32(2 / 255) - np.float32(1)
    assert np.array_equal(pictures.to_bytes(scaled.reshape(1, 1, 1, 256)).reshape(-1), values)


def test_small_pictures_are_enlarged_by_whole_pixels():
    picture = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    large = pictures.enlarged(picture)
    times = pictures.MAX_GRID_WIDTH // 4
    assert large.shape == (3 * times, 4 * times, 1)
    assert np.array_equal(large[::times, ::times], picture)
    assert np.array_equal(pictures.enlarged(large[:600, :600]), large[:600, :600])


@pytest.mark.parametrize("channels", [1, 3])
def test_png_and_gif_files_hold_what_was_given(tmp_path, channels):
    frames = [np.full((20, 30, channels), 40 * i, np.uint8) for i in range(5)]
    pictures.save_png(frames[2], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as png:
        assert np.array_equal(np.asarray(png).reshape(20, 30, channels), frames[2])
    animations.save_animation(frames, tmp_path / "a.gif", [200, 200, 200, 200, 2000])
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 5
        for i in range(5):
            gif.seek(i)
            assert abs(int(np.asarray(gif.convert("L"))[0, 0]) - 40 * i) <= (3 if channels == 1 else 0)
            assert gif.info["duration"] == (2000 if i == 4 else 200)


def test_curves_are_drawn(tmp_path):
    line = {"loss_d": 1.0, "loss_g": 0.5, "d_x": 0.7, "d_g_z1": 0.2, "d_g_z2": 0.1}
    for n in (1, 500):
        pictures.save_losses([StepLine(i + 1, **line) for i in range(n)], tmp_path / "losses.png")
        with Image.open(tmp_path / "losses.png") as png:
            pixels = np.asarray(png.convert("RGB"))
        assert pixels.shape == (715, 990, 3)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    monkeypatch.setattr(serialize.os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]
    assert path.read_bytes() == b"old"


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / checkpoint.FILE_NAME
    tensors = {"w": mg.tensor([1.0, 2.0]), "n": np.arange(3)}
    checkpoint.save(
        path,
        presets.get("quick"),
        {"step": 4, "epoch": 1},
        {"generator": tensors, "": {"fixed_z": tensors["w"]}},
    )
    return path


def test_a_checkpoint_comes_back(saved):
    for place in (saved, saved.parent):
        loaded = checkpoint.load(place)
        assert loaded.preset == presets.get("quick")
        assert loaded.position == {"step": 4, "epoch": 1}
        assert loaded.under("generator")["w"].tolist() == [1.0, 2.0]
        assert loaded.tensors.keys() == {"generator.w", "generator.n", "fixed_z"}


def test_every_flipped_byte_of_a_checkpoint_is_noticed(saved):
    content = saved.read_bytes()
    for place in range(0, len(content), 7):
        saved.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        with pytest.raises(UserError):
            checkpoint.load(saved)


def test_a_checkpoint_cut_short_is_noticed(saved):
    content = saved.read_bytes()
    for length in (0, 7, 8, 100, len(content) - 1):
        saved.write_bytes(content[:length])
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(saved)


def test_a_file_without_a_recipe_is_refused(tmp_path):
    mg.save({"w": mg.tensor([1.0])}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="damaged"):
        checkpoint.load(tmp_path / "w.safetensors")


def test_a_recipe_of_another_version_is_told(saved, monkeypatch):
    preset = presets.get("quick")
    fields = preset.to_json()
    del fields["step"]
    monkeypatch.setattr(type(preset), "to_json", lambda self: fields)
    checkpoint.save(saved, preset, {"step": 1, "epoch": 1}, {})
    with pytest.raises(UserError, match="no recipe that this version knows"):
        checkpoint.load(saved)


def test_averaged_weights_follow_the_formula():
    source = nn.BatchNorm(1)
    mean = WeightAverage(source, 0.9)
    average = mean.average
    expected = {"weight": 1.0, "running_mean": 0.0}
    for step in range(1, 200):
        source.weight.data = np.array([math.sin(step)], np.float32)
        source.running_mean.data = np.array([float(step)], np.float32)
        mean.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected["weight"] = decay * expected["weight"] + (1 - decay) * math.sin(step)
        expected["running_mean"] = decay * expected["running_mean"] + (1 - decay) * step
    assert average.weight.item() == pytest.approx(expected["weight"], rel=1e-5)
    assert average.running_mean.item() == pytest.approx(expected["running_mean"], rel=1e-5)
    assert source.weight.item() == pytest.approx(math.sin(199))


def test_what_is_in_two_places_is_averaged_once():
    norm = nn.BatchNorm(1)
    source = nn.Sequential(norm, nn.Tanh(), norm)
    mean = WeightAverage(source, 0.9)
    assert mean.average[0] is mean.average[2]
    norm.weight.data = np.array([3.0], np.float32)
    norm.running_mean.data = np.array([5.0], np.float32)
    mean.update()
    decay = 2 / 11
    assert mean.average[2].weight.item() == pytest.approx(decay * 1.0 + (1 - decay) * 3.0)
    assert mean.average[2].running_mean.item() == pytest.approx((1 - decay) * 5.0)


def test_sampling_leaves_the_generator_as_it_was():
    mg.manual_seed(0)
    generator = nn.Sequential(nn.Dense(3, 4), nn.BatchNorm(4))
    generator.train()
    z = mg.tensor(np.random.default_rng(0).standard_normal((10, 3)), "float32")
    before = {k: v.numpy().copy() for k, v in generator.state_dict().items()}
    by_batch = generate(generator, z, "batch")
    running = generate(generator, z, "running", batch_size=3)
    assert generator.training
    assert generator[1].training
    assert all(np.array_equal(v.numpy(), before[k]) for k, v in generator.state_dict().items())
    assert np.abs(by_batch.mean(0)).max() < 1e-6
    assert np.allclose(running, generate(generator, z, "running"), atol=1e-6)
    assert not np.allclose(by_batch, running)


# -- files that an option names ----------------------------------------------------------------------


def test_folders_made_for_a_file_go_again_if_it_is_not_written(tmp_path):
    (tmp_path / "mine").mkdir()
    path = tmp_path / "mine" / "new" / "er" / "a.png"
    with pytest.raises(ValueError, match="^it was there: True$"), writing("--out", path):
        raise ValueError(f"it was there: {path.parent.is_dir()}")
    with pytest.raises(UserError, match=r"^--out .*a\.png: No space left$"), writing("--out", path):
        raise OSError(28, "No space left")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["mine"]
    with pytest.raises(ValueError, match="^None$"), writing("--out", path):
        raise ValueError(path.with_name("other").touch())
    assert path.with_name("other").exists()  # a folder with something in it stays


@pytest.mark.parametrize(
    ("endings", "said"), [([".a"], ".a"), ([".a", ".b"], ".a or .b"), ([".a", ".b", ".c"], ".a, .b or .c")]
)
def test_endings_are_named(endings, said):
    check_ending("--out", Path("x/y.A"), endings)
    with pytest.raises(UserError, match=rf"^--out x/y\.d: expected a name that ends in {said}$"):
        check_ending("--out", Path("x/y.d"), endings)
