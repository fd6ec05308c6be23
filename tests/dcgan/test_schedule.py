"""What a recipe trains on and what it writes, when and under which names; and its arithmetic, step by step.

Networks are made tiny here; all else is the recipe's own.
"""

import dataclasses
import json
import re
from collections import Counter

import numpy as np
import pytest
from loading import load_batches
from PIL import Image

import minigrad as mg
from dcgan import latent, models, pictures, presets, steps
from dcgan.data import mnist
from dcgan.data.batches import Batches
from dcgan.recipe.layers import BatchNorm, Dense, Flatten, LeakyReLU, Reshape, Sigmoid, Tanh
from dcgan.run import checkpoint, training
from dcgan.run.config import RunConfig
from dcgan.run.learner import Learner
from dcgan.run.schedule import Schedule
from dcgan.steps import StepResult
from dcgan.vitals import picture as vitals_picture

pytestmark = pytest.mark.usefixtures("digests")

GREY = ("flux", "flux-draft", "tensorflow", "tensorflow-baseline")
SMALL = {"image_size": 8}  # for flowers and pytorch


@pytest.fixture
def tiny(monkeypatch):
    """Every recipe with networks that take no time, under its own name; only those are replaced."""
    for name in GREY:
        preset = presets.PRESETS[name]
        sigmoid = () if preset.loss == "bce_with_logits" else (Sigmoid(),)
        small = dataclasses.replace(
            preset,
            generator=(Flatten(), Dense(4), BatchNorm(), Dense(784), Tanh(), Reshape(1, 28, 28)),
            discriminator=(Flatten(), Dense(2), LeakyReLU(0.2), Dense(1), *sigmoid),
        )
        monkeypatch.setitem(presets.PRESETS, name, small)
    for name in ("flowers", "pytorch"):
        small = dataclasses.replace(presets.PRESETS[name], nz=4, ngf=1, ndf=1)
        monkeypatch.setitem(presets.PRESETS, name, small)


@pytest.fixture
def digits(few_digits, monkeypatch):
    """Sets how many made-up images there are; no two of them are equal."""

    def of(count):
        monkeypatch.setattr(mnist, "images", lambda split="train": few_digits[:count])
        return few_digits[:count]

    return of


@pytest.fixture
def no_plots(monkeypatch):
    """Curves take long to draw: written down instead are the name and how many steps they show."""
    drawn = []
    monkeypatch.setattr(
        pictures, "save_losses", lambda metrics, path: drawn.append((path.name, len(metrics)))
    )
    monkeypatch.setattr(vitals_picture, "save", lambda lines, path: path.write_bytes(b""))
    monkeypatch.setattr(pictures, "save_side_by_side", lambda grids, path: path.write_bytes(b""))
    return drawn


def given(**fields):
    return [f"--set={name}={value}" for name, value in fields.items()]


def names(directory):
    return sorted(p.name for p in directory.iterdir())


def picture(path):
    with Image.open(path) as png:
        return np.asarray(png)


def tiles(path, rows, columns, side, gap=2):
    """The images of a grid that was not enlarged, row by row."""
    shown = picture(path)
    assert shown.shape[:2] == (rows * (side + gap) + gap, columns * (side + gap) + gap)
    return [
        shown[y : y + side, x : x + side]
        for y in range(gap, shown.shape[0], side + gap)
        for x in range(gap, shown.shape[1], side + gap)
    ]


# -- the grids, and what stands beside them ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "images", "arguments", "expected"),
    [
        ("flux", 8, ["--steps=7", *given(batch_size=4, sample_every=3)],
         [f"dcgan_steps_{n:06d}.png" for n in (0, 3, 6, 7)]),
        ("flux-draft", 8, ["--steps=2", *given(batch_size=4)],
         ["dcgan_steps_000000.png", "dcgan_steps_000002.png"]),
        ("tensorflow", 10, ["--epochs=2", *given(batch_size=4)],
         ["dcgan_gen_data_0.png", "dcgan_gen_data_1.png"]),
        ("tensorflow", 10, ["--steps=4", *given(batch_size=4)],  # the last epoch is not finished
         ["dcgan_gen_data_0.png", "dcgan_gen_data_1.png"]),
        ("tensorflow-baseline", 10, ["--epochs=3", *given(batch_size=4)],
         ["gan_gen_data_0.png", "gan_gen_data_1.png", "gan_gen_data_2.png"]),
        ("pytorch", 6, ["--steps=5", *given(image_size=8, batch_size=2, sample_every=2)],
         ["output_0_iters-epoch_0.png", "output_2_iters-epoch_0.png", "output_4_iters-epoch_1.png",
          "output_5_iters-epoch_1.png"]),
    ],
    ids=["flux", "flux-draft", "tensorflow", "tensorflow, cut off", "tensorflow-baseline", "pytorch"],
)  # fmt: skip
def test_the_grids_come_when_the_recipe_says(
    run, digits, tiny, no_plots, tmp_path, name, images, arguments, expected
):
    digits(images)
    run("--preset", name, *arguments)
    assert names(tmp_path / "run" / "samples") == expected


