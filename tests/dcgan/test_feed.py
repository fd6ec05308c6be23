"""The feed: on every device the batches of `Batches.batch`, bit for bit, and how they get there."""

import numpy as np
import pytest
from foreign import BoxedArray, ForeignBackend, opened
from loading import load_batches

import minigrad as mg
from dcgan import presets
from dcgan.data import feed
from dcgan.data.batches import Batches
from dcgan.data.decoded import Decoded
from dcgan.data.feed import Feed
from minigrad import backend

CROPS = {"crop": "random_or_center", "flip": 0.5}
DEVICES = ["foreign", pytest.param("gpu", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def foreign(monkeypatch):
    """The foreign device; its arrays get the one operator more that `Backend.crop_images` needs."""
    monkeypatch.setattr(BoxedArray, "__mod__", lambda a, b: BoxedArray(a.inside % opened(b)), raising=False)
    backend.register("foreign", ForeignBackend)
    yield
    backend._factories.pop("foreign")
    backend._backends.pop("foreign", None)


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def decoded(channels, in_memory=2**30):
    """Images of many sizes, their shorter side 6: the half of them in a file, where `in_memory` is small."""
    images = Decoded(in_memory)
    for i, (more, upright) in enumerate(((0, 0), (1, 0), (2, 1), (7, 0), (7, 1), (3, 1), (40, 0))):
        shape = (6 + more, 6) if upright else (6, 6 + more)
        images.append(noise(*shape, channels, seed=i))
    return images


def made(images, batch_size=4, **options):
    return Batches(images, batch_size, mg.Generator(5, 2), **options)


def steps(batches, epochs=3):
    return range(1, epochs * batches.per_epoch + 1)


@pytest.fixture
def uploads(device, monkeypatch):
    """What goes to the device: the shape and dtype of each host array."""
    gone = []
    kind = type(backend.get(device))
    asarray = kind.asarray

    def watched(self, data, dtype=None):
        if isinstance(data, np.ndarray):
            gone.append((data.shape, str(data.dtype)))
        return asarray(self, data, dtype)

    monkeypatch.setattr(kind, "asarray", watched)
    return gone


def no_more_than(monkeypatch, device, free):
    monkeypatch.setattr(type(backend.get(device)), "free_memory", lambda self: free)


SETS = {
    "grey (n, H, W)": (lambda: noise(10, 6, 6), {}),
    "grey (n, H, W, 1)": (lambda: noise(10, 6, 6, 1), {}),
    "grey, mirrored": (lambda: noise(10, 6, 6), {"flip": 0.5}),
    "grey as RGB": (lambda: noise(10, 6, 6), {"channels": 3, "flip": 0.5}),
    "grey (n, H, W, 1) as RGB": (lambda: noise(10, 6, 6, 1), {"channels": 3}),
    "grey as grey": (lambda: noise(10, 6, 6), {"channels": 1}),
    "RGB": (lambda: noise(10, 6, 6, 3), {"channels": 3}),
    "RGB, in the one order": (lambda: noise(10, 6, 6, 3), {"channels": 3, "shuffle": "once"}),
    "grey with alpha": (lambda: noise(10, 6, 6, 2), {"channels": 2, "flip": 0.5}),
    "RGB with alpha": (lambda: noise(10, 6, 6, 4), {"channels": 4, "flip": 0.5}),
    "wide, the centre": (lambda: noise(10, 6, 11, 3), {"channels": 3, "crop": "center"}),
    "tall, the centre": (lambda: noise(10, 12, 6), {"crop": "center"}),
    "wide, anywhere": (lambda: noise(10, 6, 11), {**CROPS, "channels": 3}),
    "tall, anywhere": (lambda: noise(10, 9, 6, 3), CROPS),
    "RGB of many sizes": (lambda: decoded(3), {**CROPS, "channels": 3}),
    "RGB of many sizes, some in a file": (lambda: decoded(3, 500), {**CROPS, "channels": 3}),
    "grey of many sizes as RGB": (lambda: decoded(1), {**CROPS, "channels": 3}),
    "many sizes, the centre": (lambda: decoded(3), {"crop": "center", "channels": 3}),
    "a list": (lambda: [noise(6, 6, 3, seed=i) for i in range(10)], {"channels": 3}),
    "reversed in memory": (lambda: noise(10, 6, 7, 3)[::-1, ::-1, ::-1], CROPS),
    "channels first in memory": (lambda: noise(10, 3, 6, 8).transpose(0, 2, 3, 1), CROPS),
}
ALL_SETS = pytest.mark.parametrize(("images", "options"), SETS.values(), ids=SETS)


@ALL_SETS
def test_on_the_cpu_the_feed_gives_the_batches_as_they_are(images, options):
    batches = made(images(), **options)
    given = Feed(batches, "cpu")
    assert not given.on_device
    for step in steps(batches, 1):
        tensor = given(step)
        assert (tensor.device, tensor.requires_grad) == ("cpu", False)
        assert np.array_equal(tensor.numpy(), batches.batch(step))


@ALL_SETS
def test_on_a_device_the_batches_are_the_same_bit_for_bit(device, images, options):
    batches = made(images(), **options)
    given = Feed(batches, device)
    assert given.on_device
    sizes = []
    for step in steps(batches):
        tensor, expected = given(step), batches.batch(step)
        assert (tensor.device, tensor.requires_grad) == (device, False)
        assert (str(tensor.dtype), tensor.shape) == ("float32", expected.shape)
        assert np.array_equal(tensor.numpy(), expected)
        sizes.append(len(expected))
    rest = len(batches.images) % 4
    assert sizes == 3 * [
        *[4] * (len(batches.images) // 4),
        rest,
    ]  # the last batch of an epoch is what is left
    assert 0 < rest < 4


@ALL_SETS
def test_squares_that_no_chance_moves_are_known_before(device, images, options):
    batches = made(images(), **options)
    given = Feed(batches, device)
    assert (given._fixed is None) == batches.shows_at_random
    for step in steps(batches):
        expected = given._squares_of(batches.chosen(step), step)
        assert np.array_equal(given._squares(step), expected)
        assert len(expected) == batches.count(step)


def test_a_step_may_be_asked_for_again_and_in_any_order(device):
    batches = made(decoded(3), **CROPS)
    given = Feed(batches, device)
    for step in (5, 1, 5, 2):
        assert np.array_equal(given(step).numpy(), batches.batch(step))


def test_a_batch_is_a_new_one_each_time(device):
    given = Feed(made(noise(4, 6, 6)), device)
    first = given(1)
    before = first.numpy().copy()
    again = given(1)
    again.data[...] = 0.0
    assert np.array_equal(first.numpy(), before)
    assert np.array_equal(given(1).numpy(), before)


@pytest.mark.parametrize("images", [noise(10, 6, 9, 3), decoded(3)], ids=["an array", "many sizes"])
def test_the_images_are_copied_once_and_then_only_the_places_travel(device, uploads, images):
    batches = made(images, **CROPS)
    given = Feed(batches, device)
    assert uploads == [((sum(image.size for image in images),), "uint8")]
    uploads.clear()
    for step in steps(batches, 1):
        given(step)
    whole, rest = divmod(len(images), 4)
    assert uploads == [*[((4, 3), "int64")] * whole, ((rest, 3), "int64")]


def test_what_becomes_of_the_host_s_images_later_changes_nothing(device):
    images = noise(8, 6, 6)
    batches = made(images)
    given, expected = Feed(batches, device), batches.batch(1)
    images[...] = 0
    assert np.array_equal(given(1).numpy(), expected)


@pytest.mark.parametrize("bytes_at_a_time", [1, 100, 101, 108, 250, 1079, 1080, 10**6])
def test_a_large_set_goes_in_pieces(device, uploads, monkeypatch, bytes_at_a_time):
    images = noise(10, 6, 6, 3)  # 108 bytes each
    monkeypatch.setattr(feed, "PIECE", bytes_at_a_time)
    batches = made(images, channels=3)
    given = Feed(batches, device)
    together = min(-(-bytes_at_a_time // 108), 10)  # images of a piece
    sizes = [108 * min(together, 10 - i) for i in range(0, 10, together)]
    assert uploads == [((size,), "uint8") for size in sizes]
    for step in steps(batches, 1):
        assert np.array_equal(given(step).numpy(), batches.batch(step))


def test_images_of_many_sizes_go_in_pieces_too(device, uploads, monkeypatch):
    monkeypatch.setattr(feed, "PIECE", 200)
    batches = made(decoded(3), **CROPS)
    given = Feed(batches, device)
    sizes = [size for (size,), _ in uploads]
    assert len(sizes) > 2
    assert min(sizes[:-1]) >= 200
    assert sum(sizes) == sum(image.size for image in batches.images)
    for step in steps(batches):
        assert np.array_equal(given(step).numpy(), batches.batch(step))


@pytest.mark.parametrize(("free", "fits"), [(None, True), (2 * 360, True), (2 * 360 - 1, False), (0, False)])
def test_half_of_the_free_memory_may_be_the_images(device, uploads, monkeypatch, free, fits):
    no_more_than(monkeypatch, device, free)
    batches = made(noise(10, 6, 6))
    given = Feed(batches, device)
    assert given.on_device == fits
    assert uploads == ([((360,), "uint8")] if fits else [])
    assert np.array_equal(given(1).numpy(), batches.batch(1))


@ALL_SETS
def test_where_the_memory_is_too_small_each_batch_is_copied(device, uploads, monkeypatch, images, options):
    no_more_than(monkeypatch, device, 100)
    batches = made(images(), **options)
    given = Feed(batches, device)
    assert not given.on_device
    assert uploads == []
    for step in steps(batches, 1):
        uploads.clear()
        tensor, expected = given(step), batches.batch(step)
        assert tensor.device == device
        assert uploads == [(expected.shape, "float32")]
        assert np.array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("images", [noise(10, 6, 9), noise(10, 9, 6, 3), [noise(6, 8, 3)] * 5])
def test_images_that_are_no_squares_and_are_not_cropped_are_copied_batch_by_batch(device, images):
    batches = made(images, flip=0.5)
    given = Feed(batches, device)
    assert not given.on_device
    for step in steps(batches, 1):
        assert np.array_equal(given(step).numpy(), batches.batch(step))


def test_squares_of_several_sizes_are_no_batch_on_any_device(device):
    images = [noise(6, 6, seed=1), noise(7, 7, seed=2)]
    given = Feed(made(images, 1, crop="center"), device)
    assert not given.on_device
    assert {given(step).shape for step in (1, 2)} == {(1, 1, 6, 6), (1, 1, 7, 7)}
    with pytest.raises(ValueError, match="same shape"):
        Feed(made(images, 2, crop="center"), device)(1)


def test_a_recipe_s_own_images_are_fed(device, few_digits):
    batches = load_batches(presets.get("pytorch", image_size=32, batch_size=8), None)
    given = Feed(batches, device)
    assert given.on_device
    for step in (1, 2, 25, 26):
        tensor = given(step)
        assert tensor.shape == (8, 3, 32, 32)
        assert np.array_equal(tensor.numpy(), batches.batch(step))


def test_an_unknown_device_is_told():
    with pytest.raises(ValueError, match="unknown device 'tpu'"):
        Feed(made(noise(4, 6, 6)), "tpu")
