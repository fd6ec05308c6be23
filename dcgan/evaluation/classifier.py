"""A small classifier of digits, trained by minigrad on MNIST: the judge of samples.

    python -m dcgan.evaluation.classifier

trains it again, in about ten minutes on two cores, into the file that the package carries.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import minigrad as mg
import minigrad.functional as F
from minigrad import nn, optim

from ..console import run_command, tell
from ..data import mnist
from ..errors import UserError
from ..files.destination import writing

FILE_NAME = "mnist_classifier.safetensors"
FEATURES = 64  # numbers that an image is described by, before the last layer
BATCH, EPOCHS, RATE, SHIFT = 128, 8, 2e-3, 2
ORDER_STREAM, SHIFT_STREAM = 1, 2


class Classifier(nn.Module):
    """Images (N, 1, 28, 28), from -1 (black) to 1 (white), to logits (N, 10).

    Four convolutions, two of which halve the side, each with BatchNorm and ReLU; then two dense layers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_normalised(nn.Conv2d(1, 32, 3, padding=1, bias=False), 32),
            *_normalised(nn.Conv2d(32, 32, 4, stride=2, padding=1, bias=False), 32),  # 14 x 14
            *_normalised(nn.Conv2d(32, 64, 3, padding=1, bias=False), 64),
            *_normalised(nn.Conv2d(64, 64, 4, stride=2, padding=1, bias=False), 64),  # 7 x 7
            nn.Flatten(),
            nn.Dropout(0.4),
            nn.Dense(64 * 7 * 7, FEATURES),
            nn.ReLU(),
        )
        self.last = nn.Dense(FEATURES, 10)

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        return self.last(self.features(x))


def _normalised(conv: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    return conv, nn.BatchNorm(channels), nn.ReLU()


def load() -> Classifier:
    """The trained classifier that the package carries, in eval mode. UserError where it is damaged."""
    file = resources.files(__package__) / FILE_NAME
    classifier = Classifier()
    try:
        with resources.as_file(file) as path:
            classifier.load_state_dict(mg.load(path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the classifier of digits, {file}, can't be read: {error}; install dcgan again"
        ) from error
    classifier.eval()
    return classifier


def judge(classifier: Classifier, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of images (n, 1, 28, 28): their features (n, 64) and the probabilities of the ten digits (n, 10)."""

    def both(x: mg.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
        features = classifier.features(x)
        return features.numpy(), classifier.last(features).numpy()

    features, logits = in_batches(both, images)
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return features, powers / powers.sum(axis=1, keepdims=True)


def in_batches(
    function: Callable[[mg.Tensor], tuple[NDArray[Any], ...]], images: NDArray[Any], batch_size: int = 250
) -> tuple[NDArray[Any], ...]:
    """Apply a function to tensors of a few images each, one after another, without a graph."""
    with mg.no_grad():
        starts = range(0, len(images), batch_size)
        parts = [function(mg.tensor(images[i : i + batch_size])) for i in starts]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def train(images: NDArray[Any], labels: NDArray[Any], epochs: int, seed: int = 0) -> Classifier:
    """A classifier of images (n, 28, 28), uint8, and the digits that they show.

    Adam on the cross-entropy; the rate falls to 0 along a cosine; each image is moved by up to two
    pixels, anew in each epoch.
    """
    mg.manual_seed(seed)
    classifier = Classifier()
    optimizer = optim.Adam(classifier.parameters(), RATE)
    orders, shifts = mg.Generator(seed, ORDER_STREAM), mg.Generator(seed, SHIFT_STREAM)
    total = epochs * math.ceil(len(images) / BATCH)
    with tqdm(total=total, desc="training", leave=False) as bar:
        for _ in range(epochs):
            order = orders.permutation(len(images))
            for start in range(0, len(images), BATCH):
                chosen = order[start : start + BATCH]
                batch = _shifted(images[chosen], shifts.integers(0, 2 * SHIFT + 1, (len(chosen), 2)))
                optimizer.lr = RATE * (1 + math.cos(math.pi * bar.n / total)) / 2
                optimizer.zero_grad()
                loss = F.cross_entropy(classifier(mg.tensor(scaled(batch))), labels[chosen])
                loss.backward()
                optimizer.step()
                bar.update()
    classifier.eval()
    return classifier


def scaled(images: NDArray[Any]) -> NDArray[Any]:
    """Bytes (n, H, W) as the classifier takes them: float32 (n, 1, H, W) from -1 to 1."""
    return (images.astype(np.float32) * np.float32(2 / 255) - np.float32(1))[:, None]


def accuracy(classifier: Classifier, images: NDArray[Any], labels: NDArray[Any]) -> float:
    """The share of images (n, 28, 28), uint8, whose digit is found."""
    _, probabilities = judge(classifier, scaled(images))
    return float((probabilities.argmax(axis=1) == labels).mean())


def _shifted(images: NDArray[Any], corners: NDArray[Any]) -> NDArray[Any]:
    """Images (n, H, W) moved: each is cut at its corner, from 0 to 2 SHIFT, out of a black frame."""
    _, height, width = images.shape
    framed = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    cut = [f[y : y + height, x : x + width] for f, (y, x) in zip(framed, corners, strict=True)]
    return np.stack(cut)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan.evaluation.classifier",
        description="Train the classifier that dcgan.evaluate judges digits with.",
    )
    parser.add_argument("--out", type=Path, default=Path(FILE_NAME), help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    if arguments.epochs < 1 or not 0 <= arguments.seed < 2**63:
        raise UserError("expected --epochs of at least 1 and --seed of at least 0")
    classifier = train(mnist.images("train"), mnist.labels("train"), arguments.epochs, arguments.seed)
    share = accuracy(classifier, mnist.images("test"), mnist.labels("test"))
    with writing("--out", arguments.out):
        mg.save(classifier.state_dict(), arguments.out, {"test_accuracy": f"{share:.4f}"})
    tell(f"{arguments.out}: {100 * share:.2f}% of the 10,000 test images are classified right")
    return 0


if __name__ == "__main__":
    run_command(main, "dcgan.evaluation.classifier")
