"""Weights from PyTorch: every key explained, all of it taken or none.

State dicts are written by hand, as torch.nn makes them; PyTorch is not needed.
"""

import json
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import minigrad as mg
from dcgan import console, import_weights, latent, models, presets, sample, sampling
from dcgan.errors import UserError
from dcgan.recipe.layers import BatchNorm, Dense, Dropout, Flatten, Reshape, Sigmoid, Tanh
from dcgan.run import checkpoint, trained
from minigrad import serialize

# What `state_dict()` of the flux generator holds in PyTorch, with a Dropout before each BatchNorm's ReLU.
FLUX = {
    "0.weight": (12544, 100),
    **{f"1.{name}": (12544,) for name in ("weight", "bias", "running_mean", "running_var")},
    "1.num_batches_tracked": (),
    "5.weight": (256, 128, 5, 5),
    **{f"6.{name}": (128,) for name in ("weight", "bias", "running_mean", "running_var")},
    "6.num_batches_tracked": (),
    "9.weight": (128, 64, 4, 4),
    **{f"10.{name}": (64,) for name in ("weight", "bias", "running_mean", "running_var")},
    "10.num_batches_tracked": (),
    "13.weight": (64, 1, 4, 4),
}
FLUX_PLACES = {"0": "0", "1": "1", "5": "4", "6": "5", "9": "7", "10": "8", "13": "10"}
SETTINGS = (
    "--preset", "tensorflow-baseline", "--set", "z_shape=(6,)", "--set", "image_size=8",
    "--set", "generator=[Dense(12), BatchNorm(), Tanh(), Dropout(0.5), Dense(64), Tanh(), Reshape(1, 8, 8)]",
    "--set", "discriminator=[Flatten(), Dense(4), Tanh(), Dense(1), Sigmoid()]",
)  # fmt: skip
G = {
    "0.weight": (12, 6), "0.bias": (12,),
    "1.weight": (12,), "1.bias": (12,), "1.running_mean": (12,), "1.running_var": (12,),
    "1.num_batches_tracked": (),
    "3.weight": (64, 12), "3.bias": (64,),
}  # fmt: skip
G_PLACES = {"0": "0", "1": "1", "3": "4"}  # ours has a Dropout before the last
D = {"1.weight": (4, 64), "1.bias": (4,), "3.weight": (1, 4), "3.bias": (1,)}


def small():
    return presets.get(
        "tensorflow-baseline",
        z_shape=(6,),
        image_size=8,
        generator=(Dense(12), BatchNorm(), Tanh(), Dropout(0.5), Dense(64), Tanh(), Reshape(1, 8, 8)),
        discriminator=(Flatten(), Dense(4), Tanh(), Dense(1), Sigmoid()),
    )


def state_of(shapes, seed=0):
    """Arrays as PyTorch has them: float32, and int64 for the count of batches."""
    rng = np.random.default_rng(seed)
    return {
        key: np.array(1234, np.int64)
        if key.endswith("num_batches_tracked")
        else rng.uniform(0.1, 1, shape).astype(np.float32)
        for key, shape in shapes.items()
    }


def expected(state, places):
    """The same under the recipe's keys."""
    moved = {}
    for key, array in state.items():
        number, name = key.split(".")
        if name != "num_batches_tracked":
            moved[f"{places[number]}.{name}"] = array
    return moved


def prefixed(prefix, state):
    return {f"{prefix}{key}": array for key, array in state.items()}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A temporary directory, which is the current one, with the files g.safetensors and d.safetensors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sampling, "CALIBRATION_COUNT", 500)
    mg.save(state_of(G), "g.safetensors")
    mg.save(prefixed("module.main.", state_of(D, 1)), "d.safetensors")
    return tmp_path


def imported(*arguments, settings=SETTINGS, out="out.safetensors"):
    code = import_weights.main([*settings, "--generator", "g.safetensors", *arguments, "--out", out])
    assert code == 0


def refusal(*arguments, **options):
    """The message of a command that refuses, and leaves nothing."""
    with pytest.raises(UserError) as refused:
        imported(*arguments, **options)
    assert not Path("out.safetensors").exists()
    return str(refused.value)


