"""The recipes: sizes, shapes, initial weights, and what may be overridden."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigrad as mg
from dcgan import latent, models, presets
from dcgan.errors import UserError
from dcgan.files import jsonfile
from dcgan.losses import LOSSES
from dcgan.presets import PRESETS, Preset
from dcgan.recipe import layers, plan, written
from dcgan.recipe.layer import KINDS
from dcgan.steps import Gan

NAMES = pytest.mark.parametrize("name", PRESETS)


def test_flux_has_the_parameters_of_the_tutorial():
    generator, discriminator = models.build(presets.get("flux"))
    assert models.count_parameters(generator) == 2_231_168
    assert models.count_parameters(discriminator) == 138_561


def test_flux_is_the_tutorials_recipe():
    flux = presets.get("flux")
    assert (flux.batch_size, flux.z_shape, flux.z_distribution, flux.epochs) == (128, (100,), "normal", 25)
    assert (flux.lr_generator, flux.lr_discriminator, flux.beta1, flux.beta2) == (2e-4, 2e-4, 0.9, 0.999)
    assert (flux.adam_eps, flux.statistics, flux.sample_every) == (1e-8, "running", 1000)
    assert (flux.grid_rows, flux.grid_columns) == (5, 5)
    assert flux.sample_name.format(step=1000) == "dcgan_steps_001000.png"
    assert flux.ema_decay == 0


@NAMES
def test_g_makes_images_and_d_judges_them(name):
    preset = presets.get(name)
    generator, discriminator = models.build(preset)
    images = generator(latent.draw(preset, 3, mg.Generator(0)))
    assert images.shape == (3, preset.channels, preset.image_size, preset.image_size)
    assert np.abs(images.numpy()).max() <= 1
    assert discriminator(images).shape == (3, 1)


def test_g_takes_noise_of_its_shape_or_flat():
    preset = presets.get("quick", z_shape=(16, 1, 1), generator=(layers.Flatten(), *presets.QUICK.generator))
    generator, _ = models.build(preset)
    generator.eval()
    z = latent.draw(preset, 2, mg.Generator(0))
    assert z.shape == (2, 16, 1, 1)
    assert np.array_equal(generator(z).numpy(), generator(z.reshape(2, 16)).numpy())
    with pytest.raises(ValueError, match=r"Generator: expected z of shape \(N, 16, 1, 1\), got \(2, 15\)"):
        generator(mg.tensor(np.zeros((2, 15), np.float32)))


def test_flux_starts_as_the_tutorial_says():
    mg.manual_seed(0)
    generator, discriminator = models.build(presets.get("flux"))
    for network, kernels in ((generator, ("4", "7", "10")), (discriminator, ("0", "3"))):
        for key in kernels:
            weight = network.state_dict()[f"{key}.weight"].numpy()
            assert weight.std() == pytest.approx(0.02, rel=0.1)
            assert abs(weight.mean()) < 0.002
    dense = generator.state_dict()["0.weight"].numpy()  # (12544, 100)
    bound = np.sqrt(6 / (100 + 12544))
    assert 0.999 * bound < np.abs(dense).max() <= bound * (1 + 1e-6)
    assert dense.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    state = discriminator.state_dict()
    assert not any(state[key].numpy().any() for key in ("0.bias", "3.bias", "7.bias"))


@NAMES
def test_one_seed_gives_one_start(name):
    def start(seed):
        mg.manual_seed(seed)
        networks = models.build(presets.get(name))
        return [t.numpy() for network in networks for t in network.state_dict().values()]

    assert all(np.array_equal(a, b) for a, b in zip(start(1), start(1), strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(start(1), start(2), strict=True))


@NAMES
def test_a_recipe_survives_json(name):
    preset = presets.get(name)
    assert Preset.from_json(json.loads(json.dumps(preset.to_json()))) == preset


# A recipe as checkpoints hold it, from before there was `adam_epsilon_hat`.
STORED = """{"adam_eps": 1e-08, "architecture": "layers", "batch_size": 128, "beta1": 0.5, "beta2": 0.999,
"channels": 1, "crop": "center", "discriminator": [{"kind": "Flatten"}, {"bias": true,
"features": 128, "init": "glorot_uniform", "kind": "Dense"}, {"kind": "ReLU"}, {"bias": true,
"features": 1, "init": "glorot_uniform", "kind": "Dense"}, {"kind": "Sigmoid"}], "ema_decay":
0.0, "enough_steps": 4000, "epochs": 100, "flip": 0.0, "frame_every": 1000, "generator":
[{"bias": true, "features": 128, "init": "glorot_uniform", "kind": "Dense"}, {"kind": "ReLU"},
{"bias": true, "features": 784, "init": "glorot_uniform", "kind": "Dense"}, {"kind": "Tanh"},
{"channels": 1, "height": 28, "kind": "Reshape", "width": 28}], "grid_columns": 10, "grid_rows":
10, "image_size": 28, "log_every": 100, "loss": "bce_epsilon", "lr_discriminator": 0.0002,
"lr_generator": 0.0002, "name": "tensorflow-baseline", "ndf": 0, "ngf": 0, "nz": 0,
"plot_with_samples": false, "real_name": "mnist_data.png", "sample_early": 0, "sample_every": 0,
"sample_name": "gan_gen_data_{epoch}.png", "sample_noise": "new", "seed": 0, "shuffle": "once",
"statistics": "batch", "step": "generator_first", "steps": 0, "summary": "the same tutorial's
plain GAN, with no convolution, to compare with", "z_distribution": "uniform", "z_shape": [100]}"""


def test_a_stored_recipe_without_epsilon_hat_means_kingmas_adam():
    stored = Preset.from_json(jsonfile.parse(STORED.replace("\n", " ")))
    assert stored.adam_epsilon_hat is False
    gan = Gan.of(stored, *models.build(stored), mg.tensor)
    assert [adam.epsilon_hat for adam in (gan.optimizer_g, gan.optimizer_d)] == [False, False]
    assert dataclasses.replace(stored, adam_epsilon_hat=True) == presets.get("tensorflow-baseline")


@NAMES
def test_the_optimizers_are_the_recipes(name):
    preset = presets.get(name, lr_generator=0.25, lr_discriminator=0.5, beta1=0.3, beta2=0.7, adam_eps=0.125)
    networks = models.build(preset)
    gan = Gan.of(preset, *networks, mg.tensor)
    assert ((gan.generator, gan.discriminator), gan.noise) == (networks, mg.tensor)
    assert (gan.batch_size, gan.loss) == (preset.batch_size, LOSSES[preset.loss])
    adams = gan.optimizer_g, gan.optimizer_d
    assert [adam.lr for adam in adams] == [0.25, 0.5]
    for adam, network in zip(adams, networks, strict=True):
        assert (adam.betas, adam.eps, adam.weight_decay) == ((0.3, 0.7), 0.125, 0)
        assert adam.epsilon_hat is name.startswith("tensorflow")
        assert [id(p) for p in adam.params] == [id(p) for p in network.parameters()]


@pytest.mark.parametrize("change", [{"kind": "Danse"}, {"features": 1, "kind": "Dense", "colour": 2}, {}])
def test_a_layer_that_is_none_is_refused(change):
    with pytest.raises(ValueError, match="layer"):
        written.from_json(change)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"colour": 1}, "unknown field 'colour': expected one of generator, discriminator, step"),
        ({"batch_size": "many"}, "batch_size='many': expected a value of type int"),
        ({"batch_size": 64.0}, "expected a value of type int"),
        ({"batch_size": True}, "expected a value of type int"),
        ({"batch_size": 0}, "expected an integer of at least 1"),
        ({"name": "x"}, "name can't be replaced"),
        ({"summary": "x"}, "summary can't be replaced"),
        ({"seed": 2**64}, "below 2.63"),
        ({"grid_rows": 1000, "grid_columns": 1000}, "expected a grid of at most 10000 images"),
        ({"sample_name": "same.png"}, r"sample_name='same.png': expected a file name with {step}"),
        ({"sample_name": "{foo}.png"}, "sample_name"),
        ({"sample_name": "{step}.jpg"}, "sample_name"),
        ({"sample_name": "../{step}.png"}, "sample_name"),
        ({"sample_name": ""}, "sample_name"),
        ({"beta1": 1.0}, "expected 0 <= beta1 < 1"),
        ({"lr_generator": -1}, "expected a positive number"),
        ({"lr_generator": float("nan")}, "expected a positive number"),
        ({"step": "both"}, "expected one of fresh_noise, same_fakes"),
        ({"z_shape": (0,)}, "expected positive integers"),
        ({"z_shape": 100}, "expected a tuple of integers"),
        ({"generator": (1, 2)}, "expected layers, such as"),
    ],
)
def test_what_a_field_can_not_be_is_told(overrides, message):
    with pytest.raises(UserError, match=message):
        presets.get("flux", **overrides)


