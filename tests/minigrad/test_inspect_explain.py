"""`explain`: steps against arrays written out by hand, loops by running what is printed, gradients by
differences; and mistakes planted in the engine, of which each must be told."""

import contextlib
import math
from unittest import mock

import numpy as np
import pytest
from foreign import ForeignBackend

import minigrad as mg
from minigrad import backend, naive, nn, observer, random
from minigrad.backend import ConvGeometry, get
from minigrad.backend.base import Backend
from minigrad.backend.cpu.backend import CPUBackend
from minigrad.backend.cpu.frequency import FrequencyForm
from minigrad.inspect import Check, Opened, Steps, explain, explains
from minigrad.inspect.explain import checks, look, registry

LAYERS = {
    "dense": (lambda **k: nn.Dense(3, 2, **k), (4, 3)),
    "dense, no bias": (lambda **k: nn.Dense(3, 2, bias=False, **k), (1, 3)),
    "conv": (lambda **k: nn.Conv2d(2, 3, 3, 2, 1, **k), (2, 2, 5, 4)),
    "conv, same": (lambda **k: nn.Conv2d(1, 2, (2, 3), (1, 2), "same", **k), (2, 1, 3, 5)),
    "conv, uneven": (
        lambda **k: nn.Conv2d(2, 1, (2, 3), 2, ((2, 0), (1, 3)), False, (3, 1), **k), (1, 2, 6, 4),
    ),
    "conv, gaps": (lambda **k: nn.Conv2d(1, 2, (2, 1), 3, **k), (2, 1, 7, 6)),
    "transposed": (lambda **k: nn.ConvTranspose2d(3, 2, 4, 2, 1, **k), (2, 3, 3, 2)),
    "transposed, same": (lambda **k: nn.ConvTranspose2d(2, 1, 3, 2, "same", bias=False, **k), (1, 2, 2, 3)),
    "transposed, output_padding": (
        lambda **k: nn.ConvTranspose2d(1, 2, (2, 3), (3, 2), ((0, 1), (1, 1)), (1, 0), True, (1, 2), **k),
        (2, 1, 2, 3),
    ),
    "norm (N, C)": (lambda **k: nn.BatchNorm(3, 1e-3, 0.3, **k), (5, 3)),
    "norm (N, C, H, W)": (lambda **k: nn.BatchNorm(2, **k), (2, 2, 3, 2)),
    "relu": (lambda **k: nn.ReLU(), (3, 4)),
    "leaky": (lambda **k: nn.LeakyReLU(0.2), (2, 2, 2, 3)),
    "tanh": (lambda **k: nn.Tanh(), (3, 4)),
    "sigmoid": (lambda **k: nn.Sigmoid(), (3, 4)),
    "dropout (N, C)": (lambda **k: nn.Dropout(0.3), (3, 5)),
    "dropout (N, C, H, W)": (lambda **k: nn.Dropout(0.6), (2, 3, 2, 2)),
    "no dropout": (lambda **k: nn.Dropout(0.0), (2, 2)),
    "flatten": (lambda **k: nn.Flatten(), (2, 3, 2, 2)),
    "reshape": (lambda **k: nn.Reshape(2, -1, 2), (2, 8)),
}  # fmt: skip
every_layer = pytest.mark.parametrize("name", LAYERS)
GPU = pytest.param("gpu", marks=pytest.mark.gpu)


@pytest.fixture
def foreign():
    backend.register("foreign", ForeignBackend)
    yield "foreign"
    backend._factories.pop("foreign")
    backend._backends.pop("foreign", None)


def made(name, dtype="float64", device="cpu"):
    """The layer, with numbers of all kinds in it, and an x."""
    mg.manual_seed(3)
    make, shape = LAYERS[name]
    layer = make(dtype=dtype).to(device)
    rng = np.random.default_rng(5)
    for key, t in layer.state_dict().items():
        values = rng.uniform(0.5, 2, t.shape) if key == "running_var" else rng.normal(size=t.shape)
        getattr(layer, key).data = t.backend.asarray(values.astype(dtype))
    return layer, mg.tensor(rng.normal(size=shape), dtype, device)


def by_symbol(steps):
    return {step.symbol: step.values for step in steps}


def assert_equal(found, expected):
    np.testing.assert_allclose(found, np.reshape(expected, found.shape), rtol=1e-12, atol=1e-12)


# -- by hand -----------------------------------------------------------------------------------------


def filled(layer, **values):
    for name, value in values.items():
        tensor = getattr(layer, name)
        tensor.data = np.array(value, tensor.dtype).reshape(tensor.shape)
    return layer


