"""Pictures that a person looks at: animations of a sensible pace and size, sets beside each other, rows."""

import io

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from video import read_mp4

from dcgan import animations, pace, pictures
from dcgan.errors import UserError
from dcgan.steps import StepLine
from minigrad import serialize

RED, BLUE, GREEN = ((200, 0, 0), (0, 0, 200), (0, 150, 0))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def plain(colour, height=20, width=20):
    return np.tile(np.array(colour, np.uint8), (height, width, 1))


def read_png(path):
    with Image.open(path) as png:
        return np.asarray(png.convert("RGB")).astype(int)


def read_gif(path):
    """The frames (H, W, 3), and how long each is shown, in milliseconds."""
    frames, durations = [], []
    with Image.open(path) as gif:
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
            durations.append(gif.info["duration"])
    return frames, durations


def where(picture, colour):
    """The box (top, bottom, left, right) of all pixels of nearly that colour."""
    ys, xs = np.nonzero((np.abs(picture - np.array(colour)) < 30).all(axis=2))
    return ys.min(), ys.max(), xs.min(), xs.max()


# -- animations ------------------------------------------------------------------------------------


def distinct(n):
    """Frames that no encoder takes for one, of which the k-th is told by its brightness."""
    return [plain((250 * k // max(1, n - 1),) * 3, 16, 18) for k in range(n)]


def saved_frames(folder, n):
    folder.mkdir()
    for number, frame in enumerate(distinct(n)):
        pictures.save_png(frame, folder / f"{number:08d}.png")
    return folder


@pytest.mark.parametrize("n", [2, 10, 60, 500])
def test_an_animation_lasts_as_long_as_asked(tmp_path, n):
    """By Pillow's count and PyAV's, to the 10 ms that a GIF can tell."""
    frames = saved_frames(tmp_path / "frames", n)
    for ending, read in ((".gif", read_gif), (".mp4", read_mp4)):
        animated = animations.animate(frames, tmp_path / f"a{ending}", 5.0)
        shown, times = read(tmp_path / f"a{ending}")
        most = 60 if ending == ".gif" else 1 + (5000 - 1250) // 20
        assert sum(times) == 5000
        assert times[-1] == (2500 if n == 2 else 1250)
        assert min(times) >= 20
        assert animated == (min(n, most), n, 5.0)
        assert len(shown) == len(times) == min(n, most)
        assert np.abs(shown[0]).max() <= 8  # black
        assert np.abs(shown[-1] - 250).max() <= 8


@pytest.mark.parametrize("seconds", [0.1, 12.34, 600.0])
def test_any_time_is_kept_to_ten_milliseconds(tmp_path, seconds):
    frames = saved_frames(tmp_path / "frames", 30)
    for ending, read in ((".gif", read_gif), (".mp4", read_mp4)):
        animated = animations.animate(frames, tmp_path / f"a{ending}", seconds)
        assert sum(read(tmp_path / f"a{ending}")[1]) == round(1000 * seconds)
        assert animated.seconds == seconds


def test_frames_that_are_alike_last_as_long(tmp_path):
    pictures_of_it = [plain(RED)] * 3 + [plain(BLUE)] * 4
    animations.save_animation(pictures_of_it, tmp_path / "a.gif", pace.lasting(7, 5.0))
    assert sum(read_gif(tmp_path / "a.gif")[1]) == 5000
    animations.save_animation(pictures_of_it, tmp_path / "a.mp4", pace.lasting(7, 5.0))
    assert sum(read_mp4(tmp_path / "a.mp4")[1]) == 5000


@pytest.mark.parametrize(("n", "times"), [(25, 250), (3, 500)])
def test_without_a_time_the_pace_is_comfortable(tmp_path, n, times):
    for ending, read in ((".gif", read_gif), (".mp4", read_mp4)):
        animations.save_animation(distinct(n), tmp_path / f"a{ending}")
        shown, found = read(tmp_path / f"a{ending}")
        assert found == [times] * (n - 1) + [2000]
        assert np.abs(np.stack(shown) - np.stack(distinct(n))).max() <= (0 if ending == ".gif" else 8)


def test_an_mp4_is_what_players_and_browsers_want(tmp_path):
    animations.save_animation(distinct(5), tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as file:
        (stream,) = file.streams
        assert (stream.codec_context.name, stream.codec_context.format.name) == ("h264", "yuv420p")
        assert file.duration == (4 * 500 + 2000) * 1000  # microseconds; the last frame stays
        assert "creation_time" not in {**file.metadata, **stream.metadata}
    content = (tmp_path / "a.mp4").read_bytes()
    assert 0 < content.find(b"moov") < content.find(b"mdat")  # it plays before all of it is there


@pytest.mark.parametrize(
    ("ending", "channels"), [(".gif", 1), (".gif", 2), (".gif", 3), (".gif", 4), (".mp4", 2), (".MP4", 4)]
)
def test_pictures_of_any_channels_are_animated_with_alpha_on_white(tmp_path, ending, channels):
    def frame(value):
        colour = [value] * (channels - (channels in (2, 4)))
        return plain([*colour, 128] if channels in (2, 4) else colour)

    animations.save_animation([frame(10), frame(200)], tmp_path / f"a{ending}")
    read = read_gif if ending == ".gif" else read_mp4
    first, second = read(tmp_path / f"a{ending}")[0][:2]
    seen = [v if channels in (1, 3) else v * 128 / 255 + 255 * 127 / 255 for v in (10, 200)]
    assert np.abs(first - seen[0]).max() <= 4
    assert np.abs(second - seen[1]).max() <= 4


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_one_frame_is_an_animation_too(tmp_path, ending):
    animations.save_animation([plain(RED)], tmp_path / f"a{ending}")
    frames = (read_gif if ending == ".gif" else read_mp4)(tmp_path / f"a{ending}")[0]
    assert len(frames) == 1
    assert np.abs(frames[-1] - np.array(RED)).max() <= 6


def test_odd_sides_of_an_mp4_lose_a_pixel(tmp_path):
    animations.save_animation([plain(RED, 21, 33)] * 3, tmp_path / "a.mp4")
    assert read_mp4(tmp_path / "a.mp4")[0].shape[1:] == (20, 32, 3)


@pytest.mark.slow
def test_a_gif_of_25_grids_of_64_x_64_colour_noise_is_under_2_mb(tmp_path):
    """The hardest of all: no two pixels are alike. It is still a picture that fills a part of a screen."""
    grids = [pictures.grid(noise(64, 64, 64, 3, seed=k), 8, 8) for k in range(25)]
    shown = [pictures.enlarged(grid, animations.MAX_WIDTH) for grid in grids]
    animations.save_animation(shown, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").stat().st_size < 2_000_000
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 25
        assert gif.width == gif.height >= 200


def test_a_larger_picture_is_shrunk_to_the_same_size_of_file(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "GIF_BYTES", 100_000)
    sizes = {}
    for side in (40, 160, 400):
        frames = [noise(side, 2 * side, 1, seed=k) for k in range(25)]
        animations.save_animation(frames, tmp_path / "a.gif")
        with Image.open(tmp_path / "a.gif") as gif:
            sizes[side] = gif.size
            assert gif.n_frames == 25
        assert (tmp_path / "a.gif").stat().st_size <= 100_000
    assert sizes[40] == (80, 40)  # that one fits as it is
    assert all(abs(width - 2 * height) <= 2 and width >= 50 for width, height in sizes.values())


def test_a_longer_animation_may_be_larger_in_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "GIF_BYTES", 100_000)
    animations.save_animation([noise(50, 60, 1, seed=k) for k in range(50)], tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.size == (60, 50)
    assert 100_000 < (tmp_path / "a.gif").stat().st_size <= 200_000


def test_a_grey_gif_keeps_black_and_white_and_what_lies_between(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    animations.save_animation([ramp, ramp[::-1]], tmp_path / "a.gif")
    first = read_gif(tmp_path / "a.gif")[0][0][:, :, 0].reshape(-1)
    assert (first[0], first[255]) == (0, 255)
    assert np.abs(first - np.arange(256)).max() <= 3
    assert (np.diff(first) >= 0).all()


@pytest.mark.parametrize("ending", [".gif", ".mp4"])
def test_equal_frames_make_equal_files(tmp_path, ending):
    for name in "ab":
        animations.save_animation([noise(20, 20, 3, seed=k) for k in range(4)], tmp_path / f"{name}{ending}")
    assert (tmp_path / f"a{ending}").read_bytes() == (tmp_path / f"b{ending}").read_bytes()


# -- pictures beside each other --------------------------------------------------------------------


@pytest.mark.parametrize("colours", [(RED, BLUE), (RED, BLUE, GREEN)])
def test_grids_stand_side_by_side_in_their_order(tmp_path, colours):
    grids = {f"set {k}": plain(colour, 30, 40) for k, colour in enumerate(colours)}
    pictures.save_side_by_side(grids, tmp_path / "a.png")
    picture = read_png(tmp_path / "a.png")
    boxes = [where(picture, colour) for colour in colours]
    for (top, bottom, left, right), after in zip(boxes, [*boxes[1:], None], strict=True):
        assert (right - left) / (bottom - top) == pytest.approx(4 / 3, rel=0.05)
        assert (top, bottom) == boxes[0][:2]
        assert right - left > 300
        assert after is None or right < after[2]
        assert (picture[:top, left:right] < 128).any()  # a title stands above


def test_a_pixel_of_a_small_grid_is_a_square_of_its_colour(tmp_path):
    small = noise(8, 8, 3)
    pictures.save_side_by_side({"a": small, "b": plain(BLUE, 8, 8)}, tmp_path / "a.png")
    picture = read_png(tmp_path / "a.png")
    _, _, blue_left, _ = where(picture, BLUE)
    top, bottom, _, _ = where(picture[:, blue_left:], BLUE)
    present = {tuple(colour) for colour in picture[top:bottom, :blue_left].reshape(-1, 3)}
    assert {tuple(map(int, colour)) for colour in small.reshape(-1, 3)} <= present


def test_a_run_puts_its_real_images_beside_what_it_generates(run, tmp_path, monkeypatch, few_digits):
    seen = {}
    save = pictures.save_side_by_side

    def watched(grids, path):
        seen.update(grids)
        save(grids, path)

    monkeypatch.setattr(pictures, "save_side_by_side", watched)
    size = ("--set", "grid_rows=2", "--set", "grid_columns=3")
    assert run("--preset", "quick", "--steps", "1", "--batch-size", "8", *size)[0] == 0
    assert list(seen) == ["real", "generated"]
    with Image.open(tmp_path / "run" / "frames" / "00000001.png") as png:
        assert np.array_equal(seen["generated"][:, :, 0], np.asarray(png))
    tiles = [seen["real"][2 + 30 * (k // 3) :, 2 + 30 * (k % 3) :][:28, :28, 0] for k in range(6)]
    found = [[np.array_equal(tile, digit) for digit in few_digits].index(True) for tile in tiles]
    assert len(set(found)) == 6
    picture = read_png(tmp_path / "run" / "real_and_fake.png")
    assert picture.shape[1] > 1.5 * picture.shape[0]


# -- rows ------------------------------------------------------------------------------------------


def test_rows_show_their_images_and_the_last_of_each_apart(tmp_path):
    white = plain((255, 255, 255))
    rows = {"first": [plain(RED), white, white, plain(BLUE)], "second": [plain(GREEN), plain((90, 0, 90))]}
    pictures.save_rows({**rows, "result": [plain((0, 90, 90))]}, tmp_path / "a.png")
    picture = read_png(tmp_path / "a.png")
    red, blue, green, violet, cyan = (
        where(picture, colour) for colour in (RED, BLUE, GREEN, (90, 0, 90), (0, 90, 90))
    )
    assert red[:2] == blue[:2]
    assert green[:2] == violet[:2]
    assert red[1] < green[0]
    assert green[1] < cyan[0]
    assert red[2:] == green[2:]
    assert blue[2:] == violet[2:] == cyan[2:]  # what a row comes to stands in the last column
    assert blue[2] > red[3] + 2 * (red[3] - red[2])
    assert (picture[red[0] : red[1], : red[2]] < 128).any()  # its name stands beside a row


# -- files that are whole --------------------------------------------------------------------------


def writers():
    grey = noise(12, 12, 1)
    line = StepLine(1, loss_d=1.0, loss_g=0.5, d_x=0.7, d_g_z1=0.2, d_g_z2=0.1)
    return {
        "a.png": lambda path: pictures.save_png(grey, path),
        "a.gif": lambda path: animations.save_animation([grey] * 2, path),
        "a.mp4": lambda path: animations.save_animation([grey] * 2, path),
        "sides.png": lambda path: pictures.save_side_by_side({"a": grey, "b": grey}, path),
        "a.jpg": lambda path: pictures.save_picture(grey, path),
        "a.webp": lambda path: pictures.save_picture(grey, path),
        "rows.jpg": lambda path: pictures.save_rows({"a": [grey]}, path),
        "rows.png": lambda path: pictures.save_rows({"a": [grey]}, path),
        "losses.png": lambda path: pictures.save_losses([line], path),
    }


@pytest.mark.parametrize("name", list(writers()))
def test_no_picture_is_left_half_written(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(serialize.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        writers()[name](tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"old"


FORMATS = {"a.png": "PNG", "a.jpg": "JPEG", "a.JPEG": "JPEG", "a.WebP": "WEBP"}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_has_the_format_that_its_name_says(tmp_path, name, channels):
    smooth = np.add.outer(np.arange(64), np.arange(48)).astype(np.uint8)[:, :, None]
    picture = np.concatenate([smooth, 200 - smooth // 2, smooth // 3, 255 - smooth], axis=2)[:, :, -channels:]
    pictures.save_picture(picture, tmp_path / name)
    with Image.open(tmp_path / name) as file:
        assert file.format == FORMATS[name]
        assert file.size == (48, 64)
        if file.format == "JPEG":
            on_white = np.asarray(pictures.opaque(picture)).astype(int)
            assert np.abs(np.asarray(file).astype(int) - on_white).max() <= 12
            return
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
        shown = np.asarray(file if file.format == "PNG" else _as(file, mode)).reshape(picture.shape)
    assert np.array_equal(shown, picture)  # what is transparent, too


def _as(image, mode):
    """An image as Pillow reads a WebP file, in the mode that it was written from."""
    pixels = np.asarray(image)
    return pixels if mode in ("RGB", "RGBA") else pixels[:, :, [0, 3][: len(mode)]]


def test_jpeg_lays_what_is_transparent_on_white(tmp_path):
    picture = np.zeros((16, 16, 4), np.uint8)
    pictures.save_picture(picture, tmp_path / "a.jpg")
    assert read_png(tmp_path / "a.jpg").min() == 255


@pytest.mark.parametrize(
    ("name", "side"), [("a.jpg", 65_501), ("a.jpeg", 65_501), ("a.webp", 16_384), ("a.WEBP", 16_384)]
)
def test_a_picture_too_large_for_its_format_is_told_and_not_written(tmp_path, name, side):
    with pytest.raises(UserError, match=rf"{name}: {side} x 1 pixels are too many for .*{side - 1:,} a side"):
        pictures.save_picture(np.zeros((1, side, 1), np.uint8), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    pictures.save_picture(np.zeros((1, side - 1, 1), np.uint8), tmp_path / name)
    pictures.check_still(tmp_path / "a.png", (1, side))


def test_a_build_of_pillow_without_a_format_is_told(monkeypatch):
    monkeypatch.setattr(pictures.features, "check", lambda name: name != "webp")
    pictures.check_still(pictures.Path("a.jpg"), (9, 9))
    with pytest.raises(UserError, match=r"a\.webp: this build of Pillow can't write \.webp"):
        pictures.check_still(pictures.Path("a.webp"), (9, 9))


@given(st.integers(1, 4), st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_png_files_hold_every_byte(channels, height, width):
    picture = noise(height, width, channels, seed=height * width)
    written = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "write_whole", lambda path, content: written.update({path: content}))
        pictures.save_png(picture, "a.png")
    with Image.open(io.BytesIO(written["a.png"])) as png:
        assert np.array_equal(np.asarray(png).reshape(picture.shape), picture)


def test_a_gif_of_many_frames_leaves_some_out_and_keeps_the_first_and_the_last(tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for i in range(100):
        pictures.save_png(np.full((8, 8, 1), 2 * i, np.uint8), frames / f"{i:08d}.png")
    made = [animations.animate(frames, tmp_path / name) for name in ("a.gif", "a.mp4")]
    assert [(animated.shown, animated.of) for animated in made] == [(60, 100), (100, 100)]
    assert [str(animated) for animated in made] == ["60 of 100 frames, 8 s", "100 frames, 8 s"]
    with Image.open(tmp_path / "a.gif") as gif:
        shown = []
        for i in range(gif.n_frames):
            gif.seek(i)
            shown.append(int(np.asarray(gif.convert("L"))[0, 0]))
    assert (shown[0], shown[-1]) == (0, 198 & 252 | 198 >> 6)
    assert shown == sorted(shown)


# -- curves ----------------------------------------------------------------------------------------


def said(monkeypatch, lines, path):
    """The sentences in the middle of the panels of losses.png, by the panel."""
    seen = []
    explain = pictures.explain_if_empty
    monkeypatch.setattr(
        pictures,
        "explain_if_empty",
        lambda axes, why: (explain(axes, why), seen.append([text.get_text() for text in axes.texts])),
    )
    pictures.save_losses(lines, path)
    return seen


def test_losses_that_are_no_numbers_are_said_to_be_none(tmp_path, monkeypatch):
    line = StepLine(1, loss_d=None, loss_g=None, d_x=0.7, d_g_z1=None, d_g_z2=0.1)
    assert said(monkeypatch, [line], tmp_path / "a.png") == [["No number is finite"], []]


def test_losses_of_one_step_are_seen(tmp_path):
    line = StepLine(1, loss_d=1.0, loss_g=0.5, d_x=0.7, d_g_z1=0.2, d_g_z2=0.1)
    pictures.save_losses([line], tmp_path / "one.png")
    one = read_png(tmp_path / "one.png")[:, 150:]  # right of the axes' names
    middle = one[45:320]  # the panel of the losses: blue and orange are their dots
    assert ((middle[:, :, 2] - middle[:, :, 0]) > 80).any()
    assert ((middle[:, :, 0] - middle[:, :, 2]) > 80).any()
