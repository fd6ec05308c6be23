"""Checkpoints: one safetensors file from which a run continues, with a checksum.

Its keys are `generator.<key>`, `discriminator.<key>`, `generator_ema.<key>` (the averaged weights,
where the recipe has them), `optimizer_g.*`, `optimizer_d.*`, `fixed_z` and `rng.*`. The recipe and
the position are JSON in its metadata, the versions that wrote it too, and a SHA-256 over everything else.

An optimizer's state is that of `minigrad.optim`: counts of steps, arrays, and the hyperparameters that it
had (`optimizer_g.lr`, without axes; `optimizer_g.betas`, (2,); ...). A resumed run goes on with those. Files
of earlier versions lack them, and their runs go on with the recipe's.
"""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import serialize
from minigrad.serialize import TEMPORARY_PREFIX, TEMPORARY_SUFFIX, write_whole

from .. import plugins
from ..console import warn
from ..errors import UserError, reason
from ..files import jsonfile
from ..recipe import memory
from ..recipe.preset import Preset
from . import packaged

FILE_NAME = "checkpoint.safetensors"
BEST_NAME = "best.safetensors"  # the same, at the step whose samples were the best
OLDER_NAME = "checkpoints"  # the directory of those before the last one, <step>.safetensors
OLDER = re.compile(r"([0-9]{8,19})\.safetensors")
GENERATORS = ("generator.", "generator_ema.")  # how the keys of a generator begin


# By which a file system says that it has no hard links, or no more of them.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Unreadable(UserError):
    """A checkpoint can't be opened or read, which says nothing about its content."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        preset: the recipe, with all that was overridden.
        position: {"step": updates done, "epoch": of the last one, from 1}.
        tensors: host arrays by key.
        images: what the run is trained on, as `Batches.fingerprint` says it; "" where the file does not.
        packaged: whether it is a generator of the package (packaged.py).
    """

    preset: Preset
    position: dict[str, int]
    tensors: dict[str, NDArray[Any]]
    images: str = ""
    packaged: bool = False

    def under(self, prefix: str) -> dict[str, NDArray[Any]]:
        """The arrays whose keys start with "prefix.", by the rest of their keys."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}

    @property
    def is_generator_alone(self) -> bool:
        """Whether it is the file of a generator alone, as `dcgan export` writes it."""
        return all(key.startswith(GENERATORS) for key in self.tensors)

    def check_whole(self, what: str) -> None:
        """Raise UserError, which begins with `what`, for the file of a generator alone."""
        if self.is_generator_alone:
            raise UserError(
                f"{what}: it holds a generator alone, as dcgan export writes it: expected the "
                "checkpoint of a run, with both networks"
            )


def save(
    path: Path,
    preset: Preset,
    position: Mapping[str, int],
    parts: Mapping[str, Mapping[str, Any]],
    images: str = "",
) -> None:
    """Write a checkpoint, whole or not at all. The arguments after `path` are those of `encode`."""
    write_whole(path, encode(preset, position, parts, images))


def encode(
    preset: Preset,
    position: Mapping[str, int],
    parts: Mapping[str, Mapping[str, Any]],
    images: str = "",
) -> bytes:
    """Return the content of a checkpoint file.

    Args:
        parts: state dicts by prefix; the one of the prefix "" is written without.
        images: see `Checkpoint`.
    """
    tensors = {
        f"{prefix}.{key}" if prefix else key: _array(value)
        for prefix, state in parts.items()
        for key, value in state.items()
    }
    metadata = {
        "preset": json.dumps(preset.to_json(), sort_keys=True),
        "position": json.dumps(dict(position), sort_keys=True),
        "images": images,
        "plugins": json.dumps([plugin.to_json() for plugin in plugins.of(preset)]),
        "versions": json.dumps({"minigrad": mg.__version__, "numpy": np.__version__}, sort_keys=True),
    }
    return serialize.encode(tensors, {**metadata, "checksum": _checksum(tensors, metadata)})


def missing(run: Path) -> UserError:
    """Return the error that a run, or the file that is named, has no checkpoint."""
    if (run / "config.json").is_file():
        return UserError(
            f"no checkpoint in {run} yet: a run writes one on its way (--checkpoint-every) and at its end"
        )
    path = run / FILE_NAME if run.is_dir() else run
    return UserError(f"no checkpoint at {path}: expected a run directory or a checkpoint file")


def load(run: Path, max_memory: int = memory.DEFAULT) -> Checkpoint:
    """Read the checkpoint of a run directory, a checkpoint file, or a generator of the package.

    Raises UserError if there is none, it is damaged, reading it takes more than `max_memory` bytes, or it
    needs a plugin that is not loaded (`PluginNeeded`), and Unreadable if it can't be opened or read. Warns if
    a plugin has changed since.
    """
    path = run / FILE_NAME if run.is_dir() else run
    file = packaged.file_of(run) if packaged.is_named(run) else path
    memory.check(f"reading {path}", memory.of_file(file), max_memory)
    try:
        tensors, metadata = serialize.read(file)  # at once: a live run may be writing the next
    except FileNotFoundError:
        raise missing(run) from None
    except OSError as error:
        raise Unreadable(f"{path} can't be read: {reason(error)}") from error
    except ValueError as error:
        raise UserError(f"{error}: the file is damaged, or no checkpoint") from error
    expected = metadata.pop("checksum", None)
    if expected is None or expected != _checksum(tensors, metadata):
        raise UserError(f"{path} is damaged: its content does not agree with its checksum")
    _check_plugins(path, metadata)
    try:
        preset = Preset.from_json(jsonfile.parse(metadata["preset"]))
        position = _position(jsonfile.parse(metadata["position"]))
        return Checkpoint(preset, position, tensors, metadata.get("images", ""), packaged.is_named(run))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{path} holds no recipe that this version knows: {error!s:.300}") from error


def _check_plugins(path: Path, metadata: Mapping[str, str]) -> None:
    try:
        needed = plugins.recorded(jsonfile.parse(metadata.get("plugins", "[]")))
    except ValueError as error:
        raise UserError(f"{path} does not say which plugins it needs: {error}") from error
    for note in plugins.check(str(path), needed):
        warn(note)


def _position(data: Any) -> dict[str, int]:
    position = {name: data[name] for name in ("step", "epoch")}
    if not all(type(number) is int and 0 <= number < 2**63 for number in position.values()):
        raise ValueError(f"position={position}: expected integers of at least 0, below 2^63")
    return position


def directory_of(run: Path) -> Path:
    """The run's directory: the one that is named, or that of the checkpoint file that is named."""
    if run.is_dir():
        return run
    return run.parent.parent if run.parent.name == OLDER_NAME else run.parent


