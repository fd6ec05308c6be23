"""Files that would take much work or memory for few pixels, and threads that share both."""

import io
import itertools
import struct
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import CancelledError, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dcgan.data import fit, folder, imagefiles, jpeg, limits
from dcgan.data.budget import Budget, in_threads


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(size=(40, 24), mode="RGB"):
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def with_scans(content, scans):
    """A progressive file whose last scan is repeated until there are so many."""
    held = content.count(b"\xff\xda")
    last = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last * (scans - held) + b"\xff\xd9"


def work(content):
    return jpeg.work(io.BytesIO(content))


def as_file(path):
    return folder.PathFile(path, path.name)


def reason(path):
    """Why the file can't be read."""
    found = next(imagefiles._decoded([as_file(path)], 8, 1))
    assert isinstance(found, str), found
    return found


def tiff(width, height, blob, compression=8, **more):
    """A grey TIFF file, its tags given by number, the blob at byte 8."""
    tags = {256: [width], 257: [height], 258: [8], 259: [compression], 262: [1], 277: [1]}
    tags |= {int(tag.removeprefix("t")): values for tag, values in more.items()}
    start = 8 + len(blob)
    after = start + 2 + 12 * len(tags) + 4
    entries, extra = b"", b""
    for tag, values in sorted(tags.items()):
        data = struct.pack(f"<{len(values)}I", *values)
        where = data if len(values) == 1 else struct.pack("<I", after + len(extra))
        extra += b"" if len(values) == 1 else data
        entries += struct.pack("<HHI", tag, 4, len(values)) + where
    return (
        b"II*\0"
        + struct.pack("<I", start)
        + blob
        + struct.pack("<H", len(tags))
        + entries
        + b"\0" * 4
        + extra
    )


# ---- scans of JPEG ----


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_baseline_file_is_gone_through_once_and_a_progressive_one_once_a_scan(mode):
    image = photograph(mode=mode)
    assert work(encoded(image, "JPEG")) == 40 * 24
    content = encoded(image, "JPEG", progressive=True)
    scans = content.count(b"\xff\xda")
    assert scans == {"L": 6, "RGB": 10, "CMYK": 18}[mode]
    assert work(content) == scans * (40 * 24 + jpeg.PER_SCAN)
    assert work(with_scans(content, 500)) == 500 * (40 * 24 + jpeg.PER_SCAN)


def test_the_largest_progressive_file_is_within_the_limit():
    assert 18 * (limits.MAX_PIXELS + jpeg.PER_SCAN) < limits.MAX_SCANNED_PIXELS


def test_scans_are_counted_as_decoders_find_them():
    content = encoded(photograph(), "JPEG", progressive=True)
    each = 40 * 24 + jpeg.PER_SCAN
    hidden = b"\xff\xfe\0\x0a" + b"\xff\xda\xff\xd9" * 2  # a comment: neither scans nor the end
    start = content.index(b"\xff\xda")
    assert work(content[:start] + hidden + content[start:]) == 10 * each
    assert work(content[:-2] + hidden + content[start:]) == 20 * each
    assert work(content + content) == 10 * each  # nothing counts after the end
    assert work(content[:-2] + b"\xff" * 70_000 + content[start:]) == 20 * each  # filling
    for block in range(1, 40):  # a marker on the edge of what is read at once
        assert work(content[:start] + b"\xff\xd0" * block + b"x" * block + content[start:]) == 10 * each
    for end in range(0, len(content), 97):
        assert 0 <= work(content[:end]) <= 10 * each


def test_endless_segments_are_refused():
    content = encoded(photograph(), "JPEG")
    with pytest.raises(ValueError, match="more than 131072 segments"):
        work(content[:2] + b"\xff\xfe\0\2" * jpeg.MAX_SEGMENTS + content[2:])


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_a_file_with_too_many_scans_is_refused_before_it_is_decoded(tmp_path, monkeypatch, kind):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_scans(encoded(photograph(), kind, progressive=True), 33_000))
    monkeypatch.setattr(imagefiles, "_upright", lambda image: pytest.fail("decoded"))
    scanned = 33_000 * (40 * 24 + jpeg.PER_SCAN)
    assert reason(path) == f"{scanned} pixels in all scans of JPEG: more than {24 * 89_000_000}"


def jpeg_in_tiff(scans, tiles=2):
    """Tiles of 32 x 32 that all lie at the same place."""
    content = with_scans(encoded(photograph((32, 32), "L"), "JPEG", progressive=True), scans)
    places, lengths = [8] * tiles, [len(content)] * tiles
    return tiff(32, 32 * tiles, content, 7, t322=[32], t323=[32], t324=places, t325=lengths)


