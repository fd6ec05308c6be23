"""Judges: networks that turn images into features, by which two sets of images are compared."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import minigrad as mg
from minigrad import nn

from ..data.fit import fit_array
from . import classifier

DIGIT_SIZE = 28
WIDTHS = (16, 32, 64)  # of the fixed network's layers
FIXED_SEED = 20151119  # of the fixed network's weights; any would do


class Judge(Protocol):
    """Describes images.

    Attributes:
        name: of the features, for people.
        classes: whether it gives probabilities of classes too.
    """

    name: str
    classes: bool

    def look(self, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
        """Of bytes (n, H, W, C): features (n, d), and probabilities (n, classes) or None."""


class DigitJudge:
    """The classifier of digits; images of other sizes and colours are made 28 x 28 and grey first."""

    name = "the 64 features of our own classifier of digits"
    classes = True

    def __init__(self) -> None:
        self.classifier = classifier.load()

    def look(self, images: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        digits = fit_array(images, DIGIT_SIZE, 1)
        return classifier.judge(self.classifier, classifier.scaled(digits[..., 0]))


class FixedNetworkJudge:
    """Three convolutions with fixed random weights: the mean and the deviation of each of their 112 maps.

    It knows textures, edges and colours, and no objects. What it says is good for comparing runs on
    the same images, and is not the Inception distance of papers.
    """

    name = "224 features of a fixed network with random weights (not Inception's)"
    classes = False

    def __init__(self) -> None:
        generator = mg.Generator(FIXED_SEED)
        self.layers = []
        for before, after in zip((3, *WIDTHS), WIDTHS, strict=False):
            layer = nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False)
            nn.init.he_normal_(layer.weight, 0.2, generator)
            self.layers.append(layer)

    def look(self, images: NDArray[Any]) -> tuple[NDArray[Any], None]:
        pixels = _rgb(images).astype(np.float32) * np.float32(2 / 255) - np.float32(1)
        (features,) = classifier.in_batches(lambda x: (self._features(x),), pixels.transpose(0, 3, 1, 2))
        return features, None

    def _features(self, x: mg.Tensor) -> NDArray[Any]:
        """(n, 224): of each layer's maps (n, C, H, W) the means, and the standard deviations."""
        described = []
        for layer in self.layers:
            x = mg.functional.leaky_relu(layer(x), 0.2)
            maps = x.numpy()
            described += [maps.mean(axis=(2, 3)), maps.std(axis=(2, 3))]
        return np.concatenate(described, axis=1)


def _rgb(images: NDArray[Any]) -> NDArray[Any]:
    """Bytes (n, H, W, C) as (n, H, W, 3)."""
    grey = images.shape[3] == 1
    return images.repeat(3, axis=3) if grey else fit_array(images, min(images.shape[1:3]), 3)
