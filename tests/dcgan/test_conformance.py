"""Every recipe is the one of its document: each figure, each layer, each count, the spread of each weight.

The tables here are the documents' own words; nothing in them is taken from the code.
"""

import dataclasses
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from dcgan import models, presets, train
from dcgan.describe import table
from dcgan.errors import UserError
from dcgan.presets import PRESETS
from dcgan.recipe import layers
from minigrad import nn

# -- the figures of the recipes ----------------------------------------------------------------------

FLUX_FIGURES = {
    "image_size": 28, "channels": 1, "batch_size": 128, "epochs": 25, "shuffle": "every_epoch",
    "z_shape": (100,), "z_distribution": "normal",
    "lr_generator": 2e-4, "lr_discriminator": 2e-4, "beta1": 0.9, "beta2": 0.999, "adam_eps": 1e-8,
    "adam_epsilon_hat": False, "step": "fresh_noise", "loss": "bce_with_logits", "statistics": "running",
    "sample_every": 1000, "sample_early": 0, "sample_noise": "fixed", "log_every": 1000,
    "grid_rows": 5, "grid_columns": 5, "crop": "center", "flip": 0.0, "ema_decay": 0.0, "steps": 0,
}  # fmt: skip
TENSORFLOW_FIGURES = {
    "image_size": 28, "channels": 1, "batch_size": 128, "epochs": 20, "shuffle": "once",
    "z_shape": (100, 1, 1), "z_distribution": "uniform",
    "lr_generator": 2e-4, "lr_discriminator": 2e-4, "beta1": 0.5, "beta2": 0.999, "adam_eps": 1e-8,
    "adam_epsilon_hat": True, "step": "generator_first", "loss": "bce_epsilon", "statistics": "batch",
    "sample_every": 0, "sample_early": 0, "sample_noise": "new", "real_name": "mnist_data.png",
    "grid_rows": 10, "grid_columns": 10, "crop": "center", "flip": 0.0, "ema_decay": 0.0, "steps": 0,
}  # fmt: skip
FLOWERS_FIGURES = {
    "image_size": 32, "channels": 3, "batch_size": 128, "epochs": 500, "shuffle": "every_epoch", "seed": 999,
    "nz": 64, "ngf": 32, "ndf": 32, "z_shape": (64, 1, 1), "z_distribution": "normal",
    "lr_generator": 2e-4, "lr_discriminator": 2e-4, "beta1": 0.5, "beta2": 0.999, "adam_eps": 1e-8,
    "adam_epsilon_hat": False, "step": "same_fakes", "loss": "bce", "statistics": "batch",
    "sample_every": 100, "sample_early": 10, "sample_noise": "fixed", "real_name": "training_images.png",
    "plot_with_samples": True, "grid_rows": 8, "grid_columns": 8, "crop": "random_or_center", "flip": 0.5,
    "ema_decay": 0.0, "steps": 0,
}  # fmt: skip
FIGURES = {
    "flux": FLUX_FIGURES,
    "flux-draft": {**FLUX_FIGURES, "epochs": 20, "grid_rows": 6, "grid_columns": 6},
    "tensorflow": TENSORFLOW_FIGURES,
    "tensorflow-baseline": {**TENSORFLOW_FIGURES, "z_shape": (100,), "epochs": 100},
    "flowers": FLOWERS_FIGURES,
    "pytorch": {
        "image_size": 64, "channels": 3, "batch_size": 128, "epochs": 5, "shuffle": "every_epoch",
        "seed": 999, "nz": 100, "ngf": 64, "ndf": 64, "z_shape": (100, 1, 1), "z_distribution": "normal",
        "lr_generator": 2e-4, "lr_discriminator": 2e-4, "beta1": 0.5, "beta2": 0.999, "adam_eps": 1e-8,
        "adam_epsilon_hat": False, "step": "same_fakes", "loss": "bce", "statistics": "batch",
        "sample_noise": "fixed", "ema_decay": 0.0, "crop": "center", "flip": 0.0, "steps": 0,
    },
}  # fmt: skip
SAMPLES = {  # the name of the grid after 1,000 steps, in the third epoch
    "flux": "dcgan_steps_001000.png",
    "flux-draft": "dcgan_steps_001000.png",
    "tensorflow": "dcgan_gen_data_2.png",
    "tensorflow-baseline": "gan_gen_data_2.png",
    "flowers": "output_1000_iters-epoch_2.png",
    "pytorch": "output_1000_iters-epoch_2.png",
}

# -- the networks, layer by layer, with the shape that each makes of one image ------------------------