def test_scans_are_counted_in_every_tile_of_a_tiff(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(jpeg_in_tiff(90, tiles=3))
    assert imagefiles.decode(as_file(path), 8, 1)[0].shape == (24, 8, 1)
    monkeypatch.setattr(limits, "MAX_SCANNED_PIXELS", 3 * 90 * (1024 + jpeg.PER_SCAN) - 1)
    assert reason(path).startswith("17971200 pixels in all scans of JPEG: more than ")
    content = jpeg_in_tiff(90, tiles=1)
    length = struct.pack("<HHII", 325, 4, 1, struct.unpack("<I", content[4:8])[0] - 8)
    path.write_bytes(content.replace(length, length[:8] + b"\0" * 4))
    assert reason(path) == "tiles or strips of JPEG without a length"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "MPO"])
def test_a_file_is_left_at_its_place(kind):
    content = io.BytesIO(encoded(photograph(), kind))
    with Image.open(content) as image:
        content.seek(17)
        limits.weigh(content, image)
        assert content.tell() == 17


# ---- other kinds ----


def test_tiles_larger_than_the_image_count_in_full(tmp_path):
    blob = zlib.compress(b"\0" * 256)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(16, 16, blob, t322=[30_000], t323=[30_000], t324=[8], t325=[len(blob)]))
    assert reason(path) == "900000000 pixels in tiles: more than 89000000"


def test_strips_that_share_their_bytes_count_each(tmp_path):
    n = 3000
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(16, n, b"\0" * 100_000, t278=[1], t273=[8] * n, t279=[100_000] * n))
    assert reason(path) == f"300000000 bytes in tiles or strips: more than {2**28}"


def test_tiny_tiles_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_TILES", 99)
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(10, 10, b"\7", 1, t322=[1], t323=[1], t324=[8] * 100, t325=[1] * 100))
    assert reason(path) == "100 tiles or strips: more than 99"
    monkeypatch.setattr(limits, "MAX_TILES", 100)
    assert np.all(imagefiles.decode(as_file(path), 10, 1)[0] == 7)


@pytest.mark.parametrize(("kind", "weight"), [("PNG", 1), ("WEBP", 2), ("JPEG2000", 3), ("QOI", 16)])
def test_kinds_that_take_more_may_have_fewer_pixels(tmp_path, monkeypatch, kind, weight):
    path = tmp_path / f"a.{kind.lower()}"
    if kind == "QOI":  # that some Pillows can't write: 62 pixels as the one before, and again
        path.write_bytes(b"qoif" + struct.pack(">IIBB", 40, 24, 3, 0) + b"\xfd" * 16)
    else:
        path.write_bytes(encoded(photograph(), kind))
    path = path.rename(tmp_path / "a.png")  # the content counts, not the name
    monkeypatch.setattr(limits, "MAX_PIXELS", 40 * 24 * weight)
    assert taken(path) == [40 * 24 * weight]
    monkeypatch.setattr(limits, "MAX_PIXELS", 40 * 24 * weight - 1)
    if weight > 1:
        limit = (40 * 24 * weight - 1) // weight
        assert reason(path) == f"40 x 24 pixels of {kind}: more than {limit}"


def test_avif_may_have_half_as_many_pixels():  # that some Pillows can't write
    image = SimpleNamespace(format="AVIF", width=8900, height=5000, tile=[])
    assert limits.weigh(io.BytesIO(), image) == 89_000_000
    image.width = 8901
    with pytest.raises(ValueError, match="8901 x 5000 pixels of AVIF: more than 44500000"):
        limits.weigh(io.BytesIO(), image)


def test_comments_in_a_plain_ppm_are_bounded(tmp_path):
    path = tmp_path / "a.ppm"
    for comments in (1000, 1001):
        path.write_bytes(b"P2\n2 1\n255\n" + b"#\n" * comments + b"7 9\n")
        if comments == 1000:
            assert imagefiles.decode(as_file(path), 1, 1)[0].reshape(-1).tolist() == [7, 9]
    assert reason(path) == "1001 comments: more than 1000"


# ---- pixels in flight ----


class Recorded(Budget):
    def __init__(self):
        super().__init__()
        self.taken = []

    def take(self, pixels):
        self.taken.append(pixels)
        return super().take(pixels)


def taken(path, size=8):
    budget = Recorded()
    imagefiles.decode(as_file(path), size, 1, budget=budget)
    return budget.taken