def test_a_convolution_by_hand():
    layer = filled(nn.Conv2d(1, 1, 2, dtype="float64"), weight=[1, 2, 0, -1], bias=[10])
    found = explain(layer, [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], grad=[[[[1, 0], [2, -1]]]])
    assert [step.name for step in found.forward] == ["pad", "im2col", "kernel", "product", "bias", "images"]
    canvas, columns, kernel, product, shifted, y = (step.values for step in found.forward)
    assert_equal(canvas, np.arange(1, 10))
    assert columns.shape == (4, 4)
    assert_equal(columns, [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]])
    assert_equal(kernel, [[1], [2], [0], [-1]])
    assert_equal(product, [[0], [2], [6], [8]])
    assert_equal(shifted, [[10], [12], [16], [18]])
    assert y.shape == (1, 1, 2, 2)
    assert_equal(y, [[10, 12], [16, 18]])
    assert found.result is y
    drows, dcolumns, dx, dkernel, dweight, dbias = (step.values for step in found.backward)
    assert_equal(drows, [[1], [0], [2], [-1]])
    assert_equal(dcolumns, [[1, 2, 0, -1], [0, 0, 0, 0], [2, 4, 0, -2], [-1, -2, 0, 1]])
    assert_equal(dx, [[1, 2, 0], [2, 2, -2], [0, -2, 1]])
    assert_equal(dkernel, [[4], [6], [10], [12]])
    assert_equal(dweight, [[4, 6], [10, 12]])
    assert_equal(dbias, [2])
    assert_equal(found.sizes["bias"], [math.sqrt(6)])
    assert found.gradients.keys() == {"x", "weight", "bias"}
    assert found.right


def test_a_transposed_convolution_by_hand():
    layer = filled(nn.ConvTranspose2d(1, 1, 2, dtype="float64"), weight=[1, 2, 0, -1], bias=[1])
    found = explain(layer, [[[[1, 2], [3, 4]]]], grad=np.arange(9.0).reshape(1, 1, 3, 3))
    rows, kernel, columns, overlapped, y = (step.values for step in found.forward)
    assert_equal(rows, [[1], [2], [3], [4]])
    assert_equal(kernel, [[1], [2], [0], [-1]])
    assert_equal(columns, [[1, 2, 0, -1], [2, 4, 0, -2], [3, 6, 0, -3], [4, 8, 0, -4]])
    assert_equal(overlapped, [[1, 4, 4], [3, 9, 6], [0, -3, -4]])
    assert_equal(y, [[2, 5, 5], [4, 10, 7], [1, -2, -3]])
    _, dcolumns, drows, dx, dkernel, _, dbias = (step.values for step in found.backward)
    assert_equal(dcolumns, [[0, 1, 3, 4], [1, 2, 4, 5], [3, 4, 6, 7], [4, 5, 7, 8]])
    assert_equal(drows, [[-2], [0], [4], [6]])
    assert_equal(dx, [[-2, 0], [4, 6]])
    assert_equal(dkernel, [[27], [37], [57], [67]])
    assert_equal(dbias, [36])
    assert_equal(found.sizes["bias"], [math.sqrt(204)])
    assert found.right


def test_padding_and_stride_by_hand():
    layer = filled(nn.Conv2d(1, 1, 2, 2, ((1, 0), (0, 1)), False, dtype="float64"), weight=[1, 0, 0, 1])
    found = explain(layer, [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]])
    assert_equal(found.forward[0].values, [[0, 0, 0, 0], [1, 2, 3, 0], [4, 5, 6, 0], [7, 8, 9, 0]])
    assert_equal(found.forward[1].values, [[0, 0, 1, 2], [0, 0, 3, 0], [4, 5, 7, 8], [6, 0, 9, 0]])
    assert_equal(found.result, [[2, 0], [12, 6]])
    assert "1 above, 0 below, 0 left, 1 right" in found.forward[0].sentence


def test_sentences_of_convolutions_have_their_numbers():
    found = explain(nn.ConvTranspose2d(3, 2, 4, 2, 1), np.ones((2, 3, 5, 5)))
    columns, y = found.forward[2].sentence, found.forward[3].sentence
    assert columns == "rows @ kernel^T: (50, 3) by (3, 32), 4,800 multiplications"
    assert "as 4 x 4 pixels, 2 x 2 pixels from the one before, and what overlaps is added: a pixel is" in y
    assert "the sum of 1 to 4. What falls outside (1 above, 1 below, 1 left, 1 right) is dropped" in y
    assert "In memory the 2 channels of a pixel" in found.backward[0].sentence
    apart = explain(nn.ConvTranspose2d(1, 1, 2, 3, dilation=2), np.ones((1, 1, 2, 2)))
    assert "(2 x 2 pixels from tap to tap), 3 x 3 pixels from the one before" in apart.forward[3].sentence
    touching = explain(nn.ConvTranspose2d(1, 1, 2, 2), np.ones((1, 1, 2, 2)))
    assert touching.forward[3].sentence.endswith("from the one before, and nothing overlaps")
    assert touching.backward[0].sentence == "dy with nothing around it"
    uneven = explain(nn.Conv2d(1, 1, 2, (1, 3)), np.ones((1, 1, 5, 5)))
    assert uneven.forward[1].sentence.endswith("begins at the row p and the column 3 q of the canvas")


@pytest.mark.every_form
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_the_form_of_a_small_layer_is_named(kind):
    found = explain(kind(5, 3, 4, 2, 1), np.random.default_rng(0).normal(size=(2, 5, 4, 4)))
    engine = get("cpu")
    form = engine.convolution_form("convolve", ConvGeometry.of_conv((4, 4), (4, 4), 2, 1, 1), 2, 5, 3)
    assert f"the engine itself computes y, dx and dweight {form}" in found.notes[0]
    in_c = isinstance(engine, CPUBackend) and engine.kernels is not None
    assert form.startswith("by a kernel in C" if in_c else "by columns")
    assert found.right


