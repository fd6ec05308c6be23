"""Files that somebody else made, given to the commands: one line, exit code 2, soon, and nothing written."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import re
import struct
import sys
import time
import tracemalloc
import zipfile

import fuzz
import numpy as np
import pytest
from PIL import Image

import minigrad as mg
from dcgan import animate, evaluate, interpolate, sample, train
from dcgan.console import run_command
from dcgan.data import folder, sources
from dcgan.errors import UserError
from dcgan.run import checkpoint, directory
from minigrad.tables import printable

GIB = 2**30


@pytest.fixture
def refusal(tmp_path, monkeypatch, capfd):
    """Calls a command as a terminal does; the line that it ends with."""

    def call(main, *arguments):
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["name", *map(str, arguments)])
        tracemalloc.start()
        start = time.process_time()
        try:
            with pytest.raises(SystemExit) as ended:
                run_command(main, "name")
            memory = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        seconds = time.process_time() - start  # other programs do not lengthen it
        said = capfd.readouterr().err
        assert ended.value.code == 2, said
        assert said.startswith("name: ")
        assert said.count("\n") == 1, said
        assert len(said) < 3000
        assert "not enough memory" not in said
        assert seconds < 2  # with tracemalloc, which doubles it
        assert memory < GIB // 2
        assert sorted(tmp_path.rglob("*")) == before
        return said

    return call


def sparse(path, start, size):
    """A file of `size` bytes that begins as said, and takes no room for its zeros."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


# ---- checkpoints ----

SOUND = fuzz._checkpoints()[0]
HEADER = 8 + struct.unpack("<Q", SOUND[:8])[0]


