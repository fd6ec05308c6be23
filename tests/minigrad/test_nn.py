"""Modules and layers: what they hold, what they make of their input, and what they refuse."""

import copy
import math

import numpy as np
import pytest
from accuracy import assert_close

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, naive, nn
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.geometry import ConvGeometry
from minigrad.backend.philox import philox
from minigrad.nn import init, sequential

EVERY_DEVICE = True
pytestmark = pytest.mark.every_form


@pytest.fixture(autouse=True)
def _seeded():
    mg.manual_seed(0)


def array(values, dtype="float32"):
    """Values as an array of the default device."""
    return backend.get().asarray(values, dtype)


@pytest.fixture
def pool(monkeypatch):
    """The threads of the CPU backend, as many as before afterwards; some work in between was cut.

    (C kernels cut it themselves: tests/minigrad/test_cpu_kernels.py.)
    """
    pool, kernels = backend.get("cpu").pool, backend.get("cpu").kernels
    threads, run, cuts = pool.threads, pool.run, []

    def watched(work, slices):
        cuts.append(len(slices))
        run(work, slices)

    monkeypatch.setattr(pool, "run", watched)
    yield pool
    pool.resize(threads)
    assert kernels or max(cuts) > 1


def images(*shape, dtype="float32"):
    return mg.tensor(np.random.default_rng(1).normal(size=shape), dtype)


def small_model():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm(2), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Dense(18, 1))
    )


# -- names -------------------------------------------------------------------------------------------


def test_state_dict_has_pytorchs_names_in_order():
    assert list(small_model().state_dict()) == [
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
        "3.1.weight", "3.1.bias",
    ]  # fmt: skip


def test_parameters_are_learned_and_buffers_are_kept():
    model = small_model()
    names = [name for name, _ in model.named_parameters()]
    assert names == ["0.weight", "0.bias", "1.weight", "1.bias", "3.1.weight", "3.1.bias"]
    assert [name for name, _ in model.named_buffers()] == ["1.running_mean", "1.running_var"]
    assert all(p is q for p, (_, q) in zip(model.parameters(), model.named_parameters(), strict=True))
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in model.parameters())
    assert not any(b.requires_grad for _, b in model.named_buffers())


def test_modules_have_dotted_names():
    model = small_model()
    assert [name for name, _ in model.named_modules()] == ["", "0", "1", "2", "3", "3.0", "3.1"]
    assert [name for name, _ in model.children()] == ["0", "1", "2", "3"]


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left = nn.Dense(2, 3)
        self.scale = nn.Parameter(array([2.0, 2.0, 2.0]))
        self.right = nn.Dense(2, 3, bias=False)

    def forward(self, x):
        return self.left(x) * self.scale + self.right(x)


def test_a_users_module_is_found_by_its_attributes():
    model = Branches()
    assert sorted(model.state_dict()) == ["left.bias", "left.weight", "right.weight", "scale"]
    x = images(4, 2)
    left, right = (m.weight.numpy().T for m in (model.left, model.right))
    expected = (x.numpy() @ left + model.left.bias.numpy()) * 2.0 + x.numpy() @ right
    assert_close(model(x).numpy(), expected, "float32")


def test_sequential_is_a_sequence_of_modules():
    model = small_model()
    assert len(model) == 4
    assert model[0] is next(iter(model))
    assert model[-1] is list(model)[3]
    assert isinstance(model[1], nn.BatchNorm)
    with pytest.raises(TypeError, match="Sequential: expected modules, got function at 1"):
        nn.Sequential(nn.ReLU(), F.relu)
    x = images(2, 3)
    assert nn.Sequential()(x) is x


def test_a_module_without_forward_says_so():
    class Empty(nn.Module):
        pass

    with pytest.raises(NotImplementedError, match="Empty defines no forward"):
        Empty()(images(1, 1))


def test_repr_names_every_layer():
    model = nn.Sequential(nn.Dense(3, 4), nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(0.25)))
    assert repr(model).splitlines() == [
        "Sequential(",
        "  (0): Dense(3, 4)",
        "  (1): Sequential(",
        "    (0): LeakyReLU(0.2)",
        "    (1): Dropout(0.25)",
        "  )",
        ")",
    ]
    layers = [
        nn.Conv2d(1, 64, 5),
        nn.ConvTranspose2d(8, 4, 2),
        nn.BatchNorm(3),
        nn.Reshape(7, 7, 2),
        nn.Tanh(),
    ]
    assert [repr(layer) for layer in layers] == [
        "Conv2d(1, 64)", "ConvTranspose2d(8, 4)", "BatchNorm(3)", "Reshape(7, 7, 2)", "Tanh()",
    ]  # fmt: skip


# -- modes, gradients, dtypes ------------------------------------------------------------------------


def test_train_and_eval_reach_all_the_way_down():
    model = small_model()
    assert all(m.training for _, m in model.named_modules())
    assert model.eval() is model
    assert not any(m.training for _, m in model.named_modules())
    model.train()
    assert all(m.training for _, m in model.named_modules())
    model.train(False)
    assert not any(m.training for _, m in model.named_modules())


def test_zero_grad_forgets_every_gradient():
    model = small_model()
    model(images(2, 1, 5, 5)).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_to_float64_converts_parameters_and_buffers():
    model = small_model()
    before = {name: t.numpy().copy() for name, t in model.state_dict().items()}
    assert model.to("float64") is model
    for name, t in model.state_dict().items():
        assert t.dtype == np.float64
        assert t.numpy().tolist() == before[name].tolist()
    assert all(isinstance(p, nn.Parameter) for p in model.parameters())
    y = model(images(2, 1, 5, 5, dtype="float64"))
    assert y.dtype == np.float64
    y.sum().backward()
    assert all(p.grad.dtype == np.float64 for p in model.parameters())
    with pytest.raises(TypeError, match=r"Conv2d\(1, 2\): expected float64, as its weight, got float32"):
        model(images(2, 1, 5, 5))


def test_to_the_same_place_keeps_the_parameters(default_device):
    model = small_model()
    before = list(model.parameters())
    model.to(default_device).to("float32")
    assert all(p is q for p, q in zip(model.parameters(), before, strict=True))
    with pytest.raises(ValueError, match="expected a device .*got 'tpu'"):
        model.to("tpu")


