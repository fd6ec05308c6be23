"""Images out of a trained generator: by seed or noise, alone or together, between each other, over time."""

import itertools
import math
import re
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from video import read_mp4

import minigrad as mg
from dcgan import animate, console, interpolate, latent, models, pace, pictures, presets, sample, sampling
from dcgan.api import generator
from dcgan.errors import UserError
from dcgan.recipe.layers import BatchNorm, Dense, Flatten, Reshape, Tanh
from dcgan.run import checkpoint
from minigrad import backend, nn, serialize

pytestmark = pytest.mark.usefixtures("digests")

few = settings(max_examples=25, deadline=None, derandomize=True)
NUMBERS = 6  # of noise
TWO_NORMS = (Dense(12), BatchNorm(), Tanh(), Dense(64), BatchNorm(), Tanh(), Reshape(1, 8, 8))


def small(**overrides):
    """A recipe whose generator has two BatchNorms and makes images of 8 x 8, at once."""
    fields = {"generator": TWO_NORMS, "z_shape": (NUMBERS,), "image_size": 8, "statistics": "running"}
    return presets.get("tensorflow-baseline", **{**fields, **overrides})


def lively(preset, seed):
    """A generator whose weights and running statistics are far from those that it starts with."""
    mg.manual_seed(seed)
    generator, _ = models.build(preset)
    rng = np.random.default_rng(seed)
    state = {}
    for name, value in generator.state_dict().items():
        kept = value.numpy()
        if name.endswith("running_var"):
            state[name] = rng.uniform(0.5, 2, kept.shape).astype(np.float32)
        elif kept.ndim == 2:
            state[name] = rng.normal(0, 0.5, kept.shape).astype(np.float32)
        else:
            state[name] = rng.normal(0.3, 0.3, kept.shape).astype(np.float32)
    generator.load_state_dict(state)
    return generator


def written(directory, preset, name=checkpoint.FILE_NAME, seed=0, averaged=None):
    """A checkpoint of such a generator, and maybe of averaged weights, as training leaves it."""
    directory.mkdir(exist_ok=True)
    parts = {"generator": lively(preset, seed).state_dict()}
    if averaged is not None:
        parts["generator_ema"] = lively(preset, averaged).state_dict()
    checkpoint.save(directory / name, preset, {"step": 7, "epoch": 2}, parts)
    return directory


@pytest.fixture(autouse=True)
def few_to_calibrate(monkeypatch):
    """10,000 z are for one test, below."""
    monkeypatch.setattr(sampling, "CALIBRATION_COUNT", 500)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A temporary directory, which is the current one, with a run in it: `run`."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "run", small())
    return tmp_path


def read(path):
    with Image.open(path) as png:
        pixels = np.asarray(png)
    return pixels.reshape(*pixels.shape[:2], -1)


def each(directory):
    """The single images that --each left, in order."""
    return np.stack([read(path) for path in sorted(directory.glob("*.png"))])


def drawn(place, *arguments, out="each"):
    """The images that dcgan.sample makes of the run."""
    assert sample.main([str(place / "run"), "--each", str(place / out), *arguments]) == 0
    return each(place / out)


def differ(a, b):
    """By how many grey levels two pictures differ at most: one is rounding."""
    assert a.shape == b.shape
    return np.abs(a.astype(int) - b.astype(int)).max()


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def tiles(picture, rows, columns, size=8):
    """The images of a grid, whose pixels are enlarged, row by row; and nothing but dark around them."""
    times = picture.shape[0] // (rows * (size + 2) + 2)
    grid = picture[::times, ::times]
    assert picture.shape[:2] == tuple(times * (n * (size + 2) + 2) for n in (rows, columns))
    assert np.array_equal(grid.repeat(times, axis=0).repeat(times, axis=1), picture)
    corners = itertools.product(range(rows), range(columns))
    return np.stack([grid[2 + r * (size + 2) :, 2 + c * (size + 2) :][:size, :size] for r, c in corners])


# -- what BatchNorm uses ---------------------------------------------------------------------------


@given(
    st.integers(0, 100), st.integers(1, 6), st.integers(2, 9), st.sampled_from(["running", "recalibrated"])
)
@few
def test_one_z_gives_one_image_whatever_stands_beside_it(seed, before, after, statistics):
    preset = small()
    generator = lively(preset, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "CALIBRATION_COUNT", 500)
        uses = sampling.choose_statistics(generator, preset, statistics, before + after)
    z = np.random.default_rng(seed).standard_normal((before + 1 + after, NUMBERS)).astype(np.float32)
    together = sampling.generate(generator, mg.tensor(z), uses)
    alone = sampling.generate(generator, mg.tensor(z[before : before + 1]), uses)
    one_by_one = sampling.generate(generator, mg.tensor(z), uses, batch_size=1)
    assert np.allclose(together[before], alone[0], atol=1e-5)
    assert np.allclose(together, one_by_one, atol=1e-5)


@pytest.mark.parametrize(
    ("statistics", "same"), [("running", True), ("recalibrated", True), ("batch", False), (None, True)]
)
def test_the_command_keeps_an_image_apart_from_its_neighbours_unless_told(place, statistics, same):
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, NUMBERS))
    found = []
    for name, others in (("a", 5), ("b", 11)):
        np.save(place / f"{name}.npy", np.concatenate([one, rng.standard_normal((others, NUMBERS)) * 2]))
        asked = () if statistics is None else ("--statistics", statistics)
        found.append(drawn(place, "--z", f"{name}.npy", *asked, out=name)[0])
    assert (differ(*found) <= 1) == same


def test_the_three_statistics_give_three_pictures(place):
    made = {name: drawn(place, "--statistics", name, out=name) for name in sampling.STATISTICS}
    for a, b in itertools.combinations(made.values(), 2):
        assert differ(a, b) > 10


@pytest.mark.parametrize(
    ("recipes", "of_one", "other"),
    [("running", "running", "recalibrated"), ("batch", "recalibrated", "running")],
)
def test_a_grid_uses_the_recipes_statistics_and_one_image_alone_fixed_ones(place, recipes, of_one, other):
    written(place / "run", small(statistics=recipes))
    assert np.array_equal(drawn(place, out="a"), drawn(place, "--statistics", recipes, out="b"))
    alone = drawn(place, "--count", "1", out="c")
    assert len(alone) == 1
    assert np.array_equal(alone, drawn(place, "--grid", "1x1", "--statistics", of_one, out="d"))
    assert differ(alone, drawn(place, "--grid", "1x1", "--statistics", other, out="e")) > 10
    together = drawn(place, "--statistics", of_one, out="f")
    assert differ(alone[0], together[0]) <= 1