def test_fields_can_be_replaced():
    preset = presets.get("flux", lr_generator=1, batch_size=7, z_shape=[10])
    assert (preset.lr_generator, preset.batch_size, preset.z_shape) == (1.0, 7, (10,))
    with pytest.raises(UserError, match="unknown preset 'fluxx': did you mean flux"):
        presets.get("fluxx")


@pytest.mark.parametrize("zeros", [400, 4000, 5000])
def test_a_number_beyond_all_floats_is_told(zeros):
    with pytest.raises(UserError, match="lr_generator='?10000") as told:
        presets.get("flux", **presets.replacements([f"lr_generator=1{'0' * zeros}"]))
    assert len(str(told.value).splitlines()[0]) < 300


def test_layers_that_do_not_fit_are_told():
    with pytest.raises(UserError, match=r"the generator makes images of \(1, 28, 28\), not \(1, 32, 32\)"):
        models.build(presets.get("flux", image_size=32))
    with pytest.raises(UserError, match=r"discriminator gives \(2,\) for an image, not one number"):
        models.build(presets.get("flux", discriminator=(layers.Flatten(), layers.Dense(2))))
    with pytest.raises(UserError, match=r"discriminator, layer 0 .* on \(1, 28, 28\)"):
        models.build(presets.get("flux", discriminator=(layers.Conv(4, 40),)))
    with pytest.raises(UserError, match="unknown init 'zeros'"):
        models.build(presets.get("flux", discriminator=(layers.Flatten(), layers.Dense(1, init="zeros"))))


