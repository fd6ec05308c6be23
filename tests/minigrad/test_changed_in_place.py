"""Arrays that are written into between forward and backward, and nobody says so."""

import numpy as np
import pytest
from accuracy import assert_close

import minigrad as mg
from minigrad import naive, nn, optim
from minigrad.backend import ConvGeometry, get
from minigrad.backend.cpu import frequency, samples
from minigrad.ops import OPERATIONS
from minigrad.ops.conv import Convolve, ConvolveInputGradient

EVERY_DEVICE = True
OF_THE_CPU = pytest.mark.cpu_only("on a GPU to look is to wait")

CASES = [
    pytest.param(case, id=f"{name}-{case.label or 'plain'}")
    for name, operation in OPERATIONS.items()
    for case in operation.cases()
]
FLUX = ConvGeometry.of_conv((7, 7), (5, 5), 1, 2, 1)
FORMS = {"frequency": lambda geometry, *sizes: True, "plain": lambda geometry, *sizes: False}


@pytest.fixture(params=FORMS)
def form(request, monkeypatch):
    """Every convolution in this form."""
    monkeypatch.setattr(frequency, "pays", FORMS[request.param])
    return request.param


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


@OF_THE_CPU
@pytest.mark.parametrize("case", CASES)
def test_every_operation_notices(case):
    arrays = [np.asarray(a) for a in case.inputs(np.random.default_rng(3))]
    kept_inputs = 0
    for i in range(len(arrays)):
        inputs = [mg.tensor(a, requires_grad=True) for a in arrays]
        y = case.call(*inputs)
        keeps = y.node.keep_inputs and any(t is inputs[i] for t in y.node.inputs)
        kept_inputs += keeps
        inputs[i].numpy()[...] += 0.125
        start = mg.tensor(np.ones(y.shape))
        if keeps:
            with pytest.raises(
                RuntimeError, match=r"an input of shape .* was changed in place .* or a write into"
            ):
                y.backward(start)
    assert kept_inputs or not y.node.keep_inputs


@OF_THE_CPU
@pytest.mark.parametrize("write", [
    lambda a: np.multiply(a, 0.9, out=a), lambda a: a.fill(0), lambda a: np.negative(a, out=a),
    lambda a: a.__setitem__((0,) * a.ndim, 7.0), lambda a: a.sort(axis=0),
])  # fmt: skip
@pytest.mark.parametrize("shape", [(3,), (127,), (40, 33), (16, 8, 5, 5), (64, 1, 28, 28)])
def test_what_people_write_is_noticed_whatever_the_size(shape, write):
    source = normal(0, *shape)
    x = mg.Tensor(source)  # not a copy
    w = mg.tensor(np.ones(shape[-1:]), requires_grad=True)
    loss = (x * w).sum()
    write(source)
    with pytest.raises(RuntimeError, match=rf"multiply: an input of shape \({shape[0]},.*changed in place"):
        loss.backward()
    (x * w).sum().backward()  # computed again
    assert_close(w.grad.numpy(), source.reshape(-1, shape[-1]).sum(axis=0))


LAYOUTS = {
    "as it is": lambda a: a,
    "transposed": lambda a: a.T,
    "channels innermost": lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "every other": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "backwards": lambda a: a[::-1],
    "axes the other way": lambda a: np.ascontiguousarray(a.transpose(1, 0, 2, 3)).transpose(1, 0, 2, 3),
}  # fmt: skip


@OF_THE_CPU
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_is_of_every_channel_and_follows_no_layout(layout):
    """Of 8 x 16 x 4 x 4 numbers each 33rd; in any order of memory some of each image and many channels."""
    array = LAYOUTS[layout](normal(0, 8, 16, 4, 4))
    before = samples.sample(array)
    assert len(before) // 8 == -(-array.size // 33)
    assert samples.sample(array) == before
    for axis in (0, 1):
        seen = 0
        for i in range(array.shape[axis]):
            changed = array.copy(order="K")
            np.moveaxis(changed, axis, 0)[i] += 1
            seen += samples.sample(changed) != samples.sample(array.copy(order="K"))
        assert seen == array.shape[axis]


