"""How good samples are said to be: the judges, what is compared with what, and what a person is told."""

import json
import re
import sys
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import console, evaluate, models, pictures, presets, sample
from dcgan.api import evaluating, generator
from dcgan.data import mnist
from dcgan.errors import UserError
from dcgan.evaluation import classifier, comparison, judges, measures, monitor, show
from dcgan.evaluation.comparison import EvaluationResult
from dcgan.recipe.layers import Dense, Reshape, Tanh
from dcgan.run import checkpoint
from dcgan.run.directory import RunDirectory
from minigrad import nn, serialize

MEASURES = {"frechet", "kernel", "precision", "recall", "score", "shares", "nearest"}
QUICK = ("--preset", "quick", "--batch-size", "8", "--set", "frame_every=100")


@pytest.fixture(scope="module")
def mnist_itself():
    """(images, labels) of both splits, read once."""
    return {split: (mnist.images(split), mnist.labels(split)) for split in ("train", "test")}


DRAW = show.draw


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """Figures take most of the time: there is a dot in their place, but where a test looks at them."""
    for module, name in ((show, "draw"), (pictures, "save_losses"), (pictures, "save_side_by_side")):
        monkeypatch.setattr(
            module, name, lambda _, path: pictures.save_png(np.zeros((1, 1, 1), np.uint8), path)
        )


def only_some(patch, mnist_itself, counts):
    """The first digits of each split in MNIST's place; what else there is comes back."""
    few = {split: [a[: counts[split]] for a in both] for split, both in mnist_itself.items()}
    patch.setattr(mnist, "images", lambda split="train": few[split][0])
    patch.setattr(mnist, "labels", lambda split="train": few[split][1])
    return {split: [a[counts[split] :] for a in both] for split, both in mnist_itself.items()}


@pytest.fixture
def digits(mnist_itself, monkeypatch):
    """200 training and 100 test digits."""
    return only_some(monkeypatch, mnist_itself, {"train": 200, "test": 100})


@pytest.fixture
def more_digits(digits, mnist_itself, monkeypatch):
    """400 training and 200 test digits."""
    return only_some(monkeypatch, mnist_itself, {"train": 400, "test": 200})


def tiny(**overrides):
    """A recipe of one layer, without a BatchNorm."""
    fields = {
        "generator": (Dense(784), Tanh(), Reshape(1, 28, 28)),
        "z_shape": (10,),
        "statistics": "running",
    }
    return presets.get("tensorflow-baseline", **{**fields, **overrides})


def written(directory, preset, data=None, name=checkpoint.FILE_NAME, seed=0):
    """A run's directory with a checkpoint of fresh weights, and what --data was."""
    directory.mkdir(exist_ok=True)
    mg.manual_seed(seed)
    generator, _ = models.build(preset)
    checkpoint.save(directory / name, preset, {"step": 7, "epoch": 2}, {"generator": generator.state_dict()})
    if data is not None:
        (directory / "config.json").write_text(json.dumps({"data": str(data)}))
    return directory