def test_one_image_alone_is_the_first_of_many_where_the_recipe_uses_running_statistics(place):
    many = drawn(place, "--count", "64", "--seed", "3", out="a")
    assert differ(drawn(place, "--count", "1", "--seed", "3", out="b")[0], many[0]) <= 1
    assert differ(many[0], many[1]) > 10


@pytest.mark.parametrize("form", [lambda z: z, mg.tensor], ids=["array", "tensor"])
def test_z_may_lie_anywhere(form):
    z = np.random.default_rng(0).standard_normal((3, NUMBERS)).astype(np.float32)
    with backend.using(backend.numpy_forms()):
        generator = lively(small(), 0)
    before = z.copy()
    images = sampling.generate(generator, form(z), "running")
    assert np.allclose(images, sampling.generate(lively(small(), 0), z, "running"), atol=1e-5)
    assert np.array_equal(z, before)


def test_one_image_can_not_be_normalised_by_itself(place):
    np.save("z.npy", np.zeros(NUMBERS))
    for chosen in (("--grid", "1x1"), ("--z", "z.npy")):
        with pytest.raises(
            UserError, match="--statistics batch: one image alone is no batch; use running or"
        ):
            drawn(place, *chosen, "--statistics", "batch")
    assert not (place / "each").exists()


def plain_recalibration(generator, preset, batches, of_each):
    """The statistics of both BatchNorms, by NumPy in float64."""
    source = mg.Generator(preset.seed, sampling.CALIBRATION_STREAM)
    state = {name: value.numpy().astype(np.float64) for name, value in generator.state_dict().items()}
    first, _, _, second, *_ = [str(i) for i in range(6)]
    found = []
    for _ in range(batches):
        x = latent.draw(preset, of_each, source).numpy().astype(np.float64)
        line = []
        for dense, norm in ((first, "1"), (second, "4")):
            x = x @ state[f"{dense}.weight"].T + state[f"{dense}.bias"]
            mean, var = x.mean(axis=0), x.var(axis=0)
            line += [mean, x.var(axis=0, ddof=1)]
            x = np.tanh((x - mean) / np.sqrt(var + 1e-5) * state[f"{norm}.weight"] + state[f"{norm}.bias"])
        found.append(line)
    return [np.mean([line[k] for line in found], axis=0) for k in range(4)]


def test_recalibrated_statistics_are_means_over_40_batches_of_250(monkeypatch):
    monkeypatch.undo()  # all 10,000
    preset = small()
    generator = lively(preset, 3)
    sampling.recalibrate(generator, preset)
    norms = [module for _, module in generator.named_modules() if isinstance(module, nn.BatchNorm)]
    found = [a.numpy() for norm in norms for a in (norm.running_mean, norm.running_var)]
    for ours, expected in zip(found, plain_recalibration(generator, preset, 40, 250), strict=True):
        assert np.allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("distribution", "variance"), [("normal", 1.0), ("uniform", 1 / 3)])
def test_recalibrated_statistics_are_those_of_the_recipes_noise(monkeypatch, distribution, variance):
    monkeypatch.undo()
    preset = small(z_distribution=distribution)
    generator = lively(preset, 1)
    sampling.recalibrate(generator, preset)
    state = {name: value.numpy() for name, value in generator.state_dict().items()}
    weight, bias = state["0.weight"], state["0.bias"]
    spread = variance * (weight**2).sum(axis=1)  # of each of the first layer's sums
    assert np.allclose(state["1.running_var"], spread, rtol=0.1)
    assert (np.abs(state["1.running_mean"] - bias) < 5 * np.sqrt(spread / 10_000)).all()


@pytest.mark.parametrize("training", [True, False])
def test_recalibration_moves_nothing_else_and_repeats(training):
    preset = small(generator=(Dense(64), BatchNorm(momentum=0.03), Tanh(), Reshape(1, 8, 8)))
    generator = lively(preset, 0)
    generator.train(training)
    before = {name: value.numpy().copy() for name, value in generator.state_dict().items()}
    mg.manual_seed(5)
    first_state = mg.random.get_state()
    sampling.recalibrate(generator, preset)
    once = {name: value.numpy().copy() for name, value in generator.state_dict().items()}
    assert mg.random.get_state() == first_state
    assert {name for name in before if not np.array_equal(before[name], once[name])} == {
        "1.running_mean",
        "1.running_var",
    }
    assert generator[1].momentum == 0.03
    assert (generator.training, generator[1].training) == (training, training)
    generator[1].running_mean.data[:] = 100  # what they were before does not matter
    sampling.recalibrate(generator, preset)
    assert all(np.array_equal(value.numpy(), once[name]) for name, value in generator.state_dict().items())


def test_a_generator_without_batch_norm_has_nothing_to_recalibrate(monkeypatch):
    monkeypatch.setattr(sampling.latent, "draw", lambda *_: pytest.fail("noise was drawn"))
    preset = small(generator=(Dense(64), Tanh(), Reshape(1, 8, 8)))
    generator = lively(preset, 0)
    before = {name: value.numpy().copy() for name, value in generator.state_dict().items()}
    assert sampling.choose_statistics(generator, preset, "recalibrated", 3) == "running"
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in generator.state_dict().items())


# -- which weights ---------------------------------------------------------------------------------


@pytest.fixture
def three_weights(place):
    """A run with last (seed 0), averaged (seed 1) and best weights (seeds 2 and 3)."""
    written(place / "run", small(ema_decay=0.9), averaged=1)
    written(place / "run", small(ema_decay=0.9), checkpoint.BEST_NAME, seed=2, averaged=3)
    return place