# -- state -------------------------------------------------------------------------------------------


def test_state_dict_holds_copies():
    model = small_model()
    state = model.state_dict()
    for t in state.values():
        t.data[...] = 77.0
    assert not any((t.numpy() == 77.0).any() for t in model.state_dict().values())
    assert not any(t.requires_grad for t in state.values())


def test_load_state_dict_brings_everything_over_and_copies_it():
    model, other = small_model(), small_model()
    model(images(4, 1, 5, 5))
    places = list(other.parameters())
    state = model.state_dict()
    other.load_state_dict(state)
    x = images(2, 1, 5, 5)
    assert other.eval()(x).numpy().tolist() == model.eval()(x).numpy().tolist()
    assert all(p is q for p, q in zip(other.parameters(), places, strict=True))
    state["0.weight"].data[...] = 77.0
    assert not (other[0].weight.numpy() == 77.0).any()


def test_load_state_dict_takes_arrays():
    model, other = small_model(), small_model()
    other.load_state_dict({name: t.numpy() for name, t in model.state_dict().items()})
    assert other[0].weight.numpy().tolist() == model[0].weight.numpy().tolist()


def test_pytorchs_count_of_batches_is_ignored():
    model = small_model()
    state = model.state_dict()
    state["1.num_batches_tracked"] = np.array(12)
    model.load_state_dict(state)
    layer = nn.BatchNorm(2)
    layer.load_state_dict({**layer.state_dict(), "num_batches_tracked": np.array(12)})
    assert "num_batches_tracked" not in layer.state_dict()


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: without(s, "3.1.bias"), r"load_state_dict\(Sequential\): missing: 3\.1\.bias$"),
        (lambda s: s | {"4.weight": s["0.weight"]}, r"unexpected: 4\.weight$"),
        (
            lambda s: s | {"0.weight": np.zeros((2, 1, 3, 2), np.float32)},
            r"0\.weight: expected float32 of shape \(2, 1, 3, 3\), got float32 of \(2, 1, 3, 2\)",
        ),
        (
            lambda s: s | {"3.1.bias": np.zeros(1)},
            r"3\.1\.bias: expected float32 of shape \(1,\), got float64 of \(1,\)",
        ),
        (lambda s: without(s, "0.bias") | {"x": s["0.bias"]}, r"missing: 0\.bias; unexpected: x"),
    ],
    ids=["missing", "unexpected", "shape", "dtype", "two at once"],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    model = small_model()
    before = {name: t.numpy().tolist() for name, t in model.state_dict().items()}
    state = {name: mg.tensor(np.ones(t.shape, np.float32)) for name, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(spoil(state))
    assert {name: t.numpy().tolist() for name, t in model.state_dict().items()} == before


# -- weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "weight", "bias", "fan_in"),
    [
        (lambda **k: nn.Dense(150, 40, **k), (40, 150), (40,), 150),
        (lambda **k: nn.Conv2d(8, 20, (5, 3), **k), (20, 8, 5, 3), (20,), 8 * 15),
        (lambda **k: nn.ConvTranspose2d(20, 8, (5, 3), **k), (20, 8, 5, 3), (8,), 8 * 15),
    ],
    ids=["Dense", "Conv2d", "ConvTranspose2d"],
)
def test_weights_have_pytorchs_shapes_and_spread(layer, weight, bias, fan_in):
    made = layer()
    assert made.weight.shape == weight
    assert made.bias.shape == bias
    bound = 1 / math.sqrt(fan_in)
    values = made.weight.numpy()
    assert 0.99 * bound < np.abs(values).max() <= bound * (1 + 1e-6)
    assert abs(values.mean()) < 0.05 * bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0 < np.abs(made.bias.numpy()).max() <= bound * (1 + 1e-6)
    assert layer(bias=False).bias is None
    assert list(layer(bias=False).state_dict()) == ["weight"]
    assert layer(dtype="float64").weight.dtype == np.float64


def test_layers_start_differently_and_again_the_same_from_a_seed():
    first, second = nn.Dense(3, 3), nn.Dense(3, 3)
    assert first.weight.numpy().tolist() != second.weight.numpy().tolist()
    assert first.bias.numpy().tolist() != first.weight.numpy()[0].tolist()
    mg.manual_seed(0)
    assert nn.Dense(3, 3).weight.numpy().tolist() == first.weight.numpy().tolist()


def test_without_a_bias_nothing_is_added():
    x = images(3, 4)
    dense = nn.Dense(4, 2, bias=False)
    assert_close(dense(x).numpy(), x.numpy().astype(float) @ dense.weight.numpy().T.astype(float), "float32")
    for layer in (nn.Conv2d(2, 3, 3, bias=False), nn.ConvTranspose2d(2, 3, 3, bias=False)):
        assert not layer(mg.tensor(np.zeros((1, 2, 4, 4), np.float32))).numpy().any()


def test_batch_norm_starts_as_the_identity_of_normal_values():
    layer = nn.BatchNorm(3)
    assert layer.weight.numpy().tolist() == [1.0] * 3
    assert layer.bias.numpy().tolist() == [0.0] * 3
    assert layer.running_mean.numpy().tolist() == [0.0] * 3
    assert layer.running_var.numpy().tolist() == [1.0] * 3


