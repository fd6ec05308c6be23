"""Transforms that are kept: when they are found again, and when they go."""

import gc

import numpy as np
import pytest

from minigrad.backend import kept
from minigrad.backend.kept import KernelTransforms, Memo

ONE, OTHER = object(), object()  # transforms


class Counted:
    """Makes a result of its own for each call, and counts the calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, weight):
        self.calls += 1
        return np.array([weight.sum()])


class Kernels(KernelTransforms):
    """Used as a convolution does it."""

    def get(self, weight, transform, make):
        found = self.find(weight, transform)
        if found is not None:
            return found.made
        copy = np.array(weight, order="C")
        made = make(copy)
        self.keep(weight, transform, copy, made)
        return made


@pytest.fixture
def kernels():
    return Kernels()


def weight(size=kept.SAMPLE + 44, dtype="float32"):
    return np.random.default_rng(0).standard_normal(size).astype(dtype)


def test_a_transform_is_made_once_while_the_bits_are_the_same(kernels):
    make, w = Counted(), weight()
    first = kernels.get(w, ONE, make)
    assert kernels.get(w, ONE, make) is first
    assert kernels.get(w.copy(), ONE, make) is first  # whatever array they lie in
    assert make.calls == 1


@pytest.mark.parametrize("place", [0, kept.SAMPLE - 1, kept.SAMPLE, -1])
def test_any_number_that_changes_is_seen(kernels, place):
    make, w = Counted(), weight()
    first = kernels.get(w, ONE, make)
    w[place] += 1
    assert kernels.get(w, ONE, make) is not first
    assert make.calls == 2


def test_zero_and_minus_zero_are_two_numbers_and_nan_is_one(kernels):
    make, w = Counted(), np.zeros(3, "float32")
    kernels.get(w, ONE, make)
    w[1] = -0.0
    kernels.get(w, ONE, make)
    assert make.calls == 2
    w[1] = np.nan
    assert kernels.get(w, ONE, make) is kernels.get(w, ONE, make)
    assert make.calls == 3


def test_another_transform_shape_or_dtype_is_another(kernels):
    make, w = Counted(), np.zeros((2, 6), "float32")
    weights = [w, w.reshape(3, 4), np.zeros((2, 3), "float64"), np.zeros((2, 6), "int32")]
    results = [kernels.get(weight, transform, make) for weight in weights for transform in (ONE, OTHER)]
    assert len(set(map(id, results))) == make.calls == 8


def test_what_is_transformed_is_what_is_compared(kernels):
    w = weight()

    def make(own):
        w[0] += 1  # somebody changes the weight meanwhile
        return np.array([own[0]])

    before = w[0]
    assert kernels.get(w, ONE, make) == before
    assert kernels.get(w, ONE, make) == before + 1


def test_a_weight_in_another_memory_order_is_the_same(kernels):
    make, w = Counted(), weight((30, 20))
    first = kernels.get(w, ONE, make)
    assert kernels.get(np.asfortranarray(w), ONE, make) is first


def test_the_transform_of_a_changed_weight_takes_the_place_of_the_old_one(kernels):
    make, w = Counted(), weight()
    for _ in range(5):
        w += 1
        kernels.get(w, ONE, make)
        kernels.get(w, OTHER, make)
    assert len(kernels._kept) == 2


def test_a_transform_goes_with_its_weight(kernels):
    make, w = Counted(), weight()
    kernels.get(w, ONE, make)
    del w
    gc.collect()
    assert kernels._kept == ()


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(kernels, monkeypatch):
    monkeypatch.setattr(kept, "MOST_OF_ONE", 100)
    monkeypatch.setattr(kept, "MOST", 250)
    sizes = {"large": 101, "first": 100, "second": 90, "third": 80}
    weights = {name: np.full(4, size, "float32") for name, size in sizes.items()}
    calls = []

    def get(name):
        return kernels.get(weights[name], ONE, lambda w: calls.append(name) or np.zeros(sizes[name]))

    for name in sizes:
        get(name)
    assert [k.made.size for k in kernels._kept] == [90, 80]
    for name in ("second", "third", "large", "first"):
        get(name)
    assert calls == [*sizes, "large", "first"]
    assert [k.made.size for k in kernels._kept] == [80, 100]  # the large one never was


def test_threads_may_ask_at_the_same_time(kernels, at_once):
    weights = [weight() + i for i in range(6)]

    def ask(seed):
        for i in np.random.default_rng(seed).integers(0, len(weights), 300):
            found = kernels.get(weights[i], ONE, lambda own: np.array([own.sum()]))
            assert found == weights[i].sum()

    at_once(ask, 3)


def test_a_memo_knows_the_very_array_and_transform_alone():
    memo, x, made = Memo(), weight(), weight()
    assert memo.get(x, ONE) is None
    memo.keep(x, ONE, made)
    assert memo.get(x, ONE) is made
    assert memo.get(x, OTHER) is memo.get(x.copy(), ONE) is memo.get(x[:], ONE) is None
    other = weight()
    memo.keep(other, ONE, made)  # the gradient's: the forward's stays
    assert memo.get(other, ONE) is None
    assert memo.get(x, ONE) is made


def test_a_memo_keeps_what_others_drop_and_knows_the_weight_by_its_bits(kernels, monkeypatch):
    memo, own, made = Memo(), weight(), weight()
    assert memo.kernel(own, ONE) is None
    memo.keep_kernel(kernels.keep(own, ONE, own.copy(), made))
    kernels._kept = ()
    assert memo.kernel(own, ONE).made is memo.kernel(own.copy(), ONE).made is made
    assert memo.kernel(own, OTHER) is memo.get(own, ONE) is None
    own[-1] += 1
    assert memo.kernel(own, ONE) is None
    own[-1] -= 1
    monkeypatch.setattr(kept, "MOST_OF_ONE", made.size - 1)
    assert kernels.keep(own, OTHER, own.copy(), made) is None  # too large


def test_images_that_were_changed_in_place_are_not_known_any_more():
    memo, x = Memo(), weight((2, 4, 6, 6))
    memo.keep(x, ONE, x)
    x *= 2
    assert memo.get(x, ONE) is None