NORM = "eps 1e-05 momentum 0.1"
TF_NORM = "eps 0.001 momentum 0.01"
FLUX_D = [
    ("Conv 1->64 k4 s2 p1, bias", (64, 14, 14)),
    ("LeakyReLU 0.2", (64, 14, 14)),
    ("Dropout 0.3", (64, 14, 14)),
    ("Conv 64->128 k4 s2 p1, bias", (128, 7, 7)),
    ("LeakyReLU 0.2", (128, 7, 7)),
    ("Dropout 0.3", (128, 7, 7)),
    ("Flatten", (6272,)),
    ("Dense 6272->1, bias", (1,)),
]
NETWORKS = {
    "flux": (
        [
            ("Dense 100->12544, no bias", (12544,)),
            (f"BatchNorm 12544 {NORM}", (12544,)),
            ("ReLU", (12544,)),
            ("Reshape", (256, 7, 7)),
            ("ConvT 256->128 k5 s1 p2, no bias", (128, 7, 7)),
            (f"BatchNorm 128 {NORM}", (128, 7, 7)),
            ("ReLU", (128, 7, 7)),
            ("ConvT 128->64 k4 s2 p1, no bias", (64, 14, 14)),
            (f"BatchNorm 64 {NORM}", (64, 14, 14)),
            ("ReLU", (64, 14, 14)),
            ("ConvT 64->1 k4 s2 p1, no bias", (1, 28, 28)),
            ("Tanh", (1, 28, 28)),
        ],
        FLUX_D,
    ),
    "flux-draft": (
        [
            ("Dense 100->12544, no bias", (12544,)),
            (f"BatchNorm 12544 {NORM}", (12544,)),
            ("ReLU", (12544,)),
            ("Reshape", (256, 7, 7)),
            ("ConvT 256->128 k5 s1 p2, bias", (128, 7, 7)),
            (f"BatchNorm 128 {NORM}", (128, 7, 7)),
            ("ReLU", (128, 7, 7)),
            ("ConvT 128->64 k4 s2 p1, bias", (64, 14, 14)),
            (f"BatchNorm 64 {NORM}", (64, 14, 14)),
            ("ReLU", (64, 14, 14)),
            ("ConvT 64->1 k4 s2 p1, bias", (1, 28, 28)),
            ("Tanh", (1, 28, 28)),
        ],
        [
            ("Conv 1->64 k4 s2 p1, bias", (64, 14, 14)),
            ("LeakyReLU 0.3", (64, 14, 14)),
            ("Dropout 0.3", (64, 14, 14)),
            ("Conv 64->128 k4 s2 p1, bias", (128, 7, 7)),
            ("LeakyReLU 0.3", (128, 7, 7)),
            ("Dropout 0.25", (128, 7, 7)),
            ("Flatten", (6272,)),
            ("Dense 6272->1, bias", (1,)),
        ],
    ),
    "tensorflow": (
        [
            ("ConvT 100->256 k7 s1 p0, no bias", (256, 7, 7)),
            (f"BatchNorm 256 {TF_NORM}", (256, 7, 7)),
            ("LeakyReLU 0.2", (256, 7, 7)),
            ("ConvT 256->128 k5 s2 SAME, no bias", (128, 14, 14)),
            (f"BatchNorm 128 {TF_NORM}", (128, 14, 14)),
            ("LeakyReLU 0.2", (128, 14, 14)),
            ("ConvT 128->1 k5 s2 SAME, bias", (1, 28, 28)),
            ("Tanh", (1, 28, 28)),
        ],
        [
            ("Conv 1->128 k5 s2 SAME, no bias", (128, 14, 14)),
            (f"BatchNorm 128 {TF_NORM}", (128, 14, 14)),
            ("LeakyReLU 0.2", (128, 14, 14)),
            ("Conv 128->256 k5 s2 SAME, no bias", (256, 7, 7)),
            (f"BatchNorm 256 {TF_NORM}", (256, 7, 7)),
            ("LeakyReLU 0.2", (256, 7, 7)),
            ("Conv 256->1 k7 s1 p0, bias", (1, 1, 1)),
            ("Flatten", (1,)),
            ("Sigmoid", (1,)),
        ],
    ),
    "tensorflow-baseline": (
        [
            ("Dense 100->128, bias", (128,)),
            ("ReLU", (128,)),
            ("Dense 128->784, bias", (784,)),
            ("Tanh", (784,)),
            ("Reshape", (1, 28, 28)),
        ],
        [
            ("Flatten", (784,)),
            ("Dense 784->128, bias", (128,)),
            ("ReLU", (128,)),
            ("Dense 128->1, bias", (1,)),
            ("Sigmoid", (1,)),
        ],
    ),
    "flowers": (
        [
            ("ConvT 64->256 k4 s1 p0, no bias", (256, 4, 4)),
            (f"BatchNorm 256 {NORM}", (256, 4, 4)),
            ("ReLU", (256, 4, 4)),
            ("ConvT 256->128 k4 s2 p1, no bias", (128, 8, 8)),
            (f"BatchNorm 128 {NORM}", (128, 8, 8)),
            ("ReLU", (128, 8, 8)),
            ("ConvT 128->64 k4 s2 p1, no bias", (64, 16, 16)),
            (f"BatchNorm 64 {NORM}", (64, 16, 16)),
            ("ReLU", (64, 16, 16)),
            ("ConvT 64->32 k4 s2 p1, no bias", (32, 32, 32)),
            (f"BatchNorm 32 {NORM}", (32, 32, 32)),
            ("ReLU", (32, 32, 32)),
            ("Conv 32->3 k3 s1 p1, no bias", (3, 32, 32)),
            ("Tanh", (3, 32, 32)),
        ],
        [
            ("Conv 3->32 k4 s2 p1, no bias", (32, 16, 16)),
            ("LeakyReLU 0.2", (32, 16, 16)),
            ("Conv 32->64 k4 s2 p1, no bias", (64, 8, 8)),
            (f"BatchNorm 64 {NORM}", (64, 8, 8)),
            ("LeakyReLU 0.2", (64, 8, 8)),
            ("Conv 64->128 k4 s2 p1, no bias", (128, 4, 4)),
            (f"BatchNorm 128 {NORM}", (128, 4, 4)),
            ("LeakyReLU 0.2", (128, 4, 4)),
            ("Conv 128->1 k4 s1 p0, no bias", (1, 1, 1)),
            ("Flatten", (1,)),
            ("Sigmoid", (1,)),
        ],
    ),
    "pytorch": (
        [
            ("ConvT 100->512 k4 s1 p0, no bias", (512, 4, 4)),
            (f"BatchNorm 512 {NORM}", (512, 4, 4)),
            ("ReLU", (512, 4, 4)),
            ("ConvT 512->256 k4 s2 p1, no bias", (256, 8, 8)),
            (f"BatchNorm 256 {NORM}", (256, 8, 8)),
            ("ReLU", (256, 8, 8)),
            ("ConvT 256->128 k4 s2 p1, no bias", (128, 16, 16)),
            (f"BatchNorm 128 {NORM}", (128, 16, 16)),
            ("ReLU", (128, 16, 16)),
            ("ConvT 128->64 k4 s2 p1, no bias", (64, 32, 32)),
            (f"BatchNorm 64 {NORM}", (64, 32, 32)),
            ("ReLU", (64, 32, 32)),
            ("ConvT 64->3 k4 s2 p1, no bias", (3, 64, 64)),
            ("Tanh", (3, 64, 64)),
        ],
        [
            ("Conv 3->64 k4 s2 p1, no bias", (64, 32, 32)),
            ("LeakyReLU 0.2", (64, 32, 32)),
            ("Conv 64->128 k4 s2 p1, no bias", (128, 16, 16)),
            (f"BatchNorm 128 {NORM}", (128, 16, 16)),
            ("LeakyReLU 0.2", (128, 16, 16)),
            ("Conv 128->256 k4 s2 p1, no bias", (256, 8, 8)),
            (f"BatchNorm 256 {NORM}", (256, 8, 8)),
            ("LeakyReLU 0.2", (256, 8, 8)),
            ("Conv 256->512 k4 s2 p1, no bias", (512, 4, 4)),
            (f"BatchNorm 512 {NORM}", (512, 4, 4)),
            ("LeakyReLU 0.2", (512, 4, 4)),
            ("Conv 512->1 k4 s1 p0, no bias", (1, 1, 1)),
            ("Flatten", (1,)),
            ("Sigmoid", (1,)),
        ],
    ),
}
COUNTS = {
    "flux": (2_231_168, 138_561),
    "flux-draft": (2_231_361, 138_561),
    "tensorflow": (2_077_569, 835_713),
    "tensorflow-baseline": (114_064, 100_609),
    "flowers": (952_096, 167_808),
    "pytorch": (3_576_704, 2_765_568),
}
# fan_in + fan_out of the weights that start as Glorot says, kh * kw * channels each; N(0, 0.02) elsewhere.
GLOROT_FANS = {
    "flux": {"G.0": 100 + 12_544, "D.7": 6_272 + 1},
    "flux-draft": {"G.0": 100 + 12_544, "D.7": 6_272 + 1},
    "tensorflow": {
        "G.0": 49 * 100 + 49 * 256, "G.3": 25 * 256 + 25 * 128, "G.6": 25 * 128 + 25 * 1,
        "D.0": 25 * 1 + 25 * 128, "D.3": 25 * 128 + 25 * 256, "D.6": 49 * 256 + 49 * 1,
    },
    "tensorflow-baseline": {"G.0": 100 + 128, "G.2": 128 + 784, "D.1": 784 + 128, "D.3": 128 + 1},
    "flowers": {},
    "pytorch": {},
}  # fmt: skip
GAMMA_STD = {"flowers": 0.02, "pytorch": 0.02}  # 1 exactly in the others
RECIPES = pytest.mark.parametrize("name", FIGURES)


