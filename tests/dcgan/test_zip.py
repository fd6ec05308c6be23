"""Archives of images: read in place, alike a folder, whatever somebody put into them."""

import io
import os
import random
import stat
import struct
import threading
import tracemalloc
import zipfile
import zlib
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import presets
from dcgan.data import archive, folder, imagefiles, sources
from dcgan.data.batches import Batches
from dcgan.errors import UserError
from dcgan.evaluation import comparison

LINK, PIPE = (stat.S_IFLNK | 0o777) << 16, (stat.S_IFIFO | 0o600) << 16


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def grey(value):
    return encoded(Image.new("L", (4, 4), value))


def deflated(content):
    stream = zlib.compressobj(9, wbits=-15)
    return stream.compress(content) + stream.flush()


def member(name, content, *, method=8, data=None, flags=0x800, attributes=0, system=3, **changes):
    """A member of an archive; `size`, `packed`, `crc` and `offset` replace what is true of it."""
    data = (deflated(content) if method == 8 else content) if data is None else data
    true = {"size": len(content), "packed": len(data), "crc": zlib.crc32(content), "offset": None}
    fields = {"method": method, "flags": flags, "attributes": attributes, "system": system}
    name = name if isinstance(name, bytes) else name.encode()
    return {"name": name, "data": data, **fields, **true, **changes}


def packed(*members, comment=b""):
    """An archive of the members, written byte by byte as they say."""
    body, directory = b"", b""
    for one in members:
        sizes = struct.pack("<III", one["crc"], one["packed"], one["size"])
        common = struct.pack("<HHHI", 20, one["flags"], one["method"], 0) + sizes
        offset = len(body) if one["offset"] is None else one["offset"]
        lengths = struct.pack("<HH", len(one["name"]), 0)
        body += b"PK\3\4" + common + lengths + one["name"] + one["data"]
        made_by = bytes([20, one["system"]])
        rest = struct.pack("<HHHII", 0, 0, 0, one["attributes"], offset)
        directory += b"PK\1\2" + made_by + common + lengths + rest + one["name"]
    counts = struct.pack("<HHHHII", 0, 0, len(members), len(members), len(directory), len(body))
    return body + directory + b"PK\5\6" + counts + struct.pack("<H", len(comment)) + comment


def wrote(path, *members):
    path.write_bytes(packed(*members))
    return path


def read(path, size=4, channels=1):
    """The grey of each image, and the notes."""
    images, notes = archive.read(path, size, channels)
    return [int(image[0, 0, 0]) for image in images], notes


def complaint(path):
    with pytest.raises(UserError) as told:
        sources.load(str(path), 4, 1)
    assert str(told.value).startswith(f"--data {path}: ")
    return str(told.value).removeprefix(f"--data {path}: ")


def fingerprint(found):
    return Batches(found.images, 1, mg.Generator(0, 0)).fingerprint()


# ---- alike a folder ----

FORMATS = {
    "bmp": ("BMP", {}), "dib": ("DIB", {}), "gif": ("GIF", {}), "ico": ("PNG", {}), "j2k": ("JPEG2000", {}),
    "jpeg": ("JPEG", {"progressive": True}), "jpg": ("JPEG", {}), "pcx": ("PCX", {}), "png": ("PNG", {}),
    "ppm": ("PPM", {}), "sgi": ("SGI", {}), "tga": ("TGA", {}), "tif": ("TIFF", {}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}), "webp": ("WEBP", {"lossless": True}),
}  # fmt: skip


