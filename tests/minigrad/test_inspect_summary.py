"""`summary`: numbers by hand, and receptive fields by changing pixels of the input one by one."""

import re

import numpy as np
import pytest

import minigrad as mg
from minigrad import nn, random
from minigrad.inspect import summary


def flux():
    """The layers of the Flux tutorial's generator."""
    return nn.Sequential(
        nn.Dense(100, 12544, bias=False), nn.BatchNorm(12544), nn.ReLU(), nn.Reshape(256, 7, 7),
        nn.ConvTranspose2d(256, 128, 5, 1, 2, bias=False), nn.BatchNorm(128), nn.ReLU(),
        nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=False), nn.BatchNorm(64), nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def critic():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 3, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3)),
        nn.Conv2d(3, 5, 3, 2, "same", bias=False), nn.BatchNorm(5), nn.LeakyReLU(0.2),
        nn.Flatten(), nn.Dense(5 * 4 * 3, 1),
    )  # fmt: skip


def test_the_flux_generator_by_hand():
    found = summary(flux(), (100,))
    assert found.parameters == 2_231_168
    products = {
        "0": 100 * 12544,
        "4": 7 * 7 * 5 * 5 * 256 * 128,  # each pixel that goes in is spread by the whole kernel
        "7": 7 * 7 * 4 * 4 * 128 * 64,
        "10": 14 * 14 * 4 * 4 * 64 * 1,
    }
    assert {row.name: row.multiply_adds for row in found.rows if row.multiply_adds} == products
    assert found.multiply_adds == sum(products.values()) == 48_018_432
    assert [row.parameters for row in found.rows] == [
        1_254_400, 25_088, 0, 0, 819_200, 256, 0, 131_072, 128, 0, 1_024, 0,
    ]  # fmt: skip
    assert [row.shape for row in found.rows[3:]] == (
        [(1, 256, 7, 7)] + [(1, 128, 7, 7)] * 3 + [(1, 64, 14, 14)] * 3 + [(1, 1, 28, 28)] * 2
    )
    assert found.bytes == 4 * (4 * 12544 + 3 * 128 * 49 + 3 * 64 * 196 + 2 * 784)
    assert all(row.field is None for row in found.rows)  # there are no pixels in its input


def test_every_layer_has_its_row_in_the_order_in_which_they_run():
    rows = summary(critic(), (1, 16, 12)).rows
    assert [(row.name, row.layer) for row in rows] == [
        ("0.0", "Conv2d(1, 3)"), ("0.1", "LeakyReLU(0.2)"), ("0.2", "Dropout(0.3)"),
        ("1", "Conv2d(3, 5)"), ("2", "BatchNorm(5)"), ("3", "LeakyReLU(0.2)"),
        ("4", "Flatten()"), ("5", "Dense(60, 1)"),
    ]  # fmt: skip


def test_the_table():
    lines = str(summary(critic(), (1, 16, 12))).splitlines()
    assert lines[0].split("  ")[0] == "name"
    row = "0.0 Conv2d(1, 3) (1, 3, 8, 6) 51 2,304 576 B 4 x 4"  # 3 * 16 + 3; 8 * 6 * 16 * 3
    assert " ".join(lines[1].split()) == row
    assert lines[-2].split()[-1] == "-"
    # 51 + 135 + 10 + 61; 2,304 + 4 * 3 * 9 * 15 + 60
    assert lines[-1].split()[:3] == ["all", "257", "3,984"]
    assert max(map(len, lines)) < 110


def seen(network, shape):
    """The widest rectangle of the input that one pixel of the output changes with, pixel by pixel."""
    height, width = shape[1:]
    x = np.random.default_rng(0).standard_normal((1, *shape)) + 3
    network = network.to("float64").eval()
    with mg.no_grad():
        before = network(mg.tensor(x)).numpy()
        changes = np.zeros((*before.shape[2:], height, width), bool)
        for i in range(height):
            for j in range(width):
                other = x.copy()
                other[:, :, i, j] += 1
                changes[:, :, i, j] = (network(mg.tensor(other)).numpy() != before).any(axis=(0, 1))
    spans = []
    for others in (3, 2):
        along = changes.any(axis=others)
        size = along.shape[-1]
        last = size - 1 - along[..., ::-1].argmax(axis=-1)
        spans.append(int((np.where(along.any(-1), last - along.argmax(-1) + 1, 0)).max()))
    return tuple(spans)


class Skip(nn.Module):
    """Adds what a convolution sees to what it came from."""

    def __init__(self, way, short):
        super().__init__()
        self.way, self.short, self.last = way, short, nn.Tanh()

    def forward(self, x):
        return self.last(self.way(x) + self.short(x))


