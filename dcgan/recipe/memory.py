"""The memory that a command would take, computed before it takes any, and the limit on it.

The estimates are of what a process holds beyond the interpreter and its libraries, on the CPU. They follow
from the sizes of the recipe (sizes.py) and of the files. The shares of temporary arrays in them are measured.
"""

import math
from dataclasses import dataclass
from pathlib import Path

from minigrad.backend.cpu import direct, frequency, transforms, winograd
from minigrad.backend.cpu.parallel import available_threads
from minigrad.backend.geometry import ConvGeometry

from ..errors import UserError
from . import layers, sizes
from .layer import Sizes
from .preset import Preset

DEFAULT = 4 * 2**30  # bytes
FLOAT = 4  # bytes of a number
ACTIVATIONS = (layers.ReLU, layers.LeakyReLU)
FOLLOWED = (layers.Dense, layers.Conv, layers.ConvTranspose, layers.BatchNorm)  # apply an activation behind
SCRATCH = 8 * 2**20  # bytes that a thread of the engine keeps for itself
DRAWING = 13  # bytes of a number of an image, from floats to a picture in a grid
COUNTED = 2**20  # bytes of a file at a time
FIGURES = 40 * 2**20  # bytes of figures with curves
TILE = 16  # columns of a product that a kernel makes at a time, at the least with the widest vectors
NOISE = 8  # bytes of a number of noise, while it is drawn


class TooMuchMemory(UserError):
    """Something that was asked for would take more memory than --max-memory allows."""


def check(what: str, needed: int, limit: int) -> None:
    """Raise TooMuchMemory, a UserError, if `what` needs more bytes than the limit."""
    if needed > limit:
        raise TooMuchMemory(
            f"{what} would take about {shown(needed)} of memory, more than --max-memory allows "
            f"({shown(limit)}); allow more by --max-memory SIZE, if the machine has it"
        )


def shown(size: int) -> str:
    """Return a number of bytes in words, such as "1.5 GiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{min(size / unit, 1e9):,.1f} {name}" if size < 2**100 else "over 10^21 GiB"
    return f"{size} bytes"


# ---- files ----


def of_file(path: Path) -> int:
    """Return the bytes that a safetensors file takes to be read: its pages and its arrays. 0 for no file."""
    return 2 * _size(path)


def of_lines(path: Path, limit: int = DEFAULT) -> int:
    """Return the bytes that the values of a .jsonl file take. 0 if there is none.

    A file that is larger than the limit itself is not read: its size is returned.
    """
    size = _size(path)
    if size == 0 or size > limit:
        return size
    lines = values = 0
    with open(path, "rb") as file:
        while chunk := file.read(COUNTED):
            lines += chunk.count(b"\n")
            values += sum(chunk.count(mark) for mark in (b",", b":", b"[", b"{"))
    return max(300 * lines + 90 * values, 4 * size)  # a letter takes up to 4 bytes


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


# ---- networks ----


def of_training(preset: Preset) -> int:
    """Return the bytes that training a recipe takes: its steps or its grids of samples, and its files.

    The images that it is trained on are not among them. Raises UserError if the recipe's layers do not fit
    together.
    """
    grid = preset.grid_rows * preset.grid_columns
    drawn = of_forward(sizes.of_generator(preset), grid) + of_images(preset, grid)
    learned = FLOAT * _learned(preset)
    files = 2 * learned + FIGURES  # of a checkpoint the content, twice; of curves
    return max(of_steps(preset), learned + drawn + _scratch()) + files


def of_steps(preset: Preset) -> int:
    """Return the bytes of training steps of a recipe.

    They are those of the weights, gradients, moments and averages of both networks, and of a batch in them.
    Raises UserError if the recipe's layers do not fit together.
    """
    generator, discriminator = sizes.of_generator(preset), sizes.of_discriminator(preset)
    n = preset.batch_size
    apart = any(isinstance(layer.spec, layers.BatchNorm) for layer in discriminator)
    judged = n if apart else 2 * n  # else real and generated images are judged in one pass
    passes = [*((layer, n) for layer in generator), *((layer, judged) for layer in discriminator)]
    graphs = _graph(generator, n) + _graph(discriminator, judged)
    working = max(_backward(layer, count) for layer, count in passes) * 5 // 4  # freed memory lies in pieces
    images = 3 * n * math.prod(discriminator[0].given)
    noise = NOISE * n * math.prod(preset.z_shape)
    return FLOAT * (_learned(preset) + graphs + working + images) + noise + _scratch()


def _learned(preset: Preset) -> int:
    """Return how many numbers both networks learn, with gradients, two moments each, and averages."""
    generator, discriminator = map(
        sizes.parameters, (sizes.of_generator(preset), sizes.of_discriminator(preset))
    )
    return 4 * (generator + discriminator) + bool(preset.ema_decay) * generator


def of_sampling(preset: Preset, count: int, batch: int) -> int:
    """Return the bytes of a generator, of running it on `batch` items at a time, and of `count` images.

    Raises UserError if the layers of the recipe's generator do not fit together.
    """
    network = sizes.of_generator(preset)
    return of_network(network) + of_forward(network, batch) + of_images(preset, count) + _scratch()


def of_images(preset: Preset, count: int) -> int:
    """Return the bytes of `count` images of a recipe and of their noise."""
    return count * (DRAWING * preset.channels * preset.image_size**2 + NOISE * math.prod(preset.z_shape))


def of_forward(network: tuple[Sizes, ...], n: int) -> int:
    """Return the bytes that a network takes to run on n items, without a graph."""
    return (
        FLOAT * max((_forward(layer, n) for layer in network), default=0) * 3 // 2
    )  # freed memory lies in pieces


def of_network(network: tuple[Sizes, ...]) -> int:
    """Return the bytes of a network's parameters and buffers, and of drawing its largest weight."""
    numbers = sum(layer.parameters + layer.buffers for layer in network)
    return FLOAT * numbers + 2 * FLOAT * max((layer.weight for layer in network), default=0)


