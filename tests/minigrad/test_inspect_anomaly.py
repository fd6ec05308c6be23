"""`detect_anomaly`: numbers that are not finite are planted, and must be found where they are."""

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, observer, optim
from minigrad.backend import get
from minigrad.backend.geometry import ConvGeometry
from minigrad.inspect import AnomalyError, detect_anomaly


def flux():
    """The layers of the Flux tutorial's generator, narrower."""
    return nn.Sequential(
        nn.Dense(100, 784, bias=False), nn.BatchNorm(784), nn.ReLU(), nn.Reshape(16, 7, 7),
        nn.ConvTranspose2d(16, 8, 5, 1, 2, bias=False), nn.BatchNorm(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False), nn.BatchNorm(4), nn.ReLU(),
        nn.ConvTranspose2d(4, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def noise():
    return mg.tensor(np.random.default_rng(0).standard_normal((3, 100)), "float32")


def test_nothing_is_said_where_all_is_finite():
    model = flux()
    optimizer = optim.Adam(model.parameters(), 1e-3)
    with detect_anomaly(model):
        model(noise()).sum().backward()
        optimizer.step()
    assert observer.current() == []


@pytest.mark.parametrize(
    ("index", "layer", "operation"),
    [
        (0, "0 Dense(100, 784)", "dense"),  # of the weight
        (1, "1 BatchNorm(784)", "batch_norm"),
        (4, "4 ConvTranspose2d(16, 8)", "convolve_input_gradient"),
        (7, "7 ConvTranspose2d(8, 4)", "convolve_input_gradient"),
    ],
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_layer_of_a_bad_weight_is_named(index, layer, operation, bad):
    model = flux()
    model[index].weight.data[1] = bad
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(noise())
    found = caught.value
    assert (found.layer, found.operation, found.phase) == (layer, operation, "forward")
    assert observer.current() == []


def test_the_range_of_what_went_in_is_told():
    x = mg.tensor([3.0, 0.0, 0.5])
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        F.log(x)
    assert caught.value.range == (0.0, 3.0)
    assert str(caught.value) == "the forward of log (what went in lies between 0 and 3)"


def test_what_was_not_finite_already_is_told_with_the_range_of_the_rest():
    model = flux()
    model[4].weight.data[1, 2, 0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(noise())
    found = caught.value
    assert found.bad == ("3 of 3,200 numbers of the weight are not finite already",)
    low, high = found.range
    assert -1 < low < 0 < high < 10
    assert str(found).endswith(f" and {high:.3g}; {found.bad[0]})")
    x = np.random.default_rng(0).standard_normal((3, 100))
    x[1, 7] = np.nan
    with pytest.raises(AnomalyError) as caught, detect_anomaly(flux()):
        model(mg.tensor(x, "float32"))
    assert caught.value.bad == ("1 of 300 numbers of input 0 is not finite already",)
    match = r"^the forward of log \(1 of 1 numbers of input 0 is not finite already\)$"
    with pytest.raises(AnomalyError, match=match), detect_anomaly():
        F.log(mg.tensor([np.nan]))


def test_another_layers_bad_parameter_is_told_with_its_layer():
    lent, layer = nn.Dense(2, 2), nn.Dense(2, 2)
    lent.weight.data[0, 0] = np.inf
    model = nn.Sequential(layer, lent)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        layer(mg.tensor([[1.0, 1.0]])) @ lent.weight
    assert caught.value.bad == ("1 of 4 numbers of the weight of 1 Dense(2, 2) is not finite already",)


class Root(nn.Module):
    """Whose gradient at 0 is infinite, where its value is finite."""

    def forward(self, x):
        return F.sqrt(x)


def test_a_backward_rule_is_named_with_the_layer_of_its_forward():
    model = nn.Sequential(nn.ReLU(), Root())
    x = mg.tensor([4.0, -1.0], requires_grad=True)
    with pytest.raises(AnomalyError) as caught, detect_anomaly({"critic": model}):
        model(x).sum().backward()
    found = caught.value
    assert (found.layer, found.operation, found.phase) == ("critic.1 Root()", "sqrt", "backward")
    assert str(found).startswith("in critic.1 Root(), the backward of sqrt (what went in lies between 0")


def test_a_graph_made_before_has_a_backward_without_a_layer():
    x = mg.tensor([0.0], requires_grad=True)
    y = F.sqrt(x)
    with pytest.raises(AnomalyError, match="^the backward of sqrt"), detect_anomaly():
        y.backward()


def test_a_step_that_goes_too_far_names_the_layer_and_the_optimizer():
    model = nn.Sequential(nn.Tanh(), nn.Dense(2, 1))
    optimizer = optim.SGD(model.parameters(), 1e38)
    (model(mg.tensor([[1.0, 2.0]])) * 100.0).sum().backward()
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        optimizer.step()
    found = caught.value
    assert (found.layer, found.operation, found.phase) == ("1 Dense(2, 1)", "SGD", "step")
    assert found.range is None


def test_it_goes_on_watching_after_it_was_caught():
    x = mg.tensor([0.0], requires_grad=True)
    watch = detect_anomaly()
    for _ in range(2):
        with pytest.raises(AnomalyError, match="backward of sqrt"), watch:
            F.sqrt(x).backward()
    with pytest.raises(AnomalyError, match="forward of log"), watch:
        F.log(x)


@pytest.mark.native
@pytest.mark.parametrize("bad", [np.nan, np.inf, 3e38])
def test_a_bad_pixel_spoils_its_own_image_and_is_told_where_it_comes_up_first(bad):
    # By frequencies each pixel of an image reaches all of its result.
    geometry = ConvGeometry.of_conv((7, 7), (5, 5), 1, 2, 1)
    assert "frequency" in get("cpu").convolution_form("convolve", geometry, 16, 64, 64)
    rng = np.random.default_rng(1)
    values = rng.standard_normal((16, 64, 7, 7)).astype("float32")
    model = nn.Sequential(nn.Conv2d(64, 64, 5, padding=2), nn.Conv2d(64, 64, 5, padding=2))
    clean = model[0](mg.tensor(values)).numpy()
    values[1, 2, 0, 0] = bad
    spoilt = model[0](mg.tensor(values)).numpy()
    others = [0, *range(2, 16)]
    assert np.array_equal(spoilt[others], clean[others])
    assert not np.isfinite(spoilt[1]).any()
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(mg.tensor(values))
    assert (caught.value.layer, caught.value.operation) == ("0 Conv2d(64, 64)", "convolve")
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model(mg.tensor(values) * 10.0 * 10.0)
    assert (caught.value.layer, caught.value.operation) == ("", "multiply")


def test_in_backward_the_first_to_be_spoilt_is_named_too():
    rng = np.random.default_rng(1)
    x = mg.tensor(rng.standard_normal((4, 64, 7, 7)).astype("float32"), requires_grad=True)
    model = nn.Sequential(nn.Conv2d(64, 64, 5, padding=2), Root())
    y = model[0](x)
    with pytest.raises(AnomalyError) as caught, detect_anomaly(model):
        model[1](y - y.detach()).sum().backward()
    found = caught.value
    assert (found.layer, found.operation, found.phase) == ("1 Root()", "sqrt", "backward")