@OF_THE_CPU
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (127,)])
def test_a_sample_of_a_small_array_is_all_of_it(shape):
    array = np.ones(shape, np.float32)
    assert samples.sample(array) == array.tobytes()


@OF_THE_CPU
def test_a_stretched_array_and_a_nan_are_sampled_too():
    stretched = np.broadcast_to(np.float32([[1.0], [2.0]]), (2, 300))
    assert set(np.frombuffer(samples.sample(stretched), np.float32)) == {1.0, 2.0}
    x = mg.tensor([np.nan, 0.0, -0.0], requires_grad=True)
    (x * x).sum().backward()  # NaN is not equal to itself, but it has not changed
    y = (x * x).sum()
    x.numpy()[1] = -0.0
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_what_is_not_noticed_gives_the_gradient_of_the_new_weight_in_every_form(form):
    """dx of a convolution and of its transpose, where a number changed that is not in the sample."""
    images, weight = normal(0, 2, 16, 7, 7), normal(1, 16, 16, 5, 5)
    above = normal(2, 2, 16, 7, 7)
    changed = weight.copy()
    changed[1, 2, 3, 4] += 1.0  # number 469
    assert 469 % (weight.size // samples.FEW | 1) != 0
    results = {
        Convolve: (images, above, naive.convolve_input_gradient(above, changed, FLUX)),
        ConvolveInputGradient: (above, images, naive.convolve(images, changed, FLUX)),
    }
    for operation, (array, start, expected) in results.items():
        for needs_weight in (True, False):
            x, w = mg.tensor(array, requires_grad=True), mg.tensor(weight, requires_grad=needs_weight)
            y = operation(FLUX)(x, w)
            w.data[1, 2, 3, 4] += 1.0
            (dx,) = mg.grad(y, x, mg.tensor(start))
            assert_close(dx.numpy(), expected, "float64")


def test_images_that_were_computed_and_then_written_into_give_one_gradient_in_every_form(form):
    images, weight, above = normal(0, 2, 16, 7, 7), normal(1, 16, 16, 5, 5), normal(2, 2, 16, 7, 7)
    x = mg.tensor(images, requires_grad=True) * 1.0
    w = mg.tensor(weight, requires_grad=True)
    y = Convolve(FLUX)(x, w)
    x.data[...] *= 2.0
    (dw,) = mg.grad(y, w, mg.tensor(above))
    assert_close(dw.numpy(), naive.convolve_weight_gradient(2 * images, above, FLUX), "float64")


def test_what_may_be_written_into():
    """After the backward, under no_grad, and what no gradient needs."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm(4), nn.LeakyReLU(0.2))
    x = mg.tensor(normal(0, 6, 1, 8, 8), "float32")
    optimizer = optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):  # running statistics change between forward and backward
        optimizer.zero_grad()
        loss = (model(x) * model(x)).sum()
        loss.backward(retain_graph=True)
        loss.backward()
        optimizer.step()
        with mg.no_grad():
            for p in model.parameters():
                p.data[...] *= 0.5
                p.mark_changed()
        x.data[...] += 1.0
    a = mg.tensor(np.ones(5), requires_grad=True)
    y = (a + 1.0).sum()
    a.data[...] = 7.0
    y.backward()
    assert a.grad.numpy().tolist() == [1.0] * 5


def test_a_write_that_is_marked_is_noticed_everywhere():
    x = mg.tensor(normal(0, 300, 300), requires_grad=True)
    y = (x * x).sum()
    x.data[7, 11] = 0.0
    x.mark_changed()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


@OF_THE_CPU
@pytest.mark.native
def test_the_forms_are_those_that_are_meant(form):
    found = get("cpu").convolution_form("convolve", FLUX, 2, 16, 16)
    assert ("frequency" in found) == (form == "frequency")
