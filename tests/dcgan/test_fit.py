"""Every mode of an image in every recipe: its scale, its channels, and the memory that this takes."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan.data import fit, folder, imagefiles
from dcgan.data.fit import fit_image
from dcgan.errors import UserError

DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa", "La")
MODES = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", *WITH_ALPHA, *DEEP)
WHITE = {
    "1": 255, "L": 255, "P": 255, "RGB": (255,) * 3, "RGBX": (255,) * 4, "CMYK": (0,) * 4,
    "YCbCr": (255, 128, 128), "LAB": (255, 128, 128), "HSV": (0, 0, 255), "LA": (255, 255), "PA": (255, 255),
    "RGBA": (255,) * 4, "RGBa": (255,) * 4, "La": (255, 255), "I": 65535, "F": 1.0, "I;16": 65535,
    "I;16L": 65535, "I;16B": 65535, "I;16N": 65535,
}  # fmt: skip


def painted(mode, size, value):
    """An image of one value; a palette has grey."""
    image = Image.new(mode, size)
    if mode in ("P", "PA"):
        image.putpalette(bytes(v for grey in range(256) for v in (grey,) * 3))
    image.paste(value, (0, 0, *size))
    if mode == "I":
        image.format = "PNG"
    return image


def noise(mode, size, seed=0):
    """An image of random pixels of any mode."""
    width, height = size
    dtype = {"I": np.int32, "F": np.float32}.get(mode, np.uint16 if mode in DEEP else np.uint8)
    depth = 1 if mode in DEEP else max(1, len(Image.new(mode, (1, 1)).getbands()))
    rng = np.random.default_rng(seed)
    values = rng.random((height, width)) if mode == "F" else rng.integers(0, 256, (height, width, depth))
    if mode in DEEP and mode != "F":
        values = values * 257
    image = Image.frombytes(mode, size, values.astype(dtype).tobytes()) if mode not in ("1", "PA") else None
    if mode == "YCbCr":  # most of its values are no colours
        return noise("RGB", size, seed).convert(mode)
    if mode == "1":
        image = Image.fromarray(values[..., 0] > 127)
    if mode == "PA":
        image = Image.merge("PA", [Image.fromarray(values[..., i].astype(np.uint8)) for i in range(2)])
    if mode in ("P", "PA"):
        image.putpalette(np.random.default_rng(1).integers(0, 256, 768).astype(np.uint8).tobytes())
    if mode == "I":
        image.format = "PNG"
    return image


# ---- modes ----


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_white_is_white_in_every_mode_and_recipe(mode, channels):
    for size in (12, 5):
        found = fit_image(painted(mode, (12, 20), WHITE[mode]), size, channels)
        assert found.shape == (int(size * 20 / 12), size, channels)
        assert found.min() >= 254  # LAB rounds


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", MODES)
def test_an_image_turns_into_any_recipe_as_its_rgb_with_alpha_does(mode, channels):
    image = noise(mode, (9, 14))
    whole = Image.fromarray(fit_image(image, 9, 4))
    assert len(np.unique(np.asarray(whole)[..., :3])) > (1 if mode == "1" else 50)
    found, expected = fit_image(image, 9, channels), fit_image(whole, 9, channels)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "LA", "RGBA", "I;16"])
def test_a_tiff_of_any_mode_is_read_in_every_recipe(tmp_path, mode, channels):
    image = noise(mode, (9, 14))
    image.save(tmp_path / "a.tif", compression="tiff_adobe_deflate")
    images, notes = folder.read(tmp_path, 9, channels)
    # libtiff turns YCbCr into RGB itself, and rounds otherwise
    assert np.abs(images[0].astype(int) - fit_image(image, 9, channels)).max() <= (mode == "YCbCr")
    assert notes[0].startswith("1 image is ")


def test_lab_is_made_grey_from_its_colours():
    image = noise("LAB", (9, 14))
    assert np.array_equal(fit_image(image, 9, 1), fit_image(image.convert("RGB"), 9, 1))
    assert np.array_equal(fit_image(image, 9, 3), np.asarray(image.convert("RGB")))


# ---- the scale of what has more than 8 bits ----


def greys(values, dtype, kind=None, value_range=None):
    image = Image.fromarray(np.array([values], dtype))
    image.format = kind
    return fit_image(image, 1, 1, value_range).reshape(-1).tolist()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 0.25, 0.5, 1], [0, 64, 128, 255]),
        ([0, 0.001, 0.002, 0.1], [0, 0, 1, 26]),  # dark
        ([-0.05, -0.004, 1.004, 1.05], [0, 0, 255, 255]),  # a resize overshot
        ([np.nan, 0, 0.5, 1], [0, 0, 128, 255]),
        ([np.nan, np.nan, np.nan, np.nan], [0, 0, 0, 0]),
    ],
)
def test_floats_near_0_to_1_go_from_black_to_white(values, expected):
    assert greys(values, np.float32) == expected


@pytest.mark.parametrize(
    ("dtype", "values", "said"),
    [
        (np.float32, [0, 1, 2, 255], "0 to 255: expected floats from 0 to 1"),
        (np.float32, [0, 1, 1, 1.06], "0 to 1.06: expected floats from 0 to 1"),
        (np.float32, [-0.06, 1, 1, 1], "-0.06 to 1: expected floats from 0 to 1"),
        (np.float32, [0, 0, 0, np.inf], "0 to inf: expected floats from 0 to 1"),
        (np.float32, [np.nan, 3, 9, 5], "3 to 9: expected floats from 0 to 1"),
        (np.int32, [0, 1, 1, 255], "0 to 255: expected 8 or 16 bits"),
        (np.int32, [-5, 0, 2, 70000], "-5 to 70000: expected 8 or 16 bits"),
    ],
)
def test_other_scales_are_never_guessed(dtype, values, said):
    with pytest.raises(ValueError, match=r"; give the values of black and white as --range LOW,HIGH") as told:
        greys(values, dtype)
    assert f"its numbers go from {said};" in str(told.value)


@pytest.mark.parametrize(
    ("dtype", "values", "value_range", "expected"),
    [
        (np.float32, [0, 1.5, 127.6, 255], (0, 255), [0, 2, 128, 255]),
        (np.float32, [-1, 300, 10, 20], (0, 255), [0, 255, 10, 20]),
        (np.float32, [-1, 0, 0.5, 1], (-1, 1), [0, 128, 191, 255]),
        (np.float32, [-np.inf, np.inf, -3.4e38, np.nan], (-4, 4), [0, 255, 0, 0]),
        (np.float32, [0, 0.25, 0.5, 1], (0, 1), [0, 64, 128, 255]),
        (np.int32, [0, 1, 128, 255], (0, 255), [0, 1, 128, 255]),
        (np.int32, [-5, 0, 2**31 - 1, 514], (0, 65535), [0, 0, 255, 2]),
        (np.int32, [-1000, -500, 0, 1000], (-1000, 1000), [0, 64, 128, 255]),
        (np.uint16, [0, 4095, 2048, 65535], (0, 4095), [0, 255, 128, 255]),
    ],
)
def test_a_range_names_black_and_white(dtype, values, value_range, expected):
    assert greys(values, dtype, value_range=value_range) == expected


def test_a_range_leaves_images_of_8_bits_alone():
    for mode in MODES:
        if mode not in DEEP:
            image = noise(mode, (9, 14))
            assert np.array_equal(fit_image(image, 9, 3, (0, 1000)), fit_image(image, 9, 3))


@pytest.mark.parametrize("kind", ["PNG", "PPM"])
def test_16_bits_in_32_keep_the_scale_of_16(kind):
    assert greys([0, 1, 255, 257], np.int32, kind) == greys([0, 1, 255, 257], np.uint16) == [0, 0, 1, 1]


def test_a_dark_image_keeps_the_scale_of_its_neighbours(tmp_path):
    for name, white in (("a", 1.0), ("b", 0.2)):
        Image.fromarray(np.full((4, 4), white, np.float32)).save(tmp_path / f"{name}.tif")
    for name, white in (("c", 65535), ("d", 200)):
        Image.fromarray(np.full((4, 4), white, np.uint16)).save(tmp_path / f"{name}.png")
    assert [int(image[0, 0, 0]) for image in folder.read(tmp_path, 4, 1)[0]] == [255, 51, 255, 1]


def test_a_folder_whose_scale_is_unknown_asks_for_the_range_and_takes_it(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((4, 4), 50.0 * i, np.float32)).save(tmp_path / f"{i}.tif")
    with pytest.raises(UserError, match=r"2 of 3 .*: 1\.tif \(.* 50 to 50: .*--range LOW,HIGH\), 2\.tif"):
        folder.read(tmp_path, 4, 1)
    images, notes = folder.read(tmp_path, 4, 1, (0, 100))
    assert [int(image[0, 0, 0]) for image in images] == [0, 128, 255]
    assert notes == ["3 images are grey"]
    last = folder.PathFile(tmp_path / "2.tif", "2.tif")
    assert np.all(imagefiles.decode(last, 4, 1, value_range=(0, 200))[0] == 128)


# ---- blocks ----


@given(
    st.sampled_from(MODES), st.sampled_from([1, 3]), st.integers(1, 90), st.integers(1, 90),
    st.integers(1, 12), st.sampled_from([1, 7, 32, 100]),
)  # fmt: skip
@settings(max_examples=150, deadline=None, derandomize=True)
def test_blocks_give_the_bits_of_the_whole(mode, channels, width, height, size, block):
    image = noise(mode, (min(width, 16 * height), min(height, 16 * width)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "LARGE", 2**30)
        patch.setattr(fit, "BLOCK", 2**12)
        whole = fit_image(image, size, channels)
        patch.setattr(fit, "LARGE", 0)
        patch.setattr(fit, "BLOCK", block)
        assert np.array_equal(fit_image(image, size, channels), whole)


@pytest.mark.parametrize("channels", [2, 4])
def test_blocks_with_alpha_look_like_the_whole(monkeypatch, channels):
    y, x = np.mgrid[:300, :400]
    pixels = np.stack([x // 2, y // 2, (x + y) // 3, 255 - x // 3], -1).astype(np.uint8)
    image = Image.fromarray(pixels)
    whole = fit_image(image, 12, channels).astype(int)
    monkeypatch.setattr(fit, "LARGE", 0)
    monkeypatch.setattr(fit, "BLOCK", 64)
    assert np.abs(fit_image(image, 12, channels) - whole).max() <= 3


def test_of_a_long_image_in_blocks_the_middle_is_kept(monkeypatch):
    monkeypatch.setattr(fit, "LARGE", 0)
    pixels = np.zeros((30, 3001), np.uint8)
    pixels[:, 1500 - 240 : 1500 + 241] = 255
    for image in (pixels, pixels.T):
        found = fit_image(Image.fromarray(np.ascontiguousarray(image)), 2, 1)
        assert max(found.shape) == 32
        assert np.all(found == 255)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_the_arrays_of_a_deep_image_are_those_of_a_block(monkeypatch, mode):
    monkeypatch.setattr(fit, "BLOCK", 64)
    image = painted(mode, (1024, 1024), 1)
    tracemalloc.start()
    try:
        fit_image(image, 64, 3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 400_000  # of a million pixels: less than a byte for each
