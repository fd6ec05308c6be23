"""Samples held against real images, and real images against each other as the floor beside them."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn

from .. import latent, pictures
from ..data import mnist, names, sources
from ..data.batches import Batches
from ..data.scale import Range
from ..errors import UserError
from ..recipe.preset import Preset
from ..sampling import generate
from . import measures
from .judges import DigitJudge, FixedNetworkJudge, Judge

MAX_SET_IMAGES = 10_000  # images in a set
MIN_IMAGES = 16  # of which features can be compared at all
LOOKED_UP = 1000  # images whose nearest training image is looked for
LOOKED_AT = 5000  # training images at a time, meanwhile
CHUNK = 500  # images at a time
NOISE_STREAM, SPLIT_STREAM = 7, 8


@dataclass(frozen=True)
class Described:
    """A set of images as a judge describes it: features (n, d), and probabilities (n, classes) or None."""

    features: NDArray[Any]
    probabilities: NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class EvaluationResult:
    """The nearness of one set of images to another, by the measures of measures.py.

    Attributes:
        score, shares: of the set alone; None where the judge knows no classes.
        nearest: the median distance from an image to the nearest training image, pixels from 0 to
            1; None where it was not looked for.
    """

    frechet: float
    kernel: float
    precision: float
    recall: float
    score: float | None
    shares: list[float] | None
    nearest: float | None = None

    @property
    def rarest(self) -> float | None:
        """The smallest share of a class."""
        return None if self.shares is None else min(self.shares)

    def to_json(self) -> dict[str, Any]:
        """Return the fields, in their order."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the result that a JSON object holds, as far as it can be read.

        A value that is missing or of another type is read as None, or as NaN for a field that may not be
        None. Anything but an object is read as an empty one.
        """
        known = value if isinstance(value, dict) else {}
        return cls(**{f.name: _read(f.type, known.get(f.name)) for f in fields(cls)})


def _read(kind: Any, value: Any) -> Any:
    """Return a value of a JSON file by the annotation of its field, as `EvaluationResult.from_json` says."""
    if kind == list[float] | None:
        return value if isinstance(value, list) and all(type(v) is float for v in value) else None
    if type(value) is float:
        return value
    return math.nan if kind is float else None


@dataclass(frozen=True)
class RealImages:
    """The real images of an evaluation, bytes (n, H, W, C).

    Attributes:
        reference: what samples are held against.
        floor: other real images, held against the same: what samples can reach.
        training: what the networks were trained on.
        about: the two sets, for people.
        notes: how the images were read, for people; empty if they were given.
    """

    reference: NDArray[Any]
    floor: NDArray[Any]
    training: NDArray[Any]
    about: str
    notes: list[str] = field(default_factory=list)


def real_images(
    data: str, preset: Preset, images: Any = None, value_range: Range | None = None
) -> RealImages:
    """MNIST's test images and as many training images; of other sets one half, and the other.

    Args:
        data: what --data says.
        images: the same, where it is loaded already (`ImageSet.images`).
        value_range: the numbers of `data` that stand for black and white, as `sources.load` takes them.

    Raises UserError where `data` can't be loaded, or is too small to be compared.
    """
    sources.check_range(data, value_range)
    if names.is_digits(data):
        train, test = mnist.images("train")[..., None], mnist.images("test")[..., None]
        return RealImages(test, train[: len(test)], train, "the test images of MNIST")
    notes: list[str] = []
    if images is None:
        loaded = sources.load(data, preset.image_size, preset.channels, value_range)
        images, notes = loaded.images, loaded.notes
    if len(images) < 2 * MIN_IMAGES:
        raise UserError(f"--data {data}: {len(images)} images; expected {2 * MIN_IMAGES} or more to compare")
    batches = Batches(
        images, MAX_SET_IMAGES, mg.Generator(0, SPLIT_STREAM), channels=preset.channels, crop="center"
    )
    training = batches.first_bytes(2 * MAX_SET_IMAGES)  # in a random order
    half = len(training) // 2
    about = "a random half" if len(images) <= 2 * MAX_SET_IMAGES else f"{half} random images"
    return RealImages(training[:half], training[half:], training, f"{about} of {data}", notes)


def judge_of(data: str) -> Judge:
    """The classifier for digits, the fixed network for all else."""
    return DigitJudge() if names.is_digits(data) else FixedNetworkJudge()


def describe(judge: Judge, chunks: Iterable[NDArray[Any]]) -> Described:
    """Return the judge's description of images that come in chunks."""
    features, probabilities = zip(*(judge.look(chunk) for chunk in chunks), strict=True)
    known = None if probabilities[0] is None else np.concatenate(probabilities)
    return Described(np.concatenate(features), known)


def in_chunks(images: NDArray[Any]) -> list[NDArray[Any]]:
    """Images (n, ...) in parts of about CHUNK."""
    return np.array_split(images, -(-len(images) // CHUNK))


def sample(
    generator: nn.Module, preset: Preset, statistics: str, count: int, seed: int
) -> Iterable[NDArray[Any]]:
    """Images of fresh z as bytes (n, H, W, C), a batch at a time.

    Batches have about the recipe's size, since with "batch" statistics an image depends on the
    others, and never one image alone.
    """
    source = mg.Generator(seed, NOISE_STREAM)
    for part in np.array_split(np.arange(count), max(1, count // max(preset.batch_size, 2))):
        z = latent.draw_array(preset, len(part), source)
        yield pictures.to_bytes(generate(generator, z, statistics))


def compare(images: Described, reference: Described) -> EvaluationResult:
    """Return the result of a set of images against another."""
    precision, recall = measures.precision_recall(images.features, reference.features)
    return EvaluationResult(
        measures.frechet(images.features, reference.features),
        measures.kernel_distance(images.features, reference.features),
        precision,
        recall,
        None if images.probabilities is None else measures.score(images.probabilities),
        None if images.probabilities is None else measures.shares(images.probabilities),
    )


def nearest_training(images: NDArray[Any], training: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of images, bytes (n, H, W, C), the nearest training image's index, and its distance, pixels 0 to 1."""
    rows = images.reshape(len(images), -1).astype(np.float32) / 255
    indices, distances = np.zeros(len(rows), np.int64), np.full(len(rows), np.inf)
    for start in range(0, len(training), LOOKED_AT):  # so that only a part is in float32 at a time
        part = training[start : start + LOOKED_AT]
        found, lengths = measures.nearest(rows, part.reshape(len(part), -1).astype(np.float32) / 255)
        nearer = lengths < distances
        indices[nearer], distances[nearer] = start + found[nearer], lengths[nearer]
    return indices, distances
