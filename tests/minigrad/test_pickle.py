"""Tensors, modules, optimizers and generators in pickles, copies and other processes."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest

import minigrad as mg
import minigrad.functional as F
from minigrad import backend, nn, optim

EVERY_DEVICE = True

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
seen = []


def again(thing, protocol=pickle.DEFAULT_PROTOCOL):
    return pickle.loads(pickle.dumps(thing, protocol))  # noqa: S301  # our own


def leaf(*values):
    return mg.tensor(np.array(values), requires_grad=True)


def network(dtype="float32"):
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, dtype=dtype), nn.BatchNorm(2, dtype=dtype), nn.LeakyReLU(0.2), nn.Dropout(0.3),
        nn.ConvTranspose2d(2, 1, 3, dtype=dtype), nn.ReLU(), nn.Flatten(), nn.Dense(25, 9, dtype=dtype),
        nn.Tanh(), nn.Reshape(1, 3, 3), nn.Sigmoid(),
    )  # fmt: skip


def images():
    return mg.tensor(np.random.default_rng(0).standard_normal((4, 1, 5, 5)).astype(np.float32))


def step(model, optimizer):
    """One step of training; gives the loss."""
    optimizer.zero_grad()
    loss = F.binary_cross_entropy_with_logits(model(images()), 1)
    loss.backward()
    optimizer.step()
    return loss.item()


def values(module):
    return {name: t.numpy().tolist() for name, t in module.state_dict().items()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_a_tensor_comes_back(default_device, dtype, protocol):
    x = mg.tensor(np.array([[0, 1, 2], [3, 4, 5]]), dtype)
    y = again(x, protocol)
    assert type(y) is mg.Tensor
    assert (y.dtype, y.device, y.requires_grad, y.grad, y.node) == (dtype, default_device, False, None, None)
    assert y.backend is x.backend
    assert y.numpy().tolist() == x.numpy().tolist()
    y.data[...] = 7  # in memory of its own, which can be written to
    y.mark_changed()
    assert x.version == 0
    assert x.numpy()[0, 1] == 1
    assert y.backend.owns_memory(y.data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("cls", [mg.Tensor, nn.Parameter])
def test_a_leaf_comes_back_with_its_gradient(cls, protocol):
    x = cls(backend.get().asarray([1.0, 2.0]), requires_grad=True)
    x.grad = mg.tensor(np.array([3.0, 4.0]))
    y = again(x, protocol)
    assert type(y) is cls
    assert y.requires_grad
    assert y.grad.numpy().tolist() == [3.0, 4.0]
    (y * y).sum().backward()
    assert y.grad.numpy().tolist() == [5.0, 8.0]
    assert x.grad.numpy().tolist() == [3.0, 4.0]
    x.requires_grad = False
    assert not again(x, protocol).requires_grad


def test_views_empty_tensors_and_read_only_arrays_come_back():
    x = mg.tensor(np.arange(6.0).reshape(2, 3))
    for t in (x.transpose(), x[:, ::-2], F.broadcast_to(x[0, 0], (2, 2)), x[:0], x[1, 2]):
        for protocol in PROTOCOLS:
            y = again(t, protocol)
            assert y.numpy().tolist() == t.numpy().tolist()
            assert (y.shape, y.dtype) == (t.shape, t.dtype)
            y.data[...] = 9.0
    assert x.numpy().tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_a_computed_tensor_is_refused():
    x = leaf(1.0)
    for computed in (x * 2.0, [x, x * 2.0], {"y": x.exp()}):
        with pytest.raises(RuntimeError, match=r"pickle: this tensor was computed, .* detach\(\) it"):
            pickle.dumps(computed)
    assert again((x * 2.0).detach()).item() == 2.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_comes_back_and_works(protocol):
    mg.manual_seed(1)
    model = network()
    optimizer = optim.Adam(model.parameters(), 0.01)
    step(model, optimizer)
    other, others = again((model, optimizer), protocol)
    assert values(other) == values(model)
    assert all(a is b for a, b in zip(others.params, other.parameters(), strict=True))
    found = []
    for pair in ((model, optimizer), (other, others)):
        mg.manual_seed(2)
        found.append([step(*pair) for _ in range(3)])
    assert found[0] == found[1]
    assert values(other) == values(model)
    before = values(model)
    step(other, others)
    assert values(model) == before  # each has memory of its own
    assert values(other.eval()) != before
    assert model.training
    assert not again(other).training


@pytest.mark.parametrize(
    "make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.RMSprop(p, 0.1)], ids=["SGD", "RMSprop"]
)
def test_other_optimizers_go_on_alike(make):
    model = network()
    optimizer = make(model.parameters())
    step(model, optimizer)
    pairs = (model, optimizer), again((model, optimizer))
    found = []
    for pair in pairs:
        mg.manual_seed(2)
        found.append([step(*pair) for _ in range(2)])
    assert found[0] == found[1]


def test_what_is_tied_stays_tied():
    model = nn.Sequential(nn.Dense(2, 2), nn.Dense(2, 2))
    model[1].weight = model[0].weight
    other = again(model)
    assert other[0].weight is other[1].weight
    assert other[0].weight is not model[0].weight
    assert other[0].bias is not other[1].bias
    x = leaf(1.0)
    a, b = again((x, [x]))
    assert a is b[0]


def note(module, inputs, output):
    """A hook that a pickle can name."""
    seen.append(type(module).__name__)


def test_hooks_come_back():
    seen.clear()
    model = nn.Sequential(nn.Dense(1, 1), nn.Tanh())
    hook = model[1].register_forward_hook(note)
    other, its_hook = again((model, hook))
    other(mg.tensor([[1.0]]))
    assert seen == ["Tanh"]
    its_hook.remove()
    other(mg.tensor([[1.0]]))
    assert seen == ["Tanh"]
    model(mg.tensor([[1.0]]))
    assert seen == ["Tanh", "Tanh"]


def test_a_generator_goes_on_where_it_was():
    generator = mg.Generator(3, 1)
    generator.normal((2,))
    other = again(generator)
    assert other.state == generator.state
    assert other.normal((4,)).tolist() == generator.normal((4,)).tolist()


@pytest.mark.parametrize("thing", [again, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
def test_a_backend_goes_by_its_name(thing):
    own = backend.get()
    assert thing(own) is own


def test_an_unknown_device_is_named(default_device):
    text = pickle.dumps(mg.tensor([1.0]), 0)
    with pytest.raises(ValueError, match="unknown device 'xpu'"):
        pickle.loads(text.replace(default_device.encode(), b"xpu"))  # noqa: S301  # our own


def test_a_shallow_copy_of_a_tensor_shares_its_memory_and_graph():
    x = nn.Parameter(backend.get().asarray([1.0, 2.0]))
    x.grad = mg.tensor(np.array([3.0, 4.0]))
    y = copy.copy(x)
    assert type(y) is nn.Parameter
    assert y is not x
    assert y.data is x.data
    assert y.requires_grad
    assert y.grad is x.grad
    y.mark_changed()
    assert x.version == 1
    computed = copy.copy(x * 2.0)
    computed.sum().backward()
    assert x.grad.numpy().tolist() == [5.0, 6.0]


def test_a_deep_copy_of_a_model_works():
    model = network()
    other = copy.deepcopy(model)
    step(other, optim.SGD(other.parameters(), 0.1))
    assert values(other) != values(model)
    assert other[0].weight.backend is model[0].weight.backend


@pytest.mark.cpu_only("another process of a GPU's takes seconds to start")
def test_another_process_takes_tensors_and_models():
    x, model = mg.tensor([-1.0, 2.0]), nn.Dense(2, 3)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(F.relu, [x, -x])[1].numpy().tolist() == [1.0, 0.0]
        state = pool.apply(model.state_dict)
        pool.close()
        pool.join()
    assert {name: t.numpy().tolist() for name, t in state.items()} == values(model)