def test_the_loops_of_large_layers_make_some_of_the_numbers():
    found = explain(nn.Conv2d(40, 5, 5), np.random.default_rng(0).normal(size=(2, 40, 9, 9)))
    loops = {c.what: (c.expected, c.count) for c in found.checks if c.expected.startswith("the loop")}
    assert loops["y"] == ("the loop, at 30 of 250 places", 30)  # 1,000 products each
    assert loops["dbias"] == ("the loop", 5)
    other = explain(nn.Conv2d(40, 5, 5), np.zeros((1, 40, 9, 9)), seed=1)
    assert other.right


def test_a_batch_norm_by_hand():
    layer = filled(nn.BatchNorm(1, eps=3.0, dtype="float64"), weight=[2], bias=[1])
    x, dy = [[1], [3], [1], [3]], [[1], [2], [3], [4]]
    found = explain(layer, x, grad=dy)
    steps = by_symbol(found.forward)
    assert list(steps) == ["mean", "variance", "running_mean", "running_var", "centred", "xhat", "y"]
    expected = [2], [1], [0.2], [0.9 + 0.1 * 4 / 3], [-1, 1, -1, 1], [-0.5, 0.5, -0.5, 0.5], [0, 2, 0, 2]
    for values, by_hand in zip(steps.values(), expected, strict=True):
        assert_equal(values, by_hand)
    back = by_symbol(found.backward)
    assert list(back) == ["dbias", "product", "dweight", "dy", "mean(dy)", "xhat mean(dy xhat)", "dx"]
    expected = [10], [2], [1], dy, [2.5], [-0.125, 0.125, -0.125, 0.125], [-1.375, -0.625, 0.625, 1.375]
    for values, by_hand in zip(back.values(), expected, strict=True):
        assert_equal(values, by_hand)
    assert found.right


def test_a_batch_norm_in_eval_mode_by_hand():
    layer = filled(nn.BatchNorm(1, eps=3.0, dtype="float64"), weight=[2], bias=[1], running_mean=[1])
    found = explain(layer.eval(), [[1], [3], [1], [3]], grad=[[1], [2], [3], [4]])
    assert [step.symbol for step in found.forward] == ["mean", "variance", "centred", "xhat", "y"]
    assert_equal(found.result, [1, 3, 1, 3])
    for name, by_hand in {"x": [1, 2, 3, 4], "weight": [6], "bias": [10]}.items():
        assert_equal(found.gradients[name], by_hand)
    assert found.right
    assert "in eval mode" in found.heading


def test_a_dense_layer_by_hand():
    layer = filled(nn.Dense(2, 3, dtype="float64"), weight=[1, 0, 2, 3, -1, 1], bias=[0, 1, 2])
    found = explain(layer, [[1, 2]], grad=[[1, 2, 3]])
    turned, product, y = (step.values for step in found.forward)
    assert_equal(turned, [[1, 2, -1], [0, 3, 1]])
    assert_equal(product, [1, 8, 1])
    assert_equal(y, [1, 9, 3])
    dx, dweight, dbias = (step.values for step in found.backward)
    assert_equal(dx, [2, 9])
    assert_equal(dweight, [[1, 2], [2, 4], [3, 6]])
    assert_equal(dbias, [1, 2, 3])
    assert_equal(found.sizes["bias"], [1, 2, 3])


@pytest.mark.parametrize(
    ("layer", "y", "factor", "looped"),
    [
        (nn.ReLU(), lambda v: max(v, 0.0), lambda v: float(v > 0), 4),
        (nn.LeakyReLU(0.5), lambda v: max(v, v / 2), lambda v: 1.0 if v > 0 else 0.5, 4),
        (nn.Tanh(), math.tanh, lambda v: 1 - math.tanh(v) ** 2, 3),
        (nn.Sigmoid(), lambda v: (1 + math.tanh(v / 2)) / 2, lambda v: (1 - math.tanh(v / 2) ** 2) / 4, 3),
    ],
)
def test_activations_by_hand(layer, y, factor, looped):
    x, dy = [[-2.0, 0.0, 3.0, 500.0]], [[1.0, 2.0, -3.0, 4.0]]
    found = explain(layer, mg.tensor(x, "float64"), grad=dy)
    assert_equal(found.result, [y(v) for v in x[0]])
    assert_equal(found.backward[0].values, [factor(v) for v in x[0]])
    assert_equal(found.gradients["x"], [factor(v) * d for v, d in zip(x[0], dy[0], strict=True)])
    assert found.right
    assert [c.count for c in found.checks] == [4, 4, looped, looped]  # none takes the exponential of 500


def test_no_check_is_one_of_no_numbers():
    far = [[1000.0, -500.0]]
    for layer, counts in ((nn.ReLU(), [2] * 4), (nn.LeakyReLU(0.2), [2] * 4), (nn.Tanh(), [2] * 2)):
        found = explain(layer, far, grad=[[1.0, 2.0]])
        assert [c.count for c in found.checks] == counts
        assert str(found).endswith(f"right: all {len(counts)} checks found the same numbers")
    wrong = mock.patch.object(CPUBackend, "leaky_relu", lambda self, x, slope: x * 1.01)
    with wrong:  # the steps make the same mistake as the layer: the loop of y alone tells it
        assert [c.equal for c in explain(nn.ReLU(), far).checks] == [True, True, False, True]