@pytest.fixture
def place(digits, tmp_path, monkeypatch):
    """A temporary directory, which is the current one, with a run in it: `run`."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "run", tiny(), "mnist")
    return tmp_path


class Memory(nn.Module):
    """A generator that gives back images that it has seen, whatever its noise."""

    def __init__(self, images):
        super().__init__()
        self.layer = nn.Dense(1, 1)
        self.images, self.given = classifier.scaled(images), 0

    def forward(self, z):
        start, self.given = self.given, self.given + len(z)
        return mg.tensor(self.images[start : self.given])


def evaluated(directory, *arguments):
    """What evaluation.json says once the command has run."""
    assert evaluate.main([str(directory), *arguments]) == 0
    out = arguments[arguments.index("--out") + 1] if "--out" in arguments else directory
    with open(f"{out}/evaluation.json", encoding="utf-8") as file:
        return json.load(file, parse_constant=pytest.fail)


def pixels(path):
    with Image.open(path) as png:
        return np.asarray(png.convert("RGB"))


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


# -- the classifier --------------------------------------------------------------------------------


def test_the_classifier_finds_the_test_digits(mnist_itself):
    images, labels = mnist_itself["test"]
    assert classifier.accuracy(classifier.load(), images[2000:4000], labels[2000:4000]) >= 0.985


def test_its_file_is_small_and_says_how_good_it_is():
    with resources.as_file(resources.files("dcgan.evaluation") / classifier.FILE_NAME) as path:
        assert path.stat().st_size < 2_000_000
        assert float(mg.load_metadata(path)["test_accuracy"]) >= 0.99
        assert mg.load(path).keys() == classifier.Classifier().state_dict().keys()


def test_training_repeats_bit_for_bit_and_learns(mnist_itself, monkeypatch):
    monkeypatch.setattr(classifier, "BATCH", 16)
    images, labels = (a[:400] for a in mnist_itself["train"])
    states = []
    for noise in (1, 2):
        mg.manual_seed(noise)  # whatever was drawn before does not matter
        trained = classifier.train(images, labels, epochs=1)
        states.append({name: value.numpy() for name, value in trained.state_dict().items()})
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert not trained.training
    test, expected = (a[:300] for a in mnist_itself["test"])
    assert classifier.accuracy(trained, test, expected) > 0.3
    mg.manual_seed(0)
    untrained = classifier.Classifier()
    untrained.eval()
    assert classifier.accuracy(untrained, test, expected) < 0.3


def test_another_seed_trains_another_classifier(mnist_itself):
    images, labels = (a[:40] for a in mnist_itself["train"])
    a, b = (classifier.train(images, labels, epochs=1, seed=seed).state_dict() for seed in (0, 1))
    assert not any(np.array_equal(a[name].numpy(), b[name].numpy()) for name in a if name.endswith("weight"))


def test_the_command_of_training_writes_what_it_trained(mnist_itself, tmp_path, monkeypatch, capsys):
    only_some(monkeypatch, mnist_itself, {"train": 40, "test": 40})
    out = tmp_path / "new" / "c.safetensors"
    assert classifier.main(["--out", str(out), "--epochs", "1", "--seed", "3"]) == 0
    expected = classifier.train(mnist.images("train"), mnist.labels("train"), 1, 3)
    assert all(
        np.array_equal(mg.load(out)[name], value.numpy()) for name, value in expected.state_dict().items()
    )
    share = classifier.accuracy(expected, mnist.images("test"), mnist.labels("test"))
    assert mg.load_metadata(out) == {"test_accuracy": f"{share:.4f}"}
    assert f"{100 * share:.2f}% of the" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("--epochs", "0"), ("--seed", "-1"), ("--seed", str(2**63))])
def test_the_command_of_training_tells_a_mistake(tmp_path, arguments):
    with pytest.raises(UserError, match="expected --epochs of at least 1 and --seed"):
        classifier.main([*arguments, "--out", str(tmp_path / "c.safetensors")])
    assert not list(tmp_path.iterdir())


def test_images_are_moved_by_two_pixels_at_most():
    images = np.random.default_rng(0).integers(1, 256, (25, 6, 7)).astype(np.uint8)
    corners = np.array([(y, x) for y in range(5) for x in range(5)])
    for image, moved, (y, x) in zip(images, classifier._shifted(images, corners), corners, strict=True):
        expected = np.zeros_like(image)
        for row in range(6):
            for column in range(7):
                if 0 <= row + y - 2 < 6 and 0 <= column + x - 2 < 7:
                    expected[row, column] = image[row + y - 2, column + x - 2]
        assert np.array_equal(moved, expected)


def test_training_moves_images_by_all_of_the_two_pixels(mnist_itself, monkeypatch):
    seen = []
    shifted = classifier._shifted
    monkeypatch.setattr(
        classifier, "_shifted", lambda a, corners: (seen.append(corners), shifted(a, corners))[1]
    )
    images, labels = (a[:64] for a in mnist_itself["train"])
    classifier.train(images, labels, epochs=2)
    first, second = seen
    assert not np.array_equal(first, second)  # anew in each epoch
    assert {tuple(corner) for corner in np.concatenate(seen)} == {(y, x) for y in range(5) for x in range(5)}


def test_bytes_are_scaled_to_what_training_of_gans_uses():
    images = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    scaled = classifier.scaled(images)
    assert (scaled.dtype, scaled.shape) == (np.float32, (4, 1, 8, 8))
    assert np.allclose(scaled[:, 0], images / 127.5 - 1, atol=1e-6)
    assert np.array_equal(pictures.to_bytes(scaled)[..., 0], images)


def test_what_is_said_of_an_image_does_not_depend_on_the_others(mnist_itself):
    images = classifier.scaled(mnist_itself["test"][0][:260])  # more than go together
    trained = classifier.load()
    features, probabilities = classifier.judge(trained, images)
    assert features.shape == (260, classifier.FEATURES)
    assert probabilities.shape == (260, 10)
    assert np.allclose(probabilities.sum(axis=1), 1)
    for i in (0, 7, 259):
        alone = classifier.judge(trained, images[i : i + 1])
        assert np.allclose(features[i], alone[0], rtol=1e-3, atol=1e-3)
        assert np.allclose(probabilities[i], alone[1], atol=1e-4)
        weight, bias = (trained.last.state_dict()[name].numpy() for name in ("weight", "bias"))
        logits = weight.astype(np.float64) @ features[i] + bias
        assert np.allclose(probabilities[i], np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_a_damaged_classifier_is_told(tmp_path, monkeypatch, content):
    if content is not None:
        (tmp_path / classifier.FILE_NAME).write_bytes(content)
    monkeypatch.setattr(classifier.resources, "files", lambda _: tmp_path)
    with pytest.raises(UserError, match="the classifier of digits, .* can't be read: .*install dcgan again"):
        classifier.load()


# -- the judges ------------------------------------------------------------------------------------


def test_digits_are_found_in_other_sizes_and_colours_too(mnist_itself):
    images, labels = (a[:100] for a in mnist_itself["test"])
    large = images.repeat(2, axis=1).repeat(2, axis=2)[..., None].repeat(3, axis=3)
    features, probabilities = judges.DigitJudge().look(large)
    assert features.shape == (100, 64)
    assert (probabilities.argmax(axis=1) == labels).mean() > 0.9


def plain_features(judge, images):
    """The fixed network by loops over the places of its kernels, in float64."""
    x = images.astype(np.float64).transpose(0, 3, 1, 2) / 127.5 - 1
    x = x.repeat(3, axis=1) if x.shape[1] == 1 else x
    described = []
    for layer in judge.layers:
        weight = layer.weight.numpy().astype(np.float64)  # (out, in, 4, 4)
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        height, width = (padded.shape[2] - 4) // 2 + 1, (padded.shape[3] - 4) // 2 + 1
        x = np.empty((len(x), len(weight), height, width))
        for i in range(height):
            for j in range(width):
                part = padded[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
                x[:, :, i, j] = np.einsum("ncyx,ocyx->no", part, weight)
        x = np.where(x > 0, x, 0.2 * x)
        described += [x.mean(axis=(2, 3)), x.std(axis=(2, 3))]
    return np.concatenate(described, axis=1)


@pytest.mark.parametrize("shape", [(3, 8, 8, 1), (2, 16, 16, 3)])
def test_the_fixed_network_is_what_loops_find_and_never_another(shape):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    judge = judges.FixedNetworkJudge()
    features, probabilities = judge.look(images)
    assert probabilities is None
    assert features.shape == (shape[0], 224)
    assert np.allclose(features, plain_features(judge, images), rtol=1e-3, atol=1e-4)
    mg.manual_seed(123)
    assert np.array_equal(judges.FixedNetworkJudge().look(images)[0], features)


def test_the_fixed_network_lays_alpha_on_white_and_grey_is_grey():
    rng = np.random.default_rng(0)
    judge = judges.FixedNetworkJudge()
    grey = rng.integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    features = judge.look(grey)[0]
    assert np.array_equal(judge.look(grey.repeat(3, axis=3))[0], features)
    opaque = np.full_like(grey, 255)
    for layers in ((grey, opaque), (grey, grey, grey, opaque)):
        assert np.allclose(judge.look(np.concatenate(layers, axis=3))[0], features, atol=1e-5)
    unseen = np.concatenate([grey, np.zeros_like(grey)], axis=3)
    assert np.allclose(judge.look(unseen)[0], judge.look(opaque)[0], atol=1e-5)


# -- what is compared with what --------------------------------------------------------------------


def test_digits_are_held_against_test_images_and_training_images_are_the_floor(digits):
    real = comparison.real_images("mnist", tiny())
    assert np.array_equal(real.reference[..., 0], mnist.images("test"))
    assert np.array_equal(real.floor[..., 0], mnist.images("train")[:100])
    assert np.array_equal(real.training[..., 0], mnist.images("train"))


def marked(n, side=8, channels=3):
    """Images of which each is another: its number is its first pixel."""
    images = np.random.default_rng(0).integers(0, 256, (n, side, side, channels)).astype(np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    return images


@pytest.mark.parametrize("n", [32, 33, 101])
def test_other_images_are_held_against_their_other_half(n):
    preset = presets.get("pytorch", image_size=8, ngf=2, ndf=2)
    images = marked(n)
    real = comparison.real_images("folder", preset, images)
    assert len(real.reference) == n // 2
    assert len(real.floor) == n - n // 2
    found = np.concatenate([real.reference, real.floor])
    assert np.array_equal(real.training, found)
    order = found[:, 0, 0, 0].tolist()
    assert sorted(order) == list(range(n))
    assert order != sorted(order)
    assert all(np.array_equal(image, images[k]) for image, k in zip(found, order, strict=True))
    again = comparison.real_images("folder", preset, images)
    assert np.array_equal(again.reference, real.reference)


def test_images_that_are_no_squares_are_cut_in_their_middle():
    preset = presets.get("pytorch", image_size=8, ngf=2, ndf=2)
    images = [np.full((8, 8 + 2 * (k % 3), 3), k, np.uint8) for k in range(40)]
    real = comparison.real_images("folder", preset, images)
    assert real.training.shape == (40, 8, 8, 3)
    assert sorted(real.training[:, 0, 0, 0].tolist()) == list(range(40))


def test_too_few_images_to_compare_are_told():
    with pytest.raises(UserError, match="--data few: 31 images; expected 32 or more to compare"):
        comparison.real_images("few", presets.get("pytorch", image_size=8, ngf=2, ndf=2), marked(31))


@pytest.mark.parametrize(("count", "size"), [(100, 8), (100, 64), (101, 1), (300, 128), (16, 500)])
def test_samples_come_in_batches_of_about_the_recipes_size_and_never_alone(count, size):
    preset = tiny(batch_size=size)
    generator, _ = models.build(preset)
    chunks = list(comparison.sample(generator, preset, "running", count, 0))
    sizes = [len(chunk) for chunk in chunks]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(count, max(size, 2))
    assert min(sizes) < 2 * max(size, 2) or len(sizes) == 1
    assert chunks[0].dtype == np.uint8
    assert chunks[0].shape[1:] == (28, 28, 1)


def test_nearest_training_images_are_found_by_their_pixels():
    training = marked(30, 5, 1)
    images = training[[4, 20]].copy()
    images[0, 2, 2, 0] ^= 128
    indices, distances = comparison.nearest_training(images, training)
    assert indices.tolist() == [4, 20]
    assert distances == pytest.approx([128 / 255, 0])


# -- dcgan.evaluate --------------------------------------------------------------------------------


def test_an_evaluation_is_a_table_a_json_file_and_a_picture(place, monkeypatch, capsys):
    monkeypatch.setattr(show, "draw", DRAW)
    said = evaluated("run", "--count", "200")
    assert {key: said[key] for key in ("recipe", "step", "epoch", "weights", "statistics", "count")} == {
        "recipe": "tensorflow-baseline", "step": 7, "epoch": 2, "weights": "last", "statistics": "running",
        "count": 200,
    }  # fmt: skip
    assert said["about"] == "the test images of MNIST"
    assert "our own classifier of digits" in said["features"]
    assert said["accuracy"] > 0.97
    for result in (said["samples"], said["floor"]):
        assert result.keys() == MEASURES
        assert sum(result["shares"]) == pytest.approx(1)
        assert len(result["shares"]) == 10
        assert 1 <= result["score"] <= 10
        assert 0 <= result["precision"] <= 1
        assert result["nearest"] > 0
    table = capsys.readouterr().out
    assert "tensorflow-baseline after step 7: 200 samples (last weights, running statistics)" in table
    assert f"which finds {100 * said['accuracy']:.2f}% of the test digits" in table
    for name, figure, form in (
        ("score", "score", ".2f"), ("Fréchet distance", "frechet", ".2f"), ("precision", "precision", ".3f"),
        ("recall", "recall", ".3f"), ("nearest training image", "nearest", ".2f"),
    ):  # fmt: skip
        samples, real = (format(said[which][figure], form) for which in ("samples", "floor"))
        assert re.search(rf"^{name} +{re.escape(samples)} +{re.escape(real)}   \w", table, re.MULTILINE)
    for name, which in (("samples", "samples"), ("real", "floor")):
        line = re.search(rf"^share of {name}, %(.*)$", table, re.MULTILINE)
        assert [float(v) for v in line[1].split()] == pytest.approx(
            [100 * v for v in said[which]["shares"]], abs=0.051
        )
    assert "run/evaluation.json, run/evaluation.png" in table
    assert pixels("run/evaluation.png").std() > 20


def test_an_evaluation_repeats_and_another_seed_or_place_is_another(place):
    evaluated("run", "--count", "100", "--out", "a")
    evaluated("run/checkpoint.safetensors", "--count", "100", "--out", "b/c")
    assert files(place / "a") == files(place / "b" / "c")
    assert evaluated("run", "--count", "100", "--seed", "1", "--out", "d") != json.loads(
        (place / "a" / "evaluation.json").read_text()
    )
    assert {path.name for path in (place / "run").iterdir()} == {checkpoint.FILE_NAME, "config.json"}


def test_memorised_images_are_found_out(place, digits, monkeypatch):
    seen_before = mnist.images("train")[99::-1]
    monkeypatch.setattr(generator, "load_generator", lambda *_: Memory(seen_before))
    seen = {}
    monkeypatch.setattr(show, "draw", lambda evaluation, path: seen.update(e=evaluation))
    said = evaluated("run", "--count", "100")
    assert said["samples"]["nearest"] == 0
    assert said["floor"]["nearest"] > 3
    assert np.array_equal(seen["e"].looked_up, seen["e"].found)
    assert np.array_equal(seen["e"].grid, seen_before[:64, ..., None])
    # They are the floor's own images, in another order.
    for name in ("frechet", "kernel", "precision", "recall", "score", "shares"):
        assert said["samples"][name] == pytest.approx(said["floor"][name], rel=1e-3, abs=1e-3)


def test_other_real_images_come_near_the_floor_and_noise_does_not(place, more_digits, monkeypatch):
    monkeypatch.setattr(generator, "load_generator", lambda *_: Memory(more_digits["train"][0]))
    said = evaluated("run", "--count", "200")
    samples, floor = said["samples"], said["floor"]
    assert samples["frechet"] == pytest.approx(floor["frechet"], rel=0.5)
    assert abs(samples["kernel"]) < 0.05
    assert samples["precision"] == pytest.approx(floor["precision"], abs=0.15)
    assert samples["recall"] == pytest.approx(floor["recall"], abs=0.15)
    assert samples["score"] == pytest.approx(floor["score"], abs=0.5)
    assert samples["score"] > 8
    assert samples["nearest"] == pytest.approx(floor["nearest"], rel=0.2)
    assert min(samples["shares"]) > 0.04
    noise = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    monkeypatch.setattr(generator, "load_generator", lambda *_: Memory(noise))
    worse = evaluated("run", "--count", "200")
    assert worse["floor"] == floor
    assert worse["samples"]["frechet"] > 10 * samples["frechet"]
    assert worse["samples"]["kernel"] > 0.1
    assert worse["samples"]["precision"] < 0.1
    assert worse["samples"]["nearest"] > 1.5 * samples["nearest"]


def test_one_digit_made_again_and_again_is_found_out(place, more_digits, monkeypatch):
    images, labels = more_digits["train"]
    fours = images[labels == 4][:200]
    monkeypatch.setattr(generator, "load_generator", lambda *_: Memory(fours))
    said = evaluated("run", "--count", "200")
    assert said["samples"]["shares"][4] > 0.97
    assert said["samples"]["score"] < 1.3
    assert said["samples"]["precision"] > 0.7
    assert said["samples"]["recall"] < 0.3


def test_results_are_those_of_the_measures(place, digits, monkeypatch):
    """What goes into which: features of 120 samples, of the test images, of as many training images."""
    shown = digits["train"][0][:120]
    monkeypatch.setattr(generator, "load_generator", lambda *_: Memory(shown))
    said = evaluated("run", "--count", "120")
    judge = judges.DigitJudge()
    (ours, sure), (reference, _), (floor, _) = (
        judge.look(images[..., None]) for images in (shown, mnist.images("test"), mnist.images("train")[:100])
    )
    for features, result in ((ours, said["samples"]), (floor, said["floor"])):
        assert result["frechet"] == pytest.approx(measures.frechet(features, reference), rel=1e-3)
        assert result["kernel"] == pytest.approx(measures.kernel_distance(features, reference), abs=1e-4)
        assert (result["precision"], result["recall"]) == pytest.approx(
            measures.precision_recall(features, reference), abs=0.01
        )
    assert said["samples"]["score"] == pytest.approx(measures.score(sure), rel=1e-4)
    flat = [images.reshape(len(images), -1) / 255 for images in (shown, mnist.images("train"))]
    nearest = [np.sqrt(((flat[1] - image) ** 2).sum(axis=1)).min() for image in flat[0]]
    assert said["samples"]["nearest"] == pytest.approx(np.median(nearest), rel=1e-4)


@pytest.fixture
def folder(tmp_path):
    """A folder of 40 colour pictures."""
    (tmp_path / "pictures").mkdir()
    for k, image in enumerate(marked(40)):
        Image.fromarray(image).save(tmp_path / "pictures" / f"{k:02}.png")
    return tmp_path / "pictures"


def test_pictures_are_judged_by_the_fixed_network_which_says_so(place, folder, monkeypatch, capsys):
    monkeypatch.setattr(show, "draw", DRAW)
    preset = presets.get("pytorch", image_size=8, ngf=4, ndf=4, batch_size=16)
    written(place / "run", preset, folder)
    said = evaluated("run", "--count", "100")
    assert said["features"] == "224 features of a fixed network with random weights (not Inception's)"
    assert said["about"] == f"a random half of {folder}"
    assert said["accuracy"] is None
    assert said["statistics"] == "batch"
    for result in (said["samples"], said["floor"]):
        assert result["score"] is None
        assert result["shares"] is None
        assert result["frechet"] >= 0
    assert said["samples"]["frechet"] > 2 * said["floor"]["frechet"]
    assert said["samples"]["nearest"] > 0
    assert said["floor"]["nearest"] > 0
    table = capsys.readouterr().out
    assert "by 224 features of a fixed network with random weights (not Inception's)\n" in table
    assert re.search(r"^nearest training image +[\d.]+ +[\d.]+   ", table, re.MULTILINE)
    assert "score" not in table
    assert "digit" not in table
    assert pixels("run/evaluation.png").std() > 20


def test_there_are_as_many_samples_as_real_images_to_compare_them_with(place, folder):
    written(place / "run", presets.get("pytorch", image_size=8, ngf=4, ndf=4), folder)
    assert evaluated("run")["count"] == 20


def test_the_runs_data_can_be_replaced(place, folder):
    preset = presets.get("pytorch", image_size=8, ngf=4, ndf=4)
    written(place / "run", preset, "nowhere")
    with pytest.raises(UserError, match="--data nowhere: expected mnist"):
        evaluate.main(["run", "--count", "100"])
    assert evaluated("run", "--count", "100", "--data", str(folder))["about"] == f"a random half of {folder}"
    assert evaluated("run", "--count", "100", "--data", "mnist")["about"] == "the test images of MNIST"
    assert not (place / "run" / "config.json").read_text().count(str(folder))


@pytest.mark.parametrize(
    ("content", "data"),
    [(None, "mnist"), ('{"data": "mnist"}', "mnist"), ('{"data": "/a/b"}', "/a/b"), ("{}", "mnist")],
)
def test_the_data_of_a_run_is_what_its_config_says_or_mnist(tmp_path, content, data):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert (RunDirectory(tmp_path).data() or ("mnist", None)) == (data, None)


def test_best_weights_are_evaluated(place):
    written(place / "run", tiny(), name=checkpoint.BEST_NAME, seed=1)
    written(place / "other", tiny(), "mnist", seed=1)
    best = evaluated("run", "--weights", "best", "--count", "100", "--out", "a")
    assert best["weights"] == "best"
    other = evaluated("other", "--count", "100")
    assert best["samples"] == other["samples"]
    assert best["samples"] != evaluated("run", "--count", "100")["samples"]


@pytest.mark.parametrize("statistics", ["batch", "running", "recalibrated"])
def test_the_statistics_are_those_that_are_asked_for(place, monkeypatch, statistics):
    seen = []
    monkeypatch.setattr(
        evaluating,
        "choose_statistics",
        lambda generator, preset, wanted, count: (seen.append((wanted, count)), "running")[1],
    )
    said = evaluated("run", "--count", "100", "--statistics", statistics)
    assert said["statistics"] == statistics
    assert seen == [(statistics, 100)]


MISTAKES = [
    (["run", "--count", "99"], "--count 99: expected 100 to 100000"),
    (["run", "--count", "100001"], "--count 100001"),
    (["run", "--seed", "-1"], "--seed -1: expected an integer of at least 0"),
    (["run", "--weights", "best"], "--weights best: there is no run/best.safetensors; .* --every STEPS"),
    (["run", "--weights", "ema"], "--weights ema: this checkpoint has none"),
    (["nowhere"], "no checkpoint at nowhere"),
    (["run", "--data", "nothing", "--count", "100"], "--data nothing: expected mnist"),
    (["run", "--out", "file", "--count", "100"], "--out file: the folder file can't be made: it is there"),
    (
        ["run", "--out", "file/under", "--count", "100"],
        "--out file/under: .*: Not a directory",
    ),
    (["torn", "--count", "100"], "torn/config.json does not say what the run was trained on: .*--data"),
    (["listed", "--count", "100"], "listed/config.json does not say what the run was trained on"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(
    place, monkeypatch, capsys, arguments, message
):
    (place / "file").write_text("mine")
    for name, content in (("torn", '{"data": "mn'), ("listed", "[1]")):
        written(place / name, tiny())
        (place / name / "config.json").write_text(content)
    before = files(place)
    monkeypatch.setattr(sys, "argv", ["dcgan", *arguments])
    with pytest.raises(SystemExit) as stop:
        console.run_command(evaluate.main, "dcgan.evaluate")
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(f"dcgan.evaluate: {message}[^\n]*\n", said.err)
    assert files(place) == before


@pytest.mark.parametrize("arguments", [["run", "--count", "x"], ["run", "--statistics", "mean"], []])
def test_what_makes_no_sense_by_itself_is_told_by_the_parser(place, arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2


def test_a_full_disk_is_told_and_nothing_is_half_written(place, monkeypatch):
    (place / "run" / "evaluation.json").write_text("old")
    before = files(place)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialize.os, "fsync", full)
    with pytest.raises(UserError, match="--out run: No space left on device"):
        evaluate.main(["run", "--count", "100"])
    assert files(place) == before


# -- the report ------------------------------------------------------------------------------------


def test_the_picture_shows_samples_and_below_each_the_nearest_image(tmp_path):
    colours = np.array([(20 * k, 255 - 20 * k, 128) for k in range(10)], np.uint8)
    flat = np.ones((10, 4, 4, 1), np.uint8)
    looked_up = flat * colours[:, None, None, :]
    found = np.full_like(looked_up, 0) + np.array((250, 10, 10), np.uint8)
    result = EvaluationResult(1.0, 0.1, 0.5, 0.25, None, None, 2.0)
    evaluation = show.Evaluation(
        "recipe", 5, 1, "last", "running", 100, "a set", "features", None, result,
        replace(result, nearest=None), np.full((64, 4, 4, 3), 200, np.uint8), looked_up, found,
    )  # fmt: skip
    DRAW(evaluation, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")

    def middle(colour):
        ys, xs = np.nonzero((np.abs(picture.astype(int) - np.array(colour)) < 4).all(axis=2))
        assert len(ys) > 20
        return ys.mean(), xs.mean()

    places = [middle(colour) for colour in colours]
    assert np.ptp([y for y, _ in places]) < 2
    assert (np.diff([x for _, x in places]) > 10).all()
    assert middle((250, 10, 10))[0] > places[0][0] + 10
    assert middle((200, 200, 200))[0] < places[0][0] - 50
    assert evaluation.to_json().keys().isdisjoint({"grid", "looked_up", "found"})
    assert json.loads(json.dumps(evaluation.to_json()))["floor"]["nearest"] is None


def test_the_rarest_digit_is_the_least_share():
    result = EvaluationResult(1.0, 0.1, 0.5, 0.25, 2.0, [0.5, 0.125, 0.375])
    assert result.rarest == 0.125
    assert replace(result, shares=None).rarest is None


# -- --every ---------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


@pytest.fixture
def train(digits, tmp_path, monkeypatch):
    """Calls dcgan.train on the few digits, with evaluations of 100 samples; gives the run's directory."""
    from dcgan import train

    monkeypatch.setattr(monitor, "COUNT", 100)

    def call(*arguments, out="run"):
        assert train.main([*QUICK, *arguments, "--out", str(tmp_path / out)]) == 0
        return tmp_path / out

    return call