@pytest.mark.parametrize(
    ("arguments", "seed"), [((), 1), (("last",), 0), (("ema",), 1), (("best",), 3)]
)  # the recipe averages
def test_weights_are_those_that_are_asked_for(three_weights, arguments, seed):
    made = drawn(three_weights, *(f"--weights={name}" for name in arguments))
    z = np.load(three_weights / "each" / "z.npy")
    generator = lively(small(), seed)
    generator.eval()
    assert differ(made, pictures.to_bytes(generator(mg.tensor(z)).numpy())) <= 1


def test_a_checkpoint_file_is_as_good_as_its_directory(three_weights):
    for name, weights in ((checkpoint.FILE_NAME, "last"), (checkpoint.FILE_NAME, "best")):
        file, out = three_weights / "run" / name, f"{weights}.png"
        assert sample.main([str(file), "--weights", weights, "--out", out]) == 0
        assert sample.main(["run", "--weights", weights, "--out", f"again-{out}"]) == 0
        assert (three_weights / out).read_bytes() == (three_weights / f"again-{out}").read_bytes()
    best = str(three_weights / "run" / checkpoint.BEST_NAME)
    assert sample.main([best, "--out", "by-name.png"]) == 0
    assert (three_weights / "by-name.png").read_bytes() == (three_weights / "best.png").read_bytes()


def test_weights_of_another_recipe_are_told(place):
    parts = {"generator": lively(small(z_shape=(9,)), 0).state_dict()}
    checkpoint.save(place / "run" / checkpoint.FILE_NAME, small(), {"step": 1, "epoch": 1}, parts)
    with pytest.raises(UserError, match="the checkpoint does not fit its recipe"):
        drawn(place)


# -- dcgan.sample ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(1, 3), (3, 1), (2, 5), (4, 4)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_of_any_shape_shows_its_images_row_by_row(place, rows, columns, channels):
    layers = (Dense(64 * channels), Tanh(), Reshape(channels, 8, 8))
    written(place / "run", small(generator=layers, channels=channels))
    grid = f"{rows}x{columns}"
    singles = drawn(place, "--out", "grid.png", "--grid", grid, "--seed", "4")
    assert singles.shape == (rows * columns, 8, 8, channels)
    assert np.array_equal(tiles(read("grid.png"), rows, columns), singles)
    assert sample.main(["run", "--out", "only.png", "--grid", grid, "--seed", "4"]) == 0
    assert (place / "only.png").read_bytes() == (place / "grid.png").read_bytes()


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (3, 2, 2), (12, 3, 4), (50, 7, 8)])
def test_as_many_images_as_are_asked_for_stand_in_a_square_or_nearly(place, count, rows, columns):
    written(place / "run", small(), seed=1)
    singles = drawn(place, "--count", str(count), "--out", "grid.png", "--statistics", "running")
    assert len(singles) == len(np.load("each/z.npy")) == count
    shown = tiles(read("grid.png"), rows, columns)
    assert np.array_equal(shown[:count], singles)
    assert (shown[count:] == 32).all()
    in_a_grid = drawn(place, "--statistics", "running", out="all")  # the first ones of the same seed
    assert differ(singles, in_a_grid[:count]) <= 1


def test_a_grid_of_ones_own_takes_fewer_images_than_it_has_places(place):
    singles = drawn(place, "--count", "7", "--grid", "2x5", "--out", "grid.png")
    shown = tiles(read("grid.png"), 2, 5)
    assert np.array_equal(shown[:7], singles)
    assert (shown[7:] == 32).all()


def test_a_scale_enlarges_the_picture_and_each_file(place):
    plain = drawn(place, "--grid", "2x3", "--out", "auto.png", out="plain")
    larger = drawn(place, "--grid", "2x3", "--out", "a.png", "--scale", "5", out="larger")
    assert np.array_equal(larger, plain.repeat(5, axis=1).repeat(5, axis=2))
    assert read("a.png").shape[:2] == (5 * 22, 5 * 32)
    assert np.array_equal(tiles(read("a.png"), 2, 3), tiles(read("auto.png"), 2, 3))
    assert sample.main(["run", "--out", "one.png", "--grid", "2x3", "--scale", "1"]) == 0
    assert read("one.png").shape[:2] == (22, 32)


@pytest.mark.parametrize(("name", "form"), [("a.jpg", "JPEG"), ("a.JPEG", "JPEG"), ("a.webp", "WEBP")])
def test_pictures_have_the_format_of_their_names(place, name, form):
    commands = {
        "grid": (sample, ()), "way": (interpolate, ("--between", "1", "2")),
        "sum": (interpolate, ("--mean", "1", "--plus", "2")),
    }  # fmt: skip
    for what, (command, words) in commands.items():
        for out in (f"new/{what}/{name}", f"{what}.png"):
            assert command.main(["run", *words, "--out", out]) == 0
        with Image.open(f"new/{what}/{name}") as picture, Image.open(f"{what}.png") as png:
            assert picture.format == form
            difference = np.asarray(picture.convert("RGB")).astype(int) - np.asarray(png.convert("RGB"))
            assert np.abs(difference).mean() <= (1.5 if form == "JPEG" else 0)


def test_each_leaves_the_images_in_their_own_size_and_their_noise(place, capsys):
    singles = drawn(place, "--grid", "3x4", "--seed", "9")
    assert {path.name for path in (place / "each").iterdir()} == {
        "z.npy",
        *(f"{i:02}.png" for i in range(12)),
    }
    z = np.load(place / "each" / "z.npy", allow_pickle=False)
    assert (z.dtype, z.shape) == (np.float32, (12, NUMBERS))
    assert np.array_equal(z, latent.draw(small(), 12, mg.Generator(9)).numpy())
    generator = lively(small(), 0)
    generator.eval()
    assert differ(singles, pictures.to_bytes(generator(mg.tensor(z)).numpy())) <= 1
    said = f"{place / 'each'}/: 12 images of 8 x 8 grey, tensorflow-baseline after step 7"
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("statistics", [*sampling.STATISTICS, None])
@pytest.mark.parametrize("z_shape", [(NUMBERS,), (2, 3, 1)])
def test_the_noise_that_was_left_gives_the_same_images_again(place, statistics, z_shape):
    layers = (Flatten(), Dense(64), BatchNorm(), Tanh(), Reshape(1, 8, 8))
    written(place / "run", small(generator=layers, z_shape=z_shape))
    asked = () if statistics is None else ("--statistics", statistics)
    drawn(place, "--grid", "2x5", "--seed", "3", *asked, out="a")
    drawn(place, "--z", "a/z.npy", *asked, out="b")
    assert files(place / "a") == files(place / "b")
    flat = np.load(place / "a" / "z.npy").reshape(10, -1).astype(np.float64)
    np.save(place / "flat.npy", flat)
    drawn(place, "--z", "flat.npy", *asked, out="c")
    assert files(place / "a") == files(place / "c")


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (9, 3, 3), (10, 3, 4)]
)
def test_given_noise_is_laid_out_in_a_square_or_nearly(place, count, rows, columns):
    np.save("z.npy", np.random.default_rng(0).standard_normal((count, NUMBERS)))
    singles = drawn(place, "--z", "z.npy", "--out", "grid.png")
    shown = tiles(read("grid.png"), rows, columns)
    assert np.array_equal(shown[:count], singles)
    assert (shown[count:] == 32).all()  # dark
    assert sample.main(["run", "--z", "z.npy", "--out", "line.png", "--grid", f"{count}x1"]) == 0
    assert np.array_equal(tiles(read("line.png"), count, 1), singles)


