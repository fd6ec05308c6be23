"""Folders of images: which files count, how each becomes pixels of a recipe, and what damage is told."""

import errno
import io
import os
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dcgan.data import decoded, folder, imagefiles
from dcgan.data.channels import MODES, NAMES, conversion
from dcgan.data.fit import MAX_ASPECT_RATIO, fit_array, fit_image
from dcgan.errors import UserError


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def picture(pixels, mode=None):
    """An image of the pixels; of another mode than they suggest where it has as many bytes."""
    pixels = np.ascontiguousarray(pixels)
    if mode is None:
        return Image.fromarray(pixels)
    return Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes())


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else picture(image)).save(path, **options)
    return path


def grey(path, value, size=4):
    return save(path, np.full((size, size), value, np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width, height, depth, colour, rows, *chunks):
    """A PNG file of the unfiltered rows, whatever its header says."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + b"".join(chunks) + body + chunk(b"IEND", b"")


def values_of(folder_, size=4):
    """The grey of each image, in the order they are read."""
    return [int(image[0, 0, 0]) for image in folder.read(folder_, size, 1)[0]]


def only(path, size, channels):
    """The pixels of the only image in the file's folder, and what is said of it."""
    images, notes = folder.read(path.parent, size, channels)
    assert len(images) == len(notes) == 1
    return images[0], notes[0]


# ---- which files ----


def test_images_are_found_at_any_depth_in_the_order_of_their_names(tmp_path):
    names = ["10.png", "9.png", "a/x.png", "a/b/c/d/e.png", "b/x.png", "Z/x.png", "a/a.png"]
    for value in (3, 6, 0, 5, 1, 4, 2):  # not in the order of their names
        grey(tmp_path / names[value], value)
    found = [path.relative_to(tmp_path).as_posix() for path in folder.find(tmp_path)[0]]
    assert found == ["10.png", "9.png", "Z/x.png", "a/a.png", "a/x.png", "a/b/c/d/e.png", "b/x.png"]
    assert values_of(tmp_path) == [0, 1, 5, 6, 2, 3, 4]


def test_the_order_does_not_depend_on_how_many_threads_decode(tmp_path, monkeypatch):
    for value in range(40):
        grey(tmp_path / f"{value:02}.png", value, size=4 + (40 - value) * 8)  # the first take longest
    many = values_of(tmp_path)
    monkeypatch.setattr(imagefiles, "WORKERS", 1)
    assert many == values_of(tmp_path) == list(range(40))


def test_hidden_files_and_folders_and_other_files_are_passed_over(tmp_path):
    grey(tmp_path / "seen.png", 1)
    for name in (".hidden.png", ".git/a.png", "__MACOSX/._seen.png", "a/.thumbnails/b/c.png"):
        grey(tmp_path / name, 2)
    for name in ("labels.csv", "film.mpg", "features.h5", "logo.eps", "a/README", "png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    images, notes = folder.read(tmp_path, 4, 1)
    assert [image.tolist() for image in images] == [np.full((4, 4, 1), 1).tolist()]
    assert notes == ["1 image is grey"]


@pytest.mark.parametrize("name", ["a.PNG", "b.Jpeg", "c d.png", "é.png", "x.y.png", "-.png", "%s{0}.png"])
def test_a_name_is_only_asked_for_its_ending(tmp_path, name):
    (tmp_path / name).write_bytes(encoded(picture(np.full((4, 4), 7, np.uint8)), "PNG"))
    assert values_of(tmp_path) == [7]


def test_no_image_is_told_with_what_there_is_instead(tmp_path):
    with pytest.raises(UserError) as told:
        folder.read(tmp_path, 4, 1)
    assert str(told.value) == f"--data {tmp_path}: no image in it or in its subfolders, which hold no file"
    for name in ("a.txt", "b/c.TXT", "b/d.mp4", "LICENSE", ".e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no image .*, but other files \(2 \.txt, 1 .*\)\. Expected files such"
    ) as told:
        folder.read(tmp_path, 4, 1)
    assert "1 .mp4" in str(told.value)
    assert "1 no ending" in str(told.value)


# ---- which kinds of files ----

LOSSLESS = {
    "bmp": ("BMP", {}), "dib": ("DIB", {}), "ico": ("PNG", {}), "j2k": ("JPEG2000", {}), "pcx": ("PCX", {}),
    "png": ("PNG", {}), "ppm": ("PPM", {}), "sgi": ("SGI", {}), "tga": ("TGA", {}),
    "tif": ("TIFF", {}), "tiff": ("TIFF", {"compression": "tiff_lzw"}), "webp": ("WEBP", {"lossless": True}),
}  # fmt: skip


@pytest.mark.parametrize("ending", LOSSLESS)
def test_files_without_loss_give_their_pixels(tmp_path, ending):
    pixels = noise(16, 24)
    kind, options = LOSSLESS[ending]
    image, note = only(save(tmp_path / f"a.{ending}", pixels, format=kind, **options), 16, 3)
    assert np.array_equal(image, pixels)
    assert image.dtype == np.uint8
    assert note == "1 image is RGB"


@pytest.mark.parametrize(("kind", "ending"), [("JPEG", "jpg"), ("WEBP", "webp")])
def test_files_with_loss_give_nearly_their_pixels(tmp_path, kind, ending):
    y, x = np.mgrid[:32, :48]
    pixels = np.stack([4 * x, 6 * y, 200 - 2 * x - y], -1).astype(np.uint8)
    image, _ = only(save(tmp_path / f"a.{ending}", pixels, format=kind, quality=95), 32, 3)
    assert np.abs(image.astype(int) - pixels).mean() < 4


def test_of_several_frames_the_first_counts(tmp_path):
    frames = [picture(np.full((8, 8), value, np.uint8)) for value in (40, 120, 200)]
    for kind in ("GIF", "TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        place = tmp_path / kind / f"a.{kind.lower()}"
        save(place, frames[0], save_all=True, append_images=frames[1:], **options)
        with Image.open(place) as image:
            assert image.n_frames == 3
        assert np.all(only(place, 8, 1)[0] == 40)


# ---- modes ----


@pytest.mark.parametrize("channels", [1, 3])
def test_every_16_bit_grey_is_rounded_to_8_bits(tmp_path, channels):
    values = np.arange(65536).reshape(256, 256)
    expected = np.rint(values / 257).astype(np.uint8)[..., None].repeat(channels, axis=2)
    for name, dtype in (("a.png", np.uint16), ("b.tif", np.uint16)):
        image, note = only(save(tmp_path / name[0] / name, values.astype(dtype)), 256, channels)
        assert np.array_equal(image, expected)
        assert note == (
            "1 image is grey" if channels == 1 else "1 image is grey: made RGB (three equal channels)"
        )


def test_a_transparent_16_bit_grey_is_laid_on_white(tmp_path):
    rows = [struct.pack(">HH", 0, 65535), struct.pack(">HH", 1000, 32768)]
    content = png(
        2, 2, 16, 0, rows, struct.pack(">I", 2) + b"tRNS\0\0" + struct.pack(">I", zlib.crc32(b"tRNS\0\0"))
    )
    (tmp_path / "a.png").write_bytes(content)
    image, note = only(tmp_path / "a.png", 2, 1)
    assert image[..., 0].tolist() == [[255, 255], [4, 128]]
    assert note == "1 image is grey with alpha: laid on white"
    assert only(tmp_path / "a.png", 2, 2)[0].tolist() == [[[0, 0], [255, 255]], [[4, 255], [128, 255]]]


def every_grey_with_every_alpha():
    """Grey along the rows, alpha along the columns, and what they are on white."""
    value, alpha = np.meshgrid(np.arange(256), np.arange(256))
    return value, alpha, np.rint((value * alpha + 255 * (255 - alpha)) / 255).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_laid_on_white(tmp_path, mode, channels):
    value, alpha, on_white = every_grey_with_every_alpha()
    pixels = np.stack([value] * (len(mode) - 1) + [alpha], -1).astype(np.uint8)
    image, note = only(save(tmp_path / "a.png", picture(pixels, mode)), 256, channels)
    assert np.array_equal(image, on_white[..., None].repeat(channels, axis=2))
    assert "laid on white" in note


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 128])])
def test_a_palette_may_have_transparency(tmp_path, transparency):
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250])
    found, note = only(save(tmp_path / "a.png", image, transparency=transparency), 1, 3)
    last = [0, 0, 250] if transparency == 1 else [127, 127, 252]
    assert found.tolist() == [[[10, 20, 30], [255, 255, 255], last]]
    assert note == "1 image is RGB with alpha: laid on white"