def test_a_dropout_shows_the_draws_of_its_next_call():
    layer, x = made("dropout (N, C)", "float32")
    for _ in range(2):
        found = explain(layer, x)
        state = random.get_state()
        key, counter = random.default.next_counter()
        random.set_state(state)
        words = naive.philox(key, (1, *counter[1:]))
        draws = [word >> shift & 0xFFFF for word in words for shift in (0, 16, 32, 48)][:15]
        steps = by_symbol(found.forward)
        assert steps["draws"].reshape(-1).tolist() == draws
        assert steps["mask"].reshape(-1).tolist() == [draw >= 0.3 * 2**16 for draw in draws]
        assert np.array_equal(found.result, layer(x).numpy())  # moves the state on
    assert f"from call {state['calls']} of" in found.forward[0].sentence


def test_nothing_is_dropped_in_eval_mode():
    found = explain(nn.Dropout(0.5).eval(), np.ones((2, 2)))
    assert [step.symbol for step in found.forward] == ["y"]
    assert np.array_equal(found.result, np.ones((2, 2)))
    assert "eval mode" in found.forward[0].sentence


def test_a_reshape_tells_where_a_number_goes():
    x = np.arange(2.0 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    for layer, given in ((nn.Flatten(), x), (nn.Reshape(3, 4, 5), x.reshape(2, 60))):
        step = explain(layer, given).forward[0]
        place = "n, k // 20, k // 5 % 4, k % 5"
        assert f"[{place}]" in step.sentence
        for n, k in np.ndindex(2, 60):
            image, row = (x, step.values) if layer.describe() == "Flatten()" else (step.values, given)
            assert image[eval(place)] == row[n, k]


def test_a_reshape_tells_of_a_copy():
    x = np.arange(12.0).reshape(1, 2, 2, 3)
    assert "nothing is copied" in explain(nn.Flatten(), x).forward[0].sentence
    inner = mg.tensor(x)
    inner.data = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    found = explain(nn.Flatten(), inner)
    assert "x is copied" in found.forward[0].sentence
    assert found.result.tolist() == [list(range(12))]


# -- by what is printed, and by differences ------------------------------------------------------------


@every_layer
@pytest.mark.parametrize("training", [True, False])
def test_the_loop_that_is_printed_gives_the_same(name, training):
    layer, x = made(name)
    layer.train(training)
    found = explain(layer, x)
    arrays = {"x": found.x, "dy": found.grad, "y": np.zeros_like(found.result)}
    arrays |= {key: t.numpy() for key, t in layer.state_dict().items()}
    arrays |= {f"d{key}": np.zeros_like(gradient) for key, gradient in found.gradients.items()}
    steps = by_symbol(found.forward)
    arrays |= {"draws": steps["draws"]} if "draws" in steps else {}
    functions = {"ndindex": np.ndindex, "sqrt": math.sqrt, "exp": math.exp, "tanh": math.tanh}
    exec(found.loop, {**functions, **arrays})
    assert_equal(found.result, arrays["y"])
    for key, gradient in found.gradients.items():
        assert_equal(gradient, arrays[f"d{key}"])
    for key in {"running_mean", "running_var"} & steps.keys():
        assert_equal(steps[key], arrays[key])
    assert found.right
    assert f"\n  {found.loop.splitlines()[0]}\n" in str(found)


@every_layer
def test_gradients_are_those_of_differences(name):
    layer, x = made(name)
    found = explain(layer, x)
    state = random.get_state()
    for key, gradient in found.gradients.items():
        tensor = x if key == "x" else getattr(layer, key)
        direction = np.random.default_rng(1).normal(size=tensor.shape)
        sums, start = [], tensor.data
        for step in (1e-5, -1e-5):
            tensor.data = start + step * direction
            random.set_state(state)
            sums.append((layer(x).numpy() * found.grad).sum())
        tensor.data = start
        slope = (sums[0] - sums[1]) / 2e-5
        assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6, abs=1e-8)


@every_layer
@pytest.mark.parametrize("device", ["cpu", "foreign", GPU])
def test_every_layer_is_right_in_float32_on_every_device(name, device, foreign):
    layer, x = made(name, "float32", device)
    for training in (True, False):
        found = explain(layer.train(training), x)
        assert found.right, found.wrong()
        assert {c.tolerance for c in found.checks} <= {0.0, 1e-5}
        assert {type(step.values) for step in (*found.forward, *found.backward)} == {np.ndarray}
        assert found.gradients.keys() == {"x", *dict(layer.named_parameters())}
        assert f"on {device!r}" in str(found)
        for gradient in ("dx", *(f"d{key}" for key, _ in layer.named_parameters())):
            compared = {c.expected.partition(",")[0] for c in found.checks if c.what == gradient}
            assert "the engine's own backward" in compared
            assert name == "no dropout" or not training or len(compared) == 2


def test_the_loops_of_batch_norms_gradients_are_those_of_differences():
    rng = np.random.default_rng(0)
    x, dy = rng.normal(size=(2, 2, 3, 2, 2))
    weight, bias, *kept = rng.uniform(0.5, 2, (4, 3))
    forms = (
        (lambda x, w, b: naive.batch_norm(x, w, b, 0.1), naive.batch_norm_gradients(x, dy, weight, 0.1)),
        (
            lambda x, w, b: naive.normalize(x, *kept, w, b, 0.1),
            naive.normalize_gradients(x, dy, *kept, weight, 0.1),
        ),
    )
    for form, gradients in forms:
        inputs = [x, weight, bias]
        for i, gradient in enumerate(gradients):
            for place in np.ndindex(gradient.shape):
                sums = []
                for step in (1e-5, -1e-5):
                    moved = [a.copy() for a in inputs]
                    moved[i][place] += step
                    sums.append((form(*moved) * dy).sum())
                assert gradient[place] == pytest.approx((sums[0] - sums[1]) / 2e-5, rel=1e-6, abs=1e-8)


