"""What --data may name besides a folder of images: IDX and NumPy files, MNIST; and every mistake."""

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import load_batches
from PIL import Image

from dcgan import presets
from dcgan.data import arrays, idx, names, scale, sources
from dcgan.errors import UserError
from dcgan.evaluation import comparison
from dcgan.evaluation.judges import DigitJudge
from dcgan.recipe.plan import check_batches

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def as_idx(array, sizes=None, kind=8):
    """The content of an IDX file; with `sizes`, its header says those instead."""
    sizes = array.shape if sizes is None else sizes
    return bytes([0, 0, kind, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + array.tobytes()


def as_npy(array, header=None):
    """The content of an .npy file; with `header`, its fields are replaced."""
    buffer = io.BytesIO()
    fields = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape, **(header or {})}
    np.lib.format.write_array_header_1_0(buffer, fields)
    return buffer.getvalue() + array.tobytes()


def as_zip(compression=zipfile.ZIP_DEFLATED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def wrote(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def loaded(path, size=4, channels=1):
    """The images of a file as an array, and the notes."""
    found = sources.load(str(path), size, channels)
    return np.stack(list(found.images)), found.notes


def complaint(name, size=4, channels=1):
    """What a person is told of a --data that can't be used, after its name."""
    with pytest.raises(UserError) as told:
        sources.load(str(name), size, channels)
    text = str(told.value)
    assert text.startswith(f"--data {name}: ")
    return text.removeprefix(f"--data {name}: ")


# ---- IDX files ----


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.booleans(), st.integers(0, 9))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_idx_files_come_back(tmp_path_factory, shape, compressed, seed):
    array = pixels(*shape, seed=seed)
    content = as_idx(array)
    path = wrote(tmp_path_factory.mktemp("idx") / "a", gzip.compress(content) if compressed else content)
    found = idx.read(path)
    assert found.dtype == np.uint8
    assert found.shape == array.shape
    assert np.array_equal(found, array)
    assert np.array_equal(idx.parse(content), array)
    assert idx.is_idx(path) == (len(shape) == 3)


def test_idx_files_larger_than_a_piece_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "PIECE", 7)
    array = pixels(3, 4, 5)
    assert np.array_equal(idx.read(wrote(tmp_path / "a", as_idx(array))), array)
    with pytest.raises(ValueError, match="holds 59"):
        idx.read(wrote(tmp_path / "b", as_idx(array)[:-1]))


LYING = {
    "nothing": (b"", "no IDX file: it begins with b''"),
    "text": (b"P5 4 4 255\n", "no IDX file: it begins with b'P5 4'"),
    "only zeros": (b"\0" * 100, "no IDX file"),
    "no axis": (b"\0\0\x08\0\x07", "no IDX file"),
    "five axes": (as_idx(pixels(1, 1, 1, 1, 1)), "no IDX file"),
    "255 axes": (b"\0\0\x08\xff" + b"\0\0\0\1" * 255 + b"x", "no IDX file"),
    "floats": (as_idx(np.zeros((1, 4, 4), ">f4"), kind=0x0D), "of type 0xd: expected bytes"),
    "32 bits": (as_idx(np.zeros((1, 4, 4), ">i4"), kind=0x0C), "of type 0xc: expected bytes"),
    "half a header": (as_idx(pixels(2, 4, 4))[:11], "ends in its header"),
    "only the magic": (b"\0\0\x08\x03", "ends in its header"),
    "too little": (as_idx(pixels(2, 4, 4))[:-1], r"says 32 values \(2, 4, 4\) and holds 31"),
    "too much": (as_idx(pixels(2, 4, 4)) + b"x", r"says 32 values \(2, 4, 4\) and holds (more|33)"),
    "no value": (as_idx(pixels(0), (2, 4, 4)), "holds 0"),
    "one image more": (as_idx(pixels(2, 4, 4), (3, 4, 4)), "says 48 .* and holds 32"),
    "as little as none": (as_idx(pixels(2, 4, 4), (0, 4, 4)), "says 0 .* and holds (more|32)"),
    "much more": (as_idx(pixels(2, 4, 4), (60_000, 250, 250)), "says 3750000000 .* and holds 32"),
    "all there is": (as_idx(pixels(2, 4, 4), (2**32 - 1,) * 3), rf"says {(2**32 - 1) ** 3} values.*expected"),
    "just too much": (as_idx(pixels(2, 4, 4), (4, 2**15, 2**15 + 1)), "expected 4294967296 at most"),
}


@pytest.mark.parametrize("lie", LYING)
@pytest.mark.parametrize("compressed", [False, True])
def test_idx_files_that_lie_are_told(tmp_path, lie, compressed):
    content, words = LYING[lie]
    path = wrote(tmp_path / "a", gzip.compress(content) if compressed else content)
    with pytest.raises(ValueError, match=words):
        idx.read(path)
    with pytest.raises(ValueError, match=words):
        idx.parse(content)


def test_an_idx_header_reserves_no_memory(tmp_path):
    path = wrote(tmp_path / "a", as_idx(pixels(2, 4, 4), (60_000, 250, 250)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="says 3750000000"):
            idx.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**26
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-6], "damaged gzip file"),
        (lambda content: content[:30], "damaged gzip file"),
        (lambda content: content[:-8] + bytes(8), "damaged gzip file"),  # another checksum
        (lambda content: content[:20] + b"\xff" * 20 + content[40:], "damaged gzip file"),
        (lambda content: content[:2] + b"\x07" + content[3:], "damaged gzip file"),  # another method
        (lambda content: content + b"rest", "damaged gzip file"),
        (lambda content: content + content, "holds more"),
    ],
)
def test_damaged_gzip_files_are_told(tmp_path, damage, words):
    path = wrote(tmp_path / "a.gz", damage(gzip.compress(as_idx(pixels(5, 4, 4)))))
    with pytest.raises(ValueError, match=words):
        idx.read(path)
    # Where not even the first bytes can be unpacked, the file is of no known kind.
    assert complaint(path).startswith(("damaged gzip", "it says 80", "expected an .npy, .npz, .zip or IDX"))


