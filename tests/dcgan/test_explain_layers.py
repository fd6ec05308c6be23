"""`minigrad.inspect.explain` on all layers of the flux recipe's generator."""

import numpy as np

import minigrad as mg
from dcgan import models, presets
from minigrad import random
from minigrad.inspect import explain


def test_every_layer_of_the_flux_generator():
    mg.manual_seed(0)
    generator = models.build_generator(presets.get("flux"))
    z = mg.tensor(np.random.default_rng(0).normal(size=(2, 100)), "float32")
    before = {name: t.numpy() for name, t in generator.state_dict().items()}
    state = random.get_state()
    found = explain(generator, z)
    assert found.right, found.wrong()
    assert len(found.parts) == len(list(generator)) == 12
    assert found.result.shape == (2, 1, 28, 28)
    shapes = [part.result.shape for part in found.parts.values() if part.layer.startswith("ConvTranspose2d")]
    assert shapes == [(2, 128, 7, 7), (2, 64, 14, 14), (2, 1, 28, 28)]
    first = found.parts["4"]
    columns = next(step for step in first.forward if step.symbol == "columns")
    assert columns.shape == (2 * 7 * 7, 5 * 5 * 128)
    assert "itself computes y, dx and dweight by" in first.notes[0]  # one form has all
    assert "takes 2 ReLU() along" in found.notes[0]
    for name, t in generator.state_dict().items():
        assert np.array_equal(t.numpy(), before[name])
    assert random.get_state() == state
    with mg.no_grad():
        own = generator(z).numpy()
    assert np.linalg.norm(found.result - own) <= 1e-5 * np.linalg.norm(own)
