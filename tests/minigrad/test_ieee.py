"""Results are IEEE's, whatever the user has NumPy do about floating-point errors."""

import threading
import warnings

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, optim
from minigrad.inspect import compare, detect_anomaly
from minigrad.inspect.shadow import Shadow
from minigrad.ops import OPERATIONS

EVERY_DEVICE = True

TINY, HUGE = np.finfo(np.float32).tiny, np.finfo(np.float32).max
SPECIAL = np.array(
    [0, -0.0, 1, -1, TINY, -TINY, TINY / 4, HUGE, -HUGE, 100, -100, 1e4, -1e4, np.inf, -np.inf, np.nan],
    np.float32,
)
CASES = [
    pytest.param(case, id=f"{name}-{case.label or 'plain'}")
    for name, operation in OPERATIONS.items()
    for case in operation.cases()
]


@pytest.fixture(autouse=True)
def every_error_is_raised():
    """The user's own state: an error in this thread, in every thread a warning, which fails a test."""
    with np.errstate(all="raise"):
        yield


def special(case, seed):
    """A case's inputs, each full of special values in another order."""
    shapes = [np.shape(a) for a in case.inputs(np.random.default_rng(0))]
    return [np.resize(np.roll(SPECIAL, seed + 5 * i), shape) for i, shape in enumerate(shapes)]


def results(case, arrays, dtype):
    inputs = [mg.tensor(array, dtype, requires_grad=True) for array in arrays]
    y = case.call(*inputs)
    if y.dtype.kind != "f" or not y.requires_grad:
        return [y]
    above = mg.tensor(np.resize(SPECIAL, y.shape), str(y.dtype), requires_grad=True)
    first = mg.grad(y, inputs, above, create_graph=True, allow_unused=True)
    squares = [(g * g).sum() for g in first if g is not None]
    total = sum(squares, start=mg.tensor(0.0, dtype, requires_grad=True))
    return [y, *first, *mg.grad(total, [*inputs, above], allow_unused=True)]


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("case", CASES)
def test_every_operation_gives_its_results_whatever_the_users_state(case, seed):
    """Forward, gradients and the gradients' gradients, the same bits as where NumPy is silent."""
    for dtype in ("float32", "float64"):
        arrays = special(case, seed)
        found = results(case, arrays, dtype)
        with np.errstate(all="ignore"):
            expected = results(case, arrays, dtype)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_well_known_values():
    x = mg.tensor([-200.0, 0.0, 200.0], requires_grad=True)
    assert F.sigmoid(x).numpy().tolist() == [0.0, 0.5, 1.0]
    assert F.softplus(x).numpy().tolist() == [0.0, np.float32(np.log(2)), 200.0]
    F.binary_cross_entropy_with_logits(x, 1.0).backward()
    assert np.allclose(x.grad.numpy(), [-1 / 3, -1 / 6, 0.0])
    assert mg.tensor([0.0]).log().numpy().tolist() == [-np.inf]
    assert mg.tensor([HUGE]).exp().numpy().tolist() == [np.inf]
    assert np.isnan((mg.tensor([0.0]) / mg.tensor([0.0])).item())
    assert (mg.tensor([TINY]) * mg.tensor([TINY])).item() == 0.0


