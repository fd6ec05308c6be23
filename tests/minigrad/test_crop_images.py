"""Batches out of bytes: `Backend.crop_images` against loops over pixels."""

import numpy as np
import pytest

from minigrad import backend
from minigrad.backend.base import Backend

EVERY_DEVICE = True


def squares(images, chosen, side, channels, given):
    """The same by loops: (N, channels, side, side) of (image, top, left, mirrored) each."""
    y = np.empty((len(chosen), channels, side, side), np.float32)
    for k, (i, top, left, mirrored) in enumerate(chosen):
        for h in range(side):
            for w in range(side):
                across = side - 1 - w if mirrored else w
                pixel = images[i][top + h, left + across]
                for c in range(channels):
                    value = np.float32(pixel[c if given > 1 else 0])
                    y[k, c, h, w] = value * np.float32(2 / 255) - np.float32(1)
    return y


def laid_out(images, chosen):
    """The bytes of all images one after another; of each chosen square offset, stride, mirror: (N, 3)."""
    starts = np.cumsum([0, *(image.size for image in images)])
    strides = [image.shape[1] * image.shape[2] for image in images]
    rows = [
        (starts[i] + top * strides[i] + left * images[i].shape[2], strides[i], mirrored)
        for i, top, left, mirrored in chosen
    ]
    memory = np.concatenate([image.reshape(-1) for image in images])
    return memory, np.array(rows, np.int64).reshape(-1, 3)


CHOSEN = [
    (1, 0, 0, False),
    (0, 0, 0, True),
    (2, 2, 1, False),
    (2, 0, 3, True),
    (1, 1, 0, True),
    (2, 3, 4, True),
]


@pytest.mark.parametrize(("given", "channels"), [(1, 1), (3, 3), (1, 3)])
def test_squares_are_cut_mirrored_and_scaled(given, channels):
    device, rng, side = backend.get(), np.random.default_rng(0), 7
    images = [rng.integers(0, 256, (h, w, given), np.uint8) for h, w in ((7, 7), (8, 7), (10, 11))]
    arrays = [device.asarray(a) for a in laid_out(images, CHOSEN)]
    y = device.crop_images(*arrays, side, channels, given)
    assert y.dtype == "float32"
    assert np.array_equal(device.to_numpy(y), squares(images, CHOSEN, side, channels, given))


def test_every_byte_has_its_number():
    device = backend.get()
    images = [np.arange(256, dtype=np.uint8).reshape(16, 16, 1)]  # (H, W, C)
    arrays = [device.asarray(a) for a in laid_out(images, [(0, 0, 0, False)])]
    y = device.to_numpy(device.crop_images(*arrays, 16, 1, 1)).reshape(-1)
    assert np.array_equal(y, np.arange(256, dtype=np.float32) * np.float32(2 / 255) - np.float32(1))
    assert (y[0], y[-1]) == (-1.0, 1.0)


@pytest.mark.parametrize("order", [slice(None, None, -1), slice(1, None, 2), slice(0, 0)], ids=str)
def test_what_is_chosen_may_lie_anyhow_in_memory(order):
    device, rng = backend.get(), np.random.default_rng(1)
    images = [rng.integers(0, 256, (9, 12, 3), np.uint8) for _ in range(3)]
    chosen = [(i % 3, i % 3, i % 6, i % 2 == 1) for i in range(11)]
    memory, where = (device.asarray(a) for a in laid_out(images, chosen))
    y = device.crop_images(memory, where[order], 6, 3, 3)
    assert np.array_equal(device.to_numpy(y), squares(images, chosen[order], 6, 3, 3))


def test_a_number_of_channels_that_can_not_be_is_told():
    device = backend.get()
    arrays = [device.asarray(a) for a in laid_out([np.zeros((2, 2, 4), np.uint8)], [(0, 0, 0, False)])]
    with pytest.raises(ValueError, match="crop_images: expected images of 1 or 3 channels, got 4"):
        device.crop_images(*arrays, 2, 3, 4)


def test_arrays_of_other_kinds_are_told():
    device = backend.get()
    memory, where = (device.asarray(a) for a in laid_out([np.zeros((2, 2, 1), np.uint8)], [(0, 0, 0, False)]))
    with pytest.raises(TypeError, match="crop_images: expected uint8 and int64, got uint8 and int32"):
        device.crop_images(memory, where.astype("int32"), 2, 1, 1)
    with pytest.raises(TypeError, match="got int8 and int64"):
        device.crop_images(memory.view("int8"), where, 2, 1, 1)
    with pytest.raises(ValueError, match=r"squares \(N, 3\), got \(4,\) and \(1, 2\)"):
        device.crop_images(memory, where[:, :2], 2, 1, 1)


def test_a_backend_has_the_references_form_where_it_has_none_of_its_own():
    assert type(backend.get("cpu")).crop_images is Backend.crop_images