@pytest.mark.parametrize("distribution", ["normal", "uniform"])
def test_noise_is_drawn_from_the_distribution_that_the_checkpoint_records(place, distribution):
    written(place / "run", small(z_distribution=distribution))
    drawn(place, "--grid", "10x10")
    z = np.load(place / "each" / "z.npy")
    assert abs(z.mean()) < 0.2
    assert z.var() == pytest.approx({"normal": 1, "uniform": 1 / 3}[distribution], rel=0.2)
    assert (np.abs(z).max() <= 1) == (distribution == "uniform")
    found = latent.by_seed(small(z_distribution=distribution), "0/7")
    assert np.array_equal(found, z[7])


def test_seeds_make_a_difference_and_repeat(place):
    a, b, c = (drawn(place, "--seed", seed, out=out) for seed, out in (("1", "a"), ("1", "b"), ("2", "c")))
    assert np.array_equal(a, b)
    assert differ(a, c) > 50


def test_a_run_of_the_training_command_is_sampled(run, tmp_path):
    steps = ("--steps", "2", "--batch-size", "8", "--set", "z_distribution=uniform", "--set", "ema_decay=0.9")
    assert run("--preset", "quick", *steps)[0] == 0
    for name in sampling.STATISTICS:
        assert len(drawn(tmp_path, "--grid", "2x2", "--statistics", name, "--weights", "last", out=name)) == 4
    z = np.load(tmp_path / "batch" / "z.npy")
    assert z.shape == (4, 16)
    assert np.abs(z).max() <= 1
    command = ["--between", "3", "4", "--out", str(tmp_path / "a.png"), "--frames", "3"]
    assert interpolate.main([str(tmp_path / "run"), *command]) == 0
    assert tiles(read(tmp_path / "a.png"), 1, 4, 28).shape == (4, 28, 28, 1)


# -- noise by name and by file ---------------------------------------------------------------------


@given(st.integers(0, 10**18 - 1), st.integers(0, 70), st.sampled_from(["normal", "uniform"]))
@few
def test_a_name_is_the_noise_of_that_image(seed, index, distribution):
    preset = small(z_distribution=distribution)
    all_of_them = latent.draw(preset, 71, mg.Generator(seed)).numpy()
    assert np.array_equal(latent.by_seed(preset, f"{seed}/{index}"), all_of_them[index])
    assert np.array_equal(latent.by_seed(preset, f"{seed}"), all_of_them[0])


@pytest.mark.parametrize(
    "name", ["", "x", "3/", "/3", "-1", "3/-1", "3/10000", "1.5", "3/1/2", " 3", "9" * 19]
)
def test_a_name_that_is_none_is_told(name):
    with pytest.raises(UserError, match=f"^{re.escape(repr(name))}: expected SEED or SEED/INDEX"):
        latent.by_seed(small(), name)


def test_the_last_index_is_that_of_the_largest_grid():
    assert latent.by_seed(small(), "3/9999").shape == (NUMBERS,)


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(2, 3, 1), (6,), (5, 2, 3, 1), (5, 6), (1, 6)])
def test_noise_is_read_in_its_shape_or_flat_one_or_many(tmp_path, shape, kind):
    given_numbers = np.random.default_rng(0).standard_normal(shape).astype(kind)
    np.save(tmp_path / "z.npy", given_numbers)
    z = latent.from_file(small(z_shape=(2, 3, 1)), tmp_path / "z.npy")
    assert (z.dtype, z.shape) == (np.float32, (len(z), 2, 3, 1))
    assert np.array_equal(z.reshape(-1), given_numbers.astype(np.float32).reshape(-1))


def test_noise_in_columns_is_read_as_it_is_meant(tmp_path):
    z = np.arange(12, dtype=np.float32).reshape(2, NUMBERS)
    np.save(tmp_path / "z.npy", np.asfortranarray(z))
    assert np.array_equal(latent.from_file(small(), tmp_path / "z.npy"), z)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("what lies in a file was run",))


def broken_files():
    """What --z may be given by mistake, or by malice, and a part of what is said."""

    def unreadable(path):
        np.save(path, np.array([Harmful()]), allow_pickle=True)

    def named_npz(path):
        with open(path, "wb") as file:
            np.savez(file, z=np.zeros((2, NUMBERS)))

    def cut(path):
        np.save(path, np.zeros((2, NUMBERS)))
        path.write_bytes(path.read_bytes()[:-1])

    def saved(array):
        return lambda path: np.save(path, array)

    return {
        "pickled": (unreadable, "can't be read as an .npy file"),
        "archive": (named_npz, "can't be read as an .npy file"),
        "cut": (cut, "can't be read as an .npy file"),
        "text": (lambda path: path.write_text("1 2 3"), "can't be read as an .npy file"),
        "empty file": (lambda path: path.write_bytes(b""), "can't be read as an .npy file"),
        "directory": (lambda path: path.mkdir(), "can't be read as an .npy file"),
        "missing": (lambda path: None, "can't be read as an .npy file"),
        "integers": (
            saved(np.zeros((2, NUMBERS), int)),
            r"it holds int64 \(2, 6\); expected floats \(n, 6\)",
        ),
        "complex": (saved(np.zeros((2, NUMBERS), complex)), "it holds complex128"),
        "too many numbers": (saved(np.zeros((2, 7))), r"it holds float64 \(2, 7\); expected floats \(n, 6\)"),
        "too many axes": (saved(np.zeros((1, 2, NUMBERS))), r"it holds float64 \(1, 2, 6\)"),
        "a number": (saved(np.float64(1)), r"it holds float64 \(\)"),
        "none": (saved(np.zeros((0, NUMBERS))), r"it holds float64 \(0, 6\)"),
        "nan": (saved(np.full((2, NUMBERS), np.nan)), "not finite"),
        "infinite": (saved(np.full((2, NUMBERS), -np.inf)), "not finite"),
        "too large": (saved(np.full((2, NUMBERS), 1e300)), "not finite, or not as float32"),
    }