def test_a_grid_at_every_1000_steps_of_flux_and_one_at_the_end(
    monkeypatch, digits, tiny, run, no_plots, tmp_path
):
    """All of 2,001 steps, which here do nothing."""
    digits(8)
    zero = mg.tensor(np.float32(0.5))
    monkeypatch.setitem(steps.RULES, "fresh_noise", lambda gan, real: StepResult(*[zero] * 5))
    _, said = run("--preset", "flux", "--steps=2001", "--epochs=2000", *given(batch_size=4, frame_every=5000))
    assert names(tmp_path / "run" / "samples") == [f"dcgan_steps_{n:06d}.png" for n in (0, 1000, 2000, 2001)]
    assert re.findall(r"^step (\d+): loss D 0.5000, loss G 0.5000", said, re.MULTILINE) == ["1000", "2000"]


def test_flowers_draws_its_grid_and_its_losses_often_at_first(run, digits, tiny, no_plots, tmp_path):
    digits(4)
    run("--preset", "flowers", "--steps=203", *given(batch_size=2, frame_every=1000, **SMALL))
    due = [0, *range(10, 101, 10), 200, 203]
    expected = {f"output_{n}_iters-epoch_{max(n - 1, 0) // 2}.png" for n in due}  # two steps an epoch
    assert {
        "output_0_iters-epoch_0.png",
        "output_10_iters-epoch_4.png",
        "output_200_iters-epoch_99.png",
    } < expected
    assert set(names(tmp_path / "run" / "samples")) == expected
    assert no_plots == [("losses.png", n) for n in due[1:]]


def test_others_draw_their_losses_at_the_end(run, digits, tiny, no_plots):
    digits(8)
    run("--preset", "flux", "--steps=5", *given(batch_size=4, sample_every=2))
    assert no_plots == [("losses.png", 5)]


@pytest.mark.parametrize(
    ("name", "real", "rows", "channels"),
    [
        ("flux", "training_images.png", 5, 1),
        ("flux-draft", "training_images.png", 6, 1),
        ("tensorflow", "mnist_data.png", 10, 1),
        ("tensorflow-baseline", "mnist_data.png", 10, 1),
        ("flowers", "training_images.png", 8, 3),
        ("pytorch", "training_images.png", 8, 3),
    ],
)
def test_what_stands_in_the_runs_root(run, tiny, tmp_path, name, real, rows, channels):
    run("--preset", name, "--steps=1", *given(batch_size=2, **(SMALL if channels == 3 else {})))
    root = tmp_path / "run"
    assert set(names(root)) == {
        real, "real_and_fake.png", "losses.png", "output.gif", "checkpoint.safetensors", "config.json",
        "metrics.jsonl", "timing.jsonl", "vitals.jsonl", "samples", "frames",
    }  # fmt: skip
    side = 28 if channels == 1 else 8
    for path in (root / "frames" / "00000000.png", root / "frames" / "00000001.png"):
        assert picture(path).shape[:2] == (rows * (side + 2) + 2,) * 2
        assert picture(path).ndim == (2 if channels == 1 else 3)
    grids = [picture(root / real), *(picture(p) for p in (root / "samples").iterdir())]
    assert all(
        grid.shape[0] == grid.shape[1] and grid.shape[0] % (rows * (side + 2) + 2) == 0 for grid in grids
    )