@pytest.fixture(scope="module")
def built():
    """The networks of each recipe, by its name, from one seed; made once, to be looked at only."""
    mg.manual_seed(1)
    return {name: models.build(presets.get(name)) for name in FIGURES}


def told(module):
    """A module in the words of the tables above."""
    kind = {"Conv2d": "Conv", "ConvTranspose2d": "ConvT"}.get(type(module).__name__, type(module).__name__)
    match module:
        case nn.Dense():
            out, into = module.weight.shape
            return f"{kind} {into}->{out}, {_bias(module)}"
        case nn.Conv2d() | nn.ConvTranspose2d():
            a, b, high, wide = module.weight.shape
            into, out = (b, a) if kind == "Conv" else (a, b)
            assert high == wide
            assert module.stride[0] == module.stride[1]
            assert module.dilation == (1, 1)
            assert getattr(module, "output_padding", (0, 0)) == (0, 0)
            return f"{kind} {into}->{out} k{high} s{module.stride[0]} {_padding(module)}, {_bias(module)}"
        case nn.BatchNorm():
            return f"{kind} {len(module.weight)} eps {module.eps} momentum {module.momentum}"
        case nn.LeakyReLU():
            return f"{kind} {module.negative_slope}"
        case nn.Dropout():
            return f"{kind} {module.p}"
    return kind