def test_a_transparent_gif_is_laid_on_white(tmp_path):
    image = Image.frombytes("P", (2, 1), bytes([0, 1]))
    image.putpalette([10, 20, 30, 200, 0, 0])
    assert only(save(tmp_path / "a.gif", image, transparency=1), 1, 3)[0].tolist() == [
        [[10, 20, 30], [255] * 3]
    ]


def test_a_plain_palette_gives_its_colours(tmp_path):
    image = Image.frombytes("P", (2, 1), bytes([1, 0]))
    image.putpalette([10, 20, 30, 200, 0, 0])
    for name in ("p/a.png", "g/a.gif", "b/a.bmp"):
        place = save(tmp_path / name, image)
        assert only(place, 1, 3) == (pytest.approx(np.array([[[200, 0, 0], [10, 20, 30]]])), "1 image is RGB")
        assert only(place, 1, 1)[0].tolist() == [[[60], [18]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_one_bit_is_black_or_white(tmp_path, channels):
    bits = np.random.default_rng(0).integers(0, 2, (9, 13)).astype(bool)
    for name in ("p/a.png", "t/a.tif", "b/a.pbm"):
        image, _ = only(save(tmp_path / name, picture(bits)), 9, channels)
        assert np.array_equal(image, np.where(bits, 255, 0)[..., None].repeat(channels, axis=2))


def test_cmyk_is_made_rgb(tmp_path):
    inks = noise(40, 50, 4)
    expected = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255
    image, note = only(save(tmp_path / "a.tif", picture(inks, "CMYK")), 40, 3)
    assert np.abs(image - expected).max() <= 0.5
    assert note == "1 image is RGB"


@pytest.mark.parametrize(
    ("inks", "colour"), [((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((0,) * 4, (255,) * 3)]
)
def test_a_cmyk_jpeg_is_not_inverted(tmp_path, inks, colour):
    place = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), inks), quality=95)
    image, _ = only(place, 16, 3)
    assert np.abs(image.astype(int) - colour).max() <= 3


def test_colours_in_other_spaces_are_made_rgb(tmp_path):
    pixels = np.broadcast_to(np.array([200, 100, 50], np.uint8), (8, 8, 3))
    given = picture(pixels).convert("YCbCr")
    # Compressed, since Pillow reads an uncompressed TIFF of YCbCr from 13.0 on only.
    image, _ = only(save(tmp_path / "a.tif", given, compression="tiff_lzw"), 8, 3)
    for found in (image, fit_image(given, 8, 3)):
        assert np.abs(found.astype(int) - pixels).max() <= 2


# ---- channels ----


@pytest.mark.parametrize("given", MODES)
@pytest.mark.parametrize("wanted", MODES)
def test_the_conversion_that_is_told_is_the_one_that_happens(given, wanted):
    pixels = noise(20, 30, given, seed=given)
    found = fit_image(picture(pixels, MODES[given]), 20, wanted)
    assert found.shape == (20, 30, wanted)
    colour = pixels.reshape(20, 30, given).astype(float)
    alpha = np.full((20, 30, 1), 255.0)
    steps = conversion(given, wanted).split(", ")
    if given in (2, 4):
        colour, alpha = colour[..., :-1], colour[..., -1:]
    if "laid on white" in steps:
        colour = np.rint((colour * alpha + 255 * (255 - alpha)) / 255)
    if "made grey (0.299 R + 0.587 G + 0.114 B)" in steps:
        colour = colour @ np.array([[0.299], [0.587], [0.114]])
    if "made RGB (three equal channels)" in steps:
        colour = colour.repeat(3, axis=2)
    if "given an opaque alpha" in steps:
        assert np.all(found[..., -1] == 255)
    expected = np.concatenate([colour, alpha], -1)[..., :wanted] if wanted in (2, 4) else colour
    assert expected.shape == found.shape
    assert np.abs(found - expected).max() <= 0.51
    assert (conversion(given, wanted) == "") == (given == wanted)


def test_the_notes_count_the_kinds_of_images(tmp_path):
    for i, mode in enumerate(("L", "RGB", "1", "RGBA", "LA", "RGB", "P")):
        save(tmp_path / f"{i}.png", Image.new(mode, (4, 4)))
    assert folder.read(tmp_path, 4, 3)[1] == [
        "2 images are grey: made RGB (three equal channels)",
        "1 image is grey with alpha: laid on white, made RGB (three equal channels)",
        "3 images are RGB",
        "1 image is RGB with alpha: laid on white",
    ]
    assert folder.read(tmp_path, 4, 1)[1] == [
        "2 images are grey",
        "1 image is grey with alpha: laid on white",
        "3 images are RGB: made grey (0.299 R + 0.587 G + 0.114 B)",
        "1 image is RGB with alpha: laid on white, made grey (0.299 R + 0.587 G + 0.114 B)",
    ]
    assert (
        folder.read(tmp_path, 4, 4)[1][0]
        == "2 images are grey: made RGB (three equal channels), given an opaque alpha"
    )
    assert all(image.shape == (4, 4, 2) for image in folder.read(tmp_path, 4, 2)[0])
    assert list(NAMES) == list(MODES) == [1, 2, 3, 4]


# ---- orientation ----

# Where the first row and the first column of the file belong, in the words of the EXIF standard.
ORIENTATIONS = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip


def turned(stored, orientation):
    row, column = ORIENTATIONS[orientation]
    upright = stored if row in ("top", "bottom") else stored.swapaxes(0, 1)
    upright = upright[::-1] if "bottom" in (row, column) else upright
    return upright[:, ::-1] if "right" in (row, column) else upright


def saying(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_images_are_turned_as_their_exif_orientation_says(tmp_path, orientation):
    stored = noise(16, 24)
    for name, options in (("a.png", {}), ("b.webp", {"lossless": True}), ("c.tif", {})):
        place = save(tmp_path / name[0] / name, stored, exif=saying(orientation), **options)
        assert np.array_equal(only(place, 16, 3)[0], turned(stored, orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photograph_is_turned_and_resized(tmp_path, orientation):
    corners = np.array([[0, 80], [160, 240]], np.uint8)
    place = save(tmp_path / "a.jpg", corners.repeat(400, 0).repeat(600, 1), exif=saying(orientation))
    image, _ = only(place, 20, 1)
    assert image.shape == ((20, 30, 1) if orientation < 5 else (30, 20, 1))
    found = image[[1, 1, -2, -2], [1, -2, 1, -2], 0].astype(int)
    assert np.abs(found - turned(corners, orientation).reshape(-1)).max() <= 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path, orientation):
    stored = noise(16, 24)
    place = save(tmp_path / "a.png", stored, exif=saying(orientation))
    assert np.array_equal(only(place, 16, 3)[0], stored)


def photograph_with_exif():
    exif = saying(6)
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[2] = (1.0, 2.0, 3.0)
    return encoded(picture(noise(8, 12)), "JPEG", exif=exif)


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_damaged_exif_data_costs_no_image(tmp_path_factory, changes):
    content = bytearray(photograph_with_exif())
    start = content.index(b"Exif\0\0")
    length = struct.unpack(">H", content[start - 2 : start])[0] - 8
    for place, value in changes:
        content[start + 6 + place % length] = value
    place = tmp_path_factory.mktemp("exif") / "a.jpg"
    place.write_bytes(content)
    image, note = only(place, 8, 3)
    assert sorted(image.shape) == [3, 8, 12]
    assert note == "1 image is RGB"


# ---- sizes ----


def bilinear(pixels, size):
    """The shorter side resized to `size`, by weights written down: a triangle over all pixels under it."""

    def weights(before, after):
        scale = before / after
        centres = (np.arange(after) + 0.5) * scale
        far = np.abs(np.arange(before) + 0.5 - centres[:, None]) / max(scale, 1)
        triangle = np.maximum(0, 1 - far)
        return triangle / triangle.sum(1, keepdims=True)

    height, width = pixels.shape[:2]
    longer = size * max(height, width) // min(height, width)
    rows, columns = (size, longer) if width >= height else (longer, size)
    pixels = pixels.reshape(height, width, -1).astype(float)
    return np.einsum("yh,hwc,xw->yxc", weights(height, rows), pixels, weights(width, columns))


@given(
    st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 99)
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_the_shorter_side_is_resized_and_the_longer_follows(height, width, size, channels, seed):
    height, width = min(height, 16 * width), min(width, 16 * height)
    pixels = noise(height, width, channels, seed)
    found, expected = fit_image(picture(pixels), size, channels), bilinear(pixels, size)
    assert found.shape == expected.shape
    # Pillow rounds twice; where an image shrinks a lot, it first takes means of whole blocks.
    assert np.abs(found - expected).max() <= (1.01 if min(height, width) < 5 * size else 16)


def test_pixels_of_an_image_that_fits_are_not_touched():
    pixels = noise(32, 47)
    assert np.array_equal(fit_image(picture(pixels), 32, 3), pixels)


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (1, 1, (32, 32)),
        (5, 3, (53, 32)),
        (333, 500, (32, 48)),
        (1, 16, (32, 512)),
        (1, 17, (32, 512)),
        (2, 3000, (32, 512)),
        (3000, 2, (512, 32)),
        (10_000, 1, (512, 32)),
        (33, 32, (33, 32)),
        (32, 600, (32, 512)),
    ],
)
def test_any_aspect_has_its_shape(tmp_path, height, width, shape):
    place = save(tmp_path / "a.png", np.full((height, width), 77, np.uint8))
    image, _ = only(place, 32, 1)
    assert image.shape == (*shape, 1)
    assert np.all(image == 77)


def test_of_an_extreme_aspect_the_middle_is_kept():
    pixels = np.zeros((2, 2000), np.uint8)
    pixels[:, 1000 - 17 : 1000 + 17] = 255  # as much as is kept, and one more, which the resize may look at
    for image in (pixels, pixels.T):
        found = fit_image(picture(image), 8, 1)
        assert max(found.shape) == 8 * MAX_ASPECT_RATIO
        assert np.all(found == 255)
    pixels[:, 1000 + 8 :] = 0
    assert np.mean(fit_image(picture(pixels), 8, 1) > 127) == 0.75


def test_a_large_photograph_is_decoded_small_but_looks_the_same(tmp_path):
    y, x = np.mgrid[:900, :1300]
    pixels = np.stack([127 + 120 * np.sin(x / 90), 127 + 120 * np.cos(y / 70), (x + y) / 9], -1)
    place = save(tmp_path / "a.jpg", pixels.astype(np.uint8), quality=95)
    image, _ = only(place, 32, 3)
    with Image.open(place) as whole:
        expected = np.asarray(whole.resize((46, 32), Image.Resampling.BILINEAR)).astype(int)
    assert image.shape == expected.shape
    assert np.abs(image - expected).mean() < 2
    assert np.abs(image - expected).max() < 12


@pytest.mark.parametrize("given", MODES)
@pytest.mark.parametrize("wanted", MODES)
def test_an_array_becomes_what_its_images_would_as_files(given, wanted):
    pixels = noise(3 * 11, 17, given, seed=3).reshape(3, 11, 17, given)
    found = fit_array(pixels, 8, wanted)
    kept = 1 if (given, wanted) == (1, 3) else wanted
    expected = [fit_image(picture(image, MODES[given]), 8, kept) for image in pixels]
    assert np.array_equal(found, np.stack(expected))
    assert found.shape == (3, 8, 12, kept)


def test_an_array_that_fits_is_not_copied_and_a_long_one_is_cut():
    pixels = noise(2 * 8, 100).reshape(2, 8, 100, 3)
    assert fit_array(pixels, 8, 3) is pixels
    grey_ = pixels[..., :1]
    assert fit_array(grey_, 8, 3) is grey_
    long = np.zeros((2, 4, 100, 1), np.uint8)
    long[:, :, 18:82] = 9
    assert np.array_equal(fit_array(long, 4, 1), np.full((2, 4, 64, 1), 9))


# ---- damage ----


def cut(content, share):
    return content[: int(len(content) * share)]


def header_only(width, height):
    return png(width, height, 8, 2, [b""])


def one_bit_bomb():
    """A hundred million white pixels in a few kilobytes."""
    return png(10_000, 10_000, 1, 0, [b"\xff" * 1250] * 10_000)


PHOTOGRAPH = encoded(picture(noise(64, 64)), "JPEG")
DAMAGED = {
    "text.png": (b"Not Found: the page was moved", "no image"),
    "empty.jpg": (b"", "no image"),
    "short.png": (cut(encoded(picture(noise(64, 64)), "PNG"), 0.5), r"image file is truncated.*"),
    "short.jpg": (cut(PHOTOGRAPH, 0.6), r"image file is truncated.*"),
    "short.gif": (cut(encoded(picture(noise(64, 64)), "GIF"), 0.5), r"image file is truncated.*"),
    "start.jpg": (PHOTOGRAPH[:3], "no image"),
    "header.png": (encoded(picture(noise(4, 4)), "PNG")[:20], "Truncated File Read"),
    "wide.png": (header_only(60_000, 60_000), r"more than \d+ pixels"),
    "high.png": (header_only(1, 2**31 - 1), r"more than \d+ pixels"),
    "bomb.png": (one_bit_bomb(), r"more than \d+ pixels"),
    "none.png": (png(0, 4, 8, 0, []), "no image"),
    "bomb.gif": (b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\0;", r"more than \d+ pixels"),
    "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no image"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_one_damaged_file_is_named_counted_and_left_out(tmp_path, name):
    for value in range(10):
        grey(tmp_path / f"{value}.png", value)
    content, reason = DAMAGED[name]
    (tmp_path / "5").mkdir()
    (tmp_path / "5" / name).write_bytes(content)
    images, notes = folder.read(tmp_path, 4, 1)
    assert [int(image[0, 0, 0]) for image in images] == list(range(10))
    assert notes[0] == "10 images are grey"
    place = os.path.join("5", name)
    start, end = f"1 of 11 images can't be read and are left out: {place} (", ")"
    assert notes[1].startswith(start)
    assert notes[1].endswith(end)
    assert re.fullmatch(reason, notes[1].removeprefix(start).removesuffix(end))
    assert len(notes) == 2


def test_links_to_nowhere_and_folders_with_the_name_of_an_image_are_told(tmp_path):
    for value in range(20):
        grey(tmp_path / f"{value:02}.png", value)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "name.png").symlink_to("07.png")
    images, notes = folder.read(tmp_path, 4, 1)
    assert [int(image[0, 0, 0]) for image in images] == [*range(20), 7]
    assert len(notes) == 2
    assert re.fullmatch(r"1 of 22 images .* left out: link\.png \(\[Errno 2\] [^:]*\)", notes[1])


@pytest.mark.parametrize(("good", "bad"), [(9, 1), (18, 2), (27, 3), (63, 7)])
def test_a_tenth_may_be_damaged_and_no_more(tmp_path, good, bad):
    content = encoded(picture(np.zeros((2, 2), np.uint8)), "PNG")
    for i in range(good):
        (tmp_path / f"good{i}.png").write_bytes(content)
    for i in range(bad):
        (tmp_path / f"bad{i}.png").write_bytes(b"")
    images, notes = folder.read(tmp_path, 2, 1)
    assert len(images) == good
    assert notes[1].startswith(
        f"{bad} of {good + bad} images can't be read and are left out: bad0.png (no image)"
    )
    (tmp_path / "good0.png").write_bytes(b"")
    with pytest.raises(UserError) as told:
        folder.read(tmp_path, 2, 1)
    start = f"--data {tmp_path}: {bad + 1} of {good + bad} images can't be read: bad0.png (no image)"
    assert str(told.value).startswith(start)
    assert str(told.value).endswith("Remove or repair them")
    assert (f" and {bad + 1 - 5} more" in str(told.value)) == (bad + 1 > 5)


def test_our_limit_of_pixels_is_told_with_the_size_and_lies_below_that_of_pillow(tmp_path, monkeypatch):
    assert imagefiles.MAX_PIXELS <= Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(imagefiles, "MAX_PIXELS", 100)
    assert only(grey(tmp_path / "a.png", 5, size=10), 4, 1)[0].shape == (4, 4, 1)
    save(tmp_path / "b.png", noise(11, 10, 1))
    with pytest.raises(UserError, match=r"1 of 2 .*: b\.png \(10 x 11 pixels: more than 100\)"):
        folder.read(tmp_path, 4, 1)


def test_names_that_are_no_text_can_be_printed(monkeypatch, tmp_path):
    monkeypatch.setattr(folder, "find", lambda place: ([place / "\udcff.png"], {}))
    with pytest.raises(UserError, match=r"1 of 1 images can't be read: \\udcff\.png \(") as told:
        folder.read(tmp_path, 4, 1)
    assert str(told.value).encode()


MUTABLE = {
    "a.png": encoded(picture(noise(5, 7)), "PNG"),
    "b.jpg": encoded(picture(noise(8, 8)), "JPEG"),
    "c.gif": encoded(picture(noise(5, 7)), "GIF"),
    "d.tif": encoded(picture(noise(5, 7, 1).astype(np.float32)), "TIFF"),
    "e.bmp": encoded(picture(noise(5, 7)), "BMP"),
    "f.webp": encoded(picture(noise(5, 7)), "WEBP"),
}


@given(
    st.sampled_from(sorted(MUTABLE)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4),
    st.floats(0.2, 2),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_damaged_file_is_an_image_or_is_told(tmp_path_factory, name, changes, share):
    content = bytearray(MUTABLE[name])
    for place, value in changes:
        content[int(place * len(content))] = value
    place = tmp_path_factory.mktemp("damaged") / name
    place.write_bytes(cut(content, min(share, 1)))
    try:
        images, notes = folder.read(place.parent, 4, 3)
    except UserError as error:
        images, notes = [np.zeros((4, 4, 3), np.uint8)], [str(error)]
    start = f"--data {place.parent}: 1 of 1 images can't be read: {name} ("
    assert notes[0].startswith(("1 image is ", start))
    assert [min(image.shape[:2]) for image in images] == [4]
    assert (images[0].dtype, images[0].shape[2]) == (np.uint8, 3)


# ---- what is decoded ----


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4)), max_size=8),
    st.integers(0, 300),
    st.booleans(),
)
@settings(max_examples=80, deadline=None, derandomize=True)
def test_decoded_images_are_the_same_in_memory_and_in_the_file(shapes, in_memory, reading):
    kept = decoded.Decoded(in_memory)
    given_ = [
        np.random.default_rng(i).integers(0, 256, shape).astype(np.uint8) for i, shape in enumerate(shapes)
    ]
    for i, image in enumerate(given_):
        kept.append(image)
        assert not reading or np.array_equal(kept[i], image)
    assert len(kept) == len(given_)
    for found in (list(kept), [kept[i] for i in np.arange(len(given_))], list(reversed(kept))[::-1]):
        assert len(found) == len(given_)
        assert all(np.array_equal(a, b) and a.dtype == np.uint8 for a, b in zip(found, given_, strict=True))
    assert all(np.array_equal(kept[i - len(given_)], image) for i, image in enumerate(given_))
    for i in (len(given_), -len(given_) - 1):
        with pytest.raises(IndexError):
            kept[i]


