"""Epilogue: the activation and the dropout that an operation applies to its own result."""

import dataclasses
import re

import numpy as np
import pytest
from accuracy import assert_close

import minigrad as mg
import minigrad.functional as F
from minigrad import Epilogue, naive, nn
from minigrad.backend.epilogue import NO_EPILOGUE
from minigrad.nn import sequential

EVERY_DEVICE = True
pytestmark = pytest.mark.every_form
DRAW = (5, 7), (0, 3, 0, 0)
RELU, LEAKY, DROPOUT = Epilogue(slope=0.0), Epilogue(slope=0.2), Epilogue(p=0.4)


def numbers(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (NO_EPILOGUE, NO_EPILOGUE, NO_EPILOGUE),
        (NO_EPILOGUE, LEAKY, LEAKY),
        (LEAKY, NO_EPILOGUE, LEAKY),
        (NO_EPILOGUE, DROPOUT, DROPOUT),
        (DROPOUT, NO_EPILOGUE, DROPOUT),
        (RELU, DROPOUT, Epilogue(0.0, 0.4)),
        (LEAKY, RELU, None),
        (DROPOUT, LEAKY, None),
        (DROPOUT, DROPOUT, None),
        (Epilogue(0.2, 0.4), DROPOUT, None),
    ],
)
def test_an_epilogue_holds_one_activation_and_then_one_dropout(first, second, both):
    assert first.then(second) == both


