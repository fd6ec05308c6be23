"""The numbers that stand for black and white: known by their type, given with --range, or asked for."""

import tracemalloc
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan.arguments import value_range
from dcgan.data import arrays, scale, sources
from dcgan.errors import UserError

PICTURES = Path(__file__).parents[2] / "examples" / "pictures"
WIDE = [order + kind for kind in ("u2", "i2", "u4", "i4", "u8", "i8") for order in "<>"]
INTEGERS = ["u1", "i1", *WIDE]
FLOATS = [order + kind for kind in ("f2", "f4", "f8") for order in "<>"]


def originals():
    """Pictures (H, W, C) from 0 to 1: a soft gradient with noise, the same with hard edges, real ones."""
    y, x = np.mgrid[:36, :48]
    soft = 0.1 + 0.6 * x / 47 + 0.2 * y / 35 + np.random.default_rng(0).normal(0, 0.01, x.shape)
    soft[2:8, 2:8], soft[20:24, 30:34] = 0.02, 0.98
    hard = np.where((x - 24) ** 2 + (y - 18) ** 2 < 90, 1.0, np.where(x > y, soft, 0.0))
    colour = np.stack([soft, soft[::-1], hard], axis=2)
    found = [soft[..., None], hard[..., None], colour]
    for name in ("flux.png", "quick_1400.png", "tensorflow_3752.png"):
        with Image.open(PICTURES / name) as image:
            found.append(np.asarray(image.convert("RGB").crop((10, 10, 58, 46))) / 255)
    return found


@cache
def resampled():
    """Photographs (2, H, W, C) of about 0 to 1, larger and smaller than they were: filters overshoot."""
    found = []
    for kind in (Image.Resampling.BICUBIC, Image.Resampling.LANCZOS):
        for size in ((60, 44), (20, 16)):
            for picture in (*originals(), *(0.05 + 0.9 * picture for picture in originals())):
                layers = [Image.fromarray(layer.astype(np.float32)) for layer in np.moveaxis(picture, 2, 0)]
                image = np.stack([np.asarray(layer.resize(size, kind)) for layer in layers], axis=2)
                found.append(np.stack([image, image[::-1]]).astype(np.float64))
    return found


def right(photograph, white=255):
    """Return the whole numbers that a photograph of about 0 to 1 should become."""
    return np.rint(photograph.clip(0, 1) * white)


def levels_apart(found, photograph):
    """By how many grey levels an image is wrong."""
    return np.abs(found - right(photograph)).max()


def saved(directory, images, name="a.npy"):
    np.save(directory / name, images)
    return str(directory / name)


def refused(images):
    """Return the message about numbers of unknown scale."""
    with pytest.raises(ValueError, match="--range LOW,HIGH, such as --range ") as told:
        scale.to_bytes(images)
    return str(told.value)


# ---- by type ----