def test_an_image_takes_the_pixels_that_are_decoded(tmp_path):
    image = photograph((800, 480))
    for name, options in (("a.png", {}), ("b.jpg", {}), ("c.jpg", {"progressive": True}), ("d.ico", {})):
        image.save(tmp_path / name, **options)
    assert taken(tmp_path / "a.png") == [800 * 480]
    assert taken(tmp_path / "b.jpg") == [100 * 60]  # an eighth of its sides
    assert taken(tmp_path / "c.jpg") == [800 * 480]  # all coefficients are held
    assert taken(tmp_path / "d.ico") == [limits.MAX_PIXELS]  # its real size isn't known yet


def test_a_tile_that_exceeds_its_image_is_taken_in_full(tmp_path):
    blob = zlib.compress(b"\0" * 256 * 512)
    (tmp_path / "a.tif").write_bytes(tiff(16, 16, blob, t322=[256], t323=[512], t324=[8], t325=[len(blob)]))
    assert taken(tmp_path / "a.tif") == [256 * 512]


def test_threads_never_hold_more_than_the_budget():
    budget, held, most = Budget(100), 0, 0
    lock, sizes = threading.Lock(), [1, 30, 99, 60, 100, 41, 250, 7] * 40

    def hold(pixels):
        nonlocal held, most
        with budget.take(pixels):
            with lock:
                held += min(pixels, 100)
                most = max(most, held)
            time.sleep(0.0002)  # so that others come to hold theirs
            with lock:
                held -= min(pixels, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(hold, sizes))
    assert held == 0
    assert most <= 100


def test_an_error_gives_the_pixels_back():
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.take(10):
            raise KeyError
    with budget.take(10):
        pass


def test_arrays_share_the_budget(monkeypatch):
    budgets = []
    monkeypatch.setattr("dcgan.data.budget.Budget", lambda: budgets.append(Recorded()) or budgets[-1])
    fit.fit_array(np.zeros((3, 20, 30, 1), np.uint8), 8, 1)
    assert [budget.taken for budget in budgets] == [[600] * 3]


# ---- Ctrl-C ----


def test_an_interrupt_waits_only_for_what_is_being_decoded(monkeypatch, tmp_path):
    """The first file is done, one holds all pixels, seven wait for them, the others are queued."""
    for i in range(30):
        (tmp_path / f"{i:02}.png").write_bytes(b"")
    started, holding, turned_away = itertools.count(), threading.Event(), itertools.count()
    closed = threading.Event()
    monkeypatch.setattr(Budget, "close", lambda self, close=Budget.close: (close(self), closed.set()))

    def decode(file, size, channels, value_range, budget):
        if file.name == "00.png":
            assert holding.wait(5)
            return np.zeros((4, 4, 1), np.uint8), 1
        next(started)
        try:
            with budget.take(2**40):
                holding.set()
                assert closed.wait(5)
        except CancelledError:
            next(turned_away)
            raise
        return np.zeros((4, 4, 1), np.uint8), 1

    def interrupt(images, image):
        raise KeyboardInterrupt

    monkeypatch.setattr(imagefiles, "decode", decode)
    monkeypatch.setattr(imagefiles, "keep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder.read(tmp_path, 4, 1)
    begun, away = next(started), next(turned_away)
    assert begun <= 9  # of 29: one a thread, and the one that the first thread takes next
    assert away == begun - 1
    assert threading.active_count() < 8


def test_results_come_in_order_and_nothing_begins_after_the_end():
    begun = []

    def square(item, budget):
        begun.append(item)
        with budget.take(1):
            return item * item

    results = in_threads(square, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 4, 9, 16]
    results.close()
    assert list(results) == []
    count = len(begun)
    assert sorted(begun) == list(range(count))
    assert list(in_threads(square, range(50), 4)) == [i * i for i in range(50)]


# ---- memory ----

PEAK = """
import sys
from pathlib import Path
from dcgan.data import folder
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])
before = peak()
folder.read(Path(sys.argv[1]), 64, int(sys.argv[2]))
print((peak() - before) // 1024)
"""


def peak_of(place, channels):
    """The megabytes that reading a folder takes, in a process of its own."""
    command = [sys.executable, "-c", PEAK, str(place), str(channels)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["I;16", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_eight_large_images_take_the_memory_of_two(tmp_path, mode, channels):
    content = encoded(Image.new(mode, (4096, 4095)), "PNG")
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(content)
    assert peak_of(tmp_path, channels) < 350


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_palette_with_transparency_stays_a_palette(tmp_path, channels):
    image = Image.new("P", (9000, 9000))
    image.putpalette(bytes([10, 20, 30] * 256))
    image.save(tmp_path / "a.png", transparency=bytes([128] * 256))
    assert peak_of(tmp_path, channels) < 200  # 81 MB of palette indices