# -- convolutions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "expected"),
    [
        (3, 1, 0, 1, (8, 6)),
        (3, 1, "valid", 1, (8, 6)),
        (4, 2, 1, 1, (5, 4)),
        ((5, 3), 2, (2, 1), 1, (5, 4)),
        (3, 2, ((0, 1), (2, 3)), 1, (5, 6)),
        (3, 1, 0, (2, 3), (6, 2)),
        (5, 1, "same", 1, (10, 8)),
        (5, 3, "same", 1, (4, 3)),
        (4, (2, 1), "same", 2, (5, 8)),
        (1, 4, 0, 1, (3, 2)),
        (1, 1, 0, 1, (10, 8)),
        ((10, 8), 1, 0, 1, (1, 1)),
    ],
)
def test_a_convolutions_output_has_the_documented_size(kernel, stride, padding, dilation, expected):
    layer = nn.Conv2d(2, 3, kernel, stride, padding, dilation=dilation)
    assert layer(images(1, 2, 10, 8)).shape == (1, 3, *expected)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "dilation", "expected"),
    [
        (3, 1, 0, 0, 1, (6, 5)),
        (4, 2, 1, 0, 1, (8, 6)),
        (4, 2, "valid", 0, 1, (10, 8)),
        (5, 2, 2, 1, 1, (8, 6)),
        (5, 2, (2, 1), (0, 1), 1, (7, 8)),
        (5, 2, ((1, 2), (0, 3)), 0, 1, (8, 6)),
        (3, 1, 0, 0, (2, 3), (8, 9)),
        (5, 2, "same", 0, 1, (8, 6)),
        (2, 3, "same", 0, 1, (12, 9)),
        (5, 1, "same", 0, 1, (4, 3)),
        (1, 3, 0, 2, 1, (12, 9)),
    ],
)
def test_a_transposed_convolutions_output_has_the_documented_size(
    kernel, stride, padding, extra, dilation, expected
):
    layer = nn.ConvTranspose2d(2, 3, kernel, stride, padding, extra, dilation=dilation)
    assert layer(images(1, 2, 4, 3)).shape == (1, 3, *expected)


def test_a_layer_gives_its_weights_to_its_own_operation():
    x = images(2, 2, 6, 5)
    conv = nn.Conv2d(2, 3, 3, 2, ((1, 0), (0, 2)), dilation=(1, 2))
    expected = F.conv2d(x, conv.weight, conv.bias, 2, ((1, 0), (0, 2)), (1, 2))
    assert conv(x).numpy().tolist() == expected.numpy().tolist()
    up = nn.ConvTranspose2d(2, 3, 3, 2, 1, 1, dilation=2)
    expected = F.conv_transpose2d(x, up.weight, up.bias, 2, 1, 1, 2)
    assert up(x).numpy().tolist() == expected.numpy().tolist()


def test_a_1x1_convolution_mixes_channels_pixel_by_pixel():
    layer, x = nn.Conv2d(3, 2, 1, dtype="float64"), images(2, 3, 4, 5, dtype="float64")
    weight, bias = layer.weight.numpy()[:, :, 0, 0], layer.bias.numpy()
    expected = np.einsum("oc,nchw->nohw", weight, x.numpy()) + bias[:, None, None]
    assert_close(layer(x).numpy(), expected)


def test_a_stride_over_the_kernel_skips_pixels():
    layer, x = nn.Conv2d(1, 1, 1, 3, dtype="float64"), images(1, 1, 7, 8, dtype="float64")
    expected = x.numpy()[:, :, ::3, ::3] * layer.weight.item() + layer.bias.item()
    assert_close(layer(x).numpy(), expected)
    up = nn.ConvTranspose2d(1, 1, 1, 3, bias=False, dtype="float64")
    spread = np.zeros((1, 1, 19, 22))
    spread[:, :, ::3, ::3] = x.numpy() * up.weight.item()
    assert_close(up(x).numpy(), spread)


def test_a_kernel_of_the_images_size_is_a_dense_layer():
    layer, x = nn.Conv2d(2, 3, (4, 5), dtype="float64"), images(3, 2, 4, 5, dtype="float64")
    expected = x.numpy().reshape(3, -1) @ layer.weight.numpy().reshape(3, -1).T + layer.bias.numpy()
    assert_close(layer(x).numpy(), expected.reshape(3, 3, 1, 1))


@pytest.mark.parametrize("make", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("padding", [1, "same", ((0, 1), (2, 1))], ids=str)
def test_each_image_of_a_batch_is_treated_alone(make, padding):
    layer, x = make(2, 3, 3, 2, padding, dtype="float64"), images(4, 2, 5, 6, dtype="float64")
    alone = np.concatenate([layer(x[i : i + 1]).numpy() for i in range(4)])
    assert_close(layer(x).numpy(), alone)


def test_a_kernel_larger_than_its_image_is_refused():
    with pytest.raises(
        ValueError, match=r"conv2d: the kernel of \(5, 5\).* spans \(5, 5\).*image \(4, 6\).*smaller"
    ):
        nn.Conv2d(1, 1, 5)(images(1, 1, 4, 6))
    with pytest.raises(ValueError, match=r"dilation \(3, 3\) spans \(7, 7\) pixels"):
        nn.Conv2d(1, 1, 3, dilation=3)(images(1, 1, 6, 6))
    assert nn.Conv2d(1, 1, 5, padding=1)(images(1, 1, 4, 6)).shape == (1, 1, 2, 4)


def test_a_transposed_convolution_of_which_nothing_is_left_is_refused():
    with pytest.raises(ValueError, match="conv_transpose2d: padding.*crops all of the output.*less padding"):
        nn.ConvTranspose2d(1, 1, 3, padding=2)(images(1, 1, 1, 2))
    with pytest.raises(ValueError, match=r'padding="same".*no room\s+for output_padding=1'):
        nn.ConvTranspose2d(1, 1, 3, 2, "same", 1)(images(1, 1, 2, 2))
    with pytest.raises(ValueError, match="output_padding .* must be smaller than the stride"):
        nn.ConvTranspose2d(1, 1, 3, 2, 0, 2)(images(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dense(0, 3), r"Dense: expected in_features to be an int >= 1, got 0"),
        (lambda: nn.Dense(3, 2.0), r"Dense: expected out_features to be an int >= 1, got 2\.0"),
        (lambda: nn.Conv2d(-1, 2, 3), r"Conv2d: expected in_channels to be an int >= 1, got -1"),
        (lambda: nn.Conv2d(1, 2, 0), r"Conv2d: kernel_size: expected an int or a pair of ints >= 1, got 0"),
        (lambda: nn.Conv2d(1, 2, (3, 3, 3)), r"Conv2d: kernel_size.*got \(3, 3, 3\)"),
        (lambda: nn.Conv2d(1, 2, 3, stride=0), "Conv2d: stride.*got 0"),
        (lambda: nn.Conv2d(1, 2, 3, padding=-1), "Conv2d: padding: .*got -1"),
        (lambda: nn.Conv2d(1, 2, 3, padding="full"), "Conv2d: padding: .*got 'full'"),
        (lambda: nn.ConvTranspose2d(1, 2, 3, dilation=0), "ConvTranspose2d: dilation.*got 0"),
        (lambda: nn.BatchNorm(0), "BatchNorm: expected num_features to be an int >= 1"),
        (lambda: nn.BatchNorm(2, eps=0.0), "BatchNorm: expected eps > 0"),
        (lambda: nn.BatchNorm(2, momentum=1.5), r"BatchNorm: .*momentum <= 1, got .*momentum=1\.5"),
        (lambda: nn.Dropout(1.0), r"Dropout: expected 0 <= p < 1, got 1\.0"),
        (lambda: nn.LeakyReLU(-0.1), r"LeakyReLU: expected 0 <= negative_slope <= 1, got -0\.1"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_the_layers_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: nn.Conv2d(64, 128, 4),
            (32, 3, 28, 28),
            "Conv2d(64, 128): expected (N, 64, H, W), got (32, 3, 28, 28)",
        ),
        (lambda: nn.Conv2d(3, 8, 4), (3, 28, 28), "Conv2d(3, 8): expected (N, 3, H, W), got (3, 28, 28)"),
        (
            lambda: nn.ConvTranspose2d(64, 32, 4),
            (2, 32, 7, 7),
            "ConvTranspose2d(64, 32): expected (N, 64, H, W), got (2, 32, 7, 7)",
        ),
        (lambda: nn.Dense(100, 5), (2, 99), "Dense(100, 5): expected (N, 100), got (2, 99)"),
        (lambda: nn.Dense(100, 5), (100,), "Dense(100, 5): expected (N, 100), got (100,)"),
        (lambda: nn.BatchNorm(4), (2, 3), "BatchNorm(4): expected (N, 4) or (N, 4, H, W), got (2, 3)"),
        (lambda: nn.BatchNorm(4), (2, 4, 5), "BatchNorm(4): expected (N, 4) or (N, 4, H, W), got (2, 4, 5)"),
        (lambda: nn.Reshape(3, 5), (2, 14), "Reshape(3, 5): (2, 14) does not fit (N, 3, 5)"),
    ],
)
def test_a_wrong_shape_names_the_layer_what_came_and_what_was_expected(make, shape, message):
    with pytest.raises(ValueError) as caught:
        make()(mg.tensor(np.zeros(shape, np.float32)))
    assert str(caught.value) == message