def test_every_field_of_a_preset_is_described():
    for field in dataclasses.fields(Preset):
        assert field.name in (Preset.__doc__ or "")


def test_noise_is_of_the_recipes_distribution():
    normal = latent.draw(presets.get("flux"), 1000, mg.Generator(0)).numpy()
    uniform = latent.draw(presets.get("flux", z_distribution="uniform"), 1000, mg.Generator(0)).numpy()
    assert normal.std() == pytest.approx(1.0, abs=0.01)
    assert np.abs(uniform).max() <= 1
    assert uniform.std() == pytest.approx(1 / np.sqrt(3), abs=0.01)


# -- what is accepted can be read again ----------------------------------------------------------------

VALUES = st.one_of(
    st.integers(-2, 2**70), st.floats(), st.booleans(), st.none(), st.text(max_size=5),
    st.tuples(st.integers(0, 9), st.integers(0, 9)), st.lists(st.integers(0, 9), max_size=3),
)  # fmt: skip
ARGUMENTS = st.dictionaries(
    st.sampled_from(["kernel", "stride", "padding", "bias", "init", "p", "slope", "eps", "features"]),
    VALUES, max_size=4,
)  # fmt: skip


@given(st.sampled_from(sorted(KINDS)), st.lists(VALUES, max_size=5), ARGUMENTS)
def test_layers_in_words_are_refused_or_survive_their_file(kind, values, named):
    written = ", ".join([*map(repr, values), *(f"{name}={value!r}" for name, value in named.items())])
    try:
        preset = presets.get("quick", **presets.replacements([f"discriminator=[{kind}({written})]"]))
    except UserError:
        return
    assert Preset.from_json(jsonfile.parse(json.dumps(preset.to_json()))) == preset


@given(st.sampled_from([f.name for f in dataclasses.fields(Preset)][4:]), VALUES)
def test_fields_are_refused_or_survive_their_file(field, value):
    try:
        preset = presets.get("quick", **{field: value})
    except UserError:
        return
    assert Preset.from_json(jsonfile.parse(json.dumps(preset.to_json()))) == preset


@pytest.mark.parametrize(
    "text",
    [
        "discriminator=[Conv(4,4,(2,2),1), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(4,[4,4],2,1), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(4,4,2,(1,1)), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(4,4,2,1,bias=1), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(4,4,2,1,bias=None), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(True,4,2,1), LeakyReLU(0.2), Flatten(), Dense(1)]",
        "discriminator=[Conv(4,4,2,1), LeakyReLU(True), Flatten(), Dense(1)]",
        "adam_eps=1e31",
    ],
)
def test_a_recipe_that_no_command_could_read_is_refused_before_it_trains(text):
    with pytest.raises(UserError, match="expected a (value of type|number up to)"):
        presets.get("quick", **presets.replacements([text]))


def test_layers_that_a_program_makes_are_checked_too():
    bad = (layers.Conv(4, 4, (2, 2), 1), layers.Flatten(), layers.Dense(1))
    with pytest.raises(UserError, match=r"stride=\[2, 2\]: expected a value of type int"):
        dataclasses.replace(presets.QUICK, discriminator=bad)


# -- how long a run is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ({}, 2 * 7),  # the recipe's epochs, of seven batches here
        ({"steps": 2000}, 2000),  # however many epochs that takes
        ({"epochs": 9}, 63),
        ({"steps": 30, "epochs": 9}, 30),
        ({"steps": 300, "epochs": 9}, 63),
    ],
)
def test_steps_and_epochs_replace_the_recipes_length(overrides, steps):
    assert plan.total_steps(presets.get("quick", **overrides), 7) == steps


def test_what_is_asked_for_last_is_the_length():
    once = presets.get("quick", steps=8)
    assert plan.total_steps(once.replaced({"epochs": 4}), 7) == 28
    assert plan.total_steps(once.replaced({"steps": 9}), 7) == 9
    with pytest.raises(UserError, match="epochs=0, steps=0"):
        once.replaced({"epochs": 0, "steps": 0})


@NAMES
def test_a_run_that_is_too_short_to_show_anything_is_told(name):
    preset = presets.get(name)
    enough = preset.enough_steps
    assert 100 < enough < plan.total_steps(preset, 469)
    assert f"--steps {enough}" in plan.too_short(preset, enough - 1)
    assert plan.too_short(preset, enough) == ""
    assert plan.too_short(dataclasses.replace(preset, enough_steps=0), 1) == ""