def test_tensorflow_shows_a_hundred_real_images_at_the_start(run, few_digits, tiny, no_plots, tmp_path):
    run("--preset", "tensorflow", "--steps=1")
    shown = tiles(tmp_path / "run" / "mnist_data.png", 10, 10, 28)
    real = {image.tobytes() for image in few_digits}
    assert len({tile.tobytes() for tile in shown} & real) == 100


STILL = {"lr_generator": 1e-30, "lr_discriminator": 1e-30}  # nothing learns: pictures differ by their noise


def test_tensorflows_grids_have_new_noise_each_time_and_the_frames_one_that_stays(
    run, digits, tiny, no_plots, tmp_path
):
    digits(8)
    run("--preset", "tensorflow", "--epochs=3", *given(batch_size=4, frame_every=1, **STILL))
    grids, frames = (
        {p.read_bytes() for p in (tmp_path / "run" / d).iterdir()} for d in ("samples", "frames")
    )
    assert len(grids) == 3
    assert len(frames) == 1
    assert not grids & frames


@pytest.mark.parametrize("name", ["flux", "flowers", "pytorch"])
def test_the_other_grids_have_one_noise_that_stays(run, digits, tiny, no_plots, tmp_path, name):
    digits(8)
    # Running statistics move without learning, and in eval mode they would show: those of the batch don't.
    fields = {"batch_size": 4, "sample_every": 1, "sample_early": 0, "statistics": "batch", **STILL}
    fields |= {} if name == "flux" else SMALL
    run("--preset", name, "--steps=3", *given(**fields))
    grids = {p.read_bytes() for p in (tmp_path / "run" / "samples").iterdir()}
    assert len(names(tmp_path / "run" / "samples")) == 4
    assert len(grids) == 1


@pytest.mark.parametrize(
    ("name", "draws", "low", "high", "std"),
    [
        ("flux", 1 + 16, -6, 6, 1.0),  # the fixed noise, and two a step
        ("tensorflow", 1 + 8 + 4, -1, 1, 3**-0.5),  # one a step, and one for the grid of each epoch
        ("tensorflow-baseline", 1 + 8 + 4, -1, 1, 3**-0.5),
        ("flowers", 1 + 8, -6, 6, 1.0),
    ],
)
def test_noise_is_drawn_alike_for_training_and_for_grids_and_never_twice(
    monkeypatch, run, digits, tiny, no_plots, name, draws, low, high, std
):
    digits(16)
    drawn = {}  # by their bytes: the last grid is drawn twice, at its step and at the end
    draw = latent.draw

    def watched(*arguments):
        z = draw(*arguments)
        drawn[z.numpy().tobytes()] = z.numpy().copy()
        return z

    monkeypatch.setattr(latent, "draw", watched)
    run("--preset", name, "--epochs=4", *given(batch_size=8, **(SMALL if name == "flowers" else {})))
    assert len(drawn) == draws
    for z in drawn.values():
        assert low <= z.min() < z.max() <= high
        assert z.std() == pytest.approx(std, rel=5 / np.sqrt(z.size))
        assert abs(z.mean()) < 5 * std / np.sqrt(z.size)
    if std < 1:
        assert max(np.abs(z).max() for z in drawn.values()) > 0.99


@pytest.mark.parametrize(("name", "trains"), [("flux", False), ("tensorflow", True), ("flowers", True)])
def test_grids_use_the_statistics_of_the_recipe(run, digits, tiny, no_plots, tmp_path, name, trains):
    """Flux shows G in eval mode; the others normalise the grid by itself, and leave G as it was."""
    digits(8)
    few = SMALL if name == "flowers" else {}
    run("--preset", name, "--steps=3", *given(batch_size=4, frame_every=1, **few))
    loaded = checkpoint.load(tmp_path / "run")
    shown = {}
    for mode in (True, False):
        generator, _ = models.build(loaded.preset)
        generator.load_state_dict(loaded.under("generator"))
        generator.train(mode)
        images = generator(mg.tensor(loaded.tensors["fixed_z"])).numpy()
        shown[mode] = [np.rint((image + 1) * 127.5).transpose(1, 2, 0) for image in images.astype(np.float64)]
    rows = loaded.preset.grid_rows
    found = tiles(tmp_path / "run" / "frames" / "00000003.png", rows, rows, loaded.preset.image_size)
    for mode in (True, False):
        far = max(
            np.abs(a.reshape(b.shape).astype(float) - b).max()
            for a, b in zip(found, shown[mode], strict=True)
        )
        assert (far <= 1) == (mode == trains)