LAYERS = {
    "Dense(2, 3)": (lambda: nn.Dense(2, 3), (4, 2)),
    "Conv2d(2, 3)": (lambda: nn.Conv2d(2, 3, 1), (4, 2, 1, 1)),
    "ConvTranspose2d(2, 3)": (lambda: nn.ConvTranspose2d(2, 3, 1), (4, 2, 1, 1)),
    "BatchNorm(2)": (lambda: nn.BatchNorm(2), (4, 2)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_a_wrong_dtype_names_the_layer(name, dtype):
    make, shape = LAYERS[name]
    with pytest.raises(TypeError) as caught:
        make()(mg.tensor(np.zeros(shape, dtype)))
    assert str(caught.value) == f"{name}: expected float32, as its weight, got {dtype}"


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "given", [np.zeros((4, 2), np.float32), [[1.0, 2.0]], None, 3.0], ids=lambda v: type(v).__name__
)
def test_what_is_no_tensor_names_the_layer(name, given):
    make, _ = LAYERS[name]
    with pytest.raises(TypeError) as caught:
        make()(given)
    assert str(caught.value).startswith(f"{name}: expected a Tensor of shape (N, 2")
    assert str(caught.value).endswith(f"got {type(given).__name__}")


# -- batch normalisation -----------------------------------------------------------------------------


def as_rows(x):
    """(N, C) or (N, C, H, W) as (the values of a channel, C), in float64."""
    return np.moveaxis(np.asarray(x, np.float64), 1, -1).reshape(-1, x.shape[1])


def normalised(x, mean, variance, weight, bias, eps):
    rows = (as_rows(x) - mean) / np.sqrt(variance + eps) * weight + bias
    moved = np.moveaxis(x, 1, -1)
    return np.moveaxis(rows.reshape(moved.shape), -1, 1)


def uneven_batch_norm(dtype, **options):
    layer = nn.BatchNorm(3, dtype=dtype, **options)
    layer.weight.data = array([1.0, -2.0, 0.5], dtype)
    layer.bias.data = array([0.0, 3.0, -1.0], dtype)
    return layer


SHAPES = pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5), (1, 3, 3, 3), (2, 3, 1, 1)], ids=str)
DTYPES = pytest.mark.parametrize("dtype", ["float32", "float64"])


@SHAPES
@DTYPES
def test_batch_norm_in_training_uses_the_batch_itself(shape, dtype):
    layer, x = uneven_batch_norm(dtype, eps=1e-3), images(*shape, dtype=dtype) * 3 + 1
    rows = as_rows(x.numpy())
    weight, bias = layer.weight.numpy(), layer.bias.numpy()
    expected = normalised(x.numpy(), rows.mean(0), rows.var(0), weight, bias, 1e-3)
    assert_close(layer(x).numpy(), expected, dtype)


@SHAPES
@DTYPES
def test_running_statistics_move_by_momentum_to_the_unbiased_variance(shape, dtype):
    layer = uneven_batch_norm(dtype, momentum=0.25)
    mean, variance = np.zeros(3), np.ones(3)
    for step in range(3):
        x = images(*shape, dtype=dtype) * (step + 1) + step
        layer(x)
        rows = as_rows(x.numpy())
        mean = 0.75 * mean + 0.25 * rows.mean(0)
        variance = 0.75 * variance + 0.25 * rows.var(0, ddof=1)
    assert_close(layer.running_mean.numpy(), mean, dtype)
    assert_close(layer.running_var.numpy(), variance, dtype)


@SHAPES
@DTYPES
def test_batch_norm_in_use_takes_the_running_statistics_and_leaves_them(shape, dtype):
    layer, x = uneven_batch_norm(dtype), images(*shape, dtype=dtype)
    layer.running_mean.data = array([0.5, -1.0, 2.0], dtype)
    layer.running_var.data = array([4.0, 0.25, 1.0], dtype)
    layer.eval()
    expected = normalised(
        x.numpy(),
        [0.5, -1.0, 2.0],
        np.array([4.0, 0.25, 1.0]),
        layer.weight.numpy(),
        layer.bias.numpy(),
        1e-5,
    )
    assert_close(layer(x).numpy(), expected, dtype)
    assert layer.running_mean.numpy().tolist() == [0.5, -1.0, 2.0]
    assert layer.running_var.numpy().tolist() == [4.0, 0.25, 1.0]


