"""Sizes, rates, seeds and dtypes: NumPy's numbers are taken as Python's, and None as float32."""

import json

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, inspect, nn
from minigrad.backend.arguments import as_float, as_int

EVERY_DEVICE = True

KINDS = [np.int64, np.int32, np.uint8, np.array]  # the last makes an array without axes


def images():
    return mg.tensor(np.arange(2 * 3 * 6 * 5).reshape(2, 3, 6, 5), "float32")


def kept(layer):
    """The layer's settings, as JSON writes them: NumPy's integers can't be."""
    return json.loads(json.dumps({k: v for k, v in vars(layer).items() if not isinstance(v, mg.Tensor)}))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_numpys_integers_are_sizes_of_layers_and_are_kept_as_pythons(kind):
    two, three, one, zero = kind(2), kind(3), kind(1), kind(0)
    given = {
        "Dense(3, 2)": (nn.Dense(three, two), nn.Dense(3, 2)),
        "BatchNorm(3)": (nn.BatchNorm(three), nn.BatchNorm(3)),
        "Conv2d(3, 2)": (
            nn.Conv2d(three, two, three, two, one, dilation=one),
            nn.Conv2d(3, 2, 3, 2, 1, dilation=1),
        ),
        "ConvTranspose2d(3, 2)": (
            nn.ConvTranspose2d(three, two, (two, 3), two, ((one, zero), (0, 1)), one, dilation=(one, one)),
            nn.ConvTranspose2d(3, 2, (2, 3), 2, ((1, 0), (0, 1)), 1),
        ),
        "Reshape(3, -1)": (nn.Reshape(three, -1), nn.Reshape(3, -1)),
    }
    for text, (layer, plain) in given.items():
        assert repr(layer) == text
        assert kept(layer) == kept(plain)
        assert {n: t.shape for n, t in layer.state_dict().items()} == {
            n: t.shape for n, t in plain.state_dict().items()
        }
        assert all(type(n) is int for t in layer.state_dict().values() for n in t.shape)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_numpys_integers_are_arguments_of_functions(kind):
    x = images()
    two, one, zero = kind(2), kind(1), kind(0)
    weight = mg.tensor(np.ones((2, 3, 2, 2)), "float32")
    up = mg.tensor(np.ones((3, 2, 2, 2)), "float32")
    pairs = {
        "conv2d": [F.conv2d(x, weight, None, s, p, d) for s, p, d in ((two, one, one), (2, 1, 1))],
        "conv_transpose2d": [
            F.conv_transpose2d(x, up, None, s, p, e, d) for s, p, e, d in ((two, one, one, one), (2, 1, 1, 1))
        ],
        "reshape": [x.reshape(kind(60), -1), x.reshape(60, -1)],
        "reshape by a tuple": [x.reshape((kind(60), kind(3))), x.reshape(60, 3)],
        "reshape beyond 255": [
            mg.tensor(np.arange(400)).reshape(kind(20), kind(20)),
            mg.tensor(np.arange(400)).reshape(20, 20),
        ],
        "sum": [x.sum(one), x.sum(1)],
        "mean": [x.mean((one, two)), x.mean((1, 2))],
        "max": [x.max(two), x.max(2)],
        "var": [x.var(zero, correction=one), x.var(0, correction=1)],
        "transpose": [x.transpose(one, zero, 2, 3), x.transpose(1, 0, 2, 3)],
        "concatenate": [mg.concatenate([x, x], axis=one), mg.concatenate([x, x], axis=1)],
        "stack": [mg.stack([x, x], axis=one), mg.stack([x, x], axis=1)],
        "pad": [mg.pad(x, [(zero, one)] * 4), mg.pad(x, [(0, 1)] * 4)],
        "broadcast_to": [F.broadcast_to(x, (two, 2, 3, 6, 5)), F.broadcast_to(x, (2, 2, 3, 6, 5))],
        "an index": [x[one], x[1]],
    }
    for name, (found, expected) in pairs.items():
        assert found.shape == expected.shape, name
        assert found.numpy().tolist() == expected.numpy().tolist(), name


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_numpys_integers_are_shapes_to_look_into(kind):
    layer, shape = nn.Conv2d(3, 2, 3, 2), (kind(3), kind(6), kind(5))
    assert repr(inspect.geometry(layer, shape)) == repr(inspect.geometry(layer, (3, 6, 5)))
    assert repr(inspect.summary(layer, shape)) == repr(inspect.summary(layer, (3, 6, 5)))
    for wrong in (True, 6.0, None):
        with pytest.raises(TypeError, match="write .*sizes as a tuple"):
            inspect.geometry(layer, (3, wrong, 5))


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_numpys_integers_are_seeds_and_states(kind):
    mg.manual_seed(kind(3))
    state = mg.random.get_state()
    assert json.dumps(state) == '{"seed": 3, "stream": 0, "calls": 0}'
    first = mg.random.default.normal((4,)).tolist()
    assert first == mg.Generator(3).normal((4,)).tolist()
    generator = mg.Generator(kind(3), kind(2))
    assert json.dumps(generator.state) == '{"seed": 3, "stream": 2, "calls": 0}'
    generator.state = {"calls": kind(1), "seed": kind(5), "stream": kind(4)}
    assert json.dumps(generator.state) == '{"seed": 5, "stream": 4, "calls": 1}'
    assert mg.Generator(np.uint64(2**64 - 1)).state["seed"] == 2**64 - 1


