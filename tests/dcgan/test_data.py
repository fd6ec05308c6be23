"""MNIST as it comes with the package, and the batches made of a set of images."""

import hashlib
import lzma

import numpy as np
import pytest

import minigrad as mg
from dcgan.data import mnist
from dcgan.data.batches import Batches
from dcgan.errors import UserError


def test_mnist_is_whole():
    images, labels = mnist.images("train"), mnist.labels("train")
    assert images.shape == (60_000, 28, 28)
    assert images.dtype == np.uint8
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    header = b"\0\0\x08\x03" + np.array(images.shape, ">u4").tobytes()
    raw = hashlib.md5(header + images.tobytes()).hexdigest()
    assert raw == "6bbc9ace898e44ae57da46a324031adb"


def test_the_test_set_is_whole():
    assert mnist.images("test").shape == (10_000, 28, 28)
    assert np.bincount(mnist.labels("test")).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


def test_an_unknown_split_is_told():
    with pytest.raises(ValueError, match='expected the split "train" or "test", got \'valid\''):
        mnist.images("valid")


@pytest.mark.parametrize("content", [b"", b"not xz at all", lzma.compress(b"\0\0\x08\x01\0\0\0\x01\x07")])
def test_a_damaged_file_is_told(monkeypatch, tmp_path, content):
    monkeypatch.setattr(mnist.resources, "files", lambda package: tmp_path)
    (tmp_path / "mnist_files").mkdir()
    (tmp_path / "mnist_files" / "train-labels-idx1-ubyte.xz").write_bytes(content)
    with pytest.raises(UserError, match=r"MNIST: .*train-labels-idx1-ubyte.xz .*install dcgan again"):
        mnist.labels("train")


def numbered(n, batch_size, seed=0):
    """Images that hold their own number in every pixel."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None], (n, 2, 3))
    return Batches(images, batch_size, mg.Generator(seed, 2))


def shown(batches, step):
    return np.rint((batches.batch(step)[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    batches = numbered(50, 8)
    assert batches.per_epoch == 7
    orders = [[i for step in range(7) for i in shown(batches, 7 * epoch + step + 1)] for epoch in range(3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [batches.epoch_of(step) for step in (1, 7, 8, 14, 15)] == [1, 1, 2, 2, 3]


def test_a_batch_is_a_function_of_the_seed_and_the_step():
    forwards, backwards = numbered(50, 8), numbered(50, 8)
    expected = [shown(forwards, step) for step in range(1, 30)]
    found = [shown(backwards, step) for step in range(29, 0, -1)]
    assert expected == found[::-1]
    assert expected != [shown(numbered(50, 8, seed=1), step) for step in range(1, 30)]


def test_the_last_batch_holds_what_is_left():
    assert [len(shown(numbered(50, 8), step)) for step in (6, 7, 8, 14)] == [8, 2, 8, 2]


def test_pixels_go_from_minus_one_to_one_with_channels_first():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    images[:, 1, 2, 0] = 255
    batch = Batches(images, 2, mg.Generator(0)).batch(1)
    assert batch.shape == (2, 3, 4, 5)
    assert batch.dtype == np.float32
    assert batch[0, 0, 1, 2] == 1.0
    assert batch.min() == -1.0