def same(tensors, wanted):
    assert tensors.keys() == wanted.keys()
    for key, array in wanted.items():
        assert tensors[key].dtype == np.float32
        assert np.array_equal(tensors[key], array), key


# -- what is taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "main.", "module.main.", "net.0.", "_orig_mod.main."])
def test_every_tensor_comes_to_its_place_whatever_the_prefix(place, prefix):
    mg.save(prefixed(prefix, state_of(G)), "g.safetensors")
    imported("--discriminator", "d.safetensors")
    loaded = checkpoint.load(place / "out.safetensors")
    assert loaded.preset == small()
    assert loaded.position == {"step": 0, "epoch": 0}
    same(loaded.under("generator"), expected(state_of(G), G_PLACES))
    same(loaded.under("discriminator"), expected(state_of(D, 1), {"1": "1", "3": "3"}))


def test_layers_are_in_the_order_of_their_numbers_not_of_their_letters(place):
    """10 comes after 9, and a Dropout shifts the numbers."""
    mg.save(prefixed("main.", state_of(FLUX)), "g.safetensors")
    imported(settings=("--preset", "flux"))
    loaded = checkpoint.load(place / "out.safetensors")
    same(loaded.under("generator"), expected(state_of(FLUX), FLUX_PLACES))


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_recipe_takes_its_own_state(place, name):
    preset = presets.get(name)
    networks = models.build(preset)
    for file, network in zip(("g", "d"), networks, strict=True):
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        mg.save(prefixed("main.", state_of(shapes)), f"{file}.safetensors")
    imported("--discriminator", "d.safetensors", settings=("--preset", name))
    loaded = checkpoint.load(place / "out.safetensors")
    for part, network in zip(("generator", "discriminator"), networks, strict=True):
        shapes = {key: value.shape for key, value in network.state_dict().items()}
        same(loaded.under(part), state_of(shapes))


def test_samples_are_drawn_from_it(place):
    imported(out="run")
    assert sample.main(["run", "--out", "a.png", "--statistics", "running"]) == 0
    generator, _ = models.build(small())
    generator.load_state_dict(expected(state_of(G), G_PLACES))
    z = latent.draw(small(), 4, mg.Generator(0))
    drawn = trained.load_generator(checkpoint.load(place / "run"))
    assert np.array_equal(sampling.generate(drawn, z, "running"), sampling.generate(generator, z, "running"))


def test_a_recipe_that_averages_has_an_average(place):
    imported("--set", "ema_decay=0.9")
    assert sample.main(["out.safetensors", "--out", "a.png"]) == 0
    loaded = checkpoint.load(place / "out.safetensors")
    same(loaded.under("generator_ema"), expected(state_of(G), G_PLACES))


def test_a_discriminator_that_is_not_given_is_fresh_from_the_seed_and_that_is_said(place, capsys):
    imported("--set", "seed=5")
    assert "its weights are fresh, of the recipe's seed 5" in capsys.readouterr().out
    mg.manual_seed(5)
    _, discriminator = models.build(small())
    fresh = {key: value.numpy() for key, value in discriminator.state_dict().items()}
    same(checkpoint.load(place / "out.safetensors").under("discriminator"), fresh)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_floats_become_float32_with_a_note(place, capsys, dtype):
    state = state_of(G)
    state["3.weight"] = state["3.weight"].astype(dtype)
    mg.save(state, "g.safetensors")
    imported()
    assert re.search(rf"^3.weight .*{dtype} becomes float32: \(out, in\) in both", said(capsys), re.M)
    state["3.weight"] = state["3.weight"].astype(np.float32)
    same(checkpoint.load(place / "out.safetensors").under("generator"), expected(state, G_PLACES))


def test_bfloat16_is_refused_in_words(place):
    state = state_of({key: shape for key, shape in G.items() if key != "0.bias"})
    mg.save(state | {"0.bias": np.full(12, 0x3FC0, np.uint16)}, "g.safetensors")  # 1.5
    content = (place / "g.safetensors").read_bytes()
    (place / "g.safetensors").write_bytes(content.replace(b'"U16"', b'"BF16"').replace(b"} ", b"}", 1))
    assert re.search("bfloat16.*expected a state_dict of float32: .*model.float", refusal())


