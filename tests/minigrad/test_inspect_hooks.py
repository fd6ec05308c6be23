"""Hooks on modules: what they are called with, and that they change nothing."""

import copy

import numpy as np

import minigrad as mg
from minigrad import nn


def test_forward_hooks_are_called_after_each_forward_until_they_are_removed():
    network = nn.Sequential(nn.BatchNorm(2), nn.LeakyReLU(0.2), nn.Tanh())
    x, calls = mg.tensor(np.random.default_rng(0).standard_normal((4, 2)), "float32"), []
    plain = network(x).numpy()
    modules = (network[1], network)
    handles = [module.register_forward_hook(lambda *given: calls.append(given)) for module in modules]
    y = network(x)
    (leaky, (normal,), activated), (whole, (given,), output) = calls
    assert (leaky, whole) == (network[1], network)
    assert given is x
    assert output is y
    assert np.array_equal(
        activated.numpy(), np.where(normal.numpy() > 0, 1, np.float32(0.2)) * normal.numpy()
    )
    assert np.allclose(y.numpy(), plain, rtol=1e-6)
    for handle in handles * 2:
        handle.remove()
    network(x)
    assert len(calls) == 2


def test_backward_hooks_are_told_the_gradient_of_the_output():
    network = nn.Sequential(nn.Dense(3, 2), nn.LeakyReLU(0.5), nn.Tanh())
    x, calls = mg.tensor(np.random.default_rng(0).standard_normal((4, 3)), "float32"), []
    network(x).sum().backward()
    plain = network[0].weight.grad.numpy().copy()
    network.zero_grad()
    modules = (network[0], network)
    handles = [module.register_backward_hook(lambda *given: calls.append(given)) for module in modules]
    y = network(x)
    y.sum().backward()
    (whole, ones), (dense, gradient) = calls
    assert (whole, dense) == (network, network[0])
    assert np.array_equal(ones.numpy(), np.ones((4, 2)))
    logits = x.numpy() @ network[0].weight.numpy().T + network[0].bias.numpy()
    expected = (1 - y.numpy() ** 2) * np.where(logits > 0, 1, 0.5)
    assert np.allclose(gradient.numpy(), expected, rtol=1e-5)
    assert np.allclose(network[0].weight.grad.numpy(), plain, rtol=1e-6)
    for handle in handles * 2:
        handle.remove()
    network(x).sum().backward()
    assert len(calls) == 2


def test_without_a_graph_no_backward_hook_is_needed():
    layer = nn.Tanh()
    layer.register_backward_hook(lambda *_: None)
    with mg.no_grad():
        assert not layer(mg.tensor([1.0])).requires_grad


def test_a_copy_has_hooks_of_its_own():
    layer, calls = nn.Tanh(), []
    handle = layer.register_forward_hook(lambda module, *_: calls.append(module))
    other = copy.deepcopy(layer)
    handle.remove()
    layer(mg.tensor([1.0]))
    other(mg.tensor([1.0]))
    assert calls == [other]
    other.forward_hooks[0].remove()
    assert other.forward_hooks == []