def _scratch() -> int:
    return SCRATCH * available_threads()


def _graph(network: tuple[Sizes, ...], n: int) -> int:
    """Return how many numbers the graph of a forward pass on n items keeps."""
    return int(
        n * sum(math.prod(layer.made) * kept for layer, kept in zip(network, _kept(network), strict=True))
    )


def _kept(network: tuple[Sizes, ...]) -> list[float]:
    """Return, for each layer, how many arrays of the size of its output its graph keeps.

    A layer with weights takes an activation and a dropout behind it along, once each and in this order.
    """
    arrays: list[float] = []
    may_follow = 0
    for layer in network:
        spec = layer.spec
        if isinstance(spec, ACTIVATIONS) and may_follow == 2:
            arrays.append(0)
            may_follow = 1
        elif isinstance(spec, layers.Dropout) and may_follow:
            arrays.append(0)
            may_follow = 0
        else:
            arrays.append(spec.kept_arrays)
            may_follow = 2 if isinstance(spec, FOLLOWED) else 0
    return arrays


def _forward(layer: Sizes, n: int) -> int:
    """Return how many numbers a layer holds while it runs on n items: its input, its output, its work."""
    return n * (math.prod(layer.given) + math.prod(layer.made)) + _Work.of(layer, n).forward


def _backward(layer: Sizes, n: int) -> int:
    """Return how many numbers the gradients of a layer take beyond what the graph keeps."""
    return n * (math.prod(layer.given) + math.prod(layer.made)) + _Work.of(layer, n).backward


@dataclass(frozen=True)
class _Work:
    """Numbers that a convolution makes on its way, beyond its input and its output.

    They are those of the forms in C (minigrad/backend/cpu); NumPy's form makes about as many.

    Attributes:
        forward: while it computes its result.
        backward: while it computes both gradients.
    """

    forward: int = 0
    backward: int = 0

    @classmethod
    def of(cls, layer: Sizes, n: int) -> "_Work":
        """Return those of a layer on n items."""
        geometry = layer.geometry
        if geometry is None:
            return cls()
        channels, outputs = layer.given[0], layer.made[0]
        if geometry.transposed:  # a convolution from its output to its input
            channels, outputs = outputs, channels
        if frequency.pays(geometry, n, channels, outputs):
            return cls._by_frequency(geometry, n, channels, outputs)
        if winograd.pays(geometry, n, channels, outputs):
            return cls._by_winograd(geometry, n, channels, outputs)
        return cls._direct(geometry, n, channels, outputs)

    @classmethod
    def _direct(cls, geometry: ConvGeometry, n: int, channels: int, outputs: int) -> "_Work":
        """Return those of direct.py: packed weights, canvases, dy laid anew, parts of a weight gradient."""
        threads, positions = available_threads(), geometry.positions
        canvas, wide = math.prod(geometry.canvas_size) * channels, -(-outputs // TILE) * TILE
        weight = geometry.taps * channels * wide
        packed = max(weight, geometry.taps * -(-channels // TILE) * TILE * outputs)
        forward = packed + threads * min(n, -(-direct.ROWS // positions)) * canvas
        image = canvas + positions * wide
        if FLOAT * weight > direct.NEAR_BYTES:  # all images are laid at once
            return cls(forward, forward + n * image + weight)
        fewest = -(-direct.FEWEST_POSITIONS // positions)
        laid = threads * min(n, max(direct.NEAR_BYTES // (FLOAT * image), fewest))
        return cls(forward, forward + laid * image + direct.PIECES * weight)

    @classmethod
    def _by_winograd(cls, geometry: ConvGeometry, n: int, channels: int, outputs: int) -> "_Work":
        """Return those of winograd.py: transforms of squares and of the weight, sums of a weight gradient."""
        threads = available_threads()
        product = winograd.product_plan(geometry, n, channels, outputs, FLOAT)
        gradient = winograd.gradient_plan(geometry, n, channels, outputs, FLOAT, threads)
        forward = product.weight + threads * product.scratch
        return cls(
            forward, forward + gradient.image + gradient.result + gradient.sums + threads * gradient.canvas
        )

    @classmethod
    def _by_frequency(cls, geometry: ConvGeometry, n: int, channels: int, outputs: int) -> "_Work":
        """Return those of frequency.py: transforms of both images and of the weight, or of its gradient."""
        rows = math.prod(transforms.period(geometry, axis) for axis in range(2))
        inner = geometry.stride[0] * geometry.stride[1] * channels
        images, weight = rows * n * (inner + outputs), rows * inner * outputs
        return cls(images + weight, images + rows * n * inner + weight)