@pytest.mark.parametrize("kind", list(broken_files()))
def test_a_file_that_is_no_noise_is_told_and_nothing_is_run(place, kind):
    make, message = broken_files()[kind]
    make(place / "z.npy")
    with pytest.raises(UserError, match=f"^--z z.npy: .*{message}"):
        sample.main(["run", "--z", "z.npy", "--each", "each", "--out", "a.png"])
    assert {path.name for path in place.iterdir()} <= {"run", "z.npy"}


def test_a_shape_of_several_axes_is_told_in_both_forms(tmp_path):
    np.save(tmp_path / "z.npy", np.zeros((2, 5)))
    with pytest.raises(UserError, match=r"expected floats \(n, 2, 3, 1\) or \(n, 6\)"):
        latent.from_file(small(z_shape=(2, 3, 1)), tmp_path / "z.npy")


def test_every_flipped_byte_of_a_header_is_noise_or_told(tmp_path):
    path = tmp_path / "z.npy"
    np.save(path, np.ones((2, NUMBERS), np.float32))
    content = path.read_bytes()
    told = 0
    for place, flip in itertools.product(range(128), (0x01, 0x11, 0x80)):
        path.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
        try:
            assert latent.from_file(small(), path).shape[1:] == (NUMBERS,)
        except UserError:
            told += 1
    assert told > 100


# -- the way from one z to another -----------------------------------------------------------------

vectors = st.integers(2, 20).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, 10_000), st.floats(0.1, 10), st.floats(0.1, 10))
)


def pair(case):
    n, seed, one, other = case
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n))
    return (a * one).astype(np.float32), (b * other).astype(np.float32)