def _bias(module):
    return "no bias" if module.bias is None else "bias"


def _padding(module):
    if module.padding == "same":
        return "SAME"
    ((top, bottom), (left, right)) = module.padding
    assert top == bottom == left == right
    return f"p{top}"


def shapes(network, shape):
    """What each layer makes of one item of `shape`, as the network itself runs on two of them."""
    x = mg.tensor(np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32))
    found = []
    with mg.no_grad():
        for module in network:
            x = module(x)
            found.append(x.shape[1:])
    return found


def test_every_recipe_has_its_tables():
    assert set(PRESETS) == {*FIGURES, "quick"}
    assert FIGURES.keys() == NETWORKS.keys() == COUNTS.keys() == GLOROT_FANS.keys() == SAMPLES.keys()


def test_flux_is_what_trains_unless_another_is_named():
    assert train.chosen_preset(train.parser().parse_args([])).name == "flux"


@RECIPES
def test_every_figure_is_the_documents(name):
    preset = presets.get(name)
    assert {field: getattr(preset, field) for field in FIGURES[name]} == FIGURES[name]


@RECIPES
def test_the_grids_have_the_documents_names(name):
    assert presets.get(name).sample_name.format(step=1000, epoch=2) == SAMPLES[name]


@RECIPES
def test_the_networks_are_the_documents_layer_by_layer(built, name):
    for network, expected in zip(built[name], NETWORKS[name], strict=True):
        assert [told(module) for module in network] == [text for text, _ in expected]


@RECIPES
def test_every_layer_makes_the_shape_that_the_document_says(name):
    generator, discriminator = models.build(presets.get(name))
    expected_g, expected_d = NETWORKS[name]
    figures = FIGURES[name]
    assert shapes(generator, figures["z_shape"]) == [shape for _, shape in expected_g]
    image = (figures["channels"], figures["image_size"], figures["image_size"])
    assert shapes(discriminator, image) == [shape for _, shape in expected_d]


@RECIPES
def test_the_networks_have_the_documents_parameter_counts(built, name):
    counts = [sum(p.numpy().size for p in network.parameters()) for network in built[name]]
    assert tuple(counts) == COUNTS[name]
    assert tuple(models.count_parameters(network) for network in built[name]) == COUNTS[name]