def candidates(run: Path) -> list[Path]:
    """The checkpoints of a run directory that training can continue from, the newest first."""
    return [path for path in (run / FILE_NAME, *older(run)) if path.is_file()]


def older(run: Path) -> list[Path]:
    """The checkpoints before the last one, the newest first. Files of other names are the user's."""
    try:
        names = os.listdir(run / OLDER_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return []
    steps = {name: int(match[1]) for name in names if (match := OLDER.fullmatch(name))}
    return [run / OLDER_NAME / name for name in sorted(steps, key=steps.__getitem__, reverse=True)]


def older_name(step: int) -> str:
    """The name, in its run's directory, of the checkpoint of `step` once there is a later one."""
    return f"{OLDER_NAME}/{step:08d}.safetensors"


def give_name(source: Path, target: Path) -> None:
    """Give a checkpoint a second name, in the place of whatever is there: at no moment is there nothing.

    It becomes a hard link, or a copy on file systems without them. Raises OSError.
    """
    temporary = target.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            shutil.copyfile(source, temporary)
            with suppress(OSError):  # of such file systems not all have permissions
                shutil.copymode(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)  # of two names of one file, a rename leaves both


def prune(run: Path, keep: int) -> None:
    """Remove the oldest checkpoints, so that `keep` remain, the last one among them."""
    for path in older(run)[max(keep - 1, 0) :]:
        path.unlink()


def go_back(run: Path, loaded: Path | None, step: int) -> None:
    """Make the checkpoint that was loaded, of `step`, the last one of its run, and remove later ones.

    It is never unlinked itself. A damaged file in the place of the last one is gone afterwards.

    Args:
        loaded: its file; None for a run that has none and starts again.
    """
    if loaded is not None and loaded != run / FILE_NAME:
        give_name(loaded, run / FILE_NAME)
    for path in older(run):
        if int(path.stem) > step:
            path.unlink()
    best = run / BEST_NAME
    if best != loaded and best.is_file() and _step_of(best) > step:
        best.unlink()


def _step_of(path: Path) -> int:
    """The step of a checkpoint file; 0 if it can't be read, so that it stays."""
    try:
        return load(path).position["step"]
    except (OSError, UserError):
        return 0


def generator_state(array: NDArray[Any]) -> dict[str, int]:
    """Return the `Generator.state` of which `random_state` made an array; ValueError for anything else."""
    if array.shape != (3,) or array.dtype != np.uint64:
        raise ValueError(f"expected three integers of a random generator, got {array.dtype} {array.shape}")
    return dict(zip(("seed", "stream", "calls"), map(int, array), strict=True))


def random_state(generator: mg.Generator) -> NDArray[Any]:
    """The state of a generator as three integers: seed, stream, calls."""
    return np.array([generator.state[name] for name in ("seed", "stream", "calls")], np.uint64)


def _array(value: Any) -> NDArray[Any]:
    return value.numpy() if isinstance(value, mg.Tensor) else np.asarray(value)


def _checksum(tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for key in sorted(metadata):
        digest.update(f"{key}={metadata[key]}\n".encode())
    for key in sorted(tensors):
        array = np.ascontiguousarray(tensors[key])
        digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