def test_running_statistics_move_under_no_grad_too():
    layer = nn.BatchNorm(2)
    with mg.no_grad():
        layer(mg.tensor([[1.0, 2.0], [3.0, 6.0]]))
    np.testing.assert_allclose(layer.running_mean.numpy(), [0.2, 0.4], rtol=1e-6)
    np.testing.assert_allclose(layer.running_var.numpy(), [0.9 + 0.2, 0.9 + 0.8], rtol=1e-6)


def test_running_statistics_keep_their_memory():
    layer = nn.BatchNorm(2)
    kept = layer.running_mean, layer.running_var
    arrays, views, versions = [t.data for t in kept], [t.detach() for t in kept], [t.version for t in kept]
    layer(mg.tensor([[1.0, 2.0], [3.0, 6.0]]))
    for t, array, view, version in zip(kept, arrays, views, versions, strict=True):
        assert t.data is array
        assert t.version == view.version == version + 1
        assert np.array_equal(view.numpy(), t.numpy())
    np.testing.assert_allclose(views[0].numpy(), [0.2, 0.4], rtol=1e-6)


@pytest.mark.parametrize("kept", ["running_mean", "running_var"])
def test_one_running_statistic_can_be_kept_alone(kept):
    layer = nn.BatchNorm(2)
    other = ({"running_mean", "running_var"} - {kept}).pop()
    setattr(layer, other, None)
    layer(mg.tensor([[1.0, 2.0], [3.0, 6.0]]))
    expected = {"running_mean": [0.2, 0.4], "running_var": [1.1, 1.7]}[kept]
    np.testing.assert_allclose(getattr(layer, kept).numpy(), expected, rtol=1e-6)


def test_a_graph_notices_that_running_statistics_moved():
    layer, w = nn.BatchNorm(2), mg.tensor([1.0, 2.0], requires_grad=True)
    y = (w * layer.running_mean).sum()
    layer(mg.tensor([[1.0, 2.0], [3.0, 6.0]]))
    with pytest.raises(RuntimeError, match="multiply: an input of shape .* was changed in place"):
        y.backward()


@pytest.mark.parametrize("name", ["running_mean", "running_var"])
def test_running_statistics_that_can_not_move_are_refused(name):
    layer = nn.BatchNorm(2)
    x, before = mg.tensor([[1.0, 2.0], [3.0, 6.0]]), layer.state_dict()
    setattr(layer, name, F.broadcast_to(mg.tensor([1.0]), (2,)))
    with pytest.raises(ValueError, match=f"batch_norm, {name}: .* can't be changed in place"):
        layer(x)
    setattr(layer, name, mg.tensor([1, 2], dtype="int64"))
    with pytest.raises(TypeError, match=f"batch_norm, {name}: expected float32 or float64, got int64"):
        layer(x)
    for key in {"running_mean", "running_var"} - {name}:  # nothing has moved
        assert np.array_equal(layer.state_dict()[key].numpy(), before[key].numpy())


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 1, 1)])
def test_one_value_per_channel_cannot_be_normalised(shape):
    layer, x = nn.BatchNorm(2), mg.tensor(np.ones(shape, np.float32))
    with pytest.raises(ValueError, match=r"more than one value per channel.*use a larger batch, or eval\(\)"):
        layer(x)
    assert layer.running_mean.numpy().tolist() == [0.0, 0.0]
    np.testing.assert_allclose(layer.eval()(x).numpy(), np.full(shape, 1 / np.sqrt(1 + 1e-5)), rtol=1e-6)


def test_a_channel_of_equal_values_becomes_its_bias():
    layer = uneven_batch_norm("float32")
    y = layer(mg.tensor(np.full((4, 3, 2, 2), 7.3, np.float32)))
    np.testing.assert_allclose(y.numpy(), np.broadcast_to([[[0.0]], [[3.0]], [[-1.0]]], y.shape), atol=2e-3)
    assert (layer.running_var.numpy() >= 0.9).all()


@pytest.mark.parametrize("shape", [(512, 3), (32, 3, 8, 8)], ids=str)
def test_a_mean_of_10_000_costs_no_more_than_the_rounding_of_the_mean(shape):
    layer, x = nn.BatchNorm(3, momentum=1.0), images(*shape) + 1e4
    rows = as_rows(x.numpy())
    expected = normalised(x.numpy(), rows.mean(0), rows.var(0), 1.0, 0.0, 1e-5)
    half_a_step = np.spacing(np.float32(1e4)) / 2
    assert np.abs(layer(x).numpy() - expected).max() <= 1.1 * half_a_step + 1e-6
    assert_close(layer.running_var.numpy(), rows.var(0, ddof=1), "float32")
    assert_close(layer.running_mean.numpy(), rows.mean(0), "float32")


def test_gradients_of_batch_norm_survive_a_mean_of_10_000():
    single = images(64, 3, 4, 4) + 1e4
    above = np.random.default_rng(2).normal(size=single.shape)
    rows, dy = as_rows(single.numpy()), as_rows(above)
    inv_std = 1 / np.sqrt(rows.var(0) + 1e-5)
    xhat = (rows - rows.mean(0)) * inv_std
    expected = inv_std * (dy - dy.mean(0) - xhat * (dy * xhat).mean(0))
    x = mg.tensor(single, requires_grad=True)
    nn.BatchNorm(3)(x).backward(mg.tensor(above, "float32"))
    error = np.linalg.norm(as_rows(x.grad.numpy()) - expected) / np.linalg.norm(expected)
    assert error < 1e-4


# -- dropout -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(p):
    y = nn.Dropout(p)(mg.tensor(np.ones((200, 500), np.float32))).numpy()
    dropped = (y == 0).mean()
    assert abs(dropped - p) < 5 * math.sqrt(p * (1 - p) / y.size)
    np.testing.assert_allclose(y[y != 0], 1 / (1 - p), rtol=1e-6)


def test_dropout_in_use_or_with_rate_zero_is_the_identity_and_draws_nothing():
    x, state = images(3, 4), mg.random.get_state()
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    assert mg.random.get_state() == state


