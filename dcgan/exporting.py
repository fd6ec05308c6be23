"""A trained generator in a file of its own: as ONNX for other programs, or as a checkpoint for this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import nn
from minigrad.serialize import write_whole

from . import latent
from .errors import UserError
from .files.destination import check_ending, writing
from .onnx_model import INPUT, OUTPUT, to_onnx
from .recipe import memory, sizes
from .recipe.preset import Preset
from .run import checkpoint
from .run.checkpoint import Checkpoint
from .run.trained import check_memory, default_weights, load_generator, prefix_of
from .sampling import choose_statistics, fixed_statistics, generate

ONNX, SAFETENSORS = ".onnx", ".safetensors"
ENDINGS = (ONNX, SAFETENSORS)
COPIES = 8  # of the weights: in the model, in its file, while both are checked
CHECKED = 4  # images that are made with both
TOLERANCE = 1e-5  # the most by which a number of an image may differ


class ImagesDiffer(UserError):
    """onnxruntime makes other images from an ONNX file than the engine."""


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: of the file.
        size: in bytes.
        weights: "last", "best" or "ema".
        statistics: those of BatchNorm, "running" or "recalibrated".
        difference: by how much onnxruntime's images differ from ours, at most; None if it was not checked.
        unchecked: why it was not; "" if it was.
    """

    path: Path
    size: int
    weights: str
    statistics: str
    difference: float | None = None
    unchecked: str = ""


def export(
    loaded: Checkpoint,
    out: Path,
    weights: str | None = None,
    statistics: str | None = None,
    max_memory: int = memory.DEFAULT,
) -> Exported:
    """Write the generator of a checkpoint into a file, whole or not at all.

    A .safetensors file is a checkpoint without anything but the generator. It does as a run for all that
    draws. An .onnx file is checked: onnxruntime, if it is installed, draws four images with it.

    Args:
        loaded: the checkpoint.
        out: the file; its name ends in .onnx or .safetensors.
        weights: as of `load_generator`.
        statistics: "running" or "recalibrated"; None for "running" where the recipe's samples use them, else
            "recalibrated".
        max_memory: bytes that this may take.

    Raises UserError if the file can't be written, a package is missing, or there are no such weights;
    ImagesDiffer if onnxruntime's images differ from the engine's by more than TOLERANCE.
    """
    check_ending("--out", out, ENDINGS)
    is_onnx = out.suffix.lower() == ONNX
    onnx = _onnx() if is_onnx else None
    if not is_onnx:
        _check_name(out)
    preset = loaded.preset
    chosen = statistics or fixed_statistics(preset)
    copies = COPIES * memory.of_network(sizes.of_generator(preset))
    check_memory("exporting the generator of images", loaded, chosen, CHECKED, max_memory, copies)
    generator = load_generator(loaded, weights)
    choose_statistics(generator, preset, chosen, CHECKED)
    named = weights or default_weights(loaded)
    difference, unchecked = None, ""
    if is_onnx:
        content = to_onnx(onnx, generator, loaded, named, chosen).SerializeToString()
        difference, unchecked = _checked(content, generator, preset)
    else:
        parts = {prefix_of(loaded, weights): generator.state_dict()}
        content = checkpoint.encode(preset, loaded.position, parts, loaded.images)
    with writing("--out", out):
        write_whole(out, content)
    return Exported(out, len(content), named, chosen, difference, unchecked)


def _check_name(out: Path) -> None:
    """Raise UserError for a name that runs give to their whole checkpoints."""
    name = out.name
    if name in (checkpoint.FILE_NAME, checkpoint.BEST_NAME) or checkpoint.OLDER.fullmatch(name):
        raise UserError(
            f"--out {out}: a run's checkpoints are called so, which training goes on from: choose another "
            "name, such as generator.safetensors"
        )


def _checked(content: bytes, generator: nn.Module, preset: Preset) -> tuple[float | None, str]:
    """Return by how much onnxruntime's images differ, at most, and ""; or None, and why it is not known.

    Raises ImagesDiffer if it is more than TOLERANCE.
    """
    onnxruntime, why_not = _onnxruntime()
    if onnxruntime is None:
        return None, why_not
    difference = largest_difference(onnxruntime, content, generator, preset)
    if not difference <= TOLERANCE:  # NaN too
        raise ImagesDiffer(
            f"onnxruntime's images differ from ours by {difference:.2g}, more than {TOLERANCE}: "
            "nothing is written"
        )
    return difference, ""


def largest_difference(onnxruntime: Any, content: bytes, generator: nn.Module, preset: Preset) -> float:
    """By how much onnxruntime's images differ from ours, at most, on the same 4 z.

    Args:
        onnxruntime: the package.
        content: the ONNX file of the generator.
    """
    z = latent.draw_array(preset, CHECKED, mg.Generator(0))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([OUTPUT], {INPUT: z})
    return float(np.abs(theirs - generate(generator, z, "running")).max())


def _onnx() -> Any:
    """Return the package. Raises UserError if it is not installed, or can't be imported."""
    try:
        import onnx
    except Exception as error:  # a build for another NumPy may raise anything
        if _is_missing(error, "onnx"):
            raise UserError("ONNX files need the package onnx: pip install onnx onnxruntime") from None
        raise UserError(f"ONNX files need the package onnx, which {_broken(error)}") from error
    return onnx


def _onnxruntime() -> tuple[Any, str]:
    """Return the package and "", or None and why there is none."""
    try:
        import onnxruntime
    except Exception as error:
        if _is_missing(error, "onnxruntime"):
            return None, "onnxruntime is not installed: pip install onnxruntime"
        return None, f"onnxruntime {_broken(error)}"
    return onnxruntime, ""


def _is_missing(error: Exception, package: str) -> bool:
    """Return whether an import failed for there being no such package, not for what is in it."""
    return isinstance(error, ModuleNotFoundError) and error.name == package


def _broken(error: Exception) -> str:
    reason = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
    return f"can't be imported ({reason}); install a version that fits the other packages"
