"""The CPU by NumPy's forms beside the C kernels: in a context, for one thread, whatever there is."""

import copy
import pickle
import threading

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, nn

X = np.random.default_rng(0).standard_normal((5, 2, 6, 6)).astype(np.float32)


def network():
    mg.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm(4), nn.LeakyReLU(0.2), nn.Flatten(), nn.Dense(64, 3)
    )


def test_the_backend_of_a_context_is_the_one_that_new_tensors_and_layers_are_on():
    forms, usual = backend.numpy_forms(), backend.get("cpu")
    assert forms is backend.numpy_forms()
    assert forms.kernels is None
    with backend.using(forms):
        assert backend.get("cpu") is backend.get() is backend.backend_of(X) is forms
        made = [mg.tensor(X), mg.tensor([1.0]), mg.from_host(lambda: X, X.shape), *network().parameters()]
    assert all(tensor.backend is forms for tensor in made)
    assert all(tensor.device == "cpu" for tensor in made)
    assert backend.get("cpu") is backend.get() is backend.backend_of(X) is usual


def test_contexts_are_nested_and_end_with_an_exception():
    usual, forms = backend.get("cpu"), backend.numpy_forms()
    seen = []

    def nested():
        with backend.using(forms):
            with backend.using(usual):
                seen.append(backend.get("cpu"))
            seen.append(backend.get("cpu"))
            raise KeyError

    with pytest.raises(KeyError):
        nested()
    assert seen == [usual, forms]
    assert backend.get("cpu") is usual


def test_other_threads_and_other_devices_are_not_concerned():
    class Other(backend.Backend):
        device, xp = "other", np

    other, found = Other(), []
    with backend.using(backend.numpy_forms()):
        thread = threading.Thread(target=lambda: found.append(backend.get("cpu")))
        thread.start()
        thread.join()
    with backend.using(other):
        assert backend.get("cpu") is found[0] is not backend.numpy_forms()
        assert backend.get("other") is other
    with pytest.raises(ValueError, match="unknown device 'other'"):
        backend.get("other")


def test_nothing_is_loaded_or_compiled_in_the_context(monkeypatch):
    def load():
        pytest.fail("the registered backend of the CPU was made")

    monkeypatch.setattr(backend, "_backends", {})
    monkeypatch.setattr(backend, "_factories", {"cpu": load})
    backend.numpy_forms.cache_clear()
    with backend.using(backend.numpy_forms()):
        model = network()
        model.load_state_dict({key: value.numpy() for key, value in model.state_dict().items()})
        model(mg.tensor(X)).sum().backward()
        mg.serialize.encode(model.state_dict())


def test_both_compute_the_same_up_to_rounding():
    usual = network()
    with backend.using(backend.numpy_forms()):
        ours = network()
        ours.load_state_dict(usual.state_dict())
        made = ours(mg.tensor(X))
    made.sum().backward()  # outside, too: tensors carry their backend
    expected = usual(mg.tensor(X))
    expected.sum().backward()
    assert np.allclose(made.numpy(), expected.numpy(), atol=1e-5)
    for a, b in zip(ours.parameters(), usual.parameters(), strict=True):
        assert a.grad.backend is backend.numpy_forms()
        assert np.allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-4)


def test_they_do_not_mix_until_one_is_moved():
    with backend.using(backend.numpy_forms()):
        x, model = mg.tensor([1.0, 2.0]), nn.Dense(2, 3)
    y = mg.tensor([3.0, 4.0])
    with pytest.raises(ValueError, match="move one with"):
        x + y
    moved = x.to("cpu")
    assert moved.backend is backend.get("cpu")
    assert (moved + y).numpy().tolist() == [4.0, 6.0]
    assert model.to("cpu")(y.reshape(1, 2)).shape == (1, 3)


def test_tensors_are_copied_on_their_backend_and_pickled_by_their_device():
    with backend.using(backend.numpy_forms()):
        x = mg.tensor([1.0, 2.0])
    assert copy.deepcopy(x).backend is copy.copy(x).backend is backend.numpy_forms()
    assert pickle.loads(pickle.dumps(x)).backend is backend.get("cpu")  # noqa: S301 our own bytes