def test_dropouts_gradient_goes_where_its_values_went():
    x = mg.tensor(np.ones((5, 6)), requires_grad=True)
    y = nn.Dropout(0.4)(x)
    y.sum().backward()
    assert x.grad.numpy().tolist() == y.numpy().tolist()


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 16), (33, 9)], ids=str)
@pytest.mark.parametrize("p", [0.25, 0.5])
def test_dropouts_mask_is_the_naive_one(shape, p):
    generator = mg.Generator(11, stream=2)
    generator.normal((3,))
    key, counter = generator.next_counter()
    again = mg.Generator(11, stream=2)
    again.normal((3,))
    y = F.dropout(mg.tensor(np.ones(shape)), p, generator=again).numpy()
    assert (y != 0).ravel().tolist() == naive.dropout_mask(math.prod(shape), p, key, counter)


def test_dropout_of_images_counts_with_the_channels_innermost():
    key, counter = mg.Generator(3).next_counter()
    y = F.dropout(mg.tensor(np.ones((2, 3, 2, 4))), 0.5, generator=mg.Generator(3)).numpy()
    kept = naive.dropout_mask(48, 0.5, key, counter)
    assert (y.transpose(0, 2, 3, 1) != 0).ravel().tolist() == kept


THREADS = pytest.mark.cpu_only("the pool of threads")


@THREADS
@pytest.mark.parametrize("shape", [(701, 1009), (61, 7, 40, 41)], ids=str)
def test_dropout_is_the_same_on_any_number_of_threads(pool, shape):
    x = mg.tensor(np.ones(shape, np.float32))
    found = []
    for threads in (1, 2, 3):
        pool.resize(threads)
        found.append(F.dropout(x, 0.5, generator=mg.Generator(5)).numpy())
    assert (found[0] == found[1]).all()
    assert (found[0] == found[2]).all()


@THREADS
@pytest.mark.parametrize("p", [0.5, 1 - 2**-16, 1 - 2**-18])  # the last keeps nothing: it is rounded to 1
def test_dropouts_mask_is_whole_where_the_work_was_cut(pool, p):
    key, counter = mg.Generator(5).next_counter()
    count = 701 * 1009
    y = F.dropout(mg.tensor(np.ones((701, 1009), np.float32)), p, generator=mg.Generator(5)).numpy()
    stream = philox(key, counter).random_raw(-(-count // 4))
    draws = np.stack([stream >> shift & 0xFFFF for shift in (0, 16, 32, 48)], axis=1).ravel()[:count]
    assert ((y != 0).ravel() == (draws >= round(p * 2**16))).all()


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: (nn.Conv2d(1, 16, 4, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3)), (37, 1, 28, 28)),
        (lambda: (nn.Conv2d(3, 5, 3), nn.Dropout(0.6)), (3, 3, 7, 8)),
        (lambda: (nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Dropout(0.1)), (1, 2, 5, 5)),
        (lambda: (nn.Conv2d(32, 48, 5, 1, 2), nn.LeakyReLU(0.2), nn.Dropout(0.3)), (32, 32, 7, 7)),
        (lambda: (nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.2), nn.Dropout(0.5)), (0, 2, 5, 5)),
    ],
    ids=["many slices", "without an activation", "one image", "in the frequency domain", "an empty batch"],
)
def test_a_dropout_taken_along_is_that_of_a_layer_by_itself_bit_for_bit(default_device, layers, shape):
    results = []
    for alone in (False, True):
        mg.manual_seed(4)
        network = nn.Sequential(*layers())
        x = mg.tensor(np.random.default_rng(5).standard_normal(shape).astype("float32"), requires_grad=True)
        taken = sequential.taken_along(network[0], list(network)[1:])
        assert taken == list(network)[1:]
        if alone:
            for layer in network:
                layer.register_forward_hook(lambda *_: None)
            assert not sequential.taken_along(network[0], list(network)[1:])
        y = network(x)
        assert y.node.name == ("dropout" if alone else "convolve")
        (y * y).sum().backward()
        grads = [t.grad.numpy() for t in (x, *network.parameters())]
        results.append([a.tobytes() for a in (y.numpy(), *grads)])
        assert mg.random.get_state()["calls"] == 3  # the weight, the bias, the mask
    assert results[0] == results[1]


def test_a_dropout_is_taken_along_only_where_it_follows_at_once():
    conv, leaky, dropout = nn.Conv2d(1, 2, 3), nn.LeakyReLU(0.2), nn.Dropout(0.5)
    assert sequential.taken_along(conv, []) == []
    assert sequential.taken_along(conv, [leaky, dropout, leaky]) == [leaky, dropout]
    assert sequential.taken_along(conv, [dropout, leaky]) == [dropout]
    assert sequential.taken_along(conv, [leaky, leaky]) == [leaky]
    assert sequential.taken_along(conv, [nn.Tanh(), dropout]) == []
    assert sequential.taken_along(nn.BatchNorm(2), [leaky, dropout]) == [leaky]
    assert sequential.taken_along(leaky, [dropout]) == []
    dropout.register_forward_hook(lambda *_: None)
    assert sequential.taken_along(conv, [leaky, dropout]) == [leaky]


class Half(nn.Dropout):
    def forward(self, x):
        return x * 0.5


class Doubled(nn.LeakyReLU):
    def forward(self, x):
        return super().forward(x) * 2