def test_grids_and_frames_change_nothing_of_the_training(run, digits, tiny, no_plots, tmp_path):
    digits(8)
    states = []
    for out, every in (("often", 1), ("seldom", 1000)):
        run(
            "--preset",
            "flowers",
            "--steps=4",
            *given(batch_size=4, frame_every=every, sample_every=every, **SMALL),
            out=out,
        )
        states.append(checkpoint.load(tmp_path / out).tensors)
    assert states[0].keys() == states[1].keys()
    assert [key for key in states[0] if not np.array_equal(states[0][key], states[1][key])] == []


# -- the data ------------------------------------------------------------------------------------------


def batches_of(monkeypatch):
    """The batches that are trained on, as they are taken."""
    taken = []
    batch = Batches.batch

    def watched(self, step):
        images = batch(self, step)
        taken.append(images.copy())
        return images

    monkeypatch.setattr(Batches, "batch", watched)
    return taken


def as_numbers(batches, images):
    """The numbers of the images in each batch, by their pixels: 2 x / 255 - 1."""
    scaled = {tuple(np.rint(image[0].astype(float)).astype(int)): i for i, image in enumerate(images)}
    return [
        [scaled[tuple(np.rint((image[0, 0].astype(np.float64) + 1) * 127.5).astype(int))] for image in batch]
        for batch in batches
    ]


