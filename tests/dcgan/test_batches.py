"""Batches: which images, which part of each, mirrored or not; all of it follows from seed and step."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import load_batches
from PIL import Image

import minigrad as mg
from dcgan import presets
from dcgan.data.batches import Batches
from dcgan.data.decoded import Decoded
from dcgan.errors import UserError

CROPS = {"crop": "random_or_center", "flip": 0.5}


def places(n, height, width):
    """Images whose pixels say their row, their column, and the number of the image."""
    y, x = np.mgrid[:height, :width]
    return [np.stack([y, x, np.full_like(x, i)], -1).astype(np.uint8) for i in range(n)]


def bytes_of(batch):
    """A batch as bytes (n, H, W, C)."""
    values = (batch.transpose(0, 2, 3, 1) + 1) * 127.5
    assert np.abs(values - np.rint(values)).max() < 1e-3
    return np.rint(values).astype(np.uint8)


def make(images, batch_size=None, seed=0, stream=2, **options):
    return Batches(images, batch_size or len(images), mg.Generator(seed, stream), **options)


def shown(batches, step=1):
    """Of each image of a batch of `places`: its number, the top, the left, and whether it is mirrored."""
    found = []
    for pixels in bytes_of(batches.batch(step)).astype(int):
        size = len(pixels)
        y, x, number = pixels.transpose(2, 0, 1)
        left, mirrored = x.min(), x[0, 0] > x[0, -1]
        columns = np.arange(left, left + size)
        assert pixels.shape == (size, size, 3)
        assert np.array_equal(y, np.arange(y[0, 0], y[0, 0] + size)[:, None].repeat(size, 1))
        assert np.array_equal(x, (columns[::-1] if mirrored else columns)[None].repeat(size, 0))
        assert np.all(number == number[0, 0])
        found.append((int(number[0, 0]), int(y[0, 0]), int(left), bool(mirrored)))
    return found


# ---- crops ----


@pytest.mark.parametrize(
    ("height", "width", "top", "left"),
    [
        (4, 4, 0, 0),
        (4, 5, 0, 0),
        (4, 6, 0, 1),
        (4, 9, 0, 2),
        (4, 64, 0, 30),
        (5, 4, 0, 0),
        (9, 4, 2, 0),
        (2, 7, 0, 2),
    ],
)
def test_a_centre_crop_is_the_square_in_the_middle(height, width, top, left):
    for images in (places(6, height, width), np.stack(places(6, height, width))):
        found = shown(make(images, crop="center"))
        assert sorted(found) == [(i, top, left, False) for i in range(6)]


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=8), st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_random_crop_is_a_whole_square_within_the_image(extents, seed):
    images = []
    for i, (more, wide) in enumerate(extents):
        image = places(i + 1, 4, 4 + more)[i] if wide else places(i + 1, 4 + more, 4)[i]
        images.append(image)
    found = shown(make(images, seed=seed, **CROPS))
    assert sorted(number for number, *_ in found) == list(range(len(images)))
    for number, top, left, _ in found:
        height, width = images[number].shape[:2]
        assert 0 <= top <= height - 4
        assert 0 <= left <= width - 4


def draws(count, batches):
    """What is shown of some thousand images in all."""
    steps = -(-count // batches.batch_size)
    return [one for step in range(1, steps + 1) for one in shown(batches, step)]


@pytest.mark.parametrize("upright", [False, True])
def test_half_the_crops_are_random_and_anywhere_and_half_are_central(upright):
    images = places(100, 11, 4) if upright else places(100, 4, 11)
    found = np.array(draws(8000, make(images, **CROPS)))
    assert np.all(found[:, 2 if upright else 1] == 0)
    counts = np.bincount(found[:, 1 if upright else 2], minlength=8)
    # Eight places; the one in the middle has half of the draws and its part of the others.
    expected = np.full(8, 8000 / 16)
    expected[3] += 4000
    assert len(counts) == 8
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))
    assert np.sum((counts - expected) ** 2 / expected) < 30  # chi-square with 7 degrees of freedom


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("crop", ["center", "random_or_center"])
def test_images_are_mirrored_with_the_chance_asked_for(chance, crop):
    found = np.array(draws(4000, make(places(100, 4, 9), crop=crop, flip=chance)))
    assert abs(found[:, 3].sum() - 4000 * chance) <= 5 * np.sqrt(4000 * chance * (1 - chance))


def test_mirroring_and_place_have_nothing_to_do_with_each_other():
    found = np.array(draws(8000, make(places(100, 4, 11), **CROPS)))
    for place in range(8):
        mirrored = found[found[:, 2] == place, 3]
        assert abs(mirrored.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(mirrored))


def test_neighbours_and_steps_are_drawn_independently():
    found = np.array(draws(8000, make(places(100, 4, 11), **CROPS))).reshape(80, 100, 4)
    mirrored, place = found[..., 3] - 0.5, found[..., 2] - found[..., 2].mean()
    for values in (mirrored, place):
        spread = values.std() ** 2
        beside = (values[:, 1:] * values[:, :-1]).mean() / spread
        after = (values[1:] * values[:-1]).mean() / spread
        assert abs(beside) < 5 / np.sqrt(7920)
        assert abs(after) < 5 / np.sqrt(7900)


def test_every_image_is_cropped_anew_in_every_epoch():
    batches = make(places(20, 4, 20), batch_size=8, **CROPS)
    first, second = (
        {number: rest for step in range(1, 4) for number, *rest in shown(batches, 3 * epoch + step)}
        for epoch in (0, 1)
    )
    assert set(first) == set(second) == set(range(20))
    assert sum(first[i] != second[i] for i in range(20)) > 5


def test_without_a_crop_images_are_whole():
    images = np.stack(places(6, 4, 7))
    found = bytes_of(make(images).batch(1))
    assert np.array_equal(found[np.argsort(found[:, 0, 0, 2])], images)
    mirrored = bytes_of(make(images, flip=1.0).batch(1))
    assert np.array_equal(mirrored[np.argsort(mirrored[:, 0, 0, 2])], images[:, :, ::-1])


def test_squares_are_only_mirrored():
    found = shown(make(places(200, 5, 5), **CROPS))
    assert {(top, left) for _, top, left, _ in found} == {(0, 0)}
    assert 60 < sum(mirrored for *_, mirrored in found) < 140


# ---- determinism ----


@pytest.mark.parametrize("shuffle", ["every_epoch", "once"])
def test_a_batch_follows_from_seed_stream_and_step_alone(shuffle):
    images = places(30, 4, 9)
    options = {"batch_size": 8, "shuffle": shuffle, **CROPS}
    forwards = make(images, **options)
    expected = {step: forwards.batch(step) for step in range(1, 13)}
    backwards = make(images, **options)
    for step in (12, 3, 4, 11, 1, 1, 7):
        assert np.array_equal(backwards.batch(step), expected[step])
        backwards.first(5)  # which changes nothing either
    for other in ({"seed": 1}, {"stream": 3}):
        assert not np.array_equal(make(images, **options, **other).batch(1), expected[1])


def test_drawing_does_not_move_the_generator():
    generator = mg.Generator(5, 2)
    batches = Batches(places(30, 4, 9), 8, generator, **CROPS)
    first = batches.batch(9)
    assert generator.state == {"seed": 5, "stream": 2, "calls": 0}
    generator.normal((3,))
    assert np.array_equal(batches.batch(9), first)


def test_what_one_image_needs_moves_no_other():
    images = places(16, 4, 9)
    expected = shown(make(images, **CROPS))
    images[3] = images[3][:, :4]  # a square, which has but one crop
    images[5] = places(6, 12, 4)[5]
    found = shown(make(images, **CROPS))
    assert [one for one in found if one[0] not in (3, 5)] == [one for one in expected if one[0] not in (3, 5)]
    assert [one[3] for one in found] == [one[3] for one in expected]


def test_crops_and_flips_leave_the_order_as_it_is():
    images = places(30, 4, 9)
    plain = [number for number, *_ in draws(120, make(images, 8, crop="center"))]
    assert [number for number, *_ in draws(120, make(images, 8, **CROPS))] == plain


def test_an_array_and_a_sequence_of_its_images_give_the_same_batches():
    images = places(30, 4, 9)
    decoded = Decoded(in_memory=500)  # so that most of them lie in a file
    for image in images:
        decoded.append(image)
    for options in (CROPS, {"crop": "center"}, {"flip": 0.5}, {}):
        sets = [make(each, 8, **options) for each in (images, np.stack(images), decoded)]
        for step in (1, 4, 9):
            first, *others = [batches.batch(step) for batches in sets]
            assert all(np.array_equal(first, other) for other in others)


# ---- order ----


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 99), st.sampled_from(["every_epoch", "once"]))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_every_epoch_shows_every_image_once(n, batch_size, seed, shuffle):
    batches = make(places(n, 2, 3), batch_size, seed, shuffle=shuffle, **CROPS)
    per_epoch = -(-n // batch_size)
    assert batches.per_epoch == per_epoch
    for epoch in range(3):
        steps = range(epoch * per_epoch + 1, (epoch + 1) * per_epoch + 1)
        numbers = [[number for number, *_ in shown(batches, step)] for step in steps]
        assert [len(each) for each in numbers[:-1]] == [batch_size] * (per_epoch - 1)
        assert sorted(number for each in numbers for number in each) == list(range(n))
        assert [batches.epoch_of(step) for step in steps] == [epoch + 1] * per_epoch
        assert [batches.ends_epoch(step) for step in steps] == [False] * (per_epoch - 1) + [True]


def test_an_order_drawn_once_is_kept_and_another_is_not():
    for shuffle, kept in (("once", True), ("every_epoch", False)):
        batches = make(places(30, 4, 9), 30, shuffle=shuffle, **CROPS)
        orders = [[number for number, *_ in shown(batches, step)] for step in (1, 2, 3)]
        assert (orders[0] == orders[1] == orders[2]) == kept
        assert orders[0] != list(range(30))
        crops = [[one[1:] for one in shown(batches, step)] for step in (1, 2)]
        assert crops[0] != crops[1]


def test_all_orders_of_a_few_images_are_as_likely():
    batches = make(places(3, 2, 2), 3)
    orders = [tuple(number for number, *_ in shown(batches, step)) for step in range(1, 1201)]
    counts = [orders.count(order) for order in sorted(set(orders))]
    assert len(counts) == 6
    assert sum((count - 200) ** 2 / 200 for count in counts) < 25  # chi-square with 5 degrees of freedom


def test_the_first_images_are_those_that_training_begins_with():
    for options in (CROPS, {"crop": "center"}):
        batches = make(places(20, 4, 9), 8, **options)
        start = np.concatenate([batches.batch(1), batches.batch(2), batches.batch(3)])
        assert np.array_equal(batches.first(8), start[:8])
        numbers = bytes_of(start)[:, 0, 0, 2]
        assert np.array_equal(bytes_of(batches.first(13))[:, 0, 0, 2], numbers[:13])
        assert np.array_equal(bytes_of(batches.first(1000))[:, 0, 0, 2], numbers)


# ---- channels and pixels ----


@pytest.mark.parametrize("given_", ["(H, W)", "(H, W, 1)", "a list"])
@pytest.mark.parametrize("options", [{}, {"crop": "center"}, {"crop": "center", "flip": 0.5}])
def test_grey_images_are_repeated_where_three_channels_are_wanted(given_, options):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5)).astype(np.uint8)
    images = {"(H, W)": images, "(H, W, 1)": images[..., None], "a list": list(images)}[given_]
    one, three = (make(images, channels=channels, **options).batch(1) for channels in (1, 3))
    assert one.shape == (6, 1, 5, 5)
    assert three.shape == (6, 3, 5, 5)
    assert np.array_equal(three, np.concatenate([one] * 3, axis=1))
    assert np.array_equal(make(images, **options).batch(1), one)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_images_keep_their_channels_in_their_order(channels):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5, channels)).astype(np.uint8)
    batches = make(images, channels=channels, crop="center", flip=0.0)
    batch = batches.batch(1)
    assert batch.dtype == np.float32
    assert batch.shape == (6, channels, 5, 5)
    assert sorted(image.tobytes() for image in bytes_of(batch)) == sorted(image.tobytes() for image in images)


def test_every_byte_has_its_place_from_minus_one_to_one():
    batch = make(np.arange(256, dtype=np.uint8).reshape(1, 16, 16)).batch(1).reshape(-1)
    assert (batch[0], batch[255]) == (-1.0, 1.0)
    assert np.allclose(batch, np.arange(256) / 127.5 - 1, rtol=0, atol=1e-6)
    assert np.all(np.diff(batch) > 0)


def test_the_images_are_not_changed():
    images = np.stack(places(6, 4, 9))
    before = images.copy()
    batch = make(images, **CROPS).batch(1)
    batch[...] = 0.0
    assert np.array_equal(images, before)
    images.flags.writeable = False
    assert make(images, **CROPS).batch(1).flags.writeable


# ---- the recipe ----


@pytest.fixture
def photographs(tmp_path):
    """Twelve pictures of several sizes whose short side is no multiple of 32, in two folders."""
    for i in range(12):
        height, width = (50 + 3 * i, 70 + i) if i % 2 else (90 + i, 40 + 2 * i)
        y, x = np.mgrid[:height, :width]
        pixels = np.stack([x * 200 // width, y * 250 // height, np.full_like(x, 20 * i)], -1)
        path = tmp_path / "flowers" / f"class{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return tmp_path / "flowers"


def test_the_recipe_flowers_resizes_crops_mirrors_and_scales(photographs, capsys):
    batches = load_batches(presets.get("flowers", batch_size=12), str(photographs))
    assert capsys.readouterr().out == "12 images are RGB\n"
    resized = {}
    for path in photographs.rglob("*.png"):
        with Image.open(path) as image:
            width, height = image.size
            shape = (32, 32 * height // width) if width < height else (32 * width // height, 32)
            pixels = np.asarray(image.resize(shape, Image.Resampling.BILINEAR)).astype(int)
        resized[round(pixels[0, 0, 2] / 20)] = pixels
    assert sorted(resized) == list(range(12))
    central = mirrored = 0
    for step in range(1, 41):
        found = bytes_of(batches.batch(step)).astype(int)
        assert found.shape == (12, 32, 32, 3)
        for image in found:
            whole = resized[round(image[0, 0, 2] / 20)]
            spare = max(whole.shape[:2]) - 32
            wide = whole.shape[1] > 32
            possible = {
                (start, flip): np.abs(cut[:, ::-1] - image if flip else cut - image).max()
                for start in range(spare + 1)
                for flip in (False, True)
                for cut in [whole[:, start : start + 32] if wide else whole[start : start + 32]]
            }
            (start, flip), difference = min(possible.items(), key=lambda item: item[1])
            assert difference <= 1
            central += start == spare // 2
            mirrored += flip
    # 480 draws: half of them central, and a few of the others by chance.
    assert 210 < central < 320
    assert 185 < mirrored < 295


def test_a_folder_smaller_than_a_batch_is_told(photographs):
    with pytest.raises(
        UserError, match=r"^12 images are \w+ than a batch of 128: use --batch-size 12 or .*more"
    ):
        load_batches(presets.get("flowers"), str(photographs))
    with pytest.raises(UserError, match="--batch-size 11: the last batch of 12 images would hold one"):
        load_batches(presets.get("flowers", batch_size=11), str(photographs))
    with pytest.raises(UserError, match="--batch-size 1: a BatchNorm needs two images or more"):
        load_batches(presets.get("flowers", batch_size=1), str(photographs))
    assert load_batches(presets.get("flowers", batch_size=12), str(photographs)).per_epoch == 1


def test_pictures_train_a_grey_recipe_of_another_size(photographs, capsys):
    batches = load_batches(presets.get("quick", batch_size=4), str(photographs))
    assert capsys.readouterr().out == "12 images are RGB: made grey (0.299 R + 0.587 G + 0.114 B)\n"
    assert batches.batch(1).shape == (4, 1, 28, 28)
