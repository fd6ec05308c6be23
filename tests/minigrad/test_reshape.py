"""Reshaping what a convolution gives, whose channels lie innermost in memory."""

import numpy as np
import pytest

import minigrad as mg
from minigrad import backend, nn

EVERY_DEVICE = True


@pytest.fixture
def images():
    return nn.Conv2d(3, 8, 3)(mg.tensor(np.random.default_rng(0).normal(size=(4, 3, 9, 9)).astype("f")))


@pytest.mark.parametrize(
    "shape", [(4, -1), (4, 8, -1), (4, 8, 7, -1), (-1, 8, 49), (4, 392), (2, 2, -1), (-1,), (8, 4, 49)]
)
def test_every_shape_holds_the_numbers_in_their_order(images, shape):
    found = images.reshape(shape)
    assert np.array_equal(found.numpy(), np.ascontiguousarray(images.numpy()).reshape(shape))


@pytest.mark.parametrize("shape", [(4, 391), (-1, -1), (5, -1), (4, 0, -1)])
def test_what_does_not_fit_is_told_as_it_was_asked(images, shape):
    with pytest.raises(ValueError) as told:
        images.reshape(shape)
    assert str(told.value) == f"reshape: 1568 elements of shape (4, 8, 7, 7) do not fit {shape}"


@pytest.mark.cpu_only("about NumPy's memory")
def test_a_view_where_memory_allows():
    x = np.arange(96.0).reshape(2, 3, 4, 4)
    engine = backend.get("cpu")
    for part, shape in ((x[:, :2], (2, 32)), (x, (2, 48)), (x[:1], (1, 48))):
        assert np.shares_memory(engine.reshape(part, shape), part)
        assert np.array_equal(engine.reshape(part, shape), part.reshape(shape))