class Plus(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + 1


class Named(nn.Conv2d):
    """Says nothing of its own."""


@pytest.mark.parametrize("follower", [Half, Doubled])
def test_a_layer_with_a_forward_of_its_own_is_not_taken_along(default_device, follower):
    x = mg.tensor(np.ones((1, 1, 3, 3), np.float32))
    conv, own = nn.Conv2d(1, 2, 2), follower(0.5)
    assert np.array_equal(nn.Sequential(conv, own)(x).numpy(), own(conv(x)).numpy())


def test_a_layer_with_a_forward_of_its_own_takes_nothing_along(default_device):
    x, leaky, dropout = (
        mg.tensor(np.ones((1, 1, 3, 3), np.float32)),
        nn.LeakyReLU(0.2),
        nn.Dropout(0.5).eval(),
    )
    plus = Plus(1, 2, 2)
    expected = leaky(plus(x)).numpy()
    assert np.array_equal(nn.Sequential(plus, leaky, dropout)(x).numpy(), expected)
    assert sequential.taken_along(Named(1, 2, 2), [leaky, dropout]) == [leaky, dropout]


def test_a_module_may_have_attributes_of_any_name():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope, self.p, self.drops = 0.1, 0.2, 0.3

        def forward(self, x):
            return x

    assert sequential.taken_along(nn.Conv2d(1, 2, 2), [Own()]) == []


@pytest.mark.cpu_only("where the work is cut")
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_a_dropout_that_is_cut_anywhere_is_the_same(monkeypatch, pieces):
    shape, geometry, place = (
        (37, 3, 7, 5),  # 16 images have whole blocks of draws: three pieces at most
        ConvGeometry.of_conv((7, 5), (1, 1), 1, 0, 1),
        (0.4, (5, 7), (2, 3, 0, 0)),
    )
    engine = CPUBackend()  # NumPy's forms

    def cut(count, bytes_each):
        return [slice(count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)]

    monkeypatch.setattr("minigrad.backend.cpu.sliced.cut", cut)
    monkeypatch.setattr("minigrad.backend.cpu.sliced.MIN_SLICE_BYTES", 0)
    x = np.random.default_rng(0).standard_normal((37, 7, 5, 3)).transpose(0, 3, 1, 2)  # channels innermost
    expected = naive.dropout(x, *place)
    y, mask = engine.dropout(x, *place)
    assert_close(y, expected, "float64")
    assert np.array_equal(mask, expected != 0)
    assert np.array_equal(engine.dropout_mask(shape, *place), mask)
    epilogue = mg.Epilogue(p=place[0]).drawn(*place[1:])
    y, mask = engine.convolve(x, np.eye(3).reshape(3, 3, 1, 1), None, geometry, epilogue)
    assert_close(y, expected, "float64")
    assert np.array_equal(mask, expected != 0)


def test_a_dropout_taken_along_drops_nothing_in_eval_mode(default_device):
    mg.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5)).eval()
    calls, x = mg.random.get_state()["calls"], mg.tensor(np.ones((2, 1, 4, 4), np.float32))
    assert np.array_equal(network(x).numpy(), network[0](x).numpy())
    assert mg.random.get_state()["calls"] == calls


def test_dropout_draws_anew_each_time_and_again_the_same_from_a_seed():
    layer, x = nn.Dropout(0.5), mg.tensor(np.ones((8, 8), np.float32))
    first, second = layer(x).numpy(), layer(x).numpy()
    assert (first != second).any()
    mg.manual_seed(0)
    assert (layer(x).numpy() == first).all()


@THREADS
def test_a_models_results_are_the_same_on_any_number_of_threads(pool):
    model = nn.Sequential(
        nn.Conv2d(3, 32, 4, 2, 1), nn.BatchNorm(32), nn.LeakyReLU(0.2), nn.ConvTranspose2d(32, 3, 4, 2, 1),
        nn.Tanh(), nn.Flatten(), nn.Dense(3072, 5),
    )  # fmt: skip
    values, found = images(65, 3, 32, 32), []
    for threads in (1, 2, 3):
        pool.resize(threads)
        x = mg.tensor(values, requires_grad=True)
        model.zero_grad()
        y = model(x)
        y.sum().backward()
        found.append([y.numpy(), x.grad.numpy(), *(p.grad.numpy() for p in model.parameters())])
    for other in found[1:]:
        assert all((a == b).all() for a, b in zip(found[0], other, strict=True))


# -- layers without parameters -----------------------------------------------------------------------


def test_activations_agree_with_their_formulas():
    x = np.linspace(-4, 4, 12).reshape(3, 4)
    for layer, expected in (
        (nn.ReLU(), np.where(x > 0, x, 0)),
        (nn.LeakyReLU(), np.where(x > 0, x, 0.01 * x)),
        (nn.LeakyReLU(0.2), np.where(x > 0, x, 0.2 * x)),
        (nn.Tanh(), np.tanh(x)),
        (nn.Sigmoid(), 1 / (1 + np.exp(-x))),
    ):
        assert_close(layer(mg.tensor(x)).numpy(), expected)
        assert list(layer.parameters()) == []


def test_flatten_and_reshape_keep_the_order_of_elements():
    x = images(2, 3, 4, 5)
    flat = nn.Flatten()(x)
    assert flat.numpy().tolist() == x.numpy().reshape(2, 60).tolist()
    assert nn.Reshape(3, 4, 5)(flat).numpy().tolist() == x.numpy().tolist()
    assert nn.Reshape(-1, 5)(flat).shape == (2, 12, 5)
    assert nn.Flatten()(images(3)).shape == (3, 1)
    assert nn.Reshape(1)(images(1)).shape == (1, 1)


def test_flatten_is_right_after_a_convolution_too():
    y = nn.Conv2d(1, 3, 2)(images(2, 1, 4, 5))
    assert nn.Flatten()(y).numpy().tolist() == [image.ravel().tolist() for image in y.numpy()]


@pytest.mark.parametrize("layer", [nn.Flatten(), nn.Reshape(1), nn.Reshape(-1)], ids=repr)
def test_a_tensor_without_a_batch_is_refused_by_name(layer):
    with pytest.raises(ValueError, match=r"(?i)^(flatten|reshape)"):
        layer(mg.tensor(1.0))


@pytest.mark.parametrize(
    "layer", [nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.Dropout(0.5), nn.LeakyReLU()], ids=repr
)
def test_integers_are_refused_with_the_remedy(layer):
    with pytest.raises(
        TypeError, match=r"expected float32 or float64, got int64: convert it with \.to\('float32'\)"
    ):
        layer(mg.tensor(np.arange(3)))


# -- initial values ----------------------------------------------------------------------------------