@pytest.mark.cpu_only("the pool of threads")
def test_numpys_integers_are_numbers_of_threads():
    before = backend.num_threads()
    try:
        mg.set_num_threads(np.int64(2))
        assert backend.num_threads() == 2
        for wrong in (True, np.bool_(True), 2.0, np.float64(2), "2", None, 0, np.int64(1025)):
            with pytest.raises(ValueError, match="set_num_threads: expected an integer from 1 to 1024"):
                mg.set_num_threads(wrong)
        assert backend.num_threads() == 2
    finally:
        mg.set_num_threads(before)


@pytest.mark.parametrize("value", [2.0, np.float32(2), True, np.bool_(True), "2", None, np.array([2]), 2j])
def test_what_is_no_integer_is_no_size(value):
    assert as_int(value) is None
    for make in (
        lambda: nn.Dense(value, 3), lambda: nn.Dense(3, value), lambda: nn.BatchNorm(value),
        lambda: nn.Conv2d(1, 1, value), lambda: nn.Conv2d(1, 1, 3, value),
        lambda: nn.Conv2d(1, 1, 3, 1, value), lambda: nn.Conv2d(1, 1, (2, value)),
        lambda: nn.ConvTranspose2d(1, value, 3), lambda: nn.ConvTranspose2d(1, 1, 3, 2, 1, value),
        lambda: nn.Reshape(3, value), lambda: mg.manual_seed(value),
        lambda: mg.Generator(0, value),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="expected .*got"):
            make()


def test_rates_are_kept_as_pythons_floats():
    norm = nn.BatchNorm(2, np.float64(0.5), 1)
    rates = [nn.LeakyReLU(np.float32(0.25)).negative_slope, nn.Dropout(np.float64(0.5)).p]
    assert [type(rate) for rate in (*rates, norm.eps, norm.momentum)] == [float] * 4
    assert (as_float(np.float32(0.25)), as_float(2)) == (0.25, 2.0)
    for make in (nn.LeakyReLU, nn.Dropout, lambda v: nn.BatchNorm(2, v), lambda v: nn.BatchNorm(2, 1e-5, v)):
        for wrong in (None, "0.1", [0.1], float("nan"), 0.1j, mg.tensor(0.1)):
            with pytest.raises(ValueError, match="expected .*got"):
                make(wrong)


def test_a_reshape_takes_one_tuple_and_refuses_what_is_no_shape():
    x = images()
    for layer in (nn.Reshape((5, 18)), nn.Reshape([5, -1]), nn.Reshape(5, 18)):
        assert layer(x).shape == (2, 5, 18)
    for shape in ((-1, -1), (-2,), (3, None), ((3,), (6,))):
        with pytest.raises(ValueError, match="Reshape: expected ints >= 0, of which one may be -1, got"):
            nn.Reshape(*shape)


LAYERS = {
    "Dense": lambda dtype: nn.Dense(2, 3, dtype=dtype),
    "Conv2d": lambda dtype: nn.Conv2d(2, 3, 1, dtype=dtype),
    "ConvTranspose2d": lambda dtype: nn.ConvTranspose2d(2, 3, 1, dtype=dtype),
    "BatchNorm": lambda dtype: nn.BatchNorm(2, dtype=dtype),
}


@pytest.mark.parametrize("name", LAYERS)
def test_no_dtype_is_float32_and_others_are_refused_by_the_layers_name(name):
    for dtype, expected in ((None, "float32"), (np.float64, "float64"), (np.dtype("f4"), "float32")):
        assert {str(t.dtype) for t in LAYERS[name](dtype).state_dict().values()} == {expected}
    for wrong in ("float16", "int64", "complex64", "floats", 3, bool):
        with pytest.raises(TypeError, match=rf"{name}: expected dtype 'float32' or 'float64', got"):
            LAYERS[name](wrong)


def test_a_generator_draws_float32_where_no_dtype_is_named():
    for draw in ("normal", "uniform"):
        generator = mg.Generator(1)
        drawn = getattr(generator, draw)((3,), dtype=None)
        assert drawn.dtype == np.float32
        assert drawn.tolist() == getattr(mg.Generator(1), draw)((3,)).tolist()
        for wrong in ("float16", "int64", "floats"):
            with pytest.raises(TypeError, match=rf"Generator\.{draw}: expected dtype 'float32' or 'float64'"):
                getattr(generator, draw)((3,), dtype=wrong)
        assert generator.state["calls"] == 1