def test_training_with_every_keeps_the_best_and_changes_nothing_else(train, tmp_path, capsys):
    steps = ("--steps", "5", "--set", "ema_decay=0.0", "--set", "sample_every=2")
    with_it, without = train(*steps, "--every", "2", out="a"), train(*steps, out="b")
    a, b = files(with_it), files(without)
    assert a.keys() - b.keys() == {"evaluations.jsonl", checkpoint.BEST_NAME}
    assert [name for name in b if a[name] != b[name] and name != "timing.jsonl"] == []
    found = lines(with_it / "evaluations.jsonl")
    assert [line["step"] for line in found] == [2, 4]  # and no other step, the last one neither
    assert all(line.keys() == {"step", "epoch", "floor", "accuracy", *MEASURES} for line in found)
    smallest = min(found, key=lambda line: line["frechet"])
    assert checkpoint.load(with_it / checkpoint.BEST_NAME).position["step"] == smallest["step"]
    said = capsys.readouterr().out
    for line in found:
        floor = line["floor"]
        assert (
            f"step {line['step']}: score {line['score']:.2f} (real {floor['score']:.2f}), Fréchet distance "
            f"{line['frechet']:.2f} (real {floor['frechet']:.2f}) of 100"
        ) in said
        assert floor["frechet"] < line["frechet"]
        assert line["accuracy"] > 0.98
    assert f"best       {with_it / checkpoint.BEST_NAME}" in said


