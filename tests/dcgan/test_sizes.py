"""Sizes that are worked out before any array exists, beside those of the modules themselves."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minigrad as mg
from dcgan import models, presets
from dcgan.errors import UserError
from dcgan.recipe import layers, sizes
from dcgan.recipe.layer import KINDS
from minigrad import nn

SMALL = st.integers(1, 4)
PADDINGS = st.one_of(st.integers(0, 3), st.sampled_from(["same", "valid"]))
KERNELS = {"channels": SMALL, "kernel": SMALL, "stride": st.integers(1, 3), "padding": PADDINGS}
LAYERS = st.one_of(
    st.builds(layers.Conv, **KERNELS, bias=st.booleans()),
    st.builds(layers.ConvTranspose, **KERNELS, bias=st.booleans()),
    st.builds(layers.Dense, features=st.integers(0, 6), bias=st.booleans()),
    st.builds(layers.Reshape, SMALL, SMALL, SMALL),
    st.sampled_from(
        [layers.BatchNorm(), layers.Flatten(), layers.Tanh(), layers.ReLU(), layers.Dropout(0.5)]
    ),
)
SHAPES = st.one_of(
    st.tuples(st.integers(1, 8)), st.tuples(SMALL, SMALL, SMALL), st.tuples(SMALL, SMALL, SMALL, SMALL)
)


def ran(specs, shape):
    """The modules of the layers, each made for what the one before gives, and the shapes that they give."""
    made, modules = [], []
    x = mg.tensor(np.zeros((2, *shape), np.float32))
    for spec in specs:
        module = spec.module(x.shape[1:])
        x = module(x)
        modules.append(module)
        made.append(x.shape[1:])
    return modules, made


@settings(deadline=None, max_examples=300)
@given(st.lists(LAYERS, min_size=1, max_size=5), SHAPES)
def test_sizes_are_those_of_the_modules_and_what_they_refuse_is_refused(specs, shape):
    try:
        found = sizes.of_layers(tuple(specs), shape, "network")
    except UserError:
        with pytest.raises((ValueError, TypeError, IndexError)):
            ran(specs, shape)
        return
    modules, made = ran(specs, shape)
    assert [layer.made for layer in found] == made
    assert [layer.given for layer in found] == [shape, *made[:-1]]
    for layer, module in zip(found, modules, strict=True):
        assert layer.parameters == models.count_parameters(module)
        assert layer.buffers == sum(buffer.size for _, buffer in module.named_buffers())
        weight = getattr(module, "weight", None)
        assert layer.weight == (0 if weight is None or isinstance(module, nn.BatchNorm) else weight.size)


@pytest.mark.parametrize("name", presets.PRESETS)
def test_every_recipe_has_the_parameters_that_its_sizes_say(name):
    preset = presets.get(name)
    generator, discriminator = models.build(preset)
    assert sizes.parameters(sizes.of_generator(preset)) == models.count_parameters(generator)
    assert sizes.parameters(sizes.of_discriminator(preset)) == models.count_parameters(discriminator)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ((layers.Conv(4, 3),), r"network, layer 0 \(Conv.*\), on \(5,\): expected images"),
        ((layers.Dense(2**30),), r"there are 5368709120 weights; expected 536870912 at most"),
        ((layers.Dense(2**20), layers.Dense(2**9)), r"layer 1 .* there are 542113792 weights"),
        ((layers.Dense(10**4000),), r"layer 0 .*: features is beyond"),
        ((layers.Dense(0),), "out_features"),
        ((layers.Reshape(2, 2, 2),), r"5 numbers do not fit into \(2, 2, 2\)"),
        ((layers.Reshape(-5, -1, 1),), r"5 numbers do not fit"),
        ((layers.Reshape(5, 1, 1), layers.Dense(3)), r"layer 1 .*Flatten\(\)"),
        (
            (layers.Reshape(5, 1, 1), layers.ConvTranspose(1, 5000)),
            r"it makes \(1, 5000, 5000\) of one image",
        ),
    ],
    ids=range(9),
)
def test_a_layer_that_does_not_fit_is_named(specs, message):
    with pytest.raises(UserError, match=message) as told:
        sizes.of_layers(specs, (5,), "network")
    assert len(str(told.value)) < 500


def test_both_networks_are_looked_at_before_either_is_made(monkeypatch):
    for kind in KINDS.values():
        monkeypatch.setattr(kind, "module", lambda *_: pytest.fail("a layer was made"))
    with pytest.raises(UserError, match="discriminator, layer 1"):
        models.build(presets.get("quick", discriminator=(layers.Flatten(), layers.Conv(1, 2))))


def test_the_numbers_of_a_layer_are_its_channels_and_its_pixels():
    conv, norm = sizes.of_layers((layers.Conv(6, 3, 2, 1), layers.BatchNorm()), (2, 9, 9), "network")
    assert (conv.made, conv.weight, conv.parameters) == ((6, 5, 5), 6 * 2 * 9, 6 * 2 * 9 + 6)
    assert (norm.parameters, norm.buffers, math.prod(norm.made)) == (12, 12, 150)