def test_it_is_a_value():
    assert Epilogue() == NO_EPILOGUE
    assert hash(Epilogue(0.2, 0.4)) == hash(Epilogue(slope=0.2, p=0.4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        LEAKY.slope = 0.3


def test_its_random_numbers_must_be_drawn_before_a_backend_uses_them():
    assert LEAKY.dropout is None
    with pytest.raises(
        ValueError, match=r"Epilogue\(slope=1.0, p=0.4, draw=None\): .* call drawn\(key, counter\)"
    ):
        _ = DROPOUT.dropout
    assert DROPOUT.drawn(*DRAW).dropout == (0.4, *DRAW)


def test_a_convolution_draws_at_each_call_unless_the_numbers_are_given():
    x, weight = mg.tensor(numbers(0, 2, 3, 5, 5)), mg.tensor(numbers(1, 4, 3, 2, 2))
    mg.manual_seed(1)
    first, second = (F.conv2d(x, weight, epilogue=DROPOUT).numpy() for _ in range(2))
    assert mg.random.get_state()["calls"] == 2
    assert ((first == 0) != (second == 0)).any()
    given = [F.conv2d(x, weight, epilogue=DROPOUT.drawn(*DRAW)).numpy() for _ in range(2)]
    assert mg.random.get_state()["calls"] == 2
    assert_close(given[0], naive.dropout(naive_convolution(x, weight), 0.4, *DRAW), "float64")
    assert np.array_equal(*given)


def naive_convolution(x, weight):
    y = np.zeros((2, 4, 4, 4))
    for i in range(2):
        for j in range(2):
            y += np.einsum("nchw,oc->nohw", x.numpy()[:, :, i : i + 4, j : j + 4], weight.numpy()[:, :, i, j])
    return y


def test_a_call_that_fails_draws_nothing():
    x, weight = mg.tensor(numbers(0, 2, 3, 2, 2)), mg.tensor(numbers(1, 4, 3, 3, 3))
    calls = mg.random.get_state()["calls"]
    with pytest.raises(ValueError, match=r"conv2d: .*kernel"):
        F.conv2d(x, weight, epilogue=DROPOUT)
    with pytest.raises(ValueError, match=r"Conv2d\(3, 4\): expected \(N, 3, H, W\)"):
        nn.Sequential(nn.Conv2d(3, 4, 2, dtype="float64"), nn.Dropout(0.4))(mg.tensor(numbers(0, 2, 1, 4, 4)))
    assert mg.random.get_state()["calls"] == calls + 2  # the layer's weight and bias


@pytest.mark.parametrize(
    ("epilogue", "error", "message"),
    [
        (Epilogue(slope=2.0), ValueError, "expected 0 <= slope <= 1, got 2.0"),
        (Epilogue(slope=float("nan")), ValueError, "expected 0 <= slope <= 1, got nan"),
        (Epilogue(p=1.0), ValueError, "expected 0 <= p < 1, got 1.0"),
        (Epilogue(p=-0.5), ValueError, "expected 0 <= p < 1, got -0.5"),
        (0.2, TypeError, "expected an Epilogue, got float"),
    ],
)
def test_what_is_no_epilogue_is_told(epilogue, error, message):
    image, vector = mg.tensor(numbers(0, 2, 2, 3, 3)), mg.tensor(numbers(1, 2))
    weight = mg.tensor(numbers(2, 2, 2, 2, 2))
    for name, call in (
        ("conv2d", lambda: F.conv2d(image, weight, epilogue=epilogue)),
        ("conv_transpose2d", lambda: F.conv_transpose2d(image, weight, epilogue=epilogue)),
        ("batch_norm", lambda: F.batch_norm(image, None, None, vector, vector, True, epilogue=epilogue)),
    ):
        with pytest.raises(error, match=re.escape(f"{name}: {message}")):
            call()


def test_a_dropout_where_none_is_applied_is_told():
    image, vector = mg.tensor(numbers(0, 2, 2, 3, 3)), mg.tensor(numbers(1, 2))
    with pytest.raises(ValueError, match=r"conv_transpose2d: expected no dropout in its epilogue"):
        F.conv_transpose2d(image, mg.tensor(numbers(2, 2, 2, 2, 2)), epilogue=Epilogue(0.2, 0.4))
    with pytest.raises(ValueError, match=r"batch_norm: expected no dropout in its epilogue"):
        F.batch_norm(image, None, None, vector, vector, True, epilogue=DROPOUT)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize(
    "epilogue", [NO_EPILOGUE, RELU, LEAKY, DROPOUT, Epilogue(0.0, 0.4), Epilogue(0.2, 0.4)]
)
def test_a_gradient_goes_back_through_every_part(default_device, epilogue, create_graph):
    """A 1x1 convolution that copies its image: y and dx are those of the epilogue alone."""
    values, above = numbers(0, 3, 2, 4, 5), numbers(1, 3, 2, 4, 5)
    x = mg.tensor(values, requires_grad=True)
    one = mg.tensor(np.eye(2)[:, :, None, None], requires_grad=True)
    y = F.conv2d(x, one, epilogue=epilogue.drawn(*DRAW))
    factors = np.where(values > 0, 1, epilogue.slope)
    if epilogue.p:
        kept = np.array(naive.dropout_mask(values.size, 0.4, *DRAW))
        factors = factors * kept.reshape(3, 4, 5, 2).transpose(0, 3, 1, 2) / 0.6  # the channels innermost
    assert_close(y.numpy(), values * factors, "float64")
    dx, dw = mg.grad(y, [x, one], mg.tensor(above), create_graph=create_graph)
    assert_close(dx.numpy(), above * factors, "float64")
    assert_close(dw.numpy()[:, :, 0, 0], np.einsum("nohw,nchw->oc", above * factors, values), "float64")


class Own(nn.Module):
    """A layer that a program defines, and that a layer before may apply."""

    def forward(self, x):
        return F.leaky_relu(x, 0.3)

    def as_epilogue(self):
        return Epilogue(slope=0.3)


def test_an_activation_of_ones_own_is_taken_along(default_device):
    network = nn.Sequential(nn.Conv2d(1, 2, 2), Own(), nn.Dropout(0.5).eval())
    assert sequential.taken_along(network[0], list(network)[1:]) == list(network)[1:]
    x = mg.tensor(numbers(0, 2, 1, 4, 4), "float32", requires_grad=True)
    y = network(x)
    assert y.node.name == "convolve"
    assert np.array_equal(y.numpy(), network[1](network[0](x)).numpy())


def test_a_layer_that_takes_nothing_gets_x_alone():
    assert sequential.taken_along(nn.Dense(2, 2), [nn.LeakyReLU(1.0), nn.Dropout(0.0)]) == []
    assert nn.Sequential(nn.Dense(2, 2), nn.LeakyReLU(1.0))(mg.tensor([[1.0, 2.0]])).shape == (1, 2)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2)], ids=["relu", "leaky"])
@pytest.mark.parametrize(
    "make", [lambda: nn.Conv2d(2, 3, 2), lambda: nn.ConvTranspose2d(2, 3, 2), lambda: nn.BatchNorm(2)]
)
def test_every_layer_that_takes_an_activation_applies_it(default_device, make, activation, training):
    layer = make().train(training)
    network = nn.Sequential(layer, activation)
    assert sequential.taken_along(layer, [activation]) == [activation]
    x = mg.tensor(numbers(0, 4, 2, 3, 3), "float32", requires_grad=True)
    together, apart = network(x), activation(layer(x))
    assert_close(together.numpy(), apart.numpy(), "float32")
    above = mg.tensor(numbers(1, *together.shape), "float32")
    inputs = [x, *layer.parameters()]
    for found, expected in zip(mg.grad(together, inputs, above), mg.grad(apart, inputs, above), strict=True):
        assert_close(found.numpy(), expected.numpy(), "float32")
