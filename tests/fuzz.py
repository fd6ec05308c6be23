"""Files that somebody damaged, by chance or on purpose, for every reader there is.

    python tests/fuzz.py KIND COUNT SEED

reads COUNT mutations of files of a kind and prints what became of them. Each must be read, or refused with
the error that its reader documents, within a second, and nothing may be written, removed or run meanwhile.
"""

import copy
import dataclasses
import gzip
import io
import json
import os
import random
import re
import resource
import sys
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from reported import vital_signs

import minigrad as mg
from dcgan import animations, latent, models, presets, sampling
from dcgan.data import arrays, cifar, idx, imagefiles, scale, sources
from dcgan.data.folder import PathFile
from dcgan.errors import UserError
from dcgan.evaluation.line import EvaluationLine
from dcgan.files import jsonfile
from dcgan.recipe.layers import (
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Flatten,
    LeakyReLU,
    ReLU,
    Reshape,
    Sigmoid,
    Tanh,
)
from dcgan.run import checkpoint, checkup, directory, trained
from dcgan.run.directory import RunDirectory

SECONDS = 1.0  # of the processor's time that reading a small file may take
NUMBERS = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
WORDS = (
    b"-1", b"0", b"1e999", b"NaN", b"Infinity", b"1" * 30, b"9" * 5000, b"2147483648", b"1" + b"0" * 19,
    b"null", b"[]", b"{}", b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\x00", b"\xff", b"(" * 200, b"'|O'",
)  # fmt: skip
VALUES = (
    None, True, False, -1, 0, 1, 3, 2**20, 10**6, 10**9, 2**31, 2**63 - 1, 2**63, 10**400, -(10**30), 0.5,
    -0.5, 1e300, float("nan"), float("inf"), "", "a", "x" * 5000, "../x.png", "/etc/{step}.png",
    "{step}.png", "{step.__class__}{step}.png", "{step:999999999d}.png", "{step!r:>{step}}.png",
    "{0}{step}.png", "a\0.png", "\ud800", "\x1b[2J", "normal(1e999)", "normal(nan)",
    "normal(" + "9" * 999 + ")", "same", "valid", "dcgan", "dcgan_conv_last", "layers", [], {}, [[]],
    {"kind": "Dense"}, [1] * 5000, {"kind": "ReLU"}, [{"kind": "ReLU"}] * 999,
)  # fmt: skip


# ---- mutations ----


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The content with one to three mistakes; some are pieces of another file."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = rng.choice(MUTATIONS)(content, other, rng)
    return content


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
    """A place, half of the time near the start, where headers are, and one behind it."""
    start = rng.randrange(min(len(content), 64) if rng.random() < 0.5 else len(content)) if content else 0
    return start, min(len(content), start + rng.choice((1, 2, 4, 8, 64, 1024)))


def _flip(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    start, _ = _span(content, rng)
    bit = bytes([content[start] ^ 1 << rng.randrange(8)]) if content else b""
    return content[:start] + bit + content[start + 1 :]


def _cut(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _delete(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[end:]


def _insert(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[start:]


def _overwrite(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _repeat(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    start, end = _span(content, rng)
    return content[:start] + content[start:end] * rng.choice((2, 3, 100)) + content[end:]


def _number(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    """An extreme number of one to eight bytes, of either order, over what is there."""
    start, _ = _span(content, rng)
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    number = (rng.choice(NUMBERS) % 256**width).to_bytes(width, order)
    return content[:start] + number + content[start + width :]


def _word(content: bytes, _other: bytes, rng: random.Random) -> bytes:
    """Something else in the place of a number that is written in digits, or anywhere."""
    places = [match.span() for match in re.finditer(rb"\d+", content[:4096])]
    start, end = rng.choice(places) if places else _span(content, rng)
    return content[:start] + rng.choice(WORDS) + content[end:]


def _splice(content: bytes, other: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


MUTATIONS = (_flip, _flip, _cut, _delete, _insert, _overwrite, _repeat, _number, _number, _word, _splice)


def mutated_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with one to three of its parts replaced, removed, or repeated."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        holder, key = rng.choice(list(_parts(value)) or [([None], 0)])
        action = rng.random()
        if action < 0.15:
            del holder[key]
        elif action < 0.25 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice((1, 500))
        else:
            number = isinstance(holder[key], int | float) and rng.random() < 0.7
            values = [v for v in VALUES if isinstance(v, int | float)] if number else VALUES
            holder[key] = copy.deepcopy(rng.choice(values))
    return value


def _parts(value: Any) -> Any:
    """Everything inside of a value, as what holds it and under which key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield value, key
        yield from _parts(part)


# ---- kinds of files ----


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file: its name in a directory, sound ones to start from, and what reads them.

    `wrap` is applied to a mutation (so that what is inside of a sound archive is damaged), `make` makes one
    from scratch instead of mutating bytes.
    """

    name: str
    sound: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]
    wrap: Callable[[bytes], bytes] = bytes
    make: Callable[[random.Random], bytes] | None = None


def _pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def _idx() -> list[bytes]:
    return [bytes((0, 0, 8, 3, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 7)) + _pixels(5, 6, 7).tobytes()]


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _npys() -> list[bytes]:
    bytes_ = _pixels(3, 5, 6)
    floats = bytes_.astype("f4") / 255
    return [
        _npy(array) for array in (bytes_, floats, np.asfortranarray(floats), bytes_ > 9, bytes_.astype(">u2"))
    ]


def _zip(content: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("images.npy", content)
    return buffer.getvalue()


def _zips() -> list[bytes]:
    kinds = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA
    return [_zip(_npys()[0], kind) for kind in kinds]


def _image(kind: str, **options: Any) -> Callable[[], list[bytes]]:
    def files() -> list[bytes]:
        made = []
        for mode in ("RGB", "L", "P", "RGBA", "I;16", "1", "CMYK", "F"):
            buffer = io.BytesIO()
            try:
                shown = Image.fromarray(_pixels(17, 23, 3))
                shown = (
                    Image.fromarray(_pixels(17, 23).astype("u2")) if mode == "I;16" else shown.convert(mode)
                )
                shown.save(buffer, kind, **options)
            except (OSError, ValueError):
                continue  # it has no such mode
            made.append(buffer.getvalue())
        return made

    return files


OTHERS = (
    "DDS",
    "ICO",
    "ICNS",
    "JPEG2000",
    "MPO",
    "PCX",
    "PPM",
    "SGI",
    "SPIDER",
    "TGA",
    "XBM",
    "AVIF",
    "QOI",
    "MSP",
)


def _other_images() -> list[bytes]:
    Image.init()
    return [content for kind in OTHERS if kind in Image.SAVE for content in _image(kind)()]


def _with_checksums(content: bytes) -> bytes:
    """A PNG file whose chunks have checksums that agree, so that damage goes further than to them."""
    mended, place = [content[:8]], 8
    while place + 8 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        mended.append(content[place:end] + zlib.crc32(content[place + 4 : end]).to_bytes(4, "big"))
        place = end + 4
    return b"".join(mended)


def _picture_zips() -> list[bytes]:
    """Archives of pictures, some of them in folders, stored and deflated."""
    made, pictures_ = [], _image("PNG")() + _image("JPEG")()
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for i, content in enumerate(pictures_):
                archive.writestr(f"{'é/' * (i % 3)}{i}.png", content)
        made.append(buffer.getvalue())
    return made


def _zip_of_one(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", content)
    return buffer.getvalue()


def _cifar() -> list[bytes]:
    records = _pixels(4, cifar.RECORD_BYTES["CIFAR-10"]) % 10
    return [records.tobytes(), np.insert(records, 0, 7, axis=1).tobytes()]


def _decode(path: Path) -> Any:
    found = next(imagefiles._decoded([PathFile(path, path.name)], 8, 3))
    if isinstance(found, str):
        raise ValueError(found)
    assert min(found[0].shape[:2]) == 8
    assert found[0].dtype == np.uint8


SMALL = dataclasses.replace(
    presets.get("quick"), name="small", image_size=8, z_shape=(5,),
    generator=(
        Dense(16, bias=False), BatchNorm(), ReLU(), Reshape(4, 2, 2), ConvTranspose(4, 4, 2, 1, bias=False),
        BatchNorm(gamma_std=0.02), LeakyReLU(0.2), ConvTranspose(1, 4, 2, 1), Tanh(),
    ),
    discriminator=(Conv(4, 4, 2, 1), LeakyReLU(0.2), Flatten(), Dense(1), Sigmoid())
    if presets.get("quick").loss == "bce" else (Conv(4, 4, 2, 1), LeakyReLU(0.2), Flatten(), Dense(1)),
)  # fmt: skip


def _state() -> dict[str, Any]:
    mg.manual_seed(0)
    generator, _ = models.build(SMALL)
    state = generator.state_dict()
    both = {f"{prefix}.{k}": v.numpy() for prefix in ("generator", "generator_ema") for k, v in state.items()}
    return {**both, "fixed_z": np.zeros((4, 5), np.float32), "rng.data": np.zeros(3, np.uint64)}


def _checkpoint(tensors: dict[str, Any], preset: str, position: str) -> bytes:
    """A checkpoint file with a checksum that agrees, whatever it holds."""
    metadata = {"preset": preset, "position": position}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a")
        mg.save(tensors, path, {**metadata, "checksum": checkpoint._checksum(tensors, metadata)})
        return path.read_bytes()


def _checkpoints() -> list[bytes]:
    return [_checkpoint(_state(), json.dumps(SMALL.to_json()), '{"step": 3, "epoch": 1}')]


def _with_another_recipe(rng: random.Random) -> bytes:
    preset, position = SMALL.to_json(), {"step": 3, "epoch": 1}
    if rng.random() < 0.2:
        position = mutated_json(position, rng)
    else:
        preset = mutated_json(preset, rng)
    text = json.dumps(preset)
    if rng.random() < 0.1:
        text = mutated(text.encode(), b"[" * 10**5, rng).decode(errors="replace")
    return _checkpoint(STATE, text, json.dumps(position))


def _with_another_state(rng: random.Random) -> bytes:
    state = dict(STATE)
    for name in rng.sample(sorted(state), rng.choice((1, 2))):
        array, action = state.pop(name), rng.randrange(7)
        if action == 0:
            continue
        if action == 1:
            name = rng.choice(
                ("../" + name, name + "\0", "generator.", "generator..", "generator." + "a" * 999)
            )
        if action == 2:
            array = array.astype(rng.choice(("f2", "f8", "i8", "u1", "?")))
        if action == 3:
            array = array.reshape(rng.choice(((-1,), (1, -1), (-1, 1, 1), (*array.shape, 1))))
        if action == 4:
            array = np.full(array.shape, rng.choice((np.nan, np.inf, 1e38)), np.float32)
        if action == 5:
            array = np.zeros(rng.choice(((), (0,), (0, 2**40), (10**6,))), np.float32)
        if action == 6:
            array = array[:0]
        state[name] = array
    return _checkpoint(state, json.dumps(SMALL.to_json()), '{"step": 3, "epoch": 1}')


def _load(path: Path) -> Any:
    mg.load_metadata(path)
    return mg.load(path)


def _sample(path: Path) -> Any:
    """As the command does, but for writing: a few images, drawn with what the file holds."""
    loaded = trained.load_run(path)
    generator = trained.load_generator(loaded)
    if loaded.preset.image_size > 64:
        return
    z = mg.tensor(np.zeros((2, *loaded.preset.z_shape), np.float32))
    sampling.generate(generator, z, "running")
    assert loaded.preset.sample_name.format(step=1, epoch=1).endswith(".png")


def _config() -> list[bytes]:
    config = {"preset": SMALL.to_json(), "data": "mnist", "range": [0.0, 1.0], "device": "cpu"}
    return [json.dumps(config, indent=2).encode()]


def _metrics() -> list[bytes]:
    line = {"step": 1, "loss_d": 1.0, "loss_g": None, "d_x": 0.5, "d_g_z1": 0.2, "d_g_z2": 0.1}
    return ["".join(json.dumps({**line, "step": i}) + "\n" for i in range(20)).encode()]


def _vitals() -> list[bytes]:
    found = [{"sign": "collapse", "sentence": "At step 1 it has.", "remedy": "People start again."}]
    return ["".join(json.dumps(vital_signs(step, found)) + "\n" for step in range(1, 5)).encode()]


def _evaluations() -> list[bytes]:
    result = {"frechet": 2.5, "kernel": 0.5, "precision": 0.5, "recall": 0.25, "score": None, "nearest": None}
    line = {"epoch": 1, **result, "shares": [0.5, 0.5], "floor": result, "accuracy": None}
    return ["".join(json.dumps({"step": step, **line}) + "\n" for step in range(1, 9)).encode()]


def _evaluated(path: Path) -> Any:
    return [EvaluationLine.from_json(line) for line in jsonfile.lines(path)]


def _idx_file(path: Path) -> Any:
    if not idx.is_idx(path):
        raise ValueError("none")
    return sources.load(str(path), 8, 1)


def _array(path: Path) -> Any:
    return scale.to_bytes(arrays.read(path))


def _images(path: Path) -> Any:
    return sources.load(str(path), 8, 1)


STATE = _state()
TOLD = (UserError,)
KINDS = {
    "safetensors": Kind("a.safetensors", _checkpoints, _load, (ValueError,)),
    "checkpoint": Kind("checkpoint.safetensors", _checkpoints, lambda p: checkpoint.load(p.parent), TOLD),
    "recipe": Kind("a", _checkpoints, _sample, TOLD, make=_with_another_recipe),
    "state": Kind("a", _checkpoints, _sample, TOLD, make=_with_another_state),
    "idx": Kind("a", _idx, idx.read, (ValueError, OSError)),
    "idx.gz": Kind("a.gz", lambda: [gzip.compress(_idx()[0])], idx.read, (ValueError, OSError)),
    "idx in gz": Kind("a.gz", _idx, _idx_file, (ValueError, UserError), wrap=gzip.compress),
    "npy": Kind("a.npy", _npys, _array, (ValueError,)),
    "npz": Kind("a.npz", _zips, _array, (ValueError,)),
    "npy in npz": Kind("a.npz", _npys, _images, TOLD, wrap=_zip),
    "zip": Kind("a.zip", _picture_zips, _images, TOLD),
    "png in zip": Kind("a.zip", _image("PNG"), _images, TOLD, wrap=_zip_of_one),
    "cifar": Kind("a.bin", _cifar, _images, TOLD),
    "noise": Kind("z.npy", lambda: [_npy(np.zeros((3, 5)))], lambda p: latent.from_file(SMALL, p), TOLD),
    "config": Kind("config.json", _config, lambda path: RunDirectory(path.parent).data(), TOLD),
    "metrics": Kind("metrics.jsonl", _metrics, lambda p: directory.RunDirectory(p.parent).metrics(), TOLD),
    "vitals": Kind("vitals.jsonl", _vitals, lambda p: checkup.lines(RunDirectory(p.parent)), TOLD),
    "evaluations": Kind("evaluations.jsonl", _evaluations, _evaluated, (ValueError, UnicodeDecodeError)),
    "frame": Kind("a.png", _image("PNG"), animations._frame, TOLD),
    "png": Kind("a.png", _image("PNG"), _decode, (ValueError,)),
    "png, agreeing": Kind("a.png", _image("PNG"), _decode, (ValueError,), wrap=_with_checksums),
    "jpeg": Kind("a.jpg", _image("JPEG"), _decode, (ValueError,)),
    "gif": Kind("a.gif", _image("GIF"), _decode, (ValueError,)),
    "tiff": Kind("a.tif", _image("TIFF"), _decode, (ValueError,)),
    "tiff lzw": Kind("a.tif", _image("TIFF", compression="tiff_lzw"), _decode, (ValueError,)),
    "webp": Kind("a.webp", _image("WEBP"), _decode, (ValueError,)),
    "bmp": Kind("a.bmp", _image("BMP"), _decode, (ValueError,)),
    "other images": Kind("a.png", _other_images, _decode, (ValueError,)),
}  # fmt: skip


# ---- the run ----


@dataclasses.dataclass
class Found:
    """What became of the mutations of a kind; `defects` say which seed, and how."""

    count: int = 0
    refused: int = 0
    slowest: float = 0.0
    defects: list[str] = dataclasses.field(default_factory=list)


TOUCHED: list[str] = []
_WATCHED = [False]
_WRITES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
    "subprocess.Popen", "os.system", "os.exec", "socket.connect", "pickle.find_class", "shutil",
)  # fmt: skip


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _WATCHED[0]:
        return
    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    if event.startswith(_WRITES) or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & flags
    ):
        TOUCHED.append(f"{event}{arguments!r:.100}")


sys.addaudithook(_audit)


def run(kind: str, count: int, seed: int, directory: Path) -> Found:
    """Read `count` mutations of files of the kind."""
    chosen, found = KINDS[kind], Found(count)
    sound = chosen.sound()
    path = directory / chosen.name
    for i in range(count):
        rng = random.Random(f"{kind} {seed} {i}")
        if chosen.make is not None:
            content = chosen.make(rng)
        else:
            content = chosen.wrap(mutated(rng.choice(sound), rng.choice(sound), rng))
        path.write_bytes(content)
        seconds = _attempt(chosen, path, found, f"{kind} {seed} {i}")
        if seconds > SECONDS:  # or the machine was busy
            seconds = min(seconds, _attempt(chosen, path, Found(), ""))
        if seconds > SECONDS:
            found.defects.append(f"{kind} {seed} {i}: {seconds:.1f} s")
        found.slowest = max(found.slowest, seconds)
        if [p.name for p in directory.iterdir()] != [path.name] or path.stat().st_size != len(content):
            found.defects.append(f"{kind} {seed} {i}: the directory has changed")
    path.unlink()
    return found


def _attempt(kind: Kind, path: Path, found: Found, name: str) -> float:
    """Read one file; return the seconds that the processor worked, other programs left out."""
    TOUCHED.clear()
    start, _WATCHED[0] = time.process_time(), True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a warning in a person's terminal is a defect too
            kind.read(path)
    except kind.errors as error:
        found.refused += 1
        if type(error) not in kind.errors and not isinstance(error, OSError):
            found.defects.append(f"{name}: {type(error).__name__} is no plain error: {error!s:.200}")
        if len(str(error)) > 2000 + len(str(path)):
            found.defects.append(f"{name}: {len(str(error))} letters of complaint")
    except BaseException as error:
        found.defects.append(f"{name}: {type(error).__name__}: {error!s:.200}")
    finally:
        _WATCHED[0] = False
    found.defects += [f"{name}: touched {what}" for what in TOUCHED]
    return time.process_time() - start


def main() -> None:
    kind, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as directory:
        run(kind, 1, -1, Path(directory))  # what a first use imports
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start = time.perf_counter()
        found = run(kind, count, seed, Path(directory))
        seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({**dataclasses.asdict(found), "seconds": round(seconds, 1), "grown": round(grown)}))


if __name__ == "__main__":
    main()
