"""Numbers for how near one set of images is to another, from what a judge says of each image.

Features are arrays (n, d), one row an image; all is computed in float64 unless said otherwise. The results
do not depend on the number of cores.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from minigrad import backend

P = ParamSpec("P")
R = TypeVar("R")
NEIGHBOURS = 3  # of precision and recall
ROWS = 1000  # of a matrix of distances at a time


def _by_one_thread(measure: Callable[P, R]) -> Callable[P, R]:
    """Hold BLAS to one thread in a function: the last digits of a product depend on the number of them.

    Most of the time goes into loops over elements, for which NumPy has one thread anyway.
    """

    @wraps(measure)
    def held(*args: P.args, **kwargs: P.kwargs) -> R:
        with backend.single_threaded_blas():
            return measure(*args, **kwargs)

    return held


def score(probabilities: NDArray[Any]) -> float:
    """exp(E KL(p(y|x) || p(y))), from 1 to the number of classes.

    High where each image is surely of one class and all classes are equally frequent; it says
    nothing of whether images of a class differ. Source: Salimans et al., "Improved techniques for training
    GANs" (2016), section 4, the Inception score with another classifier.

    Args:
        probabilities: (n, classes), each row summing to 1.
    """
    mean = probabilities.mean(axis=0)
    tiny = np.finfo(np.float64).tiny
    divergence = probabilities * (np.log(probabilities + tiny) - np.log(mean + tiny))
    return float(np.exp(divergence.sum(axis=1).mean()))


def shares(probabilities: NDArray[Any]) -> list[float]:
    """The share of images whose likeliest class is each."""
    classes = probabilities.shape[1]
    return (np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)).tolist()


@_by_one_thread
def frechet(a: NDArray[Any], b: NDArray[Any]) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), of means m and covariances S.

    The squared Fréchet (2-Wasserstein) distance of two normal distributions. Source: Dowson and Landau,
    "The Fréchet distance between multivariate normal distributions" (1982); Heusel et al., "GANs trained by
    a two time-scale update rule converge to a local Nash equilibrium" (2017), equation 6.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (a, b))
    # The trace of the root of S_a S_b is that of the symmetric S_a^(1/2) S_b S_a^(1/2).
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    trace = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    difference = a.mean(axis=0) - b.mean(axis=0)
    distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * trace
    return float(max(distance, 0.0))


@_by_one_thread
def kernel_distance(a: NDArray[Any], b: NDArray[Any]) -> float:
    """The squared maximum mean discrepancy with the kernel (x . y / (d s^2) + 1)^3, unbiased.

    s^2 is the mean square of the features of `b`, so that their scale does not matter. Near 0, and as
    often below as above, for two samples of one distribution. Unlike the Fréchet distance it does not
    depend on how many images there are. Source: Bińkowski et al., "Demystifying MMD GANs" (2018),
    section 4.
    """
    scale = np.sqrt(np.mean(b.astype(np.float64) ** 2)) or 1.0
    a, b = a.astype(np.float64) / scale, b.astype(np.float64) / scale
    between = sum(_kernel(a[i : i + ROWS], b).sum() for i in range(0, len(a), ROWS))
    return float(_mean_of_pairs(a) + _mean_of_pairs(b) - 2 * between / (len(a) * len(b)))


@_by_one_thread
def precision_recall(samples: NDArray[Any], real: NDArray[Any], k: int = NEIGHBOURS) -> tuple[float, float]:
    """The share of samples that lie among the real images, and of real images among the samples.

    An image lies among a set where it is no farther from some member than that one's k-th nearest
    neighbour is in the set. Source: Kynkäänniemi et al., "Improved precision and recall metric for
    assessing generative models" (2019), equations 1 to 3. Distances are in float32.
    """
    samples, real = samples.astype(np.float32), real.astype(np.float32)
    return _covered(samples, real, k), _covered(real, samples, k)


@_by_one_thread
def nearest(images: NDArray[Any], among: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """For each image (n, numbers), the index of the nearest among others, and its Euclidean distance.

    Distances are in float32.
    """
    images, among = images.astype(np.float32), among.astype(np.float32)
    indices, distances = [], []
    for i in range(0, len(images), ROWS):
        squares = _squared_distances(images[i : i + ROWS], among)
        best = squares.argmin(axis=1)
        indices.append(best)
        # Once more without the cancellation that the fast form has where two are nearly equal.
        distances.append(np.linalg.norm(images[i : i + ROWS] - among[best], axis=1))
    return np.concatenate(indices), np.concatenate(distances)


def _kernel(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(a: NDArray[Any]) -> float:
    """The kernel's mean over all pairs of different rows."""
    n = len(a)
    total = sum(_kernel(a[i : i + ROWS], a).sum() for i in range(0, n, ROWS))
    same = ((a * a).sum(axis=1) / a.shape[1] + 1) ** 3
    return float((total - same.sum()) / (n * (n - 1)))


def _covered(points: NDArray[Any], members: NDArray[Any], k: int) -> float:
    """The share of points that lie among the members."""
    radii = np.concatenate(
        [
            # Each row holds a member's distance to itself, 0, so that the k-th neighbour is at place k.
            np.partition(_squared_distances(members[i : i + ROWS], members), k, axis=1)[:, k]
            for i in range(0, len(members), ROWS)
        ]
    )
    inside = [
        (_squared_distances(points[i : i + ROWS], members) <= radii).any(axis=1)
        for i in range(0, len(points), ROWS)
    ]
    return float(np.concatenate(inside).mean())


def _squared_distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """(len(a), len(b)), by |a|^2 - 2 a.b + |b|^2: one matrix product."""
    squares = (a * a).sum(axis=1)[:, None] - 2 * (a @ b.T) + (b * b).sum(axis=1)
    return squares.clip(0)