class After(nn.Module):
    """Turns the image over, of which nothing is known."""

    def forward(self, x):
        return x.transpose(0, 1, 3, 2)


mg.manual_seed(0)  # no ReLU below may be off for every pixel
# fmt: off
NETWORKS = {
    "critic": nn.Sequential(*list(critic())[:4]),
    "two strides": nn.Sequential(
        nn.Conv2d(1, 2, (3, 2), (1, 2)), nn.Tanh(), nn.Conv2d(2, 2, (3, 4), (2, 1))
    ),
    "dilation": nn.Sequential(
        nn.Conv2d(1, 2, 3, 1, 2, dilation=2), nn.Conv2d(2, 1, 2, 1, ((1, 0), (0, 2)))
    ),
    "larger than the image": nn.Sequential(*(nn.Conv2d(1, 1, 5, 1, 2) for _ in range(4))),
    "up": nn.Sequential(nn.ConvTranspose2d(1, 2, 4, 2, 1), nn.ConvTranspose2d(2, 1, 5, 2, "same")),
    "down and up": nn.Sequential(
        nn.Conv2d(1, 2, 4, 2, 1), nn.BatchNorm(2), nn.ReLU(), nn.ConvTranspose2d(2, 1, 3, 2, 0, 1)
    ),
    "gaps": nn.Sequential(nn.ConvTranspose2d(1, 1, 1, 3), nn.Conv2d(1, 1, 2, 2)),
    "a way round": Skip(nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(1, 2, (1, 5), 1, (0, 2))),
}
# fmt: on


@pytest.mark.parametrize("name", NETWORKS)
def test_receptive_fields_are_what_changes(name):
    network = NETWORKS[name]
    assert summary(network, (1, 9, 8)).rows[-1].field == seen(network, (1, 9, 8))


def test_what_an_output_sees_is_told_only_where_it_is_known():
    rows = summary(nn.Sequential(nn.Conv2d(1, 1, 3), After(), nn.Conv2d(1, 1, 3)), (1, 8, 8)).rows
    assert [row.field for row in rows] == [(3, 3), None, None]
    rows = summary(critic(), (1, 16, 12)).rows
    assert [row.field for row in rows[-3:]] == [(8, 8), None, None]


def test_the_model_and_the_random_state_are_left_as_they_are():
    model = critic()
    model[0].eval()
    calls = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    modes = [module.training for _, module in model.named_modules()]
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    state = random.get_state()
    summary(model, (1, 16, 12))
    assert [module.training for _, module in model.named_modules()] == modes
    assert random.get_state() == state
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in model.state_dict().items())
    assert calls == []
    assert [len(module.forward_hooks) for _, module in model.named_modules()].count(1) == 1
    assert mg.is_grad_enabled()


def test_a_batch_may_be_given_and_dtypes_are_kept():
    x = mg.tensor(np.ones((5, 1, 16, 12)), "float64")
    found = summary(critic().to("float64"), x)
    assert found.rows[0].shape == (5, 3, 8, 6)
    assert found.rows[0].bytes == 5 * 3 * 8 * 6 * 8
    assert found.multiply_adds == 5 * summary(critic(), (1, 16, 12)).multiply_adds


def test_a_layer_that_is_used_twice_has_two_rows_and_is_counted_once():
    layer = nn.Dense(3, 3)
    found = summary(nn.Sequential(layer, nn.Tanh(), layer), (3,))
    assert [(row.name, row.parameters, row.multiply_adds) for row in found.rows] == [
        ("0", 12, 9), ("1", 0, 0), ("0", 0, 9),
    ]  # fmt: skip
    assert (found.parameters, found.multiply_adds) == (12, 18)


def test_a_shape_that_does_not_fit_is_an_error_with_the_layers_name():
    with pytest.raises(ValueError, match=r"Conv2d\(1, 3\): expected"):
        summary(critic(), (2, 16, 12))


@pytest.mark.parametrize("given", [100, None, "100", (100.0,), (0,), (-100,), np.ones((1, 100))])
def test_what_is_no_shape_is_an_error(given):
    message = (
        "shape of one item, such as .*got " + re.escape(repr(given)[:40]) + ".*write the sizes as a tuple"
    )
    with pytest.raises(TypeError, match=f"(?s){message}"):
        summary(nn.Dense(100, 2), given)
    assert summary(nn.Dense(100, 2), [np.int64(100)]).rows[0].shape == (1, 2)


def test_what_is_no_model_is_an_error():
    with pytest.raises(TypeError, match=r"expected a layer or a network of minigrad\.nn as model, got str"):
        summary("x", (100,))