# ---- arrays ----


@pytest.mark.parametrize(
    ("shape", "order", "expected"),
    [
        ((5, 6, 7), (0, 1, 2), (5, 6, 7, 1)),
        ((5, 6, 7, 1), (0, 1, 2, 3), (5, 6, 7, 1)),
        ((5, 6, 7, 2), (0, 1, 2, 3), (5, 6, 7, 2)),
        ((5, 3, 7, 3), (0, 1, 2, 3), (5, 3, 7, 3)),
        ((5, 6, 7, 4), (0, 1, 2, 3), (5, 6, 7, 4)),
        ((5, 1, 6, 7), (0, 2, 3, 1), (5, 6, 7, 1)),
        ((5, 3, 6, 7), (0, 2, 3, 1), (5, 6, 7, 3)),
        ((5, 4, 6, 7), (0, 2, 3, 1), (5, 6, 7, 4)),
    ],
)
def test_channels_may_come_first_or_last_or_not_at_all(tmp_path, shape, order, expected):
    array = pixels(*shape)
    straight = array if len(shape) == 4 else array[..., None]
    straight = straight.transpose(order if len(shape) == 4 else (0, 1, 2, 3))
    for given_ in (array, np.asfortranarray(array)):
        np.save(tmp_path / "a.npy", given_)
        np.savez(tmp_path / "a.npz", given_)
        for name in ("a.npy", "a.npz"):
            found = arrays.read(tmp_path / name)
            assert found.shape == expected
            assert np.array_equal(found, straight)


NOT_IMAGES = {
    "a number": (np.uint8(3), r"its shape is \(\): expected \(n, H, W\)"),
    "a row": (pixels(9), r"its shape is \(9,\)"),
    "one image": (pixels(4, 4), r"its shape is \(4, 4\)"),
    "five axes": (pixels(2, 2, 4, 4, 3), r"its shape is \(2, 2, 4, 4, 3\)"),
    "five channels": (pixels(2, 8, 8, 5), r"its shape is \(2, 8, 8, 5\).*C from 1 to 4"),
    "no image": (pixels(0, 4, 4), "holds no image"),
    "no row": (pixels(2, 0, 4), r"its shape is \(2, 0, 4, 1\)"),
    "no column": (pixels(2, 4, 0), r"its shape is \(2, 4, 0, 1\)"),
    "no channel": (pixels(2, 8, 8, 0), r"its shape is \(2, 8, 8, 0\)"),
    "not finite": (np.full((1, 4, 4), np.nan), "numbers that are not finite"),
    "infinite": (np.full((1, 4, 4), -np.inf, "f4"), "numbers that are not finite"),
    "one not finite": (np.eye(4)[None] / np.where(np.eye(4) == 0, np.nan, 1), "numbers that are not finite"),
    "too high": (
        np.full((1, 4, 4), 255.5),
        r"numbers go from 255\.5 to 255\.5 \(float64\), .*--range LOW,HIGH",
    ),
    "too low": (np.full((1, 4, 4), -1.06), r"numbers go from -1\.06"),
    "both": (np.linspace(-1, 255, 16).reshape(1, 4, 4), "numbers go from -1 to 255"),
    "negative": (np.full((1, 4, 4), -1, "i4"), "numbers go from -1 to -1"),
    "large integers": (np.full((1, 4, 4), 2**62), r"numbers go from 4\.61169e\+18"),
    "complex": (np.zeros((1, 4, 4), "c8"), "its numbers are complex64: expected bytes or floats"),
    "text": (np.full((1, 4, 4), "a"), "its numbers are <U1"),
    "dates": (np.zeros((1, 4, 4), "M8[s]"), "its numbers are datetime64"),
    "durations": (np.zeros((1, 4, 4), "m8[s]"), "its numbers are timedelta64"),
    "records": (np.zeros((1, 4, 4), [("r", "u1"), ("g", "u1")]), "its numbers are "),
    "raw": (np.zeros((1, 4, 4), "V3"), r"its numbers are \|V3"),
}