def entry(**tensor):
    text = json.dumps({"a": tensor}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


NO_CHECKPOINTS = {
    "nothing": b"",
    "text": b"hello",
    "a pickle": pickle.dumps({"a": 1}),
    "half of its length": SOUND[:4],
    "half of its header": SOUND[: HEADER // 2],
    "no tensors": SOUND[:HEADER],
    "the last byte": SOUND[:-1],
    "one byte more": SOUND + b"\0",
    "a flipped bit": SOUND[: HEADER + 9] + bytes([SOUND[HEADER + 9] ^ 1]) + SOUND[HEADER + 10 :],
    "a huge header": struct.pack("<Q", 2**63) + SOUND[8:],
    "a header that does not end": struct.pack("<Q", 90_000_000) + b'{"a":' * 1000,
    "deep JSON": struct.pack("<Q", 50_000) + b"[" * 50_000,
    "a huge shape": entry(dtype="F32", shape=[2**40, 2**40], data_offsets=[0, 4]),
    "a huge offset": entry(dtype="F32", shape=[1], data_offsets=[2**60, 2**60 + 4]),
    "a shape of zeros": entry(dtype="F32", shape=[0, 2**62, 2**62], data_offsets=[0, 0]),
    "many axes": entry(dtype="F32", shape=[1] * 100, data_offsets=[0, 4]),
    "an unknown type": entry(dtype="F4", shape=[8], data_offsets=[0, 4]),
    "no recipe": entry(dtype="F32", shape=[1], data_offsets=[0, 4]),
    "zeros": bytes(100),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_no_checkpoint_is_told(tmp_path, refusal, what):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(NO_CHECKPOINTS[what])
    assert str(path) in refusal(sample.main, path, "--out", "a.png")
    assert str(path) in refusal(evaluate.main, tmp_path)
    assert str(path) in refusal(interpolate.main, tmp_path, "--out", "a.png", "--between", "0", "1")


@pytest.mark.slow
def test_a_checkpoint_cut_short_at_any_byte_is_told(tmp_path):
    path = tmp_path / "a"
    for length in range(len(SOUND)):
        path.write_bytes(SOUND[:length])
        with pytest.raises(UserError, match="damaged"):
            checkpoint.load(path)


def test_what_is_no_file_is_told(tmp_path, refusal):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for path in ("pipe", "loop", "/dev/zero", "none", "a" * 300, "."):
        assert refusal(sample.main, path, "--out", "a.png")


def test_a_large_header_is_not_parsed(tmp_path):
    path = sparse(tmp_path / "a", struct.pack("<Q", 95_000_000) + b"{", 96_000_000)
    with pytest.raises(ValueError, match="its header says 95000000 bytes: expected 8388608 at most"):
        mg.load(path)


def layers_with(**fields):
    """The layers of a generator, the first replaced."""
    return [{"kind": "Dense", "features": 16, **fields}, *fuzz.SMALL.to_json()["generator"][1:]]


TRANSPOSED = {"kind": "ConvTranspose", "channels": 1, "kernel": 4, "stride": 2, "padding": 1}
RECIPES = {
    "many features": ({"generator": layers_with(features=10**9)}, "5000000000 weights; expected"),
    "features below 0": ({"generator": layers_with(features=-1)}, "out_features"),
    "features in words": ({"generator": layers_with(features="16")}, "features='16': expected a value"),
    "true features": ({"generator": layers_with(features=True)}, "features=True: expected a value"),
    "many channels": ({"generator": [{**TRANSPOSED, "channels": 10**9}]}, "expected .* at most|layer 0"),
    "a huge kernel": ({"generator": [{**TRANSPOSED, "kernel": 10**9}], "z_shape": [4, 2, 2]}, "weights"),
    "a huge stride": ({"generator": [{**TRANSPOSED, "stride": 10**9}], "z_shape": [4, 2, 2]}, "layer 0"),
    "a huge padding": ({"generator": [{**TRANSPOSED, "padding": 10**9}], "z_shape": [4, 2, 2]}, "layer 0"),
    "a huge picture": ({"generator": [{**TRANSPOSED, "stride": 10**5}], "z_shape": [1, 9, 9]}, "layer 0"),
    "many layers": ({"generator": [{"kind": "ReLU"}] * 5000}, "5000 layers; expected 200 at most"),
    "no layers": ({"generator": []}, r"makes images of \(5,\)"),
    "unknown layers": ({"generator": [{"kind": "os.system"}]}, "unknown kind of layer 'os.system'"),
    "a long kind": ({"generator": [{"kind": "x" * 10**5}]}, "unknown kind"),
    "a huge image": ({"image_size": 10**6}, "image_size=1000000: expected 2048 at most"),
    "an infinite image": ({"image_size": float("inf")}, "Infinity is no number"),
    "a rate that is none": ({"lr_generator": float("nan")}, "NaN is no number"),
    "a rate beyond floats": ({"lr_generator": 10**400}, "expected"),
    "much noise": ({"z_shape": [10**9]}, "z_shape=.*expected positive integers, 1048576 numbers at most"),
    "noise in words": ({"z_shape": "100"}, "z_shape: expected a list of integers"),
    "a class in a name": ({"sample_name": "{step.__class__}{step}.png"}, "sample_name="),
    "a wide name": ({"sample_name": "{step:999999999d}.png"}, "sample_name="),
    "a nested name": ({"sample_name": "{step:{step}}.png"}, "sample_name="),
    "a name by number": ({"sample_name": "{0}{step}.png"}, "sample_name="),
    "a path as a name": ({"sample_name": "../{step}.png"}, "sample_name="),
    "an absolute name": ({"sample_name": "/tmp/{step}.png"}, "sample_name="),
    "a real path": ({"real_name": "../../x.png"}, "real_name="),
    "another's path": ({"name": "../x"}, "name='../x': expected a short name"),
    "a hidden name": ({"name": ".ssh"}, "name='.ssh'"),
    "a name that paints": ({"name": "\x1b[2Jquick"}, r"name='\\x1b\[2Jquick'"),
    "half a letter": ({"name": "\ud800"}, "name="),
    "no name": ({"name": None}, "name=None: expected a value of type"),
    "an unknown field": ({"__class__": 1}, "__class__"),
    "a large grid": ({"grid_rows": 10**5, "grid_columns": 10**5}, "expected a grid of at most"),
    "another family": ({"architecture": "dcgan", "image_size": 256, "nz": 4096, "ngf": 4096, "ndf": 1}, ""),
}  # fmt: skip


@pytest.mark.parametrize("what", RECIPES)
def test_recipes_that_can_not_be_are_told(tmp_path, refusal, what):
    fields, words = RECIPES[what]
    recipe = json.dumps({**fuzz.SMALL.to_json(), **fields})
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(fuzz._checkpoint(fuzz.STATE, recipe, '{"step": 1, "epoch": 1}'))
    said = refusal(sample.main, path, "--out", "a.png")
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("recipe", "position"),
    [
        ("[" * 10**5, "{}"),
        ('{"a":' * 10**5, "{}"),
        ('"' + "x" * 2**21 + '"', "{}"),
        ("null", "{}"),
        ("[]", "{}"),
        (json.dumps(fuzz.SMALL.to_json()), "[]"),
        (json.dumps(fuzz.SMALL.to_json()), '{"step": -1, "epoch": 1}'),
        (json.dumps(fuzz.SMALL.to_json()), '{"step": 1e999, "epoch": 1}'),
        (json.dumps(fuzz.SMALL.to_json()), '{"step": 1}'),
        (json.dumps(fuzz.SMALL.to_json()), '{"step": ' + "9" * 9999 + ', "epoch": 1}'),
        (json.dumps(fuzz.SMALL.to_json()), '{"step": "1", "epoch": true}'),
    ],
    ids=range(11),
)
def test_recipes_and_positions_that_are_none_are_told(tmp_path, refusal, recipe, position):
    path = tmp_path / "a"
    path.write_bytes(fuzz._checkpoint(fuzz.STATE, recipe, position))
    assert "holds no recipe that this version knows" in refusal(sample.main, path, "--out", "a.png")


STATES = {
    "of another shape": lambda a: a[:, :1],
    "of another type": lambda a: a.astype(np.float16),
    "integers": lambda a: a.astype(np.int8),
    "without an axis": lambda a: a.reshape(-1),
    "not finite": lambda a: a * np.nan,
    "empty": lambda a: a[:0],
}


@pytest.mark.parametrize("what", STATES)
def test_weights_that_do_not_fit_are_told(tmp_path, refusal, what):
    name = next(n for n, a in fuzz.STATE.items() if n.startswith("generator.") and a.ndim == 2)
    path = tmp_path / "a"
    state = {**fuzz.STATE, name: STATES[what](fuzz.STATE[name])}
    recipe = json.dumps(fuzz.SMALL.to_json())
    path.write_bytes(fuzz._checkpoint(state, recipe, '{"step": 1, "epoch": 1}'))
    said = refusal(sample.main, path, "--out", "a.png", "--weights", "last")
    assert "does not fit its recipe" in said or "not finite" in said


# ---- a run's other files ----


@pytest.mark.parametrize(
    "content",
    [b"[" * 10**5, b"{", b"[]", b"\xff\xfe", b'{"data": 3}', b'{"data": NaN}', b"x" * 2**21, b"null", b""],
    ids=range(9),
)
def test_a_config_that_says_nothing_is_told(tmp_path, refusal, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(SOUND)
    (tmp_path / "config.json").write_bytes(content)
    assert "config.json does not say" in refusal(evaluate.main, tmp_path)


def test_a_config_that_is_a_pipe_or_names_nothing_is_told(tmp_path, refusal):
    (tmp_path / "checkpoint.safetensors").write_bytes(SOUND)
    os.mkfifo(tmp_path / "config.json")
    assert "config.json does not say" in refusal(evaluate.main, tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps({"data": "\x1b[2J/dev/zero"}))
    assert "\\x1b[2J/dev/zero: expected mnist" in refusal(evaluate.main, tmp_path)


@pytest.mark.parametrize(
    "line",
    ["[" * 10**5, "x", "[]", "{}", '{"step": "1"}', '{"step": 1, "d_x": NaN}', '{"step": 1, "d_x": []}',
     '{"step": 1, "d_x": 1e999}', '{"step": 1' + "0" * 400 + "}", "\ud800"],
    ids=range(10),
)  # fmt: skip
def test_metrics_that_are_none_are_told_with_their_line(tmp_path, line):
    text = '{"step": 1, "loss_d": null}\n' + line + "\n"
    (tmp_path / "metrics.jsonl").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged \(.*expected a JSON object"):
        directory.RunDirectory(tmp_path).metrics()


def test_metrics_without_an_end_are_not_read_whole(tmp_path):
    sparse(tmp_path / "metrics.jsonl", b"", 2**33)
    with pytest.raises(UserError, match="line 1: 1048577 characters of JSON"):
        directory.RunDirectory(tmp_path).metrics()


def test_frames_that_are_none_are_told(tmp_path, refusal):
    def png(size, mode="L"):
        buffer = io.BytesIO()
        Image.new(mode, size).save(buffer, "PNG")
        return buffer.getvalue()

    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "00000000.png").write_bytes(png((8, 8)))
    header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    buffer = io.BytesIO()
    Image.new("L", (8, 8)).save(buffer, "JPEG")
    large = png((5000, 5000), "1")
    for content in (
        b"",
        b"text",
        png((8, 8))[:40],
        header,
        png((9, 8)),
        png((8, 8), "RGB"),
        buffer.getvalue(),
        large,
    ):
        (frames / "00000001.png").write_bytes(content)
        assert "00000001.png" in refusal(animate.main, tmp_path)
    (frames / "00000001.png").unlink()
    os.mkfifo(frames / "00000001.png")
    assert "00000001.png can't be read as an image: not a plain file" in refusal(animate.main, tmp_path)


def test_frames_of_any_mode_are_animated(tmp_path, monkeypatch):
    (tmp_path / "frames").mkdir()
    for i, mode in enumerate(("P", "1", "RGB")):
        Image.new(mode, (8, 8)).save(tmp_path / "frames" / f"{i:08d}.png")
    assert animate.main([str(tmp_path)]) == 0


# ---- images ----


def npy(descr="|u1", shape=(4, 8, 8), version=1, fortran=False):
    """The header of an .npy file alone."""
    text = repr({"descr": descr, "fortran_order": fortran, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(2 if version == 1 else 4, "little") + text


def idx(*sizes):
    return bytes((0, 0, 8, len(sizes))) + struct.pack(f">{len(sizes)}I", *sizes)


def zipped(name, pieces, declared=None):
    """An .npz file of one array from pieces; where `declared`, another size in its directory."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for piece in pieces:
            file.write(piece)
    content = bytearray(buffer.getvalue())
    if declared is not None:
        place = content.rindex(b"PK\1\2")
        content[place + 24 : place + 28] = declared.to_bytes(4, "little")
    return bytes(content)


ZEROS = bytes(2**20)
# Functions, so that a file is made only when its test runs: some take half a second and a hundred megabytes.
DATA = {
    "lies.idx": lambda: idx(60_000, 28, 28) + bytes(100),
    "more.idx": lambda: idx(2**32 - 1, 2**32 - 1, 2**32 - 1),
    "bomb.gz": lambda: gzip.compress(idx(100, 1000, 1000) + ZEROS * 96),
    "lying-bomb.gz": lambda: gzip.compress(idx(4, 8, 8) + ZEROS * 100),
    "short.gz": lambda: gzip.compress(idx(4, 8, 8) + bytes(256))[:-9],
    "points.gz": lambda: gzip.compress(idx(60_000_000, 1, 1) + ZEROS * 57 + bytes(60_000_000 - 57 * 2**20)),
    "wide.idx": lambda: idx(1, 1, 90_000_000) + bytes(90_000_000),
    "object.npy": lambda: npy("|O") + bytes(2048),
    "pickle.npy": lambda: pickle.dumps([1, 2]),
    "record.npy": lambda: npy([("a", "|u1"), ("b", "<f4")]) + bytes(2048),
    "negative.npy": lambda: npy(shape=(-4, -8, 8)) + bytes(2048),
    "overflow.npy": lambda: npy(shape=(2**62, 2**62, 8)) + bytes(2048),
    "wraps.npy": lambda: npy(shape=(2**32, 2**32, 2**32)) + bytes(2048),
    "short.npy": lambda: npy("<f8") + bytes(100),
    "deep.npy": lambda: b"\x93NUMPY\1\0" + (9000).to_bytes(2, "little") + b"(" * 9000,
    "empty.npz": lambda: b"",
    "text.npz": lambda: b"PK hello",
    "bomb.npz": lambda: zipped("images.npy", [npy(shape=(300, 1024, 1024)), *[ZEROS] * 300]),
    "short.npz": lambda: zipped("images.npy", [npy(), bytes(256)], declared=10**9),
    "long.npz": lambda: zipped("images.npy", [npy(shape=(300, 1024, 1024)), *[ZEROS] * 300], declared=384),
    "object.npz": lambda: zipped("images.npy", [npy("|O"), bytes(2048)]),
    "header.npz": lambda: zipped("images.npy", [b"\x93NUMPY\2\0\xff\xff\xff\xff", bytes(2048)]),
    "names.npz": lambda: zipped("x" * 60_000 + ".png", [b"a"]),
    "a.png": lambda: b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_is_none_is_told(tmp_path, refusal, name):
    path = tmp_path / name
    path.write_bytes(DATA[name]())
    refusal(train.main, "--preset", "quick", "--data", path)


def test_sparse_files_are_told_before_they_are_read(tmp_path, refusal):
    files = [
        sparse(tmp_path / "header.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff", 2**32 + 100),
        sparse(tmp_path / "floats.npy", npy("<f8", (2**26, 8, 8)), 2**40),
        sparse(tmp_path / "one.npy", npy("|u1", (1, 2**20, 2**20)), 2**41),
        sparse(tmp_path / "points.npy", npy("|u1", (2**36, 1, 1)), 2**37),
        sparse(tmp_path / "zeros", b"", 2**40),
    ]
    for path in files:
        refusal(train.main, "--preset", "quick", "--data", path)


def test_pipes_and_devices_are_told(tmp_path, refusal):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "a").write_bytes(idx(1, 8, 8) + bytes(64))
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe.npy", "zero", "pipe.npy,a", "a,pipe.npy", "a,zero", "/dev/null", "zero,a"):
        refusal(train.main, "--preset", "quick", "--data", name)


def test_noise_that_is_none_is_told(tmp_path, refusal):
    (tmp_path / "a").write_bytes(SOUND)
    z = tmp_path / "z.npy"
    for content in (
        b"",
        b"text",
        npy("|O", (3, 5)),
        npy("<f4", (10**9, 5)),
        npy("<f4", (-3, -5)),
        npy("<i4", (3, 5)),
    ):
        z.write_bytes(content + bytes(60))
        refusal(sample.main, tmp_path / "a", "--out", "a.png", "--z", z)
    sparse(z, npy("<f4", (2**31, 5)), 2**36)
    refusal(sample.main, tmp_path / "a", "--out", "a.png", "--z", z)
    z.unlink()
    os.mkfifo(z)
    refusal(sample.main, tmp_path / "a", "--out", "a.png", "--z", z)


# ---- folders ----


def picture(path, value=9):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), value).save(path)
    return path


def test_links_that_leave_the_folder_are_counted_and_not_followed(tmp_path):
    secret = picture(tmp_path / "secret" / "a.png")
    images = tmp_path / "images"
    inside = picture(images / "deep" / "real.png")
    (images / "inside.png").symlink_to(inside)
    (images / "outside.png").symlink_to(secret)
    (images / "up.png").symlink_to("../secret/a.png")
    (images / "device.png").symlink_to("/dev/zero")
    (images / "nowhere.png").symlink_to("/none/a.png")
    (images / "loop.png").symlink_to("loop.png")
    (images / "secret").symlink_to(tmp_path / "secret")
    os.mkfifo(images / "pipe.png")
    (images / "to-pipe.png").symlink_to("pipe.png")
    files, others = folder.find(images)
    assert [file.name for file in files] == ["inside.png", "loop.png", "real.png"]
    assert others == {folder.OUTSIDE: 4, folder.LINKED: 1, ".png": 2}
    (images / "loop.png").unlink()
    found = sources.load(str(images), 4, 1)
    assert len(found.images) == 2
    assert "4 symbolic links to files outside of the folder not followed" in " ".join(found.notes)


def test_the_folder_itself_may_be_a_link(tmp_path):
    picture(tmp_path / "real" / "a.png")
    (tmp_path / "real" / "b.png").symlink_to("a.png")
    (tmp_path / "link").symlink_to("real")
    assert len(folder.find(tmp_path / "link")[0]) == 2


def test_a_folder_of_links_alone_is_told(tmp_path, refusal):
    picture(tmp_path / "a.png")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").symlink_to(tmp_path / "a.png")
    said = refusal(train.main, "--preset", "quick", "--data", "images")
    assert "outside of the folder" in said


WEBP = (
    b"RIFF"
    + struct.pack("<I", 1000)
    + b"WEBPVP8X"
    + struct.pack("<I", 10)
    + b"\x10\0\0\0"
    + b"\xfe\x3f\0" * 2
)
BOMBS = {
    "a.webp": WEBP + b"ALPH" + struct.pack("<I", 2) + b"\0\0VP8 " + bytes(900),
    "a.bmp": b"BM" + struct.pack("<IHHIIIIHHIIIIII", 2**31, 0, 0, 54, 40, 2**30, 2**30, 1, 24, *[0] * 6),
    "a.gif": b"GIF89a\xff\xff\xff\xff\x80\0\0" + b"\0" * 6 + b",\0\0\0\0\xff\xff\xff\xff\0\2\0;",
    "a.ppm": b"P6 1000000 1000000 255\n" + bytes(100),
    "a.tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65535, 65535, 24, 0) + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_among_images_are_told(tmp_path, refusal, name):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / name).write_bytes(BOMBS[name])
    assert name in refusal(train.main, "--preset", "quick", "--data", "images")


def test_a_large_file_is_told_before_it_is_read(tmp_path, refusal):
    (tmp_path / "images").mkdir()
    for name in ("a.webp", "b.avif", "c.png", "d.tif"):
        sparse(tmp_path / "images" / name, BOMBS["a.webp"], 2**40)
    assert "1099511627776 bytes: more than 268435456" in refusal(
        train.main, "--preset", "quick", "--data", "images"
    )


def test_names_of_any_bytes_are_told(tmp_path, refusal):
    images = os.fsencode(tmp_path / "images")
    os.mkdir(images)
    for name in (b"\xff\xfe.png", b"a\nb.png", b"\x1b[2J.png"):
        with open(images + b"/" + name, "wb") as file:
            file.write(b"text")
    said = refusal(train.main, "--preset", "quick", "--data", "images")
    for shown in ("\\udcff\\udcfe.png", "a\\nb.png", "\\x1b[2J.png"):
        assert shown in said


def test_what_a_terminal_would_obey_is_written_in_escapes():
    assert printable("größe, 数\n\tx") == "größe, 数\n\tx"
    assert printable("\x1b[2J\a\x9b\u202e\ud800\n", keep="") == r"\x1b[2J\x07\x9b\u202e\ud800\n"


def test_a_sound_run_is_still_one(tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(SOUND)
    assert sample.main([str(tmp_path), "--out", str(tmp_path / "a.png"), "--grid", "2x2"]) == 0
    recipe = dataclasses.replace(fuzz.SMALL, sample_name="a{step:06d}-{epoch}.png")
    assert type(recipe).from_json(recipe.to_json()) == recipe