@RECIPES
def test_g_takes_flat_noise_for_every_recipe(name):
    preset = presets.get(name)
    generator, discriminator = models.build(preset)
    generator.eval(), discriminator.eval()
    numbers = math.prod(FIGURES[name]["z_shape"])
    z = np.random.default_rng(0).standard_normal((2, numbers)).astype(np.float32)
    images = generator(mg.tensor(z))
    shaped = generator(mg.tensor(z.reshape(2, *FIGURES[name]["z_shape"])))
    assert images.shape == (2, preset.channels, preset.image_size, preset.image_size)
    assert np.array_equal(images.numpy(), shaped.numpy())
    assert discriminator(images).shape == (2, 1)


# -- the spread of the initial weights -----------------------------------------------------------------


def weights(networks):
    """(name, module) of every layer that has a weight, its name as "G.0"."""
    return [
        (f"{letter}.{i}", module)
        for letter, network in zip("GD", networks, strict=True)
        for i, module in enumerate(network)
        if hasattr(module, "weight")
    ]


def assert_spread(values, mean, std):
    """Mean and standard deviation, to five times what chance does to them."""
    assert abs(values.mean() - mean) < 5 * std / math.sqrt(values.size)
    assert abs(values.std() / std - 1) < 5 / math.sqrt(2 * values.size)


@RECIPES
def test_every_weight_starts_with_the_documents_spread(built, name):
    glorot = dict(GLOROT_FANS[name])
    for key, module in weights(built[name]):
        if isinstance(module, nn.BatchNorm):
            continue
        values = module.weight.numpy().astype(np.float64)
        if key in glorot:
            bound = math.sqrt(6 / glorot.pop(key))
            assert_spread(values, 0, bound / math.sqrt(3))
            assert bound * (1 - 20 / values.size) < np.abs(values).max() <= bound * (1 + 1e-6)
        else:
            assert isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
            assert_spread(values, 0, 0.02)
            assert np.abs(values).max() > 2.5 * 0.02  # a bell: a uniform spread would end at 1.73
        if module.bias is not None:
            assert not module.bias.numpy().any()
    assert glorot == {}


@RECIPES
def test_every_batch_norm_starts_as_the_document_says(built, name):
    norms = [module for _, module in weights(built[name]) if isinstance(module, nn.BatchNorm)]
    for norm in norms:
        gamma = norm.weight.numpy().astype(np.float64)
        if name in GAMMA_STD:
            assert_spread(gamma, 1, GAMMA_STD[name])
        else:
            assert (gamma == 1).all()
        assert not norm.bias.numpy().any()
        assert not norm.running_mean.numpy().any()
        assert (norm.running_var.numpy() == 1).all()
    expected = [text for side in NETWORKS[name] for text, _ in side if text.startswith("BatchNorm")]
    assert len(norms) == len(expected)


@pytest.mark.parametrize(
    ("name", "kept", "eps"), [("flux", 0.9, 1e-5), ("tensorflow", 0.99, 1e-3), ("flowers", 0.9, 1e-5)]
)
def test_the_first_batch_norm_normalises_and_remembers_as_the_document_says(name, kept, eps):
    """PyTorch keeps 0.9 of its running statistics, TensorFlow 0.99; the variance kept is unbiased."""
    generator, _ = models.build(presets.get(name))
    norm = next(module for module in generator if isinstance(module, nn.BatchNorm))
    x = np.random.default_rng(0).normal(0.5, 0.05, (6, len(norm.weight), 2, 2)).astype(np.float32)
    over = (0, 2, 3)
    wide = x.astype(np.float64)
    mean, var = wide.mean(over, keepdims=True), wide.var(over, keepdims=True)
    gamma = norm.weight.numpy().reshape(1, -1, 1, 1)
    shown = norm(mg.tensor(x)).numpy()
    assert np.allclose(shown, (wide - mean) / np.sqrt(var + eps) * gamma, rtol=1e-4, atol=1e-4)
    assert np.allclose(norm.running_mean.numpy(), (1 - kept) * wide.mean(over), rtol=1e-5)
    assert np.allclose(norm.running_var.numpy(), kept + (1 - kept) * wide.var(over, ddof=1), rtol=1e-5)


# -- TensorFlow's SAME -----------------------------------------------------------------------------------