# -- mistakes ------------------------------------------------------------------------------------------


def scaled(cls, method, which=None):
    """The method with a mistake of 1% in its result, or in one of its results."""
    right = getattr(cls, method)

    def wrong(*args, **kwargs):
        result = right(*args, **kwargs)
        if which is None:
            return result * result.dtype.type(1.01)
        return tuple(r * r.dtype.type(1.01) if i == which else r for i, r in enumerate(result))

    return mock.patch.object(cls, method, wrong)


def turned(cls, method):
    """`kernel_matrix` with its taps in the other order."""
    right = getattr(cls, method)
    return mock.patch.object(cls, method, lambda self, w: right(self, w[:, :, ::-1, ::-1]))


def flipped(cls, method):
    right = getattr(cls, method)
    return mock.patch.object(cls, method, lambda *a, **k: ~right(*a, **k))


OWN, BACK, LOOP = "the layer's own forward", "the engine's own backward", "the loop"
# What is wrong, on which layer; and a check that must tell.
MISTAKES = {
    "convolve": (lambda: scaled(CPUBackend, "convolve", 0), "conv", ("y", OWN)),
    "its dx": (lambda: scaled(CPUBackend, "convolve_gradients", 0), "conv", ("dx", BACK)),
    "its dweight": (lambda: scaled(CPUBackend, "convolve_gradients", 1), "conv", ("dweight", BACK)),
    "transposed": (lambda: scaled(CPUBackend, "convolve_input_gradient"), "transposed", ("y", OWN)),
    "its dx, transposed": (
        lambda: scaled(CPUBackend, "convolve_and_weight_gradient", 0), "transposed", ("dx", BACK)
    ),
    "its dweight, transposed": (
        lambda: scaled(CPUBackend, "convolve_and_weight_gradient", 1), "transposed", ("dweight", BACK)
    ),
    "im2col": (lambda: scaled(Backend, "im2col"), "conv", ("y", LOOP)),
    "im2col, for dweight": (lambda: scaled(Backend, "im2col"), "transposed", ("dweight", LOOP)),
    "col2im": (lambda: scaled(Backend, "col2im"), "transposed", ("y", LOOP)),
    "a kernel that all turn alike": (lambda: turned(CPUBackend, "kernel_matrix"), "conv", ("y", LOOP)),
    "the same, back": (lambda: turned(CPUBackend, "kernel_matrix"), "transposed", ("dx", LOOP)),
    "product": (lambda: scaled(CPUBackend, "matmul"), "dense", ("dweight", LOOP)),
    "sum": (lambda: scaled(CPUBackend, "sum"), "dense", ("dbias", LOOP)),
    "sum of channels": (lambda: scaled(CPUBackend, "sum"), "conv", ("dbias", LOOP)),
    "mean": (lambda: scaled(CPUBackend, "moments", 0), "norm (N, C)", ("y", LOOP)),
    "variance": (lambda: scaled(CPUBackend, "moments", 1), "norm (N, C, H, W)", ("running_var", LOOP)),
    "normalize": (lambda: scaled(CPUBackend, "normalize"), "norm (N, C)", ("y", OWN)),
    "blend": (lambda: scaled(Backend, "blend"), "norm (N, C)", ("running_mean", LOOP)),
    "norm's dx": (lambda: scaled(CPUBackend, "normalize_backward", 0), "norm (N, C)", ("dx", BACK)),
    "norm's dweight": (lambda: scaled(CPUBackend, "normalize_backward", 1), "norm (N, C)", ("dweight", BACK)),
    "norm's dbias": (lambda: scaled(CPUBackend, "normalize_backward", 2), "norm (N, C)", ("dbias", BACK)),
    "relu": (lambda: scaled(CPUBackend, "leaky_relu"), "relu", ("y", LOOP)),
    "leaky back": (lambda: scaled(CPUBackend, "leaky_relu_backward"), "leaky", ("dx", LOOP)),
    "tanh": (lambda: scaled(CPUBackend, "tanh"), "tanh", ("y", LOOP)),
    "tanh back": (lambda: scaled(CPUBackend, "tanh_backward"), "tanh", ("dx", LOOP)),
    "sigmoid": (lambda: scaled(Backend, "sigmoid"), "sigmoid", ("dx", LOOP)),
    "mask": (lambda: flipped(CPUBackend, "dropout_mask"), "dropout (N, C)", ("mask", LOOP)),
    "the mask's order": (
        lambda: mock.patch.object(CPUBackend, "dropout", lambda s, x, *a: (x, x > 0)), "dropout (N, C)",
        ("y", OWN),
    ),
    "scale": (lambda: scaled(CPUBackend, "mask_scale"), "dropout (N, C, H, W)", ("dx", LOOP)),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_engine_is_told(mistake):
    plant, name, (what, against) = MISTAKES[mistake]
    layer, x = made(name, "float32")
    assert explain(layer, x).right
    with plant():
        found = explain(layer, x)
    assert not found.right
    wrong = [c for c in found.checks if not c.equal]
    assert any(c.what == what and c.expected.startswith(against) for c in wrong), found.wrong()
    text = str(found)
    assert text.startswith(f"WRONG: {len(wrong)} checks failed\n{wrong[0]}")
    assert text.count("NOT EQUAL") == 3 * len(wrong)  # above, in the table, at the end
    assert "right" not in text.splitlines()[-1]


@pytest.mark.native
def test_a_mistake_in_the_frequency_domain_is_told():
    layer, x = nn.ConvTranspose2d(32, 32, 5, 1, 2), np.random.default_rng(0).normal(size=(16, 32, 5, 5))
    found = explain(layer, x)
    assert "frequency domain" in found.notes[0]
    assert found.right
    with scaled(FrequencyForm, "input_gradient"):
        found = explain(layer, x)
    assert [(c.what, c.expected) for c in found.checks if not c.equal] == [("y", OWN)]


class Louder(nn.Conv2d):
    def forward(self, x, epilogue=None):
        return super().forward(x) * 1.01


class Unknown(nn.Dense):
    def __init__(self):
        super().__init__(3, 2)
        self.shift = nn.Parameter(np.zeros(2, np.float32))

    def forward(self, x):
        return super().forward(x) + self.shift


def test_a_layer_that_does_something_else_is_told():
    wrong = explain(Louder(1, 2, 2), np.ones((1, 1, 3, 3))).wrong()
    assert wrong[0].startswith("y: the steps against the layer's own forward, 8 numbers: 9.9e-03 apart")
    found = explain(Unknown(), np.ones((2, 3)))
    assert found.wrong() == [
        "dshift: the steps against the engine's own backward, 2 numbers: inf apart, 0e+00 allowed: NOT EQUAL"
    ]


def test_numbers_that_cancel_are_measured_by_what_was_added_up():
    layer, x = nn.BatchNorm(64), np.random.default_rng(0).uniform(100, 200, (2, 64))
    found = explain(layer, x)  # two values a channel: all that is left of dy is rounding, but for eps
    size = np.linalg.norm(found.sizes["x"])
    assert np.linalg.norm(found.gradients["x"]) < 1e-2 * size
    assert found.right, found.wrong()
    with scaled(CPUBackend, "normalize_backward", 2):
        assert [c.what for c in explain(layer, x).checks if not c.equal] == ["dbias"]
    terms = np.array([[1e4], [1.0], [-1e4]])
    assert checks.check_sums("s", np.array([1.001], np.float32), terms, 0).error < 1e-6
    assert checks.check_sums("s", np.array([1.5], np.float32), terms, 0).error > 1e-5
    assert not Check("y", "a", "b", 1, float("nan"), 1e-5).equal


@pytest.mark.native
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(32, 32, 5, 1, 2), (16, 32, 5, 5)),
        (nn.Conv2d(16, 16, 5, 1, 2), (1, 16, 7, 7)),
        (nn.Conv2d(16, 16, 5, 2, 2), (2, 16, 7, 7)),
        (nn.ConvTranspose2d(32, 32, 5, 1, 2), (16, 32, 5, 5)),
    ],
)
def test_the_form_that_is_named_is_the_one_that_runs(layer, shape):
    ran = []

    def watched(name):
        right = getattr(FrequencyForm, name)
        return mock.patch.object(FrequencyForm, name, lambda *a, **k: ran.append(name) or right(*a, **k))

    with contextlib.ExitStack() as watching:
        for name in (
            "convolve", "input_gradient", "weight_gradient", "gradients", "convolve_and_weight_gradient",
        ):  # fmt: skip
            watching.enter_context(watched(name))
        found = explain(layer, np.random.default_rng(0).normal(size=shape))
    assert ("frequency domain" in found.notes[0]) == bool(ran) == (shape[0] == 16)
    assert found.right