# -- what is said ------------------------------------------------------------------------------------


def said(capsys):
    return capsys.readouterr().out


def test_each_key_is_explained(place, capsys):
    imported()
    lines = [
        r"g.safetensors, the generator of tensorflow-baseline:",
        r"in the file +in the recipe +shape +what is done",
        r"0.weight +0.weight +\(12, 6\) +taken as it is: \(out, in\) in both",
        r"0.bias +0.bias +\(12\) +taken as it is",
        r"1.weight +1.weight +\(12\) +taken as it is: the scale, gamma, in both",
        r"1.bias +1.bias +\(12\) +taken as it is: the shift, beta, in both",
        r"1.running_mean +1.running_mean +\(12\) +taken as it is: momentum is the share of the new in both",
        r"1.running_var +1.running_var +\(12\) +taken as it is: unbiased in both",
        r"1.num_batches_tracked +- +\(\) +left out: PyTorch counts batches; momentum is fixed here .*",
        r"3.weight +4.weight +\(64, 12\) +taken .*; number 3, here 4: other layers without weights",
        r"3.bias +4.bias +\(64\) +taken as it is; number 3, here 4: other layers without weights",
        r"The recipe's own, .*: 2 Tanh\(\), 3 Dropout\(0.5\), 5 Tanh\(\), 6 Reshape\(1, 8, 8\); strides and "
        r"paddings, BatchNorm's eps of 1e-05",
    ]  # fmt: skip
    for line, wanted in zip(said(capsys).splitlines(), lines, strict=False):
        assert re.fullmatch(wanted, line)


def test_convolutions_are_explained(place, capsys):
    mg.save(state_of(FLUX), "g.safetensors")
    imported(settings=("--preset", "flux"))
    assert re.search(
        r"^9.weight +7.weight .*\(in, out, kh, kw\) in both; number 9, here 7", said(capsys), re.M
    )


# -- what is refused ---------------------------------------------------------------------------------


def test_all_that_does_not_fit_is_listed_at_once_and_nothing_is_written(place, monkeypatch, capsys):
    state = state_of(G)
    state["0.weight"] = np.zeros((12, 7), np.float32)
    del state["1.running_var"]
    state["3.gain"] = np.zeros(3, np.float32)
    mg.save(state, "g.safetensors")
    mg.save(state_of({**D, "3.weight": (2, 4)}), "d.safetensors")
    arguments = [*SETTINGS, "--generator", "g.safetensors", "--discriminator", "d.safetensors"]
    monkeypatch.setattr(sys, "argv", ["dcgan", *arguments, "--out", "out.safetensors"])
    with pytest.raises(SystemExit) as stop:
        console.run_command(import_weights.main, "dcgan.import_weights")
    assert stop.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    for line in (
        r"dcgan.import_weights: g.safetensors does not fit the generator of .*; nothing is written",
        r"0.weight +0.weight +\(12, 7\) +! expected \(12, 6\), got \(12, 7\)",
        r"0.bias +0.bias +\(12\) +taken as it is",
        r"- +1.running_var +\(12\) +! missing: expected \(12\)",
        r"3.gain +- +\(3\) +! not in the recipe",
        r"d.safetensors does not fit the discriminator of .*",
        r"3.weight +3.weight +\(2, 4\) +! expected \(1, 4\), got \(2, 4\)",
    ):
        assert re.search(f"^{line}$", told.err, re.M), line
    assert {path.name for path in place.iterdir()} == {"g.safetensors", "d.safetensors"}


def test_a_missing_layer_is_what_is_told_and_not_all_that_come_after(place):
    mg.save({key: array for key, array in state_of(G).items() if key[0] != "1"}, "g.safetensors")
    wrong = [line for line in refusal().splitlines() if "!" in line]
    assert len(wrong) == 4
    assert all(re.match(r"- +1\.\w+ .*! missing: expected \(12\)", line) for line in wrong)