def convolved(x, weight, before, after):
    """A strided (2) convolution in explicit loops: padded with zeros, each output a sum over its window."""
    x = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (before, after), (before, after)))
    side = (x.shape[2] - weight.shape[2]) // 2 + 1
    out = np.zeros((len(x), len(weight), side, side))
    for i in range(side):
        for j in range(side):
            window = x[:, :, 2 * i : 2 * i + weight.shape[2], 2 * j : 2 * j + weight.shape[3]]
            out[:, :, i, j] = np.einsum("ncuv,ocuv->no", window, weight)
    return out


def transposed(x, weight, before, after):
    """Its transpose: each input adds the whole kernel, two places further each time; then the crop."""
    taps = weight.shape[2]
    side = 2 * (x.shape[2] - 1) + taps
    out = np.zeros((len(x), weight.shape[1], side, side))
    for i in range(x.shape[2]):
        for j in range(x.shape[3]):
            added = np.einsum("nc,couv->nouv", x[:, :, i, j].astype(np.float64), weight)
            out[:, :, 2 * i : 2 * i + taps, 2 * j : 2 * j + taps] += added
    return out[:, :, before : side - after, before : side - after]


@pytest.mark.parametrize(
    ("network", "place", "side", "loops"),
    [(1, 0, 28, convolved), (1, 3, 14, convolved), (0, 3, 7, transposed), (0, 6, 14, transposed)],
    ids=["28 to 14", "14 to 7", "7 to 14", "14 to 28"],
)
def test_tensorflows_same_pads_and_crops_one_before_and_two_after(built, network, place, side, loops):
    layer = built["tensorflow"][network][place]
    channels = layer.weight.shape[0 if loops is transposed else 1]
    x = np.random.default_rng(place).standard_normal((2, channels, side, side)).astype(np.float32)
    with mg.no_grad():
        found = layer(mg.tensor(x)).numpy()
    weight = layer.weight.numpy().astype(np.float64)
    expected = loops(x, weight, 1, 2)
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)
    other = loops(x, weight, 2, 1)  # what PyTorch's padding=2, output_padding=1 would give
    assert np.linalg.norm(found - other) > 0.1 * np.linalg.norm(expected)


def test_tensorflows_kernels_of_7_make_7_of_1_and_1_of_7(built):
    generator, discriminator = built["tensorflow"]
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 100, 1, 1)).astype(np.float32)
    x = rng.standard_normal((2, 256, 7, 7)).astype(np.float32)
    grown, judge = generator[0], discriminator[6]
    with mg.no_grad():
        found = grown(mg.tensor(z)).numpy(), judge(mg.tensor(x)).numpy()
    expected = (
        np.einsum("nc,couv->nouv", z[:, :, 0, 0].astype(np.float64), grown.weight.numpy()),
        np.einsum("ncuv,ocuv->no", x.astype(np.float64), judge.weight.numpy())[:, :, None, None],
    )
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert np.linalg.norm(a - b) < 1e-5 * np.linalg.norm(b)


# -- the general DCGAN behind flowers and pytorch --------------------------------------------------------

FORMS = pytest.mark.parametrize("form", ["flowers", "pytorch"])
SIZES = (8, 16, 32, 64, 128, 256)


def count_g(form, size, channels, nz, m):
    """The parameters of G in a closed form: the sum over its layers is a geometric series."""
    n = size.bit_length() - 3  # size = 4 * 2^n
    top = m * 2**n if form == "flowers" else m * 2 ** (n - 1)
    last = 9 if form == "flowers" else 16
    return 16 * nz * top + 32 * (top**2 - m**2) // 3 + last * m * channels + 2 * (2 * top - m)


def count_d(size, channels, m):
    """The same of D: no BatchNorm on the first layer, one output."""
    top = m * 2 ** (size.bit_length() - 4)
    return 16 * channels * m + 32 * (top**2 - m**2) // 3 + 4 * (top - m) + 16 * top


def test_the_closed_forms_give_the_documents_figures():
    assert (count_g("flowers", 32, 3, 64, 32), count_d(32, 3, 32)) == (952_096, 167_808)
    assert (count_g("flowers", 32, 3, 64, 4), count_d(32, 3, 4)) == (43_748, 3_056)
    assert (count_g("pytorch", 64, 3, 100, 64), count_d(64, 3, 64)) == (3_576_704, 2_765_568)


@FORMS
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_size_and_number_of_channels_fits_together(form, size, channels):
    preset = presets.get(form, image_size=size, channels=channels, nz=5, ngf=1, ndf=2)
    generator, discriminator = models.build(preset)
    assert models.count_parameters(generator) == count_g(form, size, channels, 5, 1)
    assert models.count_parameters(discriminator) == count_d(size, channels, 2)
    z = np.random.default_rng(0).standard_normal((2, 5, 1, 1)).astype(np.float32)
    with mg.no_grad():
        images = generator(mg.tensor(z))
        judged = discriminator(images).numpy()
    assert images.shape == (2, channels, size, size)
    assert np.abs(images.numpy()).max() <= 1
    assert judged.shape == (2, 1)
    assert ((judged > 0) & (judged < 1)).all()