# -- nothing is changed --------------------------------------------------------------------------------


@every_layer
def test_nothing_is_changed(name):
    layer, x = made(name, "float32")
    called = []
    layer.register_forward_hook(lambda *a: called.append(1))
    layer.register_backward_hook(lambda *a: called.append(1))
    for parameter in layer.parameters():
        parameter.grad = mg.tensor(np.ones(parameter.shape), "float32")
    before = {key: t.numpy().copy() for key, t in layer.state_dict().items()}
    versions = [t.version for t in layer.state_dict().values()]
    given, state = x.numpy().copy(), random.get_state()
    texts = [str(explain(layer, x)) for _ in range(2)]
    assert texts[0] == texts[1]
    assert str(explain(layer, x, seed=1)) != texts[0]
    assert called == []
    assert random.get_state() == state
    assert np.array_equal(x.numpy(), given)
    assert x.grad is None
    assert layer.training
    assert [t.version for t in layer.state_dict().values()] == versions
    for key, t in layer.state_dict().items():
        assert np.array_equal(t.numpy(), before[key])
    assert all(np.array_equal(p.grad.numpy(), np.ones(p.shape)) for p in layer.parameters())
    assert observer.current() == []


def test_the_random_state_is_put_back_after_an_error():
    state = random.get_state()
    with pytest.raises(ValueError, match="expected grad of the result's shape"):
        explain(nn.Dropout(0.5), np.ones((2, 3)), grad=np.ones(3))
    assert random.get_state() == state


def test_what_is_shown_is_a_copy():
    x = mg.tensor([[1.0, 2.0]])
    found = explain(nn.ReLU(), x)
    x.data[:] = 7
    assert found.x.tolist() == [[1, 2]]
    assert found.result.tolist() == [[1, 2]]