def tree(root):
    """A folder as people have them, with one image that can't be read."""
    for i, (ending, (kind, options)) in enumerate(FORMATS.items()):
        place = root / ("", "b", "b/10", "b/9", "B", "ä")[i % 6]
        place.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(noise(40 + i, 60 - i, seed=i))
        (place / f"{i}.{ending}").write_bytes(encoded(image, kind, **options))
    (root / "b" / "short.jpg").write_bytes(encoded(Image.fromarray(noise(64, 64)), "JPEG")[:1500])
    for name in (".hidden.png", ".git/a.png", "__MACOSX/b/._5.png", "__MACOSX/c.png", "b/labels.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(grey(1))
    return root


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_archive_gives_the_images_of_its_folder(tmp_path, method, wrapped):
    root = tree(tmp_path / "images")
    paths = sorted(root.rglob("*"))
    random.Random(0).shuffle(paths)
    with zipfile.ZipFile(tmp_path / "images.zip", "w", method) as made:
        for path in paths:
            made.write(path, path.relative_to(tmp_path if wrapped else root))
    inside, outside = (sources.load(str(place), 16, 3) for place in (root, tmp_path / "images.zip"))
    assert len(inside.images) == len(FORMATS)
    assert fingerprint(inside) == fingerprint(outside)
    assert all(np.array_equal(a, b) for a, b in zip(inside.images, outside.images, strict=True))
    before = f"images{os.sep}b{os.sep}" if wrapped else f"b{os.sep}"
    assert [note.replace(before, f"b{os.sep}") for note in outside.notes] == inside.notes
    assert "1 of 16 images can't be read and are left out: b/short.jpg (image file is" in inside.notes[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "images.zip"]


def test_the_order_does_not_depend_on_threads(tmp_path, monkeypatch):
    sizes = [4 + (40 - value) * 8 for value in range(40)]  # the first take longest
    contents = [encoded(Image.new("L", (size, size), i)) for i, size in enumerate(sizes)]
    path = wrote(tmp_path / "a.zip", *(member(f"{i:02}.png", content) for i, content in enumerate(contents)))
    many = read(path)[0]
    monkeypatch.setattr(imagefiles, "WORKERS", 1)
    assert many == read(path)[0] == list(range(40))


def test_threads_read_one_archive_at_once(tmp_path, at_once):
    contents = [np.random.default_rng(i).bytes(20_000 + i) for i in range(8)]
    path = wrote(tmp_path / "a.zip", *(member(f"{i}.png", content) for i, content in enumerate(contents)))
    with open(path, "rb") as file:
        files, _ = archive.find(path, file)

        def look(number):
            for i in range(number, number + 40):
                with files[i % 8].open() as content:
                    assert content.read() == contents[i % 8]

        at_once(look, 6)


def test_evaluation_takes_an_archive(tmp_path):
    pictures = [member(f"{i:02}.png", encoded(Image.fromarray(noise(8, 8, i)))) for i in range(40)]
    path = wrote(tmp_path / "a.zip", *pictures)
    preset = presets.get("pytorch", image_size=8, ngf=2, ndf=2)
    real = comparison.real_images(str(path), preset)
    assert (len(real.reference), len(real.floor)) == (20, 20)
    assert sorted(image.tobytes() for image in real.training) == sorted(
        noise(8, 8, i).tobytes() for i in range(40)
    )
    assert real.notes == ["40 images are RGB"]


def test_the_range_of_deep_images_is_taken(tmp_path):
    image = Image.fromarray(np.full((4, 4), 50, np.float32))
    path = wrote(tmp_path / "a.zip", member("a.tif", encoded(image, "TIFF")))
    assert "--range LOW,HIGH" in complaint(path)
    found = sources.load(str(path), 4, 1, (0.0, 100.0))
    assert found.value_range == (0.0, 100.0)
    assert np.all(found.images[0] == 128)


# ---- names ----


def test_what_is_passed_over_is_counted(tmp_path):
    path = wrote(
        tmp_path / "a.zip",
        member("dir/", b"", method=0),
        member("dir.png", b"", method=0, attributes=0x10),  # a folder, as DOS says it
        member("dir/a.png", grey(1)),
        member("./dir//b.png", grey(2)),
        member("link.png", b"/etc/passwd", attributes=LINK),
        member("dir/link", b"..", attributes=LINK),
        member("pipe.png", grey(9), attributes=PIPE),
        member("/etc/a.png", grey(9)),
        member("dir/../../a.png", grey(9)),
        member("C:/a.png", grey(9)),
        member("a.txt", b"text"),
        member("", b"no name"),
    )  # fmt: skip
    assert read(path) == (
        [1, 2],
        [
            "2 images are grey",
            "2 symbolic links not followed: put the files themselves into it",
            "3 names that lead out of the archive left out: they begin with / or a drive, or hold ..",
        ],
    )
    with open(path, "rb") as file:
        files, others = archive.find(path, file)
    assert [file.name for file in files] == ["dir/a.png", "dir/b.png"]
    rest = {archive.LINKS: 2, archive.OUTSIDE: 3, ".png": 1, ".txt": 1, "no ending": 1}
    assert others == rest
    assert list(tmp_path.iterdir()) == [path]


def test_of_equal_names_the_last_counts_as_if_it_were_extracted(tmp_path):
    names = ("a.png", "b.png", "./a.png", "a.png")
    path = wrote(tmp_path / "a.zip", *(member(name, grey(i)) for i, name in enumerate(names)))
    assert read(path) == (
        [3, 1],
        ["2 images are grey", "2 files whose names come again later left out: the last of each name counts"],
    )


def test_names_are_read_as_the_system_that_wrote_them_means_them(tmp_path):
    path = wrote(
        tmp_path / "a.zip",
        member("é/a.png".encode(), grey(1), flags=0),  # macOS and Linux do not say that it is UTF-8
        member(b"\x82/b.png", grey(2), flags=0, system=0),  # DOS's é
        member(b"c\\x.png", grey(3), flags=0, system=0),
        member(b"\xff.png", grey(4), flags=0),  # no UTF-8
        member("d\\y.png", grey(5)),
    )
    with open(path, "rb") as file:
        names = [file.name for file in archive.find(path, file)[0]]
    assert names == ["d\\y.png", "\xa0.png", "c/x.png", "é/a.png", "é/b.png"]
    assert read(path)[0] == [5, 4, 3, 1, 2]


# ---- hostile and damaged ----

ZEROS, SIZE = 2**28 + 1, len(grey(1))
HOSTILE = {
    "encrypted": (member("x.png", grey(1), flags=1), "encrypted"),
    "method 12": (member("x.png", grey(1), method=12), r"packed by method 12: expected 0 (stored) or 8"),
    "method 9": (member("x.png", grey(1), method=9), "packed by method 9: "),
    "says more": (member("x.png", grey(1), size=SIZE + 1), f"says {SIZE + 1} bytes and holds {SIZE}"),
    "says less": (member("x.png", grey(1), size=SIZE - 1), f"says {SIZE - 1} bytes and holds more"),
    "stored, more": (member("x.png", grey(1), method=0, size=99), f"says 99 bytes and holds {SIZE}"),
    "stored, less": (member("x.png", grey(1), method=0, size=9), "says 9 bytes and holds more"),
    "says none": (member("x.png", grey(1), size=0), "says 0 bytes and holds more"),
    "packed more": (member("x.png", grey(1), data=deflated(grey(1)) + b"x"), "damaged: 1 bytes after its"),
    "packed less": (member("x.png", grey(1), packed=20), "damaged: its packed bytes end too early"),
    "another checksum": (member("x.png", grey(1), crc=1), "damaged: its checksum is another one"),
    "no deflate": (member("x.png", grey(1), data=b"\xff" * 60), "damaged: Error -3"),
    "nowhere": (member("x.png", grey(1), offset=2**31), "damaged: it is not where the archive says"),
    "elsewhere": (member("x.png", grey(1), offset=5), "damaged: it is not where the archive says"),
    "too large": (member("x.png", grey(1), size=ZEROS), f"{ZEROS} bytes: more than {2**28}"),
    "a large claim": (member("x.png", grey(1), size=2**26 + 1), f"unpack to {2**26 + 1}: expected {2**26}"),
    "a bomb": (
        member("x.png", b"", data=deflated(bytes(2**26 + 5)), size=2**26 + 5),
        f"unpack to {2**26 + 5}: expected {2**26} at most",
    ),
    "a bomb that lies": (
        member("x.png", b"", data=deflated(bytes(2**26)), size=999),
        "says 999 bytes and holds more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_member_that_is_not_what_it_says_is_named_and_left_out(tmp_path, what):
    hostile, reason = HOSTILE[what]
    rest = [member(f"{i}.png", grey(i)) for i in range(9)]
    path = wrote(tmp_path / "a.zip", *rest[:4], hostile, *rest[4:])
    tracemalloc.start()
    try:
        values, notes = read(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**24
    assert values == list(range(9))
    start = "1 of 10 images can't be read and are left out: x.png ("
    assert notes[1].startswith(start)
    assert reason in notes[1].removeprefix(start)


def test_a_packed_size_beyond_the_end_of_the_archive_is_told(tmp_path):
    room = member("a.txt", b"", data=bytes(5000), packed=0)
    path = wrote(tmp_path / "a.zip", room, member("b.png", grey(2), packed=4000))
    assert "1 of 1 images can't be read: b.png (it says 4000 packed bytes and holds 191)" in complaint(path)


def test_more_than_a_tenth_of_bad_members_is_an_error(tmp_path):
    members = [member(f"{i}.png", grey(i), flags=i < 2) for i in range(10)]
    words = complaint(wrote(tmp_path / "a.zip", *members))
    assert words.startswith("2 of 10 images can't be read: 0.png (encrypted), 1.png (encrypted). Remove or")


def test_images_in_an_archive_have_the_limits_of_all_images(tmp_path, monkeypatch):
    monkeypatch.setattr(imagefiles, "MAX_PIXELS", 20)
    rest = [member(f"{i}.png", grey(i)) for i in range(9)]
    path = wrote(tmp_path / "a.zip", *rest, member("x.png", encoded(Image.new("L", (7, 3)))))
    assert read(path)[1][1].endswith("x.png (7 x 3 pixels: more than 20)")


def test_members_that_overlap_are_refused(tmp_path):
    content = bytes(range(256)) * 40
    members = [member("0.png", content, method=0)]
    members += [
        member(f"{i}.png", content, method=0, data=b"", packed=len(content), offset=0) for i in range(9)
    ]
    words = complaint(wrote(tmp_path / "a.zip", *members))
    assert words == "its members hold more bytes than the archive: they overlap"


def test_a_long_list_of_members_is_not_read(tmp_path, monkeypatch):
    path = wrote(tmp_path / "a.zip", *(member(f"{i}.png", grey(i)) for i in range(9)))
    assert read(path)[0] == list(range(9))
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 9 * 51 - 1)
    assert "a list of members of 459 bytes: expected 458 at most" in complaint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it can't be read as a .zip archive (File is not a zip file): copy or download it again"),
        (b"Not Found: the page was moved", "it can't be read as a .zip archive ("),
        (packed(member("a.png", grey(1)))[:-30], "it can't be read as a .zip archive ("),
        (packed(member("a.png", grey(1)))[60:], "a.png (damaged: it is not where the archive says)"),
        (packed(), "no image in it or in its subfolders, which hold no file. If it holds files of many"),
        (packed(member("a/b.npy", b"x")), "no image in it or in its subfolders, but other files (1 .npy). "),
        (packed(member("a.png", b"/x", attributes=LINK)), "but other files (1 symbolic links). "),
        (packed(member("a.png", b"")), "1 of 1 images can't be read: a.png (no image)"),
        (packed(member("a\x1b[2J.png", b"")), r"1 of 1 images can't be read: a\x1b[2J.png (no image)"),
        (packed(member("a.\x1b[2J", b"")), r"but other files (1 .\x1b[2j). "),
    ],
)  # fmt: skip
def test_archives_without_an_image_are_told(tmp_path, content, words):
    path = tmp_path / "a.ZIP"
    path.write_bytes(content)
    assert words in complaint(path)


def test_an_archive_may_stand_behind_a_program(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\n" * 100 + packed(member("a.png", grey(7)), comment=b"a comment"))
    assert read(path)[0] == [7]


def test_a_pipe_and_a_folder_with_the_name_of_an_archive(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    assert "there is no file or folder of that name" in complaint(tmp_path / "pipe.zip")
    (tmp_path / "folder.zip").mkdir()
    (tmp_path / "folder.zip" / "a.png").write_bytes(grey(5))
    assert np.all(sources.load(str(tmp_path / "folder.zip"), 4, 1).images[0] == 5)
    assert "1 .zip" in complaint(wrote_into(tmp_path / "parent"))


def wrote_into(directory):
    directory.mkdir()
    wrote(directory / "a.zip", member("a.png", grey(1)))
    return directory


def test_threads_never_hold_more_than_their_share_of_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "HELD", 500)
    held, most, lock = 0, 0, threading.Lock()
    take = archive.Budget.take

    @contextmanager
    def recorded(self, amount):
        nonlocal held, most
        with take(self, amount):
            if self._total == 500:
                with lock:
                    held += amount
                    most = max(most, held)
            yield
            if self._total == 500:
                with lock:
                    held -= amount

    monkeypatch.setattr(archive.Budget, "take", recorded)
    path = wrote(tmp_path / "a.zip", *(member(f"{i:02}.png", grey(i)) for i in range(60)))
    assert read(path)[0] == list(range(60))
    assert held == 0
    assert 0 < most <= 500


def test_folders_pass_over_what_macos_adds(tmp_path):
    for name in ("a.png", "__MACOSX/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(grey(3))
    assert [path.name for path in folder.find(tmp_path)[0]] == ["a.png"]
    assert len(folder.find(tmp_path)[0]) == 1
