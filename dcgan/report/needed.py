"""The memory that a page takes, computed before its networks are built."""

import math
from dataclasses import replace

from ..animations import frame_files
from ..describe import ledger
from ..errors import UserError
from ..recipe import memory, sizes
from ..recipe.layer import Sizes
from ..recipe.memory import FLOAT
from ..recipe.preset import Preset
from ..run.checkpoint import Checkpoint
from ..run.directory import LINES
from .embedded import MAX_BYTES
from .reading import Reading
from .samples import MAX_FRAME_BYTES

PICTURE = 8  # bytes of one of a picture's file, until the page is written: most of them as base64
COLOURED = 32  # bytes of a number that is shown as a colour
COPIES = 4  # of all parameters, that a watched step is compared by


def of_page(reading: Reading, limit: int) -> int:
    """Return the bytes that the page of a run takes: what was read, the pictures, both networks at work.

    Lines are counted in files of up to `limit` bytes.
    """
    state = reading.state
    read = sum(memory.of_lines(reading.directory / name, limit) for name in LINES)
    read += 0 if state is None else sum(array.nbytes for array in state.tensors.values())
    shown = 0 if state is None else _of_networks(state)
    return read + _of_pictures(reading) + max(shown, _of_step(reading.preset))


def _of_step(preset: Preset) -> int:
    """Return the bytes of a watched step; 0 for a recipe that does not fit together: none is run."""
    try:
        networks = sizes.of_generator(preset), sizes.of_discriminator(preset)
    except UserError:
        return 0
    learned = sum(map(sizes.parameters, networks))
    return memory.of_steps(replace(preset, batch_size=ledger.IMAGES)) + COPIES * FLOAT * learned


def _of_networks(state: Checkpoint) -> int:
    """Return the bytes of both networks of a checkpoint at work, and of their layers in colours."""
    preset, kept = state.preset, state.tensors.get("fixed_z")
    noises = preset.grid_rows * preset.grid_columns if kept is None else len(kept)
    try:
        generator = sizes.of_generator(preset)
    except UserError:
        return 0
    needed = memory.of_network(generator) + _of_looks(generator, noises, 1)
    try:
        discriminator = sizes.of_discriminator(preset)
    except UserError:
        return needed
    return needed + memory.of_network(discriminator) + _of_looks(discriminator, 2, 2)


def _of_looks(network: tuple[Sizes, ...], batch: int, looked_at: int) -> int:
    """Return the bytes of running a network on a batch, and of showing what its layers make of some items."""
    outputs = [looked_at * math.prod(layer.made) for layer in network]
    largest = max([*outputs, *(layer.weight for layer in network)], default=0)
    return memory.of_forward(network, batch) + 2 * FLOAT * sum(outputs) + COLOURED * largest


def _of_pictures(reading: Reading) -> int:
    """Return the bytes of the pictures that are embedded, at most."""
    directory = reading.directory
    frames = [path.lstat().st_size for path in frame_files(directory / "frames")]
    names = (reading.preset.real_name, "real_and_fake.png", "evaluation.png")
    others = [path.stat().st_size for name in names if (path := directory / name).is_file()]
    embedded = sum(min(size, MAX_BYTES) for size in (*others, *frames[-1:]))
    return PICTURE * (min(sum(frames), MAX_FRAME_BYTES) + embedded)