@pytest.mark.parametrize("name", GREY)
def test_an_epoch_is_every_image_once_and_the_last_batch_is_partial(
    monkeypatch, run, digits, tiny, no_plots, name
):
    images, taken = digits(20), batches_of(monkeypatch)
    run("--preset", name, "--epochs=3", *given(batch_size=8))
    numbers = as_numbers(taken, images)
    assert [len(batch) for batch in numbers] == [8, 8, 4] * 3
    epochs = [[*a, *b, *c] for a, b, c in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert epochs[0] != list(range(20))  # shuffled
    if name.startswith("tensorflow"):  # once, before training
        assert numbers[0:3] == numbers[3:6] == numbers[6:9]
    else:
        assert len({tuple(epoch) for epoch in epochs}) == 3


def test_mnists_last_batch_of_flux_holds_96():
    assert 60_000 % presets.get("flux").batch_size == 96
    batches = Batches(np.zeros((60_000, 1, 1), np.uint8), 128, mg.Generator(0))
    assert batches.per_epoch == 469
    assert [len(batches.batch(step)) for step in (468, 469, 470)] == [128, 96, 128]


@pytest.mark.parametrize(
    ("name", "fakes"),
    [
        ("flux", [8] * 6),
        ("tensorflow", [8, 8, 4]),
        ("tensorflow-baseline", [8, 8, 4]),
        ("flowers", [8, 8, 4]),
    ],
)
def test_how_many_fakes_a_partial_batch_has(monkeypatch, run, digits, tiny, no_plots, name, fakes):
    """Flux makes a whole batch of them, twice a step; the others as many as there are real images."""
    digits(20)
    counts = []
    build = models.build

    def watched(preset):
        generator, discriminator = build(preset)
        forward = generator.forward

        def counted(z):
            counts.append(len(z))
            return forward(z)

        generator.forward = counted
        return generator, discriminator

    monkeypatch.setattr(models, "build", watched)
    few = SMALL if name == "flowers" else {}
    grid = given(grid_rows=1, grid_columns=1, statistics="running", frame_every=1000)
    run("--preset", name, "--epochs=1", *given(batch_size=8, **few), *grid)
    trained = [count for count in counts if count > 1]  # the grids are of one image here
    expected = [n for n in fakes for _ in range(2)] if name.startswith("tensorflow") else fakes
    assert trained == expected


def test_flowers_are_cropped_at_random_or_in_the_centre_and_mirrored_with_equal_chance(tmp_path):
    """Their short side, 64, becomes 32; each is a ramp, whose ends tell where it was cut, and the flip."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    ramp = np.broadcast_to((60.5 + 1.5 * np.arange(96)).astype(np.uint8)[None, :, None], (64, 96, 3))
    for i in range(4):
        Image.fromarray(ramp).save(folder / f"{i}.png")
    batches = load_batches(presets.get("flowers", batch_size=4), str(folder))
    places, flipped = [], []
    for step in range(1, 501):
        batch = batches.batch(step)
        assert batch.shape == (4, 3, 32, 32)
        for image in batch:
            row = np.rint((image[0, 7].astype(np.float64) + 1) * 127.5).astype(int)
            flipped.append(row[0] > row[-1])
            rising = np.sort(row)
            assert np.array_equal(rising, row[::-1] if flipped[-1] else row)
            assert np.abs(np.diff(rising) - 3).max() <= 1  # twice the 1.5 of the file
            places.append(round((rising[15] - 60.75) / 3) - 15)
    chance = 5 * np.sqrt(0.25 / 2000)  # five standard deviations
    assert abs(np.mean(flipped) - 0.5) < chance
    counted = Counter(places)
    assert set(counted) == set(range(17))  # every place from the left end to the right
    assert abs(counted[8] / 2000 - (0.5 + 0.5 / 17)) < chance
    assert all(abs(counted[i] / 2000 - 0.5 / 17) < 0.02 for i in range(17) if i != 8)
    flips = [f for f, place in zip(flipped, places, strict=True) if place != 8]
    assert abs(np.mean(flips) - 0.5) < 5 * np.sqrt(0.25 / len(flips))  # whatever the crop


def test_colours_train_on_grey_digits_where_no_pictures_are_given(
    monkeypatch, run, digits, tiny, no_plots, tmp_path
):
    digits(4)
    taken = batches_of(monkeypatch)
    code, said = run("--preset", "flowers", "--steps=1", *given(batch_size=4, grid_rows=1))
    assert code == 0
    assert "flowers trains on MNIST" in said
    (batch,) = taken
    assert batch.shape == (4, 3, 32, 32)
    assert np.array_equal(batch[:, 0], batch[:, 1])
    assert np.array_equal(batch[:, 0], batch[:, 2])


# -- the numbers of a run ------------------------------------------------------------------------------

LINEAR = {"bce_with_logits": (), "bce": (Sigmoid(),), "bce_epsilon": (Sigmoid(),)}
Z, PIXELS, HIDDEN = 3, 4, 3  # of the networks that are recomputed


def small(name, norm):
    """A recipe on 2 x 2 images, its networks small enough to be differentiated by trying."""
    preset = presets.PRESETS[name]
    return dataclasses.replace(
        preset, architecture="layers", nz=0, ngf=0, ndf=0, image_size=2, channels=1, z_shape=(Z,),
        crop="center", flip=0.0, batch_size=5, seed=3, frame_every=1000, sample_every=1000, sample_early=0,
        sample_name="a{step}.png", grid_rows=2, grid_columns=2, plot_with_samples=False,
        generator=(Dense(HIDDEN, bias=False), norm, LeakyReLU(0.2), Dense(PIXELS), Tanh(), Reshape(1, 2, 2)),
        discriminator=(
            Flatten(), Dense(HIDDEN, bias=False), norm, LeakyReLU(0.2), Dense(1), *LINEAR[preset.loss]
        ),
    )  # fmt: skip


class Net:
    """Dense, BatchNorm, leaky ReLU, Dense, and an end, in float64; its gradients by central differences."""

    ORDER = ("first", "gamma", "beta", "second", "bias")

    def __init__(self, tensors, start, end, eps, momentum, lr, betas, adam_eps, epsilon_hat):
        keys = (
            f"{start}.weight",
            f"{start + 1}.weight",
            f"{start + 1}.bias",
            f"{start + 3}.weight",
            f"{start + 3}.bias",
        )
        self.keys = keys
        self.p = {name: tensors[key].astype(np.float64) for name, key in zip(self.ORDER, keys, strict=True)}
        self.end, self.eps, self.momentum = end, eps, momentum
        self.mean, self.var = np.zeros(HIDDEN), np.ones(HIDDEN)
        self.lr, self.betas, self.adam_eps, self.epsilon_hat = lr, betas, adam_eps, epsilon_hat
        self.m = {k: np.zeros_like(v) for k, v in self.p.items()}
        self.v = {k: np.zeros_like(v) for k, v in self.p.items()}
        self.steps = 0

    def __call__(self, x, running=False):
        h = x @ self.p["first"].T
        mean, var = (self.mean, self.var) if running else (h.mean(0), h.var(0))
        h = (h - mean) / np.sqrt(var + self.eps) * self.p["gamma"] + self.p["beta"]
        h = np.where(h > 0, h, 0.2 * h)
        return self.end(h @ self.p["second"].T + self.p["bias"])

    def remember(self, x):
        """What a forward pass in training does to the running statistics."""
        h = x @ self.p["first"].T
        self.mean = (1 - self.momentum) * self.mean + self.momentum * h.mean(0)
        self.var = (1 - self.momentum) * self.var + self.momentum * h.var(0, ddof=1)

    def descend(self, loss):
        """Adam along the gradient of `loss()`, which reads the parameters as they stand."""
        h, gradients = 1e-6, {}
        for name, values in self.p.items():
            gradients[name] = np.zeros_like(values)
            for place in np.ndindex(values.shape):
                kept = values[place]
                values[place] = kept + h
                up = loss()
                values[place] = kept - h
                gradients[name][place] = (up - loss()) / (2 * h)
                values[place] = kept
        self.steps += 1
        b1, b2 = self.betas
        for name, gradient in gradients.items():
            self.m[name] = b1 * self.m[name] + (1 - b1) * gradient
            self.v[name] = b2 * self.v[name] + (1 - b2) * gradient**2
            m, v, t = self.m[name], self.v[name], self.steps
            if self.epsilon_hat:  # TensorFlow's
                rate = self.lr * np.sqrt(1 - b2**t) / (1 - b1**t)
                self.p[name] -= rate * m / (np.sqrt(v) + self.adam_eps)
            else:
                self.p[name] -= self.lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + self.adam_eps)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


COSTS = {
    "flux": lambda x, label: np.logaddexp(0, -x if label else x).mean(),
    "tensorflow": lambda p, label: -np.log((p if label else 1 - p) + 1e-12).mean(),
    "pytorch": lambda p, label: -np.log(p if label else 1 - p).mean(),
}


def by_flux(g, d, real, draws, cost):
    """D on fakes of G in eval mode, five of them whatever the real batch; G with noise of its own."""
    z, other = draws
    fake = g(z, running=True)
    said = d(real), d(fake)
    loss_d = cost(said[0], 1) + cost(said[1], 0)
    d.remember(real), d.remember(fake)
    d.descend(lambda: cost(d(real), 1) + cost(d(fake), 0))
    g.remember(other)
    made = g(other)
    after = d(made)
    d.remember(made)
    loss_g = cost(after, 1)
    g.descend(lambda: cost(d(g(other)), 1))
    return loss_d, loss_g, *(sigmoid(x).mean() for x in (*said, after))


def by_pytorch(g, d, real, draws, cost):
    """The same fakes for D and, through the updated D, for G."""
    (z,) = draws
    fake = g(z)
    g.remember(z)
    said = d(real), d(fake)
    loss_d = cost(said[0], 1) + cost(said[1], 0)
    d.remember(real), d.remember(fake)
    d.descend(lambda: cost(d(real), 1) + cost(d(fake), 0))
    after = d(fake)
    d.remember(fake)
    loss_g = cost(after, 1)
    g.descend(lambda: cost(d(g(z)), 1))
    return loss_d, loss_g, *(p.mean() for p in (*said, after))


def by_tensorflow(g, d, real, draws, cost):
    """Both losses before; G; then D on the same z, its fakes made again."""
    (z,) = draws
    fake = g(z)
    g.remember(z)
    said = d(real), d(fake)
    d.remember(fake), d.remember(real)  # it is asked about the real images in its own half, before it moves
    losses = cost(said[0], 1) + cost(said[1], 0), cost(said[1], 1)
    g.descend(lambda: cost(d(g(z)), 1))
    again = g(z)
    g.remember(z)
    after = d(again)
    d.remember(again)
    d.descend(lambda: cost(d(real), 1) + cost(d(again), 0))
    return *losses, *(p.mean() for p in (*said, after))


@pytest.mark.parametrize(
    ("name", "norm", "betas", "by", "adam_eps"),
    [
        ("flux", BatchNorm(1e-5, 0.1), (0.9, 0.999), by_flux, 1e-8),
        ("tensorflow", BatchNorm(1e-3, 0.01), (0.5, 0.999), by_tensorflow, 1e-8),
        ("pytorch", BatchNorm(1e-5, 0.1), (0.5, 0.999), by_pytorch, 1e-8),
        # Of this size epsilon shortens steps by a tenth or more, which tells where it is added.
        ("flux", BatchNorm(1e-5, 0.1), (0.9, 0.999), by_flux, 1e-3),
        ("tensorflow", BatchNorm(1e-3, 0.01), (0.5, 0.999), by_tensorflow, 1e-3),
        ("pytorch", BatchNorm(1e-5, 0.1), (0.5, 0.999), by_pytorch, 1e-3),
    ],
)
def test_five_steps_of_a_run_are_those_of_an_independent_recomputation(
    monkeypatch, tmp_path, no_plots, name, norm, betas, by, adam_eps
):
    """In float64 and without automatic gradients, on the batches and the noise that the run took."""
    preset = dataclasses.replace(small(name, norm), adam_eps=adam_eps)
    pixels = np.random.default_rng(0).integers(0, 256, (23, 2, 2)).astype(np.uint8)  # batches of 5, and of 3
    batches = Batches(pixels, 5, mg.Generator(3, 2), shuffle=preset.shuffle)
    out = training.RunDirectory.create(tmp_path / "run", RunConfig(preset, "cpu", "made up"))
    learner = Learner(preset, batches, "cpu")
    runs = training.Training(learner, out, training.Progress(5, ""), Schedule())
    drawn = []
    draw = learner.gan.noise
    learner.gan.noise = lambda n: (drawn.append(draw(n)), drawn[-1])[1]
    for network in learner.networks.values():  # far enough apart to tell all mistakes
        for tensor in network.parameters():
            tensor.data = np.random.default_rng(tensor.size).normal(0.3, 0.6, tensor.shape).astype(np.float32)
    start = {k: v.numpy() for k, v in learner.gan.generator.state_dict().items()}
    start_d = {k: v.numpy() for k, v in learner.gan.discriminator.state_dict().items()}
    runs.train(5, lambda: False)

    common = (norm.eps, norm.momentum, 2e-4, betas, adam_eps, name == "tensorflow")
    g = Net(start, 0, np.tanh, *common)
    d = Net(start_d, 1, (lambda x: x) if name == "flux" else sigmoid, *common)
    draws = [z.numpy().astype(np.float64) for z in drawn]
    each = 2 if name == "flux" else 1
    assert [len(z) for z in draws] == ([5] * 10 if name == "flux" else [5, 5, 5, 5, 3])
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for step in range(5):
        real = batches.batch(step + 1).reshape(-1, PIXELS).astype(np.float64)
        expected = by(g, d, real, draws[step * each : (step + 1) * each], COSTS[name])
        found = [metrics[step][key] for key in ("loss_d", "loss_g", "d_x", "d_g_z1", "d_g_z2")]
        assert found == pytest.approx(list(expected), rel=2e-5)
    for network, net, before in ((learner.gan.generator, g, start), (learner.gan.discriminator, d, start_d)):
        after = {k: v.numpy() for k, v in network.state_dict().items()}
        for kind, key in zip(net.ORDER, net.keys, strict=True):
            assert np.abs(after[key] - before[key]).max() > 2e-4
            assert np.allclose(after[key], net.p[kind], rtol=0, atol=5e-6)
        place = net.keys[1].removesuffix(".weight")
        assert np.allclose(after[f"{place}.running_mean"], net.mean, rtol=1e-4, atol=1e-5)
        assert np.allclose(after[f"{place}.running_var"], net.var, rtol=1e-4, atol=1e-5)


def scripted(monkeypatch, rule, values):
    """A rule whose losses are given, step by step."""
    given_losses = iter(values)

    def step(gan, real):
        loss_d, loss_g = next(given_losses)
        scalars = (loss_d, loss_g, 0.75, 0.25, 0.5)
        return StepResult(*(mg.tensor(np.float32(value)) for value in scalars))

    monkeypatch.setitem(steps.RULES, rule, step)


def test_losses_that_are_too_small_or_too_large_are_told_once_each(monkeypatch, run, digits, tiny, no_plots):
    digits(8)
    values = [(1e-3, 50.0), (1.4, 0.7), (9e-4, 51.0), (1e-5, 99.0), (60.0, 5e-4), (70.0, 1e-6), (1e-9, 1e3)]
    scripted(monkeypatch, "same_fakes", values)
    _, said = run("--preset", "flowers", "--steps=7", "--vitals-every=0", *given(batch_size=4, **SMALL))
    warnings = [line for line in said.splitlines() if line.startswith("warning")]
    assert sorted(warnings) == [
        "warning: at step 3 loss_d is 0.0009, under 0.001: D has nothing left to learn from G",
        "warning: at step 3 loss_g is 51, over 50: G is far behind D",
        "warning: at step 5 loss_d is 60, over 50: D is far behind G",
        "warning: at step 5 loss_g is 0.0005, under 0.001: G has nothing left to learn from D",
    ]


def test_losses_between_the_bounds_are_not_warned_of(monkeypatch, run, digits, tiny, no_plots):
    digits(8)
    scripted(monkeypatch, "same_fakes", [(1.001e-3, 49.9), (49.9, 1.001e-3), (50.0, 1.4)])
    _, said = run("--preset", "pytorch", "--steps=3", "--vitals-every=0", *given(batch_size=4, **SMALL))
    assert "warning" not in said


def test_both_losses_and_what_d_says_are_logged_and_kept(monkeypatch, run, digits, tiny, no_plots, tmp_path):
    """D(x), and D(G(z)) before and after D's update: printed now and then, of every step in the file."""
    digits(8)
    scripted(monkeypatch, "same_fakes", [(1 + i, 2 + i) for i in range(5)])
    _, said = run("--preset", "flowers", "--steps=5", *given(batch_size=4, log_every=2, **SMALL))
    assert [line for line in said.splitlines() if line.startswith("step ") and "/5" not in line] == [
        f"step {n}: loss D {n:.4f}, loss G {n + 1:.4f}, D(x) 0.750, D(G(z)) 0.250 / 0.500" for n in (2, 4)
    ]
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert metrics == [
        {
            "step": n,
            "epoch": (n + 1) // 2,
            "loss_d": n,
            "loss_g": n + 1,
            "d_x": 0.75,
            "d_g_z1": 0.25,
            "d_g_z2": 0.5,
        }
        for n in range(1, 6)
    ]


# -- the true networks, once ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sample"),
    [
        ("flux-draft", "dcgan_steps_000001.png"), ("tensorflow", "dcgan_gen_data_0.png"),
        ("tensorflow-baseline", "gan_gen_data_0.png"), ("flowers", "output_1_iters-epoch_0.png"),
        ("pytorch", "output_1_iters-epoch_0.png"),
    ],
)  # fmt: skip
def test_the_recipe_itself_trains(run, digits, no_plots, tmp_path, name, sample):
    digits(3)
    code, _ = run("--preset", name, "--steps=1", *given(batch_size=3, grid_rows=1, grid_columns=2))
    assert code == 0
    assert (tmp_path / "run" / "samples" / sample).exists()
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert 0 < json.loads(line)["loss_d"] < 50
    loaded = checkpoint.load(tmp_path / "run")
    assert loaded.under("optimizer_g")["steps"].tolist() == [1] * len(
        list(models.build(loaded.preset)[0].parameters())
    )


def test_flowers_at_another_size_needs_that_size_alone(run, digits, no_plots, tmp_path):
    digits(2)
    grid = given(grid_rows=1, grid_columns=2)
    code, _ = run("--preset", "flowers", "--set", "image_size=64", "--steps=1", "--batch-size=2", *grid)
    assert code == 0
    assert picture(tmp_path / "run" / "frames" / "00000001.png").shape == (64 + 4, 2 * 66 + 2, 3)


@pytest.mark.parametrize("name", ["flowers", "tensorflow", "flux"])
def test_a_run_that_diverges_says_so_whatever_its_loss(run, tmp_path, name):
    small = ["--set", "ngf=2", "--set", "ndf=2", "--set", "image_size=16"] if name == "flowers" else []
    huge = ["--set", "lr_generator=1e30", "--set", "lr_discriminator=1e30"]
    code, said = run("--preset", name, "--steps", "3", "--batch-size", "4", *small, *huge)
    assert code == 1
    assert re.search(
        r"The first number that is not finite comes up in (generator|discriminator)\.\d+ \w+", said
    )
    assert 1 <= len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) <= 3