SHAPE = (200, 30, 3, 3)
FAN_IN, FAN_OUT = 30 * 9, 200 * 9
UNIFORM = {
    "uniform": (lambda t, **k: init.uniform_(t, -2.0, 3.0, **k), -2.0, 3.0),
    "glorot": (init.glorot_uniform_, *(s * math.sqrt(6 / (FAN_IN + FAN_OUT)) for s in (-1, 1))),
    "he": (init.he_uniform_, *(s * math.sqrt(6 / FAN_IN) for s in (-1, 1))),
    "he leaky": (
        lambda t, **k: init.he_uniform_(t, 0.5, **k),
        *(s * math.sqrt(6 / (1.25 * FAN_IN)) for s in (-1, 1)),
    ),
}
NORMAL = {
    "normal": (lambda t, **k: init.normal_(t, 1.0, 0.02, **k), 1.0, 0.02),
    "he": (init.he_normal_, 0.0, math.sqrt(2 / FAN_IN)),
    "he leaky": (lambda t, **k: init.he_normal_(t, 0.5, **k), 0.0, math.sqrt(2 / (1.25 * FAN_IN))),
}


def blank(dtype="float32"):
    return mg.tensor(np.zeros(SHAPE, dtype))


@pytest.mark.parametrize("name", UNIFORM)
@DTYPES
def test_uniform_initial_values_fill_their_bounds(name, dtype):
    fill, low, high = UNIFORM[name]
    t = blank(dtype)
    assert fill(t) is t
    values, width = t.numpy(), high - low
    assert values.dtype == dtype
    assert low - 1e-6 * width <= values.min() < low + 0.001 * width
    assert high - 0.001 * width < values.max() <= high + 1e-6 * width
    assert values.mean() == pytest.approx((low + high) / 2, abs=0.01 * width)
    assert values.std() == pytest.approx(width / math.sqrt(12), rel=0.02)


@pytest.mark.parametrize("name", NORMAL)
@DTYPES
def test_normal_initial_values_have_their_moments(name, dtype):
    fill, mean, std = NORMAL[name]
    t = blank(dtype)
    assert fill(t) is t
    values = t.numpy()
    assert values.dtype == dtype
    assert values.mean() == pytest.approx(mean, abs=0.03 * std)
    assert values.std() == pytest.approx(std, rel=0.02)
    inside = (np.abs(values - mean) < std).mean()
    assert inside == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize("fill", [fill for fill, *_ in (*UNIFORM.values(), *NORMAL.values())])
def test_initial_values_follow_from_the_seed_or_the_given_generator(fill):
    first, other = fill(blank()).numpy(), fill(blank()).numpy()
    assert (first != other).any()
    mg.manual_seed(0)
    assert (fill(blank()).numpy() == first).all()
    state = mg.random.get_state()
    own = fill(blank(), generator=mg.Generator(0, stream=1)).numpy()
    assert (own != first).any()
    assert (fill(blank(), generator=mg.Generator(0, stream=1)).numpy() == own).all()
    assert mg.random.get_state() == state


def test_constants_fill_in_place_and_mark_the_change():
    t = mg.tensor([1.0, 2.0], requires_grad=True)
    y = (t * t).sum()
    assert init.constant_(t, 2.5) is t
    assert t.numpy().tolist() == [2.5, 2.5]
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    assert init.zeros_(t).numpy().tolist() == [0.0, 0.0]
    assert init.ones_(t).numpy().tolist() == [1.0, 1.0]
    assert t.requires_grad


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), 1])
def test_initial_values_take_numpys_numbers(number):
    t = mg.tensor([0.0, 0.0])
    assert init.normal_(t, 0.0, number).dtype == np.float32
    assert init.normal_(t, number, 1.0).dtype == np.float32
    assert init.uniform_(t, -number, number).dtype == np.float32
    assert init.constant_(t, number).dtype == np.float32


def test_fans_count_the_taps():
    assert init.fans((5, 7)) == (7, 5)
    assert init.fans((5, 7, 3, 2)) == (42, 30)
    with pytest.raises(ValueError, match=r"fans: expected a weight of two axes or more, got shape \(5,\)"):
        init.glorot_uniform_(mg.tensor(np.zeros(5)))


def test_a_deep_copy_is_a_model_of_its_own():
    model = nn.Sequential(nn.Dense(2, 3), nn.BatchNorm(3))
    copied = copy.deepcopy(model)
    assert all(
        np.array_equal(v.numpy(), copied.state_dict()[k].numpy()) for k, v in model.state_dict().items()
    )
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in copied.parameters())
    copied[0].weight.data[...] = 7.0
    assert not (model[0].weight.numpy() == 7.0).any()
    with pytest.raises(RuntimeError, match="deepcopy: this tensor was computed"):
        copy.deepcopy(model(mg.tensor(np.ones((4, 2), np.float32))))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((1, 1, 3), {"output_padding": 1}),
        ((1, 1, 3, 2), {"output_padding": -1}),
        ((1, 1, 3, 2, "same"), {"output_padding": 1}),
    ],
)
def test_an_output_padding_that_can_not_be_is_refused_by_the_layer(arguments, options):
    with pytest.raises(ValueError, match=r"ConvTranspose2d: .*output_padding"):
        nn.ConvTranspose2d(*arguments, **options)


@pytest.mark.parametrize("name", ["running_mean", "running_var", "weight", "bias"])
def test_batch_norm_names_the_argument_of_the_wrong_shape(name):
    right = {n: mg.tensor(np.ones(3)) for n in ("running_mean", "running_var", "weight", "bias")}
    with pytest.raises(ValueError, match=rf"batch_norm: expected {name} of shape \(3,\) .*got \(1,\)"):
        F.batch_norm(mg.tensor(np.ones((4, 3))), **{**right, name: mg.tensor(np.ones(1))}, training=True)


def test_a_module_in_two_places_is_learned_once():
    shared = nn.Dense(2, 2)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


@pytest.mark.parametrize("slope", [-0.1, 1.5, float("nan")])
def test_a_slope_that_no_leaky_relu_has_is_told(slope):
    x, weight, vector = images(2, 3, 4, 4), images(3, 3, 2, 2), images(3)
    calls = {
        "conv2d": lambda: F.conv2d(x, weight, epilogue=mg.Epilogue(slope)),
        "conv_transpose2d": lambda: F.conv_transpose2d(x, weight, epilogue=mg.Epilogue(slope)),
        "batch_norm": lambda: F.batch_norm(x, vector, vector, vector, vector, epilogue=mg.Epilogue(slope)),
    }
    for name, call in calls.items():
        with pytest.raises(ValueError, match=rf"{name}: expected 0 <= slope <= 1, got {slope}"):
            call()