def test_what_is_computed_outside_of_operations():
    assert mg.tensor([1e300]).item() == np.inf
    assert mg.tensor([1e300], "float64").to("float32").item() == np.inf
    assert mg.tensor(np.array([np.nan, np.inf])).to("int64").shape == (2,)
    assert (mg.tensor([np.nan, 1.0]) < 1e300).numpy().tolist() == [False, True]
    assert (mg.tensor([np.nan, 1.0]) == mg.tensor([np.nan, 1.0])).numpy().tolist() == [False, True]
    p = mg.tensor(np.zeros(3, np.float32))
    assert nn.init.constant_(p, 1e300).numpy().tolist() == [np.inf] * 3
    assert nn.init.normal_(p, 0.0, 1e-45).shape == (3,)
    assert nn.init.uniform_(p, -1e38, 3e38).shape == (3,)
    with mg.no_grad():
        p[0], p[1:] = 1e300, -1e300
        p /= mg.tensor([np.inf, -np.inf, 0.0])
    np.testing.assert_array_equal(p.numpy(), [np.nan, np.nan, -np.inf])
    assert nn.Dense(2, 1).to("float64").to("float32").weight.dtype == np.float32
    layer = nn.BatchNorm(2)
    layer(mg.tensor([[HUGE, TINY], [-HUGE, -TINY]]))
    assert not np.isfinite(layer.running_var.numpy()[0])
    layer.running_var.data = mg.tensor([TINY, np.nan]).data
    layer.eval()
    assert layer(mg.tensor([[1.0, 1.0]], requires_grad=True)).shape == (1, 2)


@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, 1e-30, 0.9, weight_decay=1e-30), lambda p: optim.RMSprop(p, 1e-30),
    lambda p: optim.Adam(p, 1e-30, weight_decay=1e-30), lambda p: optim.Adam(p, 1e30),
])  # fmt: skip
def test_optimisers(make):
    p = mg.tensor(SPECIAL, requires_grad=True)
    optimizer = make([p])
    for _ in range(3):
        p.grad = mg.tensor(SPECIAL[::-1].copy())
        optimizer.step()
    assert np.isfinite(p.numpy()[5])


def test_a_network_trains():
    mg.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, 2, 2), nn.BatchNorm(8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Flatten(),
        nn.Dense(8 * 7 * 7, 1), nn.Sigmoid(),
    )  # fmt: skip
    optimizer = optim.Adam(model.parameters(), 1e-3)
    images = np.zeros((64, 1, 14, 14), np.float32)
    images[::2] = 1e-20
    for _ in range(3):
        optimizer.zero_grad()
        with detect_anomaly(model), Shadow(model):
            F.binary_cross_entropy(model(mg.tensor(images) * 1e-12), 1.0).backward()
            optimizer.step()
    model.eval()
    assert compare(model, model, mg.tensor(images)) is None
    assert mg.gradcheck(lambda x: F.sigmoid(x * 500.0), mg.tensor(np.array([-1.6, 0.01]), requires_grad=True))


def test_hooks_see_the_users_own_state():
    layer, seen = nn.Dense(2, 1), []
    layer.register_forward_hook(lambda *_: seen.append(np.geterr()["under"]))
    layer.register_backward_hook(lambda *_: seen.append(np.geterr()["over"]))
    layer(mg.tensor([[1.0, 2.0]])).sum().backward()
    assert seen == ["raise", "raise"]
    assert set(np.geterr().values()) == {"raise"}


@pytest.mark.cpu_only("of the CPU's helper threads")
@pytest.mark.parametrize("threads", [1, 4])
def test_the_helper_threads_raise_and_warn_of_nothing_either(threads):
    """Their state is not the caller's: by default they would warn."""
    before = backend.num_threads()
    backend.set_num_threads(threads)
    told, hook = [], threading.excepthook
    threading.excepthook = told.append
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            x = mg.tensor(np.resize(SPECIAL, (64, 16, 28, 28)), requires_grad=True)
            y = F.tanh(F.conv2d(x, mg.tensor(np.resize(SPECIAL, (16, 16, 3, 3)), requires_grad=True)))
            F.dropout(F.leaky_relu(y, 0.2), 0.5, training=True).sum().backward()
            assert x.grad.shape == x.shape
    finally:
        threading.excepthook = hook
        backend.set_num_threads(before)
    assert told == []


@pytest.mark.cpu_only("of NumPy's arrays")
def test_numpys_own_products_raise_nothing_the_engine_left_behind():
    """BLAS leaves flags: the next product of the user's would tell of them."""
    mg.tensor([[np.inf]]) @ mg.tensor([[0.0]])
    assert (np.ones((2, 2)) @ np.ones((2, 2))).sum() == 8