def test_an_extra_layer_is_told_likewise(place):
    mg.save(state_of({**G, "2.weight": (12, 5, 3, 3)}), "g.safetensors")
    wrong = [line for line in refusal().splitlines() if "!" in line]
    assert len(wrong) == 1
    assert re.match(r"2.weight +- +\(12, 5, 3, 3\) +! not in the recipe", wrong[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_with_its_key(place, bad):
    state = state_of(G)
    state["1.running_mean"][3] = bad
    mg.save(state, "g.safetensors")
    assert re.search(r"^1.running_mean .*! holds NaN or infinity", refusal(), re.M)


def test_a_number_too_large_for_float32_is_refused(place):
    mg.save(state_of(G) | {"0.bias": np.full(12, 1e300)}, "g.safetensors")
    assert re.search(r"^0.bias .*! holds NaN or infinity, as float32", refusal(), re.M)


def test_integers_are_refused(place):
    mg.save(state_of(G) | {"0.bias": np.zeros(12, np.int64)}, "g.safetensors")
    assert re.search(r"^0.bias .*! expected floats, got int64", refusal(), re.M)


@pytest.mark.parametrize("name", ["g.pt", "g.pth", "g.PT", "g.bin", "g.safetensors"])
def test_a_pickle_is_never_opened(place, name):
    class Trap:
        def __reduce__(self):
            return (open, (str(place / "sprung"), "w"))

    (place / name).write_bytes(pickle.dumps({"0.weight": Trap()}))
    with pytest.raises(
        UserError, match=r"safetensors.torch.save_file\(model.float\(\).state_dict\(\), path\)"
    ):
        import_weights.main([*SETTINGS, "--generator", name, "--out", "out.safetensors"])
    assert not (place / "sprung").exists()


@pytest.mark.parametrize(
    "keys",
    [
        ("conv1.weight", "bn1.weight"),
        ("features.0.weight", "classifier.0.weight"),
        ("fc.bias", "main.0.bias"),
    ],
)
def test_names_that_give_no_order_are_refused(place, keys):
    mg.save({key: np.zeros(3, np.float32) for key in keys}, "g.safetensors")
    assert re.search("do not say in which order the layers stand: expected those of one", refusal())


@pytest.mark.parametrize("digits", ["1" * 19, "9" * 5000, "٣" * 5000])
def test_a_number_in_a_key_that_is_no_place_is_told_with_the_key(place, digits):
    mg.save({f"main.{digits}.weight": np.zeros((2, 2), np.float32)}, "g.safetensors")
    said = refusal()
    assert f"the key main.{digits[:19]}" in said
    assert "has a number of more than 18 digits" in said
    assert len(said) < 250


def test_a_file_without_tensors_lists_all_that_is_missing(place):
    mg.save({}, "g.safetensors")
    assert refusal().count("! missing") == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("--preset", "none"), "unknown preset 'none': expected one of flux"),
        ((*SETTINGS, "--set", "nz"), "--set nz: expected FIELD=VALUE"),
        ((*SETTINGS, "--set", "colour=1"), "unknown field 'colour'"),
        ((*SETTINGS, "--generator", "no.safetensors"), "no file no.safetensors"),
    ],
)
def test_other_mistakes(place, settings, message):
    before = sorted(place.iterdir())
    with pytest.raises(UserError, match=message):
        import_weights.main(["--generator", "g.safetensors", *settings, "--out", "out.safetensors"])
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("out", ["run", "run/checkpoint.safetensors", "g.safetensors"])
def test_what_exists_is_not_written_over(place, out):
    imported(out="run")
    before = {path: path.read_bytes() for path in place.rglob("*.safetensors")}
    with pytest.raises(UserError, match=f"--out {out}: .* exists already; name a new one"):
        imported(out=out)
    assert {path: path.read_bytes() for path in place.rglob("*.safetensors")} == before


def test_a_full_disk_is_told(place, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serialize.os, "fsync", full)
    assert re.search("--out out.safetensors: No space left on device", refusal())


def test_the_recipe_in_the_file_is_the_one_with_its_fields_replaced(place):
    imported("--set", "batch_size=7")
    metadata = mg.load_metadata(place / "out.safetensors")
    assert json.loads(metadata["preset"])["batch_size"] == 7
