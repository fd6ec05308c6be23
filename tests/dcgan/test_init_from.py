"""A run that begins with another run's weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from dcgan import train
from dcgan.data import arrays
from dcgan.errors import UserError
from dcgan.run import checkpoint

pytestmark = pytest.mark.usefixtures("digests")

SMALL = ["--preset", "quick", "--set", "batch_size=8"]


@pytest.fixture
def place(few_digits, tmp_path, monkeypatch):
    """A directory with a run of two steps, and other pictures."""
    monkeypatch.chdir(tmp_path)
    np.save("other.npy", np.random.default_rng(1).integers(0, 256, (24, 28, 28), np.uint8))
    assert train.main([*SMALL, "--steps", "2", "--seed", "5", "--out", "first"]) == 0
    return tmp_path


def tensors(run, prefix):
    return checkpoint.load(Path(run)).under(prefix)


def test_it_has_the_weights_and_the_recipe_and_begins_anew(place, capsys, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    capsys.readouterr()
    monkeypatch.setattr("dcgan.run.training.Training.train", stop)
    with pytest.raises(KeyboardInterrupt):
        train.main(["--init-from", "first", "--data", "other.npy", "--steps", "3", "--out", "second"])
    assert "24 images of 28 x 28 grey, 3 steps of 8" in capsys.readouterr().out
    begun = checkpoint.load(Path("second"))
    assert begun.position == {"step": 0, "epoch": 1}
    assert begun.preset.seed == 5
    for network in ("generator", "discriminator"):
        first = tensors("first", network)
        assert first.keys() == begun.under(network).keys()
        assert all(np.array_equal(first[key], value) for key, value in begun.under(network).items())
    averaged = begun.under("generator_ema")
    assert all(np.array_equal(value, begun.under("generator")[key]) for key, value in averaged.items())
    assert not any(np.any(v) for k, v in begun.under("optimizer_g").items() if k.startswith(("m.", "v.")))
    started = json.loads(Path("second/config.json").read_text())["init_from"]
    assert started == {"run": str(place / "first"), "step": 2}


def test_a_resumed_one_is_the_same_and_does_not_need_the_first(place):
    begin = ["--init-from", "first", "--data", "other.npy"]
    assert train.main([*begin, "--steps", "5", "--out", "whole"]) == 0
    assert train.main([*begin, "--steps", "1", "--out", "part"]) == 0
    Path("first").rename("gone")
    assert train.main(["--resume", "part", "--steps", "5"]) == 0
    a, b = (Path(run, "checkpoint.safetensors").read_bytes() for run in ("whole", "part"))
    assert a == b
    assert json.loads(Path("part/config.json").read_text())["init_from"]["step"] == 2


def test_one_that_was_killed_before_its_first_checkpoint_is_not_begun_from_other_weights(place):
    train.main(["--init-from", "first", "--steps", "1", "--out", "second"])
    for path in (Path("second/checkpoint.safetensors"), *Path("second/checkpoints").iterdir()):
        path.unlink()
    with pytest.raises(UserError, match="stopped before the weights that it begins with were saved"):
        train.main(["--resume", "second"])


@pytest.mark.slow
def test_without_data_it_goes_on_with_the_same_images(place):
    assert train.main([*SMALL, "--data", "other.npy", "--steps", "1", "--out", "others"]) == 0
    assert train.main(["--init-from", "others", "--steps", "1", "--out", "again"]) == 0
    assert json.loads(Path("again/config.json").read_text())["data"] == str(place / "other.npy")
    assert len(arrays.read(Path("other.npy"))) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--preset", "flux"],
            r"its generator does not fit .*: 0\.weight is \(256, 16\) there and \(12544, 100\)",
        ),
        (
            ["--set", "discriminator=[Flatten(), Dense(1)]"],
            r"its discriminator .*1\.weight is nothing there",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(place, arguments, message):
    with pytest.raises(UserError, match=message):
        train.main(
            ["--init-from", "first", *arguments, "--batch-size", "8", "--steps", "1", "--out", "second"]
        )
    assert not Path("second").exists()


def test_a_run_that_had_diverged_is_refused(place):
    saved = checkpoint.load(Path("first"))
    saved.tensors["generator.0.weight"][0, 0] = np.nan
    parts = {"": saved.tensors}
    checkpoint.save(Path("bad.safetensors"), saved.preset, saved.position, parts, saved.images)
    with pytest.raises(UserError, match="its generator has weights that are not finite"):
        train.main(["--init-from", "bad.safetensors", "--steps", "1", "--out", "second"])