@FORMS
@settings(derandomize=True, deadline=None, max_examples=25, database=None)
@given(
    size=st.sampled_from(SIZES[:4]),
    channels=st.integers(1, 4),
    nz=st.integers(1, 40),
    ngf=st.integers(1, 6),
    ndf=st.integers(1, 6),
)
def test_the_widths_are_free(form, size, channels, nz, ngf, ndf):
    preset = presets.get(form, image_size=size, channels=channels, nz=nz, ngf=ngf, ndf=ndf)
    generator, discriminator = models.build(preset)
    assert preset.z_shape == (nz, 1, 1)
    assert models.count_parameters(generator) == count_g(form, size, channels, nz, ngf)
    assert models.count_parameters(discriminator) == count_d(size, channels, ndf)


@FORMS
def test_the_image_size_alone_is_enough(form):
    arguments = train.parser().parse_args(["--preset", form, "--set", "image_size=16"])
    preset = train.chosen_preset(arguments)
    generator, discriminator = models.build(preset)
    nz, m = (64, 32) if form == "flowers" else (100, 64)
    assert models.count_parameters(generator) == count_g(form, 16, 3, nz, m)
    assert models.count_parameters(discriminator) == count_d(16, 3, m)
    assert shapes(generator, (nz, 1, 1))[-1] == (3, 16, 16)


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=lambda preset: preset.name)
def test_no_summary_names_a_size_that_can_be_replaced(preset):
    assert not re.search(r"\d+ ?[x×] ?\d+|RGB|grey|batch", preset.summary)


def test_flowers_at_64_is_a_doubling_deeper():
    preset = train.chosen_preset(train.parser().parse_args(["--preset", "flowers", "--set", "image_size=64"]))
    kernels = [
        (type(layer).__name__, layer.channels, layer.kernel, layer.stride, layer.padding)
        for layer in preset.generator
        if isinstance(layer, layers.Conv | layers.ConvTranspose)
    ]
    assert kernels == [
        ("ConvTranspose", 512, 4, 1, 0),
        ("ConvTranspose", 256, 4, 2, 1),
        ("ConvTranspose", 128, 4, 2, 1),
        ("ConvTranspose", 64, 4, 2, 1),
        ("ConvTranspose", 32, 4, 2, 1),
        ("Conv", 3, 3, 1, 1),
    ]


@FORMS
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 28}, "image_size=28: expected one of 8, 16, 32, 64, 128, 256"),
        ({"image_size": 4}, "image_size=4: expected one of 8,"),
        ({"image_size": 512}, "image_size=512: expected one of 8,"),
        ({"channels": 5}, "channels=5: expected 1 .grey., 2"),
        ({"channels": 0}, "channels=0: expected an integer of at least 1"),
        ({"nz": 0}, "nz=0: expected an integer from 1"),
        ({"ngf": 0}, "ngf=0: expected an integer from 1"),
        ({"ndf": -1}, "ndf=-1: expected an integer of at least 0"),
        ({"ngf": 2.0}, "ngf=2.0: expected a value of type int"),
        ({"z_shape": (64, 1, 1)}, "z_shape follows from image_size, channels, nz, ngf and ndf"),
        ({"generator": (layers.Tanh(),)}, "generator follows from image_size"),
    ],
)
def test_a_size_that_the_general_form_does_not_have_is_told(form, overrides, message):
    with pytest.raises(UserError, match=message):
        presets.get(form, **overrides)


@pytest.mark.parametrize("field", ["nz", "ngf", "ndf"])
def test_widths_mean_nothing_where_the_layers_are_listed(field):
    with pytest.raises(UserError, match=f"{field}=8: the layers of 'flux' are listed one by one"):
        presets.get("flux", **{field: 8})


# -- --set, --list -------------------------------------------------------------------------------------


def chosen(*settings, name="flux"):
    return train.chosen_preset(
        train.parser().parse_args(["--preset", name, *(f"--set={s}" for s in settings)])
    )