@pytest.mark.parametrize("what", NOT_IMAGES)
def test_arrays_that_are_no_images_are_told(tmp_path, what):
    array, words = NOT_IMAGES[what]
    np.save(tmp_path / "a.npy", array)
    np.savez_compressed(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match=words):
            scale.to_bytes(arrays.read(tmp_path / name))
        with pytest.raises(UserError, match=words):
            sources.load(str(tmp_path / name), 4, 1)


class Trap:
    """What, unpickled, makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_nothing_in_a_file_is_ever_run(tmp_path):
    traps = np.array([Trap(tmp_path / "sprung")] * 4, object).reshape(1, 2, 2)
    np.save(tmp_path / "a.npy", traps, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=traps)
    for name in ("b.npy", "b.npz", "b"):
        wrote(tmp_path / name, pickle.dumps(Trap(tmp_path / "sprung")))
    wrote(tmp_path / "c.npz", as_zip(images=pickle.dumps(Trap(tmp_path / "sprung"))))
    record = np.zeros((1, 2, 2), [("r", "u1"), ("x", object)])
    np.save(tmp_path / "d.npy", record, allow_pickle=True)
    wrote(tmp_path / "e.npz", as_zip(images=as_npy(pixels(1, 2, 2), {"descr": "|O"})))
    wrote(tmp_path / "e.npy", as_npy(pixels(1, 2, 2), {"descr": "|O"}))
    for name in ("a.npy", "a.npz", "b.npy", "b.npz", "b", "c.npz", "d.npy", "e.npz", "e.npy"):
        assert complaint(tmp_path / name)
    assert "never loaded" in complaint(tmp_path / "a.npz")
    assert "Python objects" in complaint(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung"))).close()  # noqa: S301 the trap works
    assert (tmp_path / "sprung").exists()


SMALL = pixels(2, 4, 4)
WRONG_SHAPES = [
    (3, 4, 4),
    (2**31, 4, 4),
    (2**40, 2**40, 2**40),
    (-2, -4, 4),
    (-1, 4, 4),
    (0, 4, 4),
    (2, 4),
    (2, 4, 4, 0),
]


@pytest.mark.parametrize("shape", WRONG_SHAPES)
def test_headers_that_lie_of_the_shape_are_told(tmp_path, shape):
    content = as_npy(SMALL, {"shape": shape})
    assert complaint(wrote(tmp_path / "a.npy", content))
    assert complaint(wrote(tmp_path / "a.npz", as_zip(images=content)))


@pytest.mark.parametrize(
    "header",
    [
        {"descr": "<f8"},
        {"descr": "no type"},
        {"descr": 3},
        {"shape": "(2, 4, 4)"},
        {"shape": (2.0, 4, 4)},
        {"fortran_order": "no"},
        {"more": 1},
    ],
)
def test_headers_that_make_no_sense_are_told(tmp_path, header):
    content = as_npy(SMALL, header)
    assert "can't be read as an .npy file" in complaint(wrote(tmp_path / "a.npy", content))
    assert complaint(wrote(tmp_path / "a.npz", as_zip(images=content)))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"((((",
        b"[" * 900,
        b"{[]: 1}",
        b"__import__('os')",
        b"{'a': 1, 2: 3}",
        b"'\n'",
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("version", [1, 2, 3, 9])
def test_headers_that_are_no_header_are_told(tmp_path, version, text):
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    content = b"\x93NUMPY" + bytes([version, 0]) + length + text + SMALL.tobytes()
    assert complaint(wrote(tmp_path / "a.npy", content))
    assert complaint(wrote(tmp_path / "a.npz", as_zip(images=content)))


def test_files_cut_short_or_of_another_kind_are_told(tmp_path):
    npy, npz = as_npy(SMALL), as_zip(images=as_npy(SMALL))
    for length in range(0, len(npy), 5):
        assert "can't be read as an .npy file" in complaint(wrote(tmp_path / "a.npy", npy[:length]))
    for length in range(0, len(npz), 5):
        assert "can't be read as an .npz file" in complaint(wrote(tmp_path / "a.npz", npz[:length]))
    assert "can't be read as an .npz file" in complaint(wrote(tmp_path / "b.npz", npy))
    assert "can't be read as an .npy file" in complaint(wrote(tmp_path / "b.npy", npz))
    assert "can't be read as an .npy file" in complaint(wrote(tmp_path / "c.npy", as_idx(SMALL)))


def test_of_several_arrays_one_is_named_or_likely(tmp_path):
    path = tmp_path / "a.npz"
    few, many = pixels(2, 4, 4), pixels(3, 4, 4)
    np.savez(path, some=many, other=few, labels=np.arange(3))
    assert np.array_equal(loaded(f"{path}:some")[0][..., 0], many)
    assert np.array_equal(loaded(f"{path}:other")[0][..., 0], few)
    words = complaint(path)
    assert words == "it holds the arrays some, other, labels: name one as FILE.npz:NAME"
    assert complaint(f"{path}:none") == "it holds no array 'none': expected one of some, other, labels"
    assert "its shape is (3,)" in complaint(f"{path}:labels")
    assert "no file or folder of that name" in complaint(f"{tmp_path / 'b.npz'}:some")
    np.savez(path, labels=np.arange(3), x_train=few, y_train=np.arange(2), x_test=many)
    assert np.array_equal(loaded(path)[0][..., 0], few)
    np.savez(path, many)
    assert np.array_equal(loaded(path)[0][..., 0], many)
    np.savez(path, anything=many)
    assert np.array_equal(loaded(path)[0][..., 0], many)
    assert np.array_equal(loaded(f"{path}:anything")[0][..., 0], many)
    np.savez(path)
    assert complaint(path) == "it holds the arrays none: name one as FILE.npz:NAME"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "none")
    assert complaint(f"{path}:a") == "it holds no array 'a': expected one of none"


def test_a_file_whose_name_looks_like_a_named_array_is_taken_as_it_is(tmp_path):
    path = tmp_path / "a.npz:b.npy"
    np.save(path, SMALL)
    assert np.array_equal(loaded(path)[0][..., 0], SMALL)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archives_of_any_compression_are_read(tmp_path, compression):
    path = wrote(tmp_path / "a.npz", as_zip(compression, images=as_npy(SMALL)))
    assert np.array_equal(loaded(path)[0][..., 0], SMALL)


def test_an_encrypted_archive_is_told(tmp_path):
    content = bytearray(as_zip(zipfile.ZIP_STORED, images=as_npy(SMALL)))
    content[6] |= 1  # the flag, in the file's own header and in the directory
    content[content.index(b"PK\1\2") + 8] |= 1
    assert "encrypted" in complaint(wrote(tmp_path / "a.npz", bytes(content)))


def test_an_array_is_compared_with_its_header_before_it_is_read(tmp_path):
    path = wrote(tmp_path / "a.npz", as_zip(images=as_npy(SMALL, {"shape": (2**33, 4, 4)})))
    tracemalloc.start()
    try:
        assert complaint(path) == f"images.npy says {2**37} bytes ({2**33}, 4, 4) and holds 32"
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


MUTABLE = {
    "a.npy": as_npy(pixels(3, 4, 5)),
    "b.npy": as_npy(pixels(3, 4, 5).astype("f4") / 255),
    "c.npz": as_zip(zipfile.ZIP_STORED, images=as_npy(pixels(3, 4, 5)), labels=as_npy(np.arange(3))),
    "d.npz": as_zip(images=as_npy(pixels(3, 4, 5))),
    "e.npz": as_zip(zipfile.ZIP_LZMA, images=as_npy(pixels(3, 4, 5))),
    "f": as_idx(pixels(3, 4, 5)),
    "g.gz": gzip.compress(as_idx(pixels(3, 4, 5)), mtime=0),
}
BYTES = st.one_of(st.integers(0, 255), st.sampled_from(b"0123456789-+()[]{}'\",:.<>|=fiucOUVmMTLFalsr \n#\\"))


@pytest.mark.parametrize("name", MUTABLE)
@given(
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), BYTES), max_size=4),
    share=st.floats(0.3, 3),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_a_damaged_file_is_images_or_is_told(tmp_path_factory, name, changes, share):
    content = bytearray(MUTABLE[name])
    for place, value in changes:
        content[int(place * len(content))] = value
    path = wrote(tmp_path_factory.mktemp("damaged") / name, content[: int(len(content) * min(share, 1))])
    try:
        found, _ = loaded(path)
    except UserError as error:
        found, words = np.zeros((1, 4, 4, 1), np.uint8), str(error)
    else:
        words = f"--data {path}: fine"
    assert words.startswith(f"--data {path}: ")
    assert len(words) > len(f"--data {path}: ")
    assert (found.dtype, found.ndim, min(found.shape[1:3])) == (np.uint8, 4, 4)
    assert len(found) > 0


@given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(lambda rest: b"\0\0\x08\1\0\0\0" + rest)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_any_bytes_are_an_idx_file_or_are_told(content):
    try:
        expected = as_idx(idx.parse(content))
    except ValueError as error:
        expected = content if str(error) else None
    assert content == expected


# ---- what --data names ----


def test_mnist_is_the_default_and_needs_no_file(few_digits):
    found = sources.load("mnist", 28, 1)
    assert np.array_equal(found.images[..., 0], few_digits)
    assert found.notes == []


def test_mnist_trains_a_recipe_in_colour_and_of_another_size(few_digits):
    found = sources.load("mnist", 32, 3)
    assert found.images.shape == (200, 32, 32, 1)  # repeated in batches
    assert found.notes == [
        "200 images of MNIST, 28 x 28 grey: resized, 32 on the shorter side, made RGB (three equal channels)"
    ]
    assert sources.load("mnist", 28, 4).images.shape == (200, 28, 28, 4)


@pytest.mark.parametrize("with_labels", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_directory_of_idx_files_is_read(tmp_path, with_labels, compressed):
    array = pixels(7, 4, 4)
    pack, ending = (gzip.compress, ".gz") if compressed else (bytes, "")
    wrote(tmp_path / f"{IMAGES}{ending}", pack(as_idx(array)))
    if with_labels:
        wrote(tmp_path / f"{LABELS}{ending}", pack(as_idx(pixels(7))))
    for name in (f"fashion-mnist:{tmp_path}", str(tmp_path)):
        found = sources.load(name, 4, 1)
        assert np.array_equal(found.images[..., 0], array)
        file = f"{IMAGES}{ending}"
        assert found.notes == [f"7 images of {file}, 4 x 4 grey, 0 as black, 255 as white"]


def without_images(directory):
    return f"no {IMAGES} or train-images.idx3-ubyte, nor one with .gz, in {directory} or its subfolders"


def test_a_directory_without_its_idx_files_is_told(tmp_path):
    name = f"fashion-mnist:{tmp_path / 'data'}"
    assert complaint(name) == without_images(tmp_path / "data")
    wrote(tmp_path / "data" / "t10k-images-idx3-ubyte", as_idx(pixels(7, 4, 4)))
    assert complaint(name) == without_images(tmp_path / "data")
    (tmp_path / "data" / IMAGES).mkdir()
    assert complaint(name) == without_images(tmp_path / "data")


def test_labels_are_held_against_the_images(tmp_path):
    wrote(tmp_path / IMAGES, as_idx(pixels(7, 4, 4)))
    for count in (0, 6, 8):
        wrote(tmp_path / LABELS, as_idx(pixels(count)))
        expected = f"{LABELS}: another number of labels than the 7 images of {IMAGES}"
        assert complaint(f"fashion-mnist:{tmp_path}") == expected
    wrote(tmp_path / LABELS, as_idx(pixels(7), (8,)))
    assert complaint(tmp_path) == f"{LABELS}: it says 8 values (8,) and holds 7"
    wrote(tmp_path / IMAGES, as_idx(pixels(7)))
    assert complaint(tmp_path) == f"{IMAGES}: it holds (7,): expected images (n, height, width)"


def test_a_pair_or_one_idx_file_of_any_name_is_read(tmp_path):
    array = pixels(7, 4, 4)
    images, labels = (
        wrote(tmp_path / "x", as_idx(array)),
        wrote(tmp_path / "y.gz", gzip.compress(as_idx(pixels(7)))),
    )
    for name in (f"{images},{labels}", str(images)):
        assert np.array_equal(loaded(name)[0][..., 0], array)
    assert complaint(f"{labels},{images}") == "y.gz: it holds (7,): expected images (n, height, width)"
    assert "No such file" in complaint(f"{images},{tmp_path / 'none'}")
    assert "No such file" in complaint(f"{tmp_path / 'none'},{labels}")
    assert "expected an .npy, .npz, .zip or IDX file of images" in complaint(labels)
    comma = wrote(tmp_path / "a,b", as_idx(array))
    assert np.array_equal(loaded(comma)[0][..., 0], array)


@pytest.mark.parametrize("shape", [(0, 4, 4), (3, 0, 4), (3, 4, 0)])
def test_idx_files_without_a_pixel_are_told(tmp_path, shape):
    path = wrote(tmp_path / "a", as_idx(pixels(*shape)))
    assert complaint(path) == f"it holds {shape}: expected images (n, height, width)"


LONG = "a" * 300  # more than a file's name may have


@pytest.mark.parametrize(
    "name",
    ["cifar", "none", "a.npy", "~/none", "a\0b", LONG, f"x.npz:{LONG}", "a.npz:", "none/a.png", ":", ","],
)
def test_names_of_nothing_are_told(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    words = complaint(name)
    assert words.startswith(
        ("expected mnist, fashion-mnist:DIR, a folder or .zip of images, an .npy or .npz file, IDX", ": ")
    )
    assert words.endswith(("there is no file or folder of that name", "Is a directory: '.'"))


@pytest.mark.parametrize("directory", ["none", LONG, "a\0b"])
def test_directories_of_nothing_are_told(tmp_path, monkeypatch, directory):
    monkeypatch.chdir(tmp_path)
    assert complaint(f"fashion-mnist:{directory}") == without_images(directory)
    assert "[Errno " in complaint(f"{LONG},{directory}")


@pytest.mark.parametrize(
    ("name", "content", "instead"),
    [
        ("a.txt", b"a,b", ""),
        ("a.csv", b"", ""),
        ("a.png", b"\x89PNG\r\n\x1a\n", ""),
        ("a", b"\0\0", ""),
        ("cifar-10-binary.tar.gz", gzip.compress(b"a", mtime=0), "; extract an archive first"),
        ("a.RAR", b"Rar!", "; extract an archive first"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path, name, content, instead):
    path = wrote(tmp_path / name, content)
    expected = "expected an .npy, .npz, .zip or IDX file of images, one of CIFAR's .bin files, or the folder"
    assert complaint(path) == f"{expected} of an image{instead}"


def test_arrays_are_fitted_and_the_notes_say_how(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, pixels(3, 8, 12, 4))
    found = sources.load(str(path), 4, 1)
    assert found.images.shape == (3, 4, 6, 1)
    assert found.notes == [
        "3 images of a.npy, 8 x 12 RGB with alpha, 0 as black, 255 as white: resized, 4 on the shorter side, "
        "laid on white, made grey (0.299 R + 0.587 G + 0.114 B)"
    ]
    found = sources.load(str(path), 8, 4)
    assert np.array_equal(found.images, np.load(path))
    assert found.notes == ["3 images of a.npy, 8 x 12 RGB with alpha, 0 as black, 255 as white"]


def test_a_folder_of_images_is_read(tmp_path):
    for i, value in enumerate((5, 6)):
        path = tmp_path / "a" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 12), value, np.uint8)).save(path)
    found = sources.load(str(tmp_path), 4, 3)
    assert [image.tolist() for image in found.images] == [
        np.full((4, 6, 3), value).tolist() for value in (5, 6)
    ]
    assert found.notes == ["2 images are grey: made RGB (three equal channels)"]


def test_names_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrote(tmp_path / "a,b", b"")
    for name in ("mnist", "MNIST", "Mnist"):
        assert sources.absolute(name) == "mnist"
    assert sources.absolute("Fashion-MNIST:X") == f"fashion-mnist:{tmp_path}/X"
    assert sources.absolute("images") == f"{tmp_path}/images"
    assert sources.absolute("x.npz:key") == f"{tmp_path}/x.npz:key"
    assert sources.absolute("x,y") == f"{tmp_path}/x,{tmp_path}/y"
    assert sources.absolute("a,b") == f"{tmp_path}/a,b"
    assert sources.absolute("fashion-mnist:x") == f"fashion-mnist:{tmp_path}/x"
    for name in ("mnist", "x.npz:key", "x,y", "a,b", "fashion-mnist:x", "/x/../y"):
        assert sources.absolute(sources.absolute(name)) == sources.absolute(name)


# ---- names in any case ----


@pytest.mark.parametrize("name", ["MNIST", "Mnist", "mNIST"])
def test_the_digits_are_named_in_any_case(few_digits, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(sources.load(name, 28, 1).images[..., 0], few_digits)
    assert names.is_digits(name)
    assert isinstance(comparison.judge_of(name), DigitJudge)
    with pytest.raises(UserError, match="--range 0,1 with --data mnist: its bytes go from 0 to 255; leave"):
        sources.check_range(name, (0.0, 1.0))


def test_fashion_mnist_is_named_in_any_case(tmp_path):
    array = pixels(7, 4, 4)
    wrote(tmp_path / "A" / IMAGES, as_idx(array))
    assert np.array_equal(loaded(f"FASHION-MNIST:{tmp_path / 'A'}")[0][..., 0], array)
    with pytest.raises(UserError, match="--range 0,1 with --data fashion-mnist:.*name the directory alone"):
        sources.load(f"Fashion-Mnist:{tmp_path}", 4, 1, (0.0, 1.0))


def test_a_file_or_folder_of_that_very_name_comes_first(few_digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrote(tmp_path / "MNIST" / "raw" / IMAGES, as_idx(pixels(7, 28, 28)))
    wrote(tmp_path / "Fashion-MNIST:x", as_idx(pixels(8, 28, 28)))
    (tmp_path / "mnist").mkdir()
    lengths = {name: len(sources.load(name, 28, 1).images) for name in ("mnist", "MNIST", "Mnist")}
    assert lengths == {"mnist": 200, "MNIST": 7, "Mnist": 200}
    assert sources.absolute("MNIST") == f"{tmp_path}/MNIST"
    assert not names.is_digits("MNIST")
    assert len(sources.load("Fashion-MNIST:x", 28, 1).images) == 8
    assert sources.absolute("mnist") == "mnist"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("minst", "mnist"),
        ("MNST", "mnist"),
        ("fashion-mnist", "fashion-mnist:DIR"),
        ("fashion_mnist", "fashion-mnist:DIR"),
        ("FashionMNIST", "fashion-mnist:DIR"),
        ("fasion-mnist:X", "fashion-mnist:X"),
        ("flowers", ""),
        ("cifar10", ""),
        ("x/minst", ""),
    ],
)
def test_a_name_that_is_nearly_known_is_told(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    ending = f"; did you mean {meant}?" if meant else ""
    assert complaint(name).endswith(f"there is no file or folder of that name{ending}")


# ---- sets in folders, as their archives leave them ----


@pytest.mark.parametrize("spelling", [IMAGES, "train-images.idx3-ubyte"])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("place", [".", f"{IMAGES}", "MNIST/raw", "data/FashionMNIST/raw"])
def test_idx_files_are_found_in_either_spelling_and_in_subfolders(tmp_path, spelling, ending, place):
    array, pack = pixels(7, 4, 4), gzip.compress if ending else bytes
    wrote(tmp_path / place / f"{spelling}{ending}", pack(as_idx(array)))
    wrote(tmp_path / place / f"t10k-images-idx3-ubyte{ending}", pack(as_idx(pixels(3, 4, 4))))
    for name in (str(tmp_path), f"fashion-mnist:{tmp_path}"):
        found = sources.load(name, 4, 1)
        assert np.array_equal(found.images[..., 0], array)
        file = (Path(place) / f"{spelling}{ending}").as_posix()
        assert found.notes == [f"7 images of {file}, 4 x 4 grey, 0 as black, 255 as white"]
    assert np.array_equal(loaded(tmp_path / place / f"{spelling}{ending}")[0][..., 0], array)


@pytest.mark.parametrize("labels", ["train-labels-idx1-ubyte", "train-labels.idx1-ubyte"])
@pytest.mark.parametrize("nested", [False, True])
def test_labels_are_found_in_either_spelling_and_in_folders_of_their_name(tmp_path, labels, nested):
    wrote(tmp_path / (f"{IMAGES}/{IMAGES}" if nested else IMAGES), as_idx(pixels(7, 4, 4)))
    wrote(tmp_path / (f"{labels}/{labels}" if nested else labels), as_idx(pixels(6)))
    words = f"{labels}: another number of labels than the 7 images of {IMAGES}"
    assert complaint(tmp_path) == words
    if nested:
        assert complaint(tmp_path / IMAGES) == words


def test_the_set_nearest_to_the_folder_counts(tmp_path):
    for place, count in (("a/b", 3), ("c", 2), ("a/b/c/d", 5)):
        wrote(tmp_path / place / IMAGES, as_idx(pixels(count, 4, 4)))
    assert len(loaded(tmp_path)[0]) == 2
    wrote(tmp_path / "train-images.idx3-ubyte", as_idx(pixels(1, 4, 4)))
    assert len(loaded(tmp_path)[0]) == 1
    wrote(tmp_path / f"{IMAGES}.gz", gzip.compress(as_idx(pixels(4, 4, 4))))
    assert len(loaded(tmp_path)[0]) == 4
    assert complaint(tmp_path / "a" / "b" / "c" / "none").startswith("expected mnist")
    deep = wrote(tmp_path / "deep" / "1" / "2" / "3" / "4" / IMAGES, as_idx(pixels(4, 4, 4)))
    assert len(loaded(deep.parents[3])[0]) == 4
    assert "no image in it" in complaint(deep.parents[4])


def test_of_several_sets_one_is_named(tmp_path):
    for place in ("MNIST/raw", "FashionMNIST/raw", "a/b/c"):
        wrote(tmp_path / place / IMAGES, as_idx(pixels(7, 4, 4)))
    words = f"it holds 2 sets (FashionMNIST/raw/{IMAGES}, MNIST/raw/{IMAGES}): name the folder or file of one"
    assert complaint(tmp_path) == complaint(f"fashion-mnist:{tmp_path}") == words
    assert len(loaded(tmp_path / "MNIST")[0]) == 7
    for i in range(6):
        wrote(tmp_path / f"{i}" / IMAGES, as_idx(pixels(7, 4, 4)))
    words = f"it holds 6 sets (0/{IMAGES}, 1/{IMAGES}, 2/{IMAGES}, 3/{IMAGES}, 4/{IMAGES} and 1 more): name"
    assert complaint(tmp_path).startswith(words)


def test_a_folder_of_images_that_holds_a_set_too_is_told(tmp_path):
    Image.new("L", (4, 4), 5).save(tmp_path / "a.png")
    wrote(tmp_path / "MNIST" / IMAGES, as_idx(pixels(7, 4, 4)))
    words = f"it holds 1 image files and also the set MNIST/{IMAGES}: name the folder of one of them"
    assert complaint(tmp_path) == words
    wrote(tmp_path / IMAGES, as_idx(pixels(3, 4, 4)))  # in the folder itself, it is what is meant
    assert len(loaded(tmp_path)[0]) == 3


def test_sets_are_not_looked_for_behind_links_or_in_hidden_folders(tmp_path):
    secret = wrote(tmp_path / "secret" / IMAGES, as_idx(pixels(7, 4, 4)))
    inside = tmp_path / "inside"
    wrote(inside / ".hidden" / IMAGES, as_idx(pixels(7, 4, 4)))
    (inside / "link").symlink_to(secret.parent)
    (inside / IMAGES).symlink_to(secret)
    os.mkfifo(inside / "train-images.idx3-ubyte")
    assert "no image in it" in complaint(inside)
    wrote(inside / "mine" / "x", as_idx(pixels(2, 4, 4)))
    (inside / "mine" / IMAGES).symlink_to("x")
    assert len(loaded(inside)[0]) == 2
    (tmp_path / "to-inside").symlink_to(inside / "mine")
    assert len(loaded(tmp_path / "to-inside")[0]) == 2


def test_evaluation_takes_a_set_in_a_folder(tmp_path):
    array = pixels(40, 8, 8)
    wrote(tmp_path / "MNIST" / "raw" / IMAGES, as_idx(array))
    real = comparison.real_images(str(tmp_path), presets.get("quick", image_size=8))
    assert (len(real.reference), len(real.floor), len(real.training)) == (20, 20, 40)
    assert real.notes == [f"40 images of MNIST/raw/{IMAGES}, 8 x 8 grey, 0 as black, 255 as white"]


# ---- what training makes of it ----


def test_a_grey_set_trains_a_recipe_in_colour_and_back_and_says_so(tmp_path, capsys):
    grey, colour = tmp_path / "grey.npy", tmp_path / "colour.npy"
    np.save(grey, pixels(8, 32, 32))
    np.save(colour, pixels(8, 28, 28, 3))
    flowers = presets.get("flowers", batch_size=4)
    batch = load_batches(flowers, str(grey)).batch(1)
    assert capsys.readouterr().out == (
        "8 images of grey.npy, 32 x 32 grey, 0 as black, 255 as white: made RGB (three equal channels)\n"
    )
    assert batch.shape == (4, 3, 32, 32)
    assert np.array_equal(batch[:, 0], batch[:, 1])
    assert np.array_equal(batch[:, 0], batch[:, 2])
    batch = load_batches(presets.get("quick", batch_size=4), str(colour)).batch(1)
    note = "colour.npy, 28 x 28 RGB, 0 as black, 255 as white: made grey (0.299 R + 0.587 G"
    assert note in capsys.readouterr().out
    assert batch.shape == (4, 1, 28, 28)


def test_mnist_as_it_is_needs_no_words(few_digits, capsys):
    assert len(load_batches(presets.get("quick"), None).images) == 200
    assert capsys.readouterr().out == ""
    assert load_batches(presets.get("pytorch"), None).batch(1).shape == (128, 3, 64, 64)
    out = capsys.readouterr().out
    assert out.startswith(
        "No --data is given: pytorch trains on MNIST; --data FOLDER trains it on your pictures."
    )
    assert "made RGB (three equal channels)" in out


def test_a_set_smaller_than_a_batch_is_told(tmp_path):
    np.save(tmp_path / "a.npy", pixels(5, 28, 28))
    with pytest.raises(
        UserError, match=r"^5 images are \w+ than a batch of 64: use --batch-size 5 or .*more images"
    ):
        load_batches(presets.get("quick"), str(tmp_path / "a.npy"))
    assert load_batches(presets.get("quick", batch_size=5), str(tmp_path / "a.npy")).per_epoch == 1


BASELINE = "tensorflow-baseline"  # which has no BatchNorm


@pytest.mark.parametrize("preset", ["quick", "flux", "tensorflow", "pytorch", "flowers"])
def test_a_batch_of_one_image_is_told_where_there_is_a_batchnorm(preset):
    with pytest.raises(UserError, match="--batch-size 1: a BatchNorm needs two images or more"):
        check_batches(presets.get(preset, batch_size=1), 100)
    check_batches(presets.get(BASELINE, batch_size=1), 100)
    assert check_batches(presets.get(preset, batch_size=2), 100) is None


@pytest.mark.parametrize("preset", ["quick", "tensorflow", "pytorch", "flowers"])
def test_a_last_batch_of_one_image_is_told_where_there_is_a_batchnorm(preset):
    with pytest.raises(UserError, match="--batch-size 10: the last batch of 101 images would hold one"):
        check_batches(presets.get(preset, batch_size=10), 101)
    for count in (10, 100, 102, 109):
        check_batches(presets.get(preset, batch_size=10), count)
    check_batches(presets.get("flux", batch_size=10), 101)  # whose fake batches are always whole
    assert check_batches(presets.get(BASELINE, batch_size=10), 101) is None