@pytest.mark.parametrize(
    ("numbers", "expected", "used"),
    [
        (np.array([0, 1, 255], "u1"), [0, 1, 255], (0, 255)),
        (np.array([0, 2], "u1"), [0, 2], (0, 255)),
        (np.array([0, 0], "u1"), [0, 0], (0, 255)),  # black on any scale
        (np.array([False, True]), [0, 255], (0, 1)),
        (np.array([False, False]), [0, 0], (0, 1)),
        (np.array([0, 127], "i1"), [0, 127], (0, 255)),
        (np.array([0, 14, 238], "u2"), [0, 14, 238], (0, 255)),
        (np.array([0, 255], ">i2"), [0, 255], (0, 255)),
        (np.array([0, 7, 255], "<i8"), [0, 7, 255], (0, 255)),
        (np.array([0, 7, 255], ">u4"), [0, 7, 255], (0, 255)),
        (np.array([0, 0.25, 1], "f4"), [0, 64, 255], (0, 1)),
        (np.array([0, 0.25, 1], ">f8"), [0, 64, 255], (0, 1)),
        (np.array([0, 0.25, 1], "f2"), [0, 64, 255], (0, 1)),
        (np.array([0, 0.0], "f4"), [0, 0], (0, 1)),
        (np.array([0, 0.5, 1.004], "f4"), [0, 128, 255], (0, 1)),
        (np.array([-0.004, 0.5, 1], "f8"), [0, 128, 255], (0, 1)),
        (np.array([-0.05, 0.5, 1.05], "f4"), [0, 128, 255], (0, 1)),
        (np.array([-1, -0.5, 0, 1], "f4"), [0, 64, 128, 255], (-1, 1)),
        (np.array([-1.05, 0, 1.05], "f8"), [0, 128, 255], (-1, 1)),
        (np.array([-0.5, 0.5], ">f2"), [64, 191], (-1, 1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_the_type_and_the_extremes_tell_the_scale(tmp_path, numbers, expected, used, name):
    images = np.broadcast_to(numbers[:, None, None], (len(numbers), 4, 4))
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "a.npz", images)
    found = sources.load(str(tmp_path / name), 4, 1)
    assert found.value_range == used
    assert found.images.dtype == np.uint8
    assert found.images[:, 0, 0, 0].tolist() == expected
    assert all(len(np.unique(image)) == 1 for image in found.images)
    (note,) = found.notes
    said = f"{len(numbers)} images of {name}, 4 x 4 grey, {used[0]} as black, {used[1]} as white"
    assert note.startswith(said)
    clipped = numbers.min() < used[0] or numbers.max() > used[1]
    assert ("of the numbers clipped" in note) == clipped


UNKNOWN = {
    "0..2": (np.array([0, 1.5, 2], "f4"), "0,2"),
    "0..100": (np.array([0, 99.6]), "0,100"),
    "0..255 as floats": (np.array([-0.3, 255.2], ">f4"), "0,255"),
    "too far over 1": (np.array([0, 1.051]), "0,1"),
    "too far below 0 and over 1": (np.array([-0.06, 1.06], "f2"), "0,1"),
    "too far below -1": (np.array([-1.051, 1]), "-1,1"),
    "constant": (np.array([255.5, 255.5]), "0,256"),
    "constant, negative": (np.array([-1.2, -1.2]), "-1,0"),
    "10 bits": (np.array([0, 1000], ">u2"), "0,1023"),
    "12 bits": (np.array([3, 4095], "u2"), "0,4095"),
    "16 bits": (np.array([0, 65535], "<u2"), "0,65535"),
    "20 bits": (np.array([0, 2**20 - 1], "<u4"), "0,1048575"),
    "signed bytes": (np.array([-128, 127], "i1"), "-128,127"),
    "one below 0": (np.array([-1, 255], "i8"), "-1,255"),
    "one over 255": (np.array([0, 256], "i4"), "0,511"),
    "all below 0": (np.array([-7, -7], "i4"), "-7,0"),
    "only zeros": (np.array([0, 0], "i4"), "0,1"),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_a_scale_that_is_unknown_is_asked_for(tmp_path, what):
    numbers, likely = UNKNOWN[what]
    name = saved(tmp_path, np.broadcast_to(numbers[:, None, None], (2 if len(numbers) == 2 else 3, 4, 4)))
    with pytest.raises(UserError) as told:
        sources.load(name, 4, 1)
    words = str(told.value)
    assert words.startswith(f"--data {name}: its numbers go from {numbers.min():g} to {numbers.max():g} (")
    assert words.endswith(f"with --range LOW,HIGH, such as --range {likely}")
    # The proposal works.
    low, high = value_range(likely)
    assert sources.load(name, 4, 1, (low, high)).value_range == (low, high)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_masks_of_zeros_and_ones_are_black_and_white_once_the_range_is_given(tmp_path, dtype):
    mask = np.random.default_rng(0).integers(0, 2, (5, 4, 4)).astype(dtype)
    assert "from 0 to 1 (" in refused(mask[..., None])
    assert refused(mask[..., None]).endswith("--range 0,1")
    found = sources.load(saved(tmp_path, mask), 4, 1, (0, 1))
    assert np.array_equal(found.images[..., 0], mask.astype(np.uint8) * np.uint8(255))
    assert found.notes == ["5 images of a.npy, 4 x 4 grey, 0 as black, 1 as white"]


def test_a_mask_is_known_from_the_last_number_alone(monkeypatch):
    monkeypatch.setattr(scale, "PART", 8)
    mask = np.zeros((5, 4, 4, 1), np.uint8)
    mask[-1, -1, -1] = 1
    refused(mask)
    mask[-1, -1, -1] = 2
    assert scale.to_bytes(mask)[0] is mask


# ---- photographs ----


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("black", [0, -1])
def test_resampled_photographs_in_floats_come_out_right_or_their_range_is_asked_for(dtype, black):
    known = 0
    for photograph in resampled():
        numbers = (photograph * (1 - black) + black).astype(dtype)
        found, used, about = outcome(numbers)
        if used == (black, 1):
            assert levels_apart(found, photograph) <= 1
            known += 1
        else:
            assert "--range" in about
        found, _, _ = scale.to_bytes(numbers, (black, 1))
        assert levels_apart(found, photograph) <= 1
    assert len(resampled()) / 3 < known < len(resampled())


def outcome(numbers):
    """Return the result of `to_bytes`, or (None, None, why) if it refuses."""
    try:
        return scale.to_bytes(numbers)
    except ValueError as error:
        return None, None, str(error)


@pytest.mark.parametrize("dtype", ["u1", *WIDE])
def test_resampled_photographs_in_integers_come_out_as_they_are(dtype):
    for photograph in resampled():
        found, used, _ = scale.to_bytes(right(photograph).astype(dtype))
        assert used == (0, 255)
        assert levels_apart(found, photograph) == 0


@pytest.mark.parametrize("dtype", WIDE)
@pytest.mark.parametrize("bits", [10, 12, 14, 15])
def test_photographs_of_more_than_8_bits_are_right_once_their_range_is_given(dtype, bits):
    white = 2**bits - 1
    for photograph in resampled()[::6]:
        numbers = right(photograph, white).astype(dtype)
        if numbers.max() > white // 2:
            assert refused(numbers).endswith(f"--range 0,{white}")
        assert levels_apart(scale.to_bytes(numbers, (0, white))[0], photograph) <= 1


def test_photographs_as_masks_are_black_and_white():
    for photograph in resampled():
        found, used, _ = scale.to_bytes(photograph > 0.5)
        assert used == (0, 1)
        assert np.array_equal(found == 255, photograph > 0.5)
        assert np.array_equal(found == 0, photograph <= 0.5)


def test_floats_hardly_below_0_are_said_to_be_taken_for_minus_1_to_1():
    photograph = np.linspace(-0.08, 0.98, 64).reshape(1, 8, 8, 1)
    _, used, about = scale.to_bytes(photograph)
    assert used == (-1, 1)
    assert about == "-1 as black, 1 as white (the lowest number is -0.08: give --range 0,1 if 0 is black)"
    assert levels_apart(scale.to_bytes(photograph, (0, 1))[0], photograph) == 0
    assert "give --range" not in scale.to_bytes(photograph, (-1, 1))[2]
    assert "give --range" not in scale.to_bytes(np.linspace(-0.9, 1, 64).reshape(1, 8, 8, 1))[2]


def test_every_16_bit_number_is_rounded_to_the_nearest_byte():
    for dtype in ("<u2", ">u2"):
        numbers = np.arange(65536, dtype=dtype).reshape(1, 256, 256, 1)
        found, _, _ = scale.to_bytes(numbers, (0, 65535))
        assert np.array_equal(found.reshape(-1), np.rint(np.arange(65536) / 257))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("black", [0, -1])
def test_every_byte_survives_being_a_float(dtype, black):
    scaled = (np.arange(256) / 255 * (1 - black) + black).astype(dtype).reshape(1, 16, 16, 1)
    found, _, _ = scale.to_bytes(scaled)
    # Half floats near -1 and 1 lie half a byte apart.
    assert np.abs(found.reshape(-1).astype(int) - np.arange(256)).max() <= (1 if dtype == "f2" else 0)


# ---- with --range ----

NUMBERS = st.floats(-1e300, 1e300) | st.floats(-10, 10) | st.integers(-(2**40), 2**40).map(float)
RANGES = st.tuples(NUMBERS, NUMBERS).filter(lambda pair: pair[0] != pair[1]).map(sorted).map(tuple)


@given(RANGES, st.lists(NUMBERS | st.floats(0, 1), min_size=1, max_size=30))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_range_maps_numbers_linearly_clipped_and_monotonically(value_range, numbers):
    low, high = value_range
    numbers = sorted([*numbers, *(low + share * (high - low) for share in numbers if 0 <= share <= 1)])
    found, used, about = scale.to_bytes(np.array(numbers).reshape(-1, 1, 1, 1), value_range)
    levels = found.reshape(-1).tolist()
    assert used == value_range
    assert levels == sorted(levels)
    for number, level in zip(numbers, levels, strict=True):
        inside = Fraction(min(max(number, low), high))
        exact = 255 * (inside - Fraction(low)) / (Fraction(high) - Fraction(low))
        assert abs(level - exact) <= Fraction(1, 2) + Fraction(1, 10**9)
    outside = sum(number < low or number > high for number in numbers)
    assert ("clipped" in about) == (outside > 0)


@given(st.integers(-300, 300), st.integers(1, 600), st.sampled_from(["?", *INTEGERS]), st.integers(0, 9))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_a_range_maps_integers_of_any_type_alike(low, width, dtype, seed):
    numbers = np.random.default_rng(seed).integers(-128, 256, (2, 3, 4, 1)).astype(dtype)
    found, _, _ = scale.to_bytes(numbers, (low, low + width))
    expected = (numbers.astype(np.float64).clip(low, low + width) - low) / width * 255
    assert np.abs(found - expected).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    ("outside", "said"), [(0, ""), (1, ", less than 0.01% of the numbers clipped"),
                          (3, ", 0.02% of the numbers clipped"), (16384, ", 100.00% of the numbers clipped")]
)  # fmt: skip
def test_the_share_of_clipped_numbers_is_said(tmp_path, outside, said):
    numbers = np.full(128 * 128, 2.0)
    numbers[:outside] = 9
    found = sources.load(saved(tmp_path, numbers.reshape(1, 128, 128)), 128, 1, (-1, 4095 / 1000))
    assert found.notes == [f"1 images of a.npy, 128 x 128 grey, -1 as black, 4.095 as white{said}"]


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f8"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("value_range", [None, (0, 1)])
def test_a_single_number_that_is_not_finite_is_told(monkeypatch, dtype, bad, value_range):
    monkeypatch.setattr(scale, "PART", 16)
    numbers = np.zeros((4, 4, 4, 1), dtype)
    numbers[2, 1, 3] = bad
    with pytest.raises(ValueError, match="it holds numbers that are not finite"):
        scale.to_bytes(numbers, value_range)


@pytest.mark.parametrize("dtype", ["c8", "U1", "M8[s]", "V3"])
def test_a_range_makes_no_images_of_what_is_no_number(dtype):
    with pytest.raises(ValueError, match="its numbers are .*: expected bytes or floats"):
        scale.to_bytes(np.zeros((1, 4, 4, 1), dtype), (0, 1))


# ---- memory ----


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (7, 3, 3, 1), (1, 9, 1, 4), (2, 1, 30, 3)])
@pytest.mark.parametrize("part", [1, 7, 24, 60, 10**6])
def test_images_are_the_same_whatever_is_converted_at_a_time(monkeypatch, shape, part):
    numbers = np.random.default_rng(0).normal(0, 0.4, shape).clip(-1.04, 1.02)
    numbers.flat[-1] = -1.04
    expected = np.rint((numbers.clip(-1, 1) + 1) / 2 * 255)
    monkeypatch.setattr(scale, "PART", part)
    for given_ in (numbers, np.asfortranarray(numbers), numbers[:, ::-1][:, ::-1]):
        found, used, _ = scale.to_bytes(given_)
        assert used == (-1, 1)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("value_range", [None, (0.0, 0.5)])
@pytest.mark.parametrize("shape", [(64, 64, 128, 1), (1, 4096, 128, 1)])
def test_a_mapped_file_is_never_in_memory_as_a_whole(tmp_path, monkeypatch, value_range, shape):
    monkeypatch.setattr(scale, "PART", 2**12)
    numbers = np.random.default_rng(0).random(shape)
    path = Path(saved(tmp_path, numbers))
    tracemalloc.start()
    try:
        found, _, _ = scale.to_bytes(arrays.read(path), value_range)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.nbytes == numbers.size
    assert most < found.nbytes + 8 * 8 * 2**12  # the result and some copies of a part


@pytest.mark.parametrize("value_range", [None, (0, 255)])
def test_a_mapped_file_of_bytes_stays_one(tmp_path, value_range):
    numbers = np.random.default_rng(0).integers(0, 256, (3, 4, 4)).astype(np.uint8)
    images = arrays.read(Path(saved(tmp_path, numbers)))
    assert scale.to_bytes(images, value_range)[0] is images
    assert isinstance(images.base, np.memmap) or isinstance(images, np.memmap)


def test_numbers_that_are_too_many_to_be_converted_are_told_before_they_are_read():
    endless = np.broadcast_to(np.float32(0), (2**22, 16, 17, 1))
    with pytest.raises(ValueError, match="bytes of float32: expected 4294967296 at most; save it as uint8"):
        scale.to_bytes(endless)
    endless = np.broadcast_to(np.uint8(0), (2**25, 16, 17, 1))
    with pytest.raises(ValueError, match="bytes of uint8: expected 4294967296 at most"):
        scale.to_bytes(endless, (0, 1))