ANOTHER = {  # a value of each field that the recipe "flux" or, for the widths, "flowers" does not have
    "step": "same_fakes", "loss": "bce", "nz": 7, "ngf": 3, "ndf": 5, "image_size": 64, "channels": 3,
    "z_shape": (7,), "z_distribution": "uniform", "crop": "random_or_center", "flip": 0.25, "shuffle": "once",
    "batch_size": 9, "epochs": 3, "steps": 11, "lr_generator": 0.1, "lr_discriminator": 0.2, "beta1": 0.3,
    "beta2": 0.4, "adam_eps": 0.5, "adam_epsilon_hat": True, "ema_decay": 0.6, "statistics": "batch",
    "sample_every": 12, "sample_early": 13, "sample_noise": "new", "sample_name": "a{step}.png",
    "grid_rows": 2, "grid_columns": 4, "plot_with_samples": True, "real_name": "b.png",
    "log_every": 14, "frame_every": 15, "seed": 16, "enough_steps": 17,
}  # fmt: skip
NOT_IN_WORDS = {"generator", "discriminator"}  # layers: from Python alone
FAMILY = {"nz", "ngf", "ndf"}


@pytest.mark.parametrize("field", ANOTHER)
def test_any_field_can_be_set(field):
    name = "flowers" if field in FAMILY else "flux"
    assert getattr(presets.get(name), field) != ANOTHER[field]
    assert getattr(chosen(f"{field}={ANOTHER[field]}", name=name), field) == ANOTHER[field]


def test_the_form_can_be_set():
    assert chosen("architecture=dcgan", name="flowers").generator == presets.get(
        "pytorch", image_size=32, nz=64, ngf=32, ndf=32
    ).generator  # fmt: skip


def test_no_field_is_left_out_above():
    fields = {field.name for field in dataclasses.fields(presets.Preset)}
    assert fields == {"name", "summary", "architecture", *ANOTHER} | NOT_IN_WORDS


def test_numpys_numbers_are_fields_as_pythons():
    given = {"ngf": np.int64(8), "lr_generator": np.float64(0.5), "steps": np.uint8(3)}
    preset = presets.get("pytorch", **given)
    assert preset.to_json() == presets.get("pytorch", ngf=8, lr_generator=0.5, steps=3).to_json()
    assert [type(getattr(preset, name)) for name in given] == [int, float, int]
    z_shape = presets.get("tensorflow", z_shape=(np.int64(100),)).z_shape
    assert (z_shape, type(z_shape[0])) == ((100,), int)
    with pytest.raises(UserError, match="ngf=2.0: expected a value of type int"):
        presets.get("pytorch", ngf=np.float64(2))


def test_an_unknown_field_is_refused_with_all_that_there_are():
    with pytest.raises(UserError, match="unknown field 'colour': expected one of") as refused:
        chosen("colour=1")
    listed = set(str(refused.value).partition("one of ")[2].split(", "))
    assert listed == {*ANOTHER, "architecture"} | NOT_IN_WORDS


@pytest.mark.parametrize("field", ["step", "loss", "z_distribution", "crop", "shuffle", "statistics"])
def test_a_word_that_a_field_does_not_know_is_refused_with_those_it_does(field):
    with pytest.raises(UserError, match=f"{field}='none': expected one of .*{ANOTHER[field]}"):
        chosen(f"{field}=none")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("epochs=2.5", "epochs=2.5: expected a value of type int, such as 25"),
        ("epochs=many", "epochs='many': expected a value of type int, such as 25"),
        ("beta1=half", "beta1='half': expected a value of type float, such as 0.9"),
        ("plot_with_samples=1", "plot_with_samples=1: expected a value of type bool, such as False"),
        ("loss=3", "loss=3: expected a value of type str, such as bce_with_logits"),
        ("z_shape=7", r"z_shape=7: expected a tuple of integers, such as \(100,\)"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_one_of_the_right(setting, expected):
    with pytest.raises(UserError, match=expected):
        chosen(setting)


def test_the_list_shows_every_recipe_with_its_figures(capsys):
    assert train.main(["--list"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 1 + len(PRESETS)
    rows = {line.split()[0]: line for line in shown[1:]}
    assert list(rows) == list(PRESETS)
    assert table.recipes().splitlines() == shown
    for name, (g, d) in COUNTS.items():
        figures = FIGURES[name]
        side = f"{figures['image_size']} x {figures['image_size']}"
        cells = [side, "grey" if figures["channels"] == 1 else "RGB", str(figures["batch_size"])]
        cells += [str(figures["epochs"]), f"{g:,}", f"{d:,}", presets.get(name).summary]
        rest = rows[name].removeprefix(name)
        for cell in cells:  # in this order
            assert cell in rest
            rest = rest.partition(cell)[2]
        assert rest == ""