def angle(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return math.acos(np.clip(a @ b / math.sqrt((a @ a) * (b @ b)), -1, 1))


@given(vectors, st.floats(0, 1))
@few
def test_the_way_starts_and_ends_where_it_should_and_is_the_same_back(case, t):
    a, b = pair(case)
    assert np.array_equal(latent.slerp(a, b, 0), a)
    assert np.array_equal(latent.slerp(a, b, 1), b)
    assert latent.slerp(a, b, t).dtype == np.float32
    assert np.allclose(latent.slerp(a, b, t), latent.slerp(b, a, 1 - t), rtol=1e-4, atol=1e-5)


@given(vectors, st.floats(0, 1))
@few
def test_the_way_stays_on_the_sphere_and_turns_at_a_constant_speed(case, t):
    a, b = pair(case)
    b = b * np.float32(np.linalg.norm(a) / np.linalg.norm(b))
    between = latent.slerp(a, b, t)
    assert np.linalg.norm(between) == pytest.approx(np.linalg.norm(a), rel=1e-4)
    assert angle(a, between) == pytest.approx(t * angle(a, b), abs=2e-3)
    assert angle(between, b) == pytest.approx((1 - t) * angle(a, b), abs=2e-3)
    inside, *_ = np.linalg.lstsq(np.stack([a, b], axis=1), between, rcond=None)
    assert np.allclose(inside[0] * a + inside[1] * b, between, atol=1e-3)  # in the plane of both


def test_a_quarter_turn_is_known():
    a, b = np.array([2.0, 0.0], np.float32), np.array([0.0, 3.0], np.float32)
    assert np.allclose(latent.slerp(a, b, 0.5), np.array([2, 3]) * math.sqrt(0.5))
    assert np.allclose(latent.slerp(a, b, 1 / 3), [2 * math.cos(math.pi / 6), 3 * math.sin(math.pi / 6)])


def test_vectors_along_one_line_or_zero_are_mixed():
    a = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    zero = np.zeros_like(a)
    for b, expected in ((a, a), (3 * a, 1.5 * a), (-a, 0.5 * a), (zero, 0.75 * a)):
        assert np.allclose(latent.slerp(a, b, 0.25), expected, atol=1e-5)
    assert not latent.slerp(zero, zero, 0.3).any()
    assert np.array_equal(latent.slerp(a, -a, 0), a)
    assert np.array_equal(latent.slerp(a, -a, 1), -a)


def test_nearly_opposite_vectors_do_not_blow_up():
    a = np.array([1.0, 0.0], np.float32)
    for tiny in (1e-3, 1e-5, 1e-7, 1e-12):
        way = [latent.slerp(a, np.array([-1.0, tiny], np.float32), k / 10) for k in range(11)]
        assert np.abs(np.stack(way)).max() <= 1 + 1e-3


@given(st.integers(2, 5), st.integers(1, 6))
@few
def test_a_path_visits_every_point_in_equal_steps(stretches, frames):
    normal = np.random.default_rng(frames).standard_normal((stretches + 1, 4))
    points = list((normal / np.linalg.norm(normal, axis=1, keepdims=True)).astype(np.float32))
    way = latent.path_between(points, frames)
    assert len(way) == stretches * frames + 1
    assert all(np.array_equal(way[k * frames], point) for k, point in enumerate(points))
    for k, (a, b) in enumerate(itertools.pairwise(points)):
        for step in range(1, frames):
            assert angle(a, way[k * frames + step]) == pytest.approx(step / frames * angle(a, b), abs=2e-3)


# -- dcgan.interpolate -----------------------------------------------------------------------------


def image_of(place, z, out="by-z"):
    """The image that dcgan.sample makes of one z, with the running statistics."""
    np.save(place / "one.npy", z)
    return drawn(place, "--z", "one.npy", "--statistics", "running", out=out)[0]


def test_a_strip_goes_from_one_image_of_a_grid_to_another(place):
    grid = drawn(place, "--seed", "3", out="grid")
    assert interpolate.main(["run", "--between", "3/12", "3", "3/63", "--out", "a.png", "--frames", "4"]) == 0
    shown = tiles(read("a.png"), 2, 5)
    for found, expected in ((0, 12), (4, 0), (5, 0), (9, 63)):
        assert differ(shown[found], grid[expected]) <= 1
    z = np.load("grid/z.npy").astype(np.float64)
    turn = angle(z[12], z[0])
    middle = (math.sin(turn / 4) * z[12] + math.sin(turn * 3 / 4) * z[0]) / math.sin(turn)
    assert differ(shown[3], image_of(place, middle)) <= 1
    assert differ(shown[3], shown[0]) > 10


def test_a_strip_has_ten_images_unless_told(place):
    assert interpolate.main(["run", "--between", "1", "2", "--out", "a.png"]) == 0
    assert tiles(read("a.png"), 1, 10).shape == (10, 8, 8, 1)
    assert read("a.png").shape[1] > 500  # enough to be looked at


@pytest.mark.parametrize("recipes", ["running", "batch"])
def test_an_image_of_a_strip_does_not_depend_on_the_others(place, recipes):
    written(place / "run", small(statistics=recipes))
    for name, other in (("a", "2"), ("b", "3")):
        interpolate.main(["run", "--between", "1", other, "--out", f"{name}.png", "--frames", "3"])
    a, b = (tiles(read(f"{name}.png"), 1, 4) for name in "ab")
    assert differ(a[0], b[0]) <= 1
    assert differ(a[3], b[3]) > 10
    expected = "recalibrated" if recipes == "batch" else "running"
    assert differ(a[0], drawn(place, "--seed", "1", "--statistics", expected)[0]) <= 1


@pytest.mark.parametrize(("ending", "frames"), [(".gif", None), (".gif", 5), (".mp4", 6), (".GIF", 2)])
def test_a_way_can_be_an_animation(place, ending, frames):
    asked = () if frames is None else ("--frames", str(frames))
    out = f"a{ending}"
    assert interpolate.main(["run", "--between", "1", "2", "1", "--out", out, *asked]) == 0
    n = 2 * (frames or 24) + 1
    if ending == ".mp4":
        shown, times = read_mp4(out)
        assert shown.shape == (n, 320, 320, 3)
        assert times == pace.steady(n, 80)
    else:
        with Image.open(out) as gif:
            assert (gif.n_frames, gif.size) == (n, (320, 320))
            assert gif.info["duration"] == 80
            first = np.asarray(gif.convert("L"))
            gif.seek(n - 1)
            last = np.asarray(gif.convert("L"))
            assert gif.info["duration"] == 2000
        expected = drawn(place, "--seed", "1")[0].repeat(40, axis=0).repeat(40, axis=1)[:, :, 0]
        assert differ(first, expected) <= 4
        assert differ(last, expected) <= 4


@pytest.fixture
def made(monkeypatch):
    """The z's that dcgan.interpolate makes images of, and the rows that it draws."""
    seen = {}
    generate, save_rows = sampling.generate, pictures.save_rows
    monkeypatch.setattr(
        generator,
        "generate",
        lambda generator, z, how: (seen.update(z=z), generate(generator, z, how))[1],
    )
    monkeypatch.setattr(
        interpolate.pictures, "save_rows", lambda rows, path: (seen.update(rows=rows), save_rows(rows, path))
    )
    return seen


@pytest.mark.parametrize(
    ("mean", "minus", "plus"),
    [(["3/1", "3/2", "3/5"], ["3/3", "3/4"], ["3/7"]), (["3/0"], ["3/8"], []), (["3/2", "3/9"], [], ["3/6"])],
)
def test_a_sum_is_the_mean_less_the_second_and_with_the_third(place, made, mean, minus, plus):
    groups = {"--mean": mean, "--minus": minus, "--plus": plus}
    words = [word for option, names in groups.items() if names for word in (option, *names)]
    assert interpolate.main(["run", *words, "--out", "a.png"]) == 0
    by_index = latent.draw(small(), 10, mg.Generator(3)).numpy().astype(np.float64)
    members = {
        option: [by_index[int(name.partition("/")[2])] for name in names]
        for option, names in groups.items()
        if names
    }
    means = {option: sum(zs) / len(zs) for option, zs in members.items()}
    result = means["--mean"] - means.get("--minus", 0) + means.get("--plus", 0)
    expected = [z for option, zs in members.items() for z in (*zs, means[option])]
    assert np.allclose(made["z"], np.stack([*expected, result]), atol=1e-6)
    rows = made["rows"]
    assert [name.split() for name in rows] == [
        *([option[2:], *names] for option, names in groups.items() if names),
        ["result"],
    ]
    images = [image for row in rows.values() for image in row]
    assert [len(row) for row in rows.values()] == [*(len(zs) + 1 for zs in members.values()), 1]
    assert differ(images[-1], image_of(place, result)) <= 1
    assert differ(images[0], image_of(place, members["--mean"][0], out="first")) <= 1
    assert read("a.png").std() > 10


@pytest.mark.parametrize("names", [["987654321987654321/1234"] * 3, [f"123456/{i}" for i in range(12)]])
def test_a_sum_of_long_names_leaves_room_for_its_images(place, made, names):
    assert interpolate.main(["run", "--mean", *names, "--minus", "4", "--out", "a.png"]) == 0
    name = next(iter(made["rows"]))
    assert max(map(len, name.splitlines())) <= 20
    assert len(name.splitlines()) <= 7
    columns = (read("a.png")[:, :, :3].min(axis=(0, 2)) < 250).nonzero()[0]
    assert columns.max() > 0.95 * read("a.png").shape[1]


def test_both_commands_say_where_they_wrote(place, capsys):
    interpolate.main(["run", "--between", "1", "2", "--out", "a.png"])
    interpolate.main(["run", "--between", "1", "2", "--out", "a.gif"])
    interpolate.main(["run", "--mean", "1", "2", "--plus", "3", "--out", "sum.jpg"])
    sample.main(["run", "--out", "b.png"])
    sample.main(["run", "--out", "b.webp", "--count", "5", "--scale", "3"])
    after = "of 8 x 8 grey"
    assert capsys.readouterr().out.splitlines() == [
        f"a.png: 10 images {after}, tensorflow-baseline after step 7",
        f"a.gif: 25 frames, 3.92 s, {after}, tensorflow-baseline after step 7",
        f"sum.jpg: 6 images {after}, tensorflow-baseline after step 7",
        f"b.png: 64 images {after} in 8x8, tensorflow-baseline after step 7",
        f"b.webp: 5 images {after} in 2x3, 3 times as large, tensorflow-baseline after step 7",
    ]


# -- dcgan.animate ---------------------------------------------------------------------------------


@pytest.fixture
def framed(place):
    """A run with the frames 0, 50, ..., 450 of a grid that becomes brighter."""
    (place / "run" / "frames").mkdir()
    for k in range(10):
        grid = pictures.grid(np.full((4, 8, 8, 1), 25 * k, np.uint8), 2, 2)
        pictures.save_png(grid, place / "run" / "frames" / f"{50 * k:08d}.png")
    return place


@pytest.mark.parametrize(
    ("seconds", "each_time", "last"), [(None, 500, 2000), ("2.4", 200, 600), ("0.36", 30, 90)]
)
def test_frames_are_animated_in_their_order_at_a_pace(framed, capsys, seconds, each_time, last):
    asked = () if seconds is None else ("--seconds", seconds)
    assert animate.main(["run", *asked]) == 0
    assert capsys.readouterr().out == f"run/output.gif: 10 frames, {seconds or '6.5'} s\n"
    with Image.open("run/output.gif") as gif:
        assert gif.n_frames == 10
        assert gif.width == gif.height == 308  # 22 pixels, 14 times
        for k in range(10):
            gif.seek(k)
            assert gif.info["duration"] == (last if k == 9 else each_time)
            assert abs(int(np.asarray(gif.convert("L"))[50, 50]) - 25 * k) <= 3


def test_frames_are_animated_as_mp4_too(framed, capsys):
    assert animate.main(["run/checkpoint.safetensors", "--out", "a.mp4", "--seconds", "1"]) == 0
    shown, times = read_mp4("a.mp4")
    assert sum(times) == 1000
    assert np.abs(shown[:, 50, 50, 0] - np.arange(10) * 25).max() <= 6
    assert capsys.readouterr().out == "a.mp4: 10 frames, 1 s\n"


def test_frames_that_the_time_is_too_short_for_are_left_out(framed, capsys):
    assert animate.main(["run", "--out", "a.mp4", "--seconds", "0.1"]) == 0
    shown, times = read_mp4("a.mp4")
    assert times == [20] * 5
    assert np.abs(shown[:, 50, 50, 0] - 25 * np.array([0, 2, 4, 7, 9])).max() <= 6
    assert capsys.readouterr().out == "a.mp4: 5 of 10 frames, 0.1 s\n"


def test_a_damaged_frame_is_told_and_the_old_animation_is_kept(framed):
    (framed / "run" / "output.gif").write_bytes(b"old")
    frame = framed / "run" / "frames" / "00000200.png"
    content = frame.read_bytes()
    for damaged in (b"", b"no image", content[:40], content[: len(content) // 2]):
        frame.write_bytes(damaged)
        with pytest.raises(UserError, match="00000200.png can't be read as an image"):
            animate.main(["run"])
    assert (framed / "run" / "output.gif").read_bytes() == b"old"


# -- mistakes --------------------------------------------------------------------------------------

MISTAKES = [
    (sample, ["run"], r"expected --out FILE.png, --each DIR, or both"),
    (sample, ["run", "--each", "full"], r"--each full: it exists already; name a new directory"),
    (sample, ["run", "--each", "file"], r"--each file: it exists already"),
    (sample, ["run", "--each", "file/under"], r"--each file.under: .*Not a directory"),
    (sample, ["run", "--out", "file/a.png"], r"file/a.png: the folder file can't be made: it is there"),
    (sample, ["run", "--out", "a.gif"], r"--out a.gif: .* ends in .png, .jpg, .jpeg or .webp$"),
    (sample, ["run", "--out", "a.png", "--count", "10001"], r"--count 10001: expected 1 to 10000"),
    (sample, ["run", "--out", "a.png", "--count", "5", "--z", "five.npy"], r"--count 5: --z five.npy says"),
    (sample, ["run", "--out", "a.png", "--count", "5", "--grid", "2x2"], r"--count 5: .* into a grid of 2x2"),
    (sample, ["run", "--out", "a.png", "--scale", "101"], r"--scale 101: expected 1 to 100"),
    (sample, ["run", "--out", "a.webp", "--scale", "100", "--count", "400"], r"a.webp: 20200 x 20200 pixels"),
    (sample, ["run", "--out", "a.png", "--scale", "100", "--grid", "30x30"], r"drawing 900 images .*--max"),
    (sample, ["run", "--out", "a.png", "--seed", "-1"], r"--seed -1: expected an integer of at least 0"),
    (sample, ["run", "--out", "a.png", "--seed", str(2**63)], r"--seed 9223372036854775808"),
    (sample, ["run", "--out", "a.png", "--z", "five.npy", "--grid", "2x2"], r"5 z do not fit into a grid"),
    (sample, ["run", "--out", "a.png", "--weights", "best"], r"--weights best: there is no run/best"),
    (sample, ["run", "--out", "a.png", "--weights", "ema"], r"--weights ema: this checkpoint has none"),
    (sample, ["nowhere", "--out", "a.png"], r"no checkpoint at nowhere"),
    (sample, ["file", "--out", "a.png"], r"file.*damaged, or no checkpoint"),
    (interpolate, ["run", "--between", "1", "--out", "a.png"], r"--between 1: expected two or more"),
    (interpolate, ["run", "--between", "1", "x", "--out", "a.png"], r"'x': expected SEED or SEED/INDEX"),
    (interpolate, ["run", "--mean", "1", "--out", "a.png"], r"--mean: expected --minus, --plus or both"),
    (
        interpolate,
        ["run", "--mean", "1", "--plus", "2", "--frames", "3", "--out", "a.png"],
        r"--frames goes with --between, not with --mean",
    ),
    (interpolate, ["run", "--mean", "1", "--plus", "2", "--out", "a.gif"], r"ends in .png, .* or .webp$"),
    (interpolate, ["run", "--between", "1", "2", "--out", "a.bmp"], r"ends in .png, .jpg, .*, .gif or .mp4$"),
    (interpolate, ["run", "--between", "1", "2", "--out", "a"], r"--out a: expected a name"),
    (interpolate, ["run", "--between", "1", "2", "--plus", "3", "--out", "a.png"], r"go with --mean, not"),
    (interpolate, ["run", "--between", "1", "2", "--out", "a.png", "--frames", "0"], r"--frames 0: expected"),
    (interpolate, ["run", "--between", "1", "2", "--out", "a.png", "--frames", "1001"], r"1 to 1000"),
    (interpolate, ["run", "--between", *"123456789012", "--out", "a.gif", "--frames", "999"], r"most 10000"),
    (interpolate, ["run", "--mean", *["1"] * 101, "--plus", "2", "--out", "a.png"], r"at most 100 Z"),
    (interpolate, ["run", "--between", "1", "2", "--out", "file/a.png"], r"file/a.png: the folder file can"),
    (interpolate, ["run", "--mean", "1", "--plus", "2", "--out", "file/b/a.png"], r"the folder file/b can't"),
    (interpolate, ["run", "--between", "1", "2", "--out", "a.png", "--weights", "best"], r"--weights best"),
    (animate, ["nowhere"], r"nowhere: expected a run's directory or its checkpoint file"),
    (animate, ["run"], r"no frames in run/frames"),
    (animate, ["run", "--out", "a.png"], r"--out a.png: expected a name that ends in .gif or .mp4"),
    (animate, ["run", "--seconds", "0"], r"--seconds 0: expected 0.1 to 600"),
    (animate, ["run", "--seconds", "nan"], r"--seconds nan"),
    (animate, ["run", "--seconds", "601"], r"--seconds 601"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    place, monkeypatch, capsys, command, arguments, message
):
    (place / "full").mkdir()
    (place / "full" / "mine.txt").write_text("mine")
    (place / "file").write_text("mine")
    np.save("five.npy", np.zeros((5, NUMBERS)))
    before = files(place)
    monkeypatch.setattr(sys, "argv", ["dcgan", *arguments])
    with pytest.raises(SystemExit) as stop:
        console.run_command(command.main, "dcgan.command")
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.search(message, said.err.strip())
    assert re.fullmatch("dcgan.command: [^\n]+\n", said.err)
    assert files(place) == before


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (sample, ["run", "--out", "a.png", "--weights", "first"], "--weights: invalid choice"),
        (sample, ["run", "--out", "a.png", "--statistics", "mean"], "--statistics: invalid choice"),
        (sample, ["run", "--out", "a.png", "--z", "z.npy", "--seed", "1"], "not allowed with argument"),
        (sample, ["run", "--out", "a.png", "--count", "0"], "--count: expected an integer of at least 1"),
        (sample, ["run", "--out", "a.png", "--scale", "1.5"], "--scale: expected an integer of at least 1"),
        (sample, ["--out", "a.png"], "the following arguments are required: run"),
        (interpolate, ["run", "--out", "a.png"], "one of the arguments --between --mean is required"),
        (interpolate, ["run", "--between", "1", "2"], "the following arguments are required: --out"),
        (interpolate, ["run", "--between", "1", "2", "--mean", "3", "--out", "a.png"], "not allowed with"),
        (animate, ["run", "--seconds", "long"], "--seconds: invalid float value"),
    ],
)
def test_what_makes_no_sense_by_itself_is_told_by_the_parser(place, capsys, command, arguments, message):
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in place.iterdir()} == {"run"}


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        (sample, ["run", "--out", "a.png"]),
        (interpolate, ["run", "--between", "1", "2", "--out", "a.gif"]),
        (interpolate, ["run", "--mean", "1", "--minus", "2", "--out", "a.png"]),
        (animate, ["run", "--out", "a.gif"]),
    ],
)
def test_a_full_disk_is_told_and_nothing_is_half_written(framed, monkeypatch, command, arguments):
    (framed / arguments[-1]).write_bytes(b"old")
    before = files(framed)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialize.os, "fsync", full)
    with pytest.raises(UserError, match="--out .*No space left on device"):
        command.main(arguments)
    assert files(framed) == before