def test_gradients_of_frozen_parameters_are_shown_without_the_engines():
    layer = nn.Dense(3, 2)
    layer.weight.requires_grad = False
    with mg.no_grad():
        found = explain(layer, np.ones((2, 3)))
    assert "weight" in found.gradients
    assert {c.what for c in found.checks if c.expected == BACK} == {"dx", "dbias"}


# -- networks ------------------------------------------------------------------------------------------


def network():
    mg.manual_seed(1)
    return nn.Sequential(
        nn.Dense(5, 18, bias=False), nn.BatchNorm(18), nn.ReLU(), nn.Dropout(0.2), nn.Reshape(2, 3, 3),
        nn.Sequential(nn.ConvTranspose2d(2, 3, 2, 2), nn.LeakyReLU(0.2)), nn.Dropout(0.4), nn.Flatten(),
    )  # fmt: skip


def test_a_network_is_explained_layer_by_layer():
    model, x = network(), mg.tensor(np.random.default_rng(0).normal(size=(6, 5)), "float32")
    found = explain(model, x)
    assert found.right, found.wrong()
    assert list(found.parts) == [str(i) for i in range(8)]
    assert list(found.parts["5"].parts) == ["0", "1"]
    assert [step.name for step in found.forward] == [str(i) for i in range(8)]
    assert [step.name for step in found.backward] == [str(i) for i in reversed(range(8))]
    assert found.gradients.keys() == {"x", *dict(model.named_parameters())}
    assert found.sizes.keys() == {"1.weight", "1.bias", "5.0.bias"}
    for i in range(7):  # what one gives, the next takes; and back
        assert_close_in_norm(found.parts[str(i)].result, found.parts[str(i + 1)].x)
        assert_close_in_norm(found.parts[str(i + 1)].gradients["x"], found.parts[str(i)].grad)
    assert np.array_equal(found.result, model(x).numpy())  # with the draws of both Dropouts
    assert "1 BatchNorm(18) takes 2 ReLU() along" in found.notes[0]
    text = str(found)
    assert "\n5.0 ConvTranspose2d(2, 3)\n====" in text
    assert text.endswith(f"right: all {found._count()} checks found the same numbers")
    assert found._count() == text.count(" equal\n")


def assert_close_in_norm(found, expected):
    assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)


def test_a_mistake_inside_of_a_network_is_told_with_its_place():
    with scaled(CPUBackend, "convolve_input_gradient"):
        found = explain(network(), np.random.default_rng(0).normal(size=(6, 5)))
    assert not found.right
    assert found.parts["0"].right
    assert any(line.startswith("5.0.y: the steps against") for line in found.wrong())


def test_what_layers_together_do_is_compared():
    right = CPUBackend.normalize

    def wrong(self, *args):  # with the activation taken along alone
        y = right(self, *args)
        return y if args[-1] == mg.Epilogue() else y * np.float32(1.01)

    with mock.patch.object(CPUBackend, "normalize", wrong):
        found = explain(
            nn.Sequential(nn.BatchNorm(3), nn.ReLU()), np.random.default_rng(0).normal(size=(6, 3))
        )
    assert all(part.right for part in found.parts.values())
    assert (found.checks[0].what, found.checks[0].equal) == ("y", False)


def test_activations_that_go_along_with_no_layer_are_not_told():
    x = np.ones((2, 3))
    assert explain(nn.Sequential(nn.Dense(3, 2), nn.ReLU(), nn.ReLU()), x).notes == ()
    hooked = nn.Sequential(nn.BatchNorm(3), nn.ReLU())
    hooked[0].register_forward_hook(lambda *a: None)
    assert explain(hooked, x).notes == ()


def test_a_layer_that_is_there_twice():
    layer = nn.Dense(3, 3, dtype="float64")
    found = explain(nn.Sequential(layer, nn.Tanh(), layer), np.random.default_rng(0).normal(size=(4, 3)))
    assert found.gradients.keys() == {"x", "0.weight", "0.bias"}
    parts = [found.parts[place].gradients["weight"] for place in "02"]
    assert_equal(found.gradients["0.weight"], parts[0] + parts[1])
    assert found.right


# -- what is given, and errors -------------------------------------------------------------------------


def test_arrays_and_lists_are_taken_in_the_layers_dtype():
    for x in ([[1, 2, 3]], np.ones((1, 3)), np.ones((1, 3), np.float32)):
        assert explain(nn.Dense(3, 2), x).result.dtype == "float32"
    assert explain(nn.Tanh(), [[1, 2]]).result.dtype == "float32"
    assert explain(nn.Tanh(), np.ones((1, 2))).result.dtype == "float64"
    assert explain(nn.Tanh(), np.ones((1, 2), int)).result.dtype == "float32"


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Dense(3, 3)

    def forward(self, x):
        return self.inner(x) * 2.0


class Double(nn.Module):
    def forward(self, x):
        return x * 2.0