def test_what_exceeds_the_memory_goes_to_a_file_that_has_no_name(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    sizes = [(8 + i % 5, 9 + i % 7) for i in range(30)]
    for i, (height, width) in enumerate(sizes):
        save(tmp_path / "images" / f"{i:02}.png", noise(height, width, seed=i))
    inside, _ = folder.read(tmp_path / "images", 4, 3)
    monkeypatch.setattr(imagefiles, "Decoded", lambda make=decoded.Decoded: make(in_memory=200))
    outside, _ = folder.read(tmp_path / "images", 4, 3)
    in_file = [isinstance(image, np.memmap) or isinstance(image.base, np.memmap) for image in outside]
    assert in_file == [False] * 4 + [True] * 26  # 48 bytes each, for which there is room four times
    assert all(np.array_equal(a, b) for a, b in zip(inside, outside, strict=True))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_full_disk_is_told_with_what_to_do(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def flush(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    grey(tmp_path / "a.png", 1)
    monkeypatch.setattr(imagefiles, "Decoded", lambda make=decoded.Decoded: make(in_memory=0))
    monkeypatch.setattr(decoded.tempfile, "TemporaryFile", Full)
    with pytest.raises(UserError, match=r"do not fit into .*No space left.*free some room .*TMPDIR"):
        folder.read(tmp_path, 4, 1)


def test_a_folder_is_decoded_alike_every_time(tmp_path):
    for i in range(12):
        save(tmp_path / f"{i % 3}" / f"{i}.png", noise(20 + i, 30 - i, seed=i))
    first, second = (folder.read(tmp_path, 8, 3) for _ in range(2))
    assert first[1] == second[1]
    assert all(np.array_equal(a, b) for a, b in zip(first[0], second[0], strict=True))
    assert len({image.tobytes() for image in first[0]}) == 12


def test_a_folder_that_can_not_be_read_is_told(tmp_path, monkeypatch):
    grey(tmp_path / "a.png", 1)

    def walk(top, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "locked")))

    monkeypatch.setattr(folder.os, "walk", walk)
    with pytest.raises(UserError, match=r"locked can't be read: Permission denied"):
        folder.read(tmp_path, 4, 1)


def test_links_to_folders_are_counted_and_pipes_passed_over(tmp_path):
    (tmp_path / "real").mkdir()
    grey(tmp_path / "real" / "a.png", 1)
    (tmp_path / "real" / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    os.mkfifo(tmp_path / "real" / "pipe.png")
    images, notes = folder.read(tmp_path / "real", 4, 1)
    assert len(images) == 1
    assert notes == [
        "1 image is grey",
        "1 symbolic links to folders not followed: name the folders themselves",
    ]