@pytest.mark.parametrize("words", [("--between", "1", "2"), ("--between", "1", "2", "3", "--frames", "20")])
def test_a_strip_too_wide_for_its_format_is_told_before_it_is_drawn(place, monkeypatch, words):
    monkeypatch.setitem(pictures.MAX_SIDE, "WEBP", 200)
    monkeypatch.setattr(generator, "load_generator", lambda *_: pytest.fail("the generator was loaded"))
    with pytest.raises(UserError, match=r"a\.webp: [0-9]+ x [0-9]+ pixels are too many for \.webp"):
        interpolate.main(["run", *words, "--out", "a.webp"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (sample, ["--out", "new/er/a.png"]),
        (sample, ["--each", "new/er/each"]),
        (interpolate, ["--between", "1", "2", "--out", "new/er/a.gif"]),
        (interpolate, ["--mean", "1", "--plus", "2", "--out", "new/er/a.png"]),
        (animate, ["--out", "new/er/a.mp4"]),
    ],
)
def test_missing_folders_are_made(framed, command, words):
    assert command.main(["run", *words]) == 0
    assert [path.name for path in (framed / "new" / "er").iterdir()] == [words[-1].rpartition("/")[2]]


def test_a_checkpoint_is_all_that_is_needed(place):
    """No config.json, no data."""
    assert {path.name for path in (place / "run").iterdir()} == {checkpoint.FILE_NAME}
    assert len(drawn(place, "--grid", "2x2")) == 4


def test_a_dropout_draws_from_a_copy_of_the_engines_state():
    generator = nn.Sequential(nn.Dense(4, 64), nn.Dropout(0.5))
    z = np.ones((3, 4), np.float32)
    drawn = []
    for seed in (1, 1, 2):
        mg.manual_seed(seed)
        drawn.append(sampling.generate(generator, z, "batch"))
        assert mg.random.get_state() == {"seed": seed, "stream": 0, "calls": 0}
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])