@pytest.mark.parametrize(
    ("distances", "better"),
    [
        ([5.0, 3.0, 4.0], [True, True, False]),
        ([1.0, 2.0, 0.5], [True, False, True]),
        ([2.0, 2.0, 2.0], [True, False, False]),
    ],
)
def test_the_best_is_the_first_with_the_smallest_distance(digits, monkeypatch, distances, better):
    left = iter([0.1, *distances])  # the floor's first
    monkeypatch.setattr(monitor, "COUNT", 16)
    monkeypatch.setattr(
        monitor, "compare", lambda *_: EvaluationResult(next(left), 0.0, 0.5, 0.5, None, None)
    )
    generator, _ = models.build(tiny())
    watching = monitor.Monitor(tiny(), "mnist", None)
    assert [watching.measure(generator, step)[1] for step, _ in enumerate(distances, 1)] == better
    assert watching.best == min(distances)


def test_the_best_weights_are_kept_and_sampled(train, tmp_path, monkeypatch, capsys):
    left = iter([0.1, 5.0, 3.0, 4.0])  # the floor's first
    monkeypatch.setattr(
        monitor, "compare", lambda *_: EvaluationResult(next(left), 0.0, 0.5, 0.5, 2.0, [0.1] * 10)
    )
    run = train("--steps", "3", "--every", "1", "--set", "ema_decay=0.0")
    until_then = train("--steps", "2", "--set", "ema_decay=0.0", out="until-then")
    assert capsys.readouterr().out.count("the best so far") == 2
    kept, expected = checkpoint.load(run / checkpoint.BEST_NAME), checkpoint.load(until_then)
    assert kept.position == {"step": 2, "epoch": 1}
    assert kept.tensors.keys() == expected.tensors.keys()
    assert all(np.array_equal(value, kept.tensors[name]) for name, value in expected.tensors.items())
    made = {}
    for name, directory, weights in (("a", run, "best"), ("b", run, "last"), ("c", until_then, "last")):
        out = tmp_path / f"{name}.png"
        assert sample.main([str(directory), "--weights", weights, "--out", str(out)]) == 0
        made[name] = out.read_bytes()
    assert made["a"] == made["c"] != made["b"]