def test_what_can_not_be_explained_is_an_error():
    x = np.ones((2, 3))
    with pytest.raises(TypeError, match="expected a layer, got function"):
        explain(lambda x: x, x)
    with pytest.raises(
        TypeError, match=r"no steps are known for Own\(\): .*layers in it \(inner\).*@minigrad"
    ):
        explain(Own(), x)
    with pytest.raises(
        TypeError, match=r"no steps are known for Double\(\): explain a layer of minigrad\.nn"
    ):
        explain(Double(), x)
    with pytest.raises(TypeError, match=r"no steps are known for Double"):
        explain(nn.Sequential(nn.ReLU(), Double()), x)
    with pytest.raises(TypeError, match=r"expected x of float32 or float64, got int64: use x\.to"):
        explain(nn.ReLU(), mg.tensor(np.ones(3, np.int64)))
    with pytest.raises(ValueError, match=r"expected x with numbers in it, got shape \(0, 3\)"):
        explain(nn.Dense(3, 2), np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"expected grad of the result's shape \(2, 2\), got \(2, 3\)"):
        explain(nn.Dense(3, 2), x, grad=x)
    with pytest.raises(ValueError, match=r"Dense\(4, 2\): expected \(N, 4\), got \(2, 3\)"):
        explain(nn.Dense(4, 2), x)
    broken = nn.Dense(3, 2)
    broken.bias.data[1] = np.nan
    for layer, given, grad, name in (
        (nn.ReLU(), [[np.inf]], None, "x"), (broken, x, None, "bias"), (nn.ReLU(), [[1]], [[np.nan]], "grad"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"finite numbers, got others in {name}; .*detect_anomaly"):
            explain(layer, given, grad=grad)
    with pytest.raises(ValueError, match="no layers in it"):
        explain(nn.Sequential(), x)


@pytest.mark.parametrize("layer", [nn.Dense(1, 1), nn.ReLU()])
@pytest.mark.parametrize("name", ["x", "grad"])
def test_numbers_that_the_layers_dtype_can_not_hold_are_refused(layer, name):
    def given(values):
        return {"x": mg.tensor([[1.0]]) if name == "grad" else values, "grad": values}

    for values in (np.array([[1j]]), np.array([["a"]])):
        with pytest.raises(TypeError, match=f"expected real numbers as {name}, got {values.dtype}: pass"):
            explain(layer, **given(values))
    for values in ([[1j]], [[1.0], [1.0, 2.0]], "a"):
        with pytest.raises(TypeError, match=f"explain: {name} is no array of real numbers: .*equal length"):
            explain(layer, **given(values))
    with pytest.raises(ValueError, match=f"others in {name}; float32 holds none beyond 3.4e"):
        explain(layer, **given([[1e300]]))


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(ValueError, match=f"expected seed to be a whole number from 0 on, got {seed!r}"):
        explain(nn.ReLU(), [[1.0]], grad=[[1.0]], seed=seed)


def test_a_layer_of_ones_own_is_taught():
    @explains(Double)
    def double(layer, x, dy, seed):
        forward, backward = Steps(x.backend), Steps(x.backend)
        forward.take("double", "y", "2 x", x.data * 2)
        return Opened(forward, backward, {"x": backward.take("double", "dx", "2 dy", dy.data * 2)})

    try:
        found = explain(nn.Sequential(Double(), nn.ReLU()), np.ones((2, 3)))
    finally:
        registry._explainers.pop(Double)
    assert found.right
    assert found.result.tolist() == [[2.0] * 3] * 2


# -- the text ------------------------------------------------------------------------------------------


def test_the_text_of_a_small_layer():
    layer = filled(nn.Conv2d(1, 1, 2, bias=False), weight=[1, 2, 0, -1])
    lines = str(explain(layer, [[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]])).splitlines()
    assert lines[:2] == ["Conv2d(1, 1)", "============"]
    assert lines[2] == (
        "x (1, 1, 3, 3) to y (1, 1, 2, 2), weight (1, 1, 2, 2); float32 on 'cpu', in training mode"
    )
    start = next(i for i, line in enumerate(lines) if line.startswith("  2. im2col"))
    assert lines[start + 1 : start + 7] == [
        "     after another, each with its 1 channel: 4 rows of 4. The place (p, q) begins at the row p and",
        "     the column q of the canvas",
        "       columns (4, 4) float32: 1 to 9, mean 5",
        "         1  2  4  5",
        "         2  3  5  6",
        "         4  5  7  8",
    ]
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "right: all 6 checks found the same numbers"


def test_a_look_at_large_and_at_odd_arrays():
    large = np.arange(2.0 * 3 * 20 * 20).reshape(2, 3, 20, 20)
    step = explain(nn.ReLU(), large).forward[0]
    assert str(step).splitlines()[1:] == [
        "  y (2, 3, 20, 20) float64: 0 to 2399, mean 1200",
        "    [0, 0, :, :]",
        "     0   1   2   3   4   5  ...",
        "    20  21  22  23  24  25  ...",
        "    40  41  42  43  44  45  ...",
        "    60  61  62  63  64  65  ...",
        "    ...",
    ]
    padded = np.pad(np.ones((1, 1, 4, 4)), [(0, 0), (0, 0), (8, 8), (8, 8)])
    assert "    [0, 0, 8:, 7:]\n    0  1  1  1  1  0  ..." in str(explain(nn.ReLU(), padded).forward[0])
    assert look.look(np.array([np.nan, 1, np.inf, -0.0])) == ["nan  1  inf  0"]
    assert look.summary_of(np.array([np.inf, -np.inf])) == "(2,) float64: -inf to inf, mean nan"
    assert look.summary_of(np.ones((0, 2), np.float32)) == "(0, 2) float32: no numbers"
    assert look.look(np.ones((0, 2))) == []
    assert "[" not in str(explain(nn.ReLU(), np.ones((1, 1, 2, 2))).forward[0]).partition("mean")[2]