def test_an_evaluation_on_the_way_is_what_the_command_says_of_as_many_samples(train, monkeypatch):
    """Of the averaged weights, as they are sampled, with the recipe's statistics."""
    run = train("--steps", "2", "--every", "2")
    (on_the_way,) = lines(run / "evaluations.jsonl")
    afterwards = evaluated(run, "--count", "100", "--seed", str(monitor.SEED))["samples"]
    for name in ("frechet", "kernel", "precision", "recall", "score"):
        assert on_the_way[name] == pytest.approx(afterwards[name], rel=1e-3, abs=1e-3)


def test_pictures_are_evaluated_on_the_way_by_the_fixed_network(train, folder, tmp_path, capsys):
    sizes = ("image_size=8", "ngf=2", "ndf=2", "grid_rows=2", "grid_columns=2")
    overrides = [word for size in sizes for word in ("--set", size)]
    run = train("--preset", "pytorch", *overrides, "--data", str(folder), "--steps", "2", "--every", "1")
    found = lines(run / "evaluations.jsonl")
    assert [line["step"] for line in found] == [1, 2]
    assert all(line["score"] is None and line["frechet"] > 0 for line in found)
    assert re.search(
        r"^step 1: Fréchet distance [\d.]+ \(real [\d.]+\) of 20 samples: the best",
        capsys.readouterr().out,
        re.M,
    )
    assert (run / checkpoint.BEST_NAME).exists()


def test_measuring_leaves_the_generator_and_the_random_numbers_as_they_were(digits, monkeypatch):
    monkeypatch.setattr(monitor, "COUNT", 100)
    preset = presets.get("quick", statistics="batch")
    generator, _ = models.build(preset)
    before = {name: value.numpy().copy() for name, value in generator.state_dict().items()}
    watching = monitor.Monitor(preset, "mnist", None)
    state = mg.random.get_state()
    first, second = watching.measure(generator, 1), watching.measure(generator, 2)
    assert first == (second[0], True)
    assert second[1] is False
    assert mg.random.get_state() == state
    assert generator.training
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in generator.state_dict().items())
