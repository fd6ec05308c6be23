"""The measures against slow and plain forms of themselves, and cases whose answers are known."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from dcgan.evaluation import measures

few = settings(max_examples=25, deadline=None, derandomize=True)


def features(seed, n, d, scale=1.0):
    """(n, d), correlated, away from 0."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + rng.standard_normal(d)) * scale


def probabilities(seed, n, classes):
    rows = np.random.default_rng(seed).random((n, classes)) ** 3
    return rows / rows.sum(axis=1, keepdims=True)


# -- the score and the shares ----------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 12), st.integers(1, 6))
@few
def test_the_score_is_what_loops_find(seed, n, classes):
    p = probabilities(seed, n, classes)
    divergences = []
    for row in p:
        marginal = [sum(p[i][c] for i in range(n)) / n for c in range(classes)]
        divergences.append(sum(x * math.log(x / m) for x, m in zip(row, marginal, strict=True) if x > 0))
    assert measures.score(p) == pytest.approx(math.exp(sum(divergences) / n), rel=1e-9)
    assert 1 - 1e-9 <= measures.score(p) <= classes + 1e-9


@pytest.mark.parametrize("classes", [2, 10])
def test_the_score_of_sure_and_balanced_images_is_the_number_of_classes(classes):
    assert measures.score(np.tile(np.eye(classes), (3, 1))) == pytest.approx(classes)


@pytest.mark.parametrize("rows", [np.full((7, 10), 0.1), np.tile(np.eye(10)[3], (7, 1))])
def test_the_score_of_images_that_are_all_alike_is_one(rows):
    assert measures.score(rows) == pytest.approx(1.0)


def test_the_score_of_k_classes_out_of_ten_is_k():
    assert measures.score(np.eye(10)[[0, 1, 2, 3] * 5]) == pytest.approx(4.0)


@given(st.integers(0, 1000), st.integers(1, 30), st.integers(1, 6))
@few
def test_shares_count_the_likeliest_class(seed, n, classes):
    p = probabilities(seed, n, classes)
    likeliest = [max(range(classes), key=lambda c, row=row: row[c]) for row in p]
    assert measures.shares(p) == pytest.approx([likeliest.count(c) / n for c in range(classes)])
    assert len(measures.shares(p)) == classes


# -- the Fréchet distance --------------------------------------------------------------------------


def plain_frechet(a, b):
    """By the eigenvalues of the product S_a S_b, not symmetric, whose roots add up to the trace."""

    def moments(x):
        mean = sum(x) / len(x)
        return mean, sum(np.outer(row - mean, row - mean) for row in x) / (len(x) - 1)

    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b)
    root = np.sqrt(eigenvalues.astype(complex)).real.sum()
    return ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * root


@given(st.integers(0, 1000), st.integers(1, 8), st.integers(2, 30), st.integers(2, 30))
@few
def test_the_frechet_distance_is_what_the_plain_product_gives(seed, d, more_a, more_b):
    a, b = features(seed, d + more_a, d), features(seed + 1, d + more_b, d, 1.5)
    assert measures.frechet(a, b) == pytest.approx(plain_frechet(a, b), rel=1e-6, abs=1e-6)


@given(st.integers(0, 1000), st.integers(2, 20), st.integers(2, 20))
@few
def test_the_frechet_distance_of_numbers_is_that_of_their_means_and_deviations(seed, n, m):
    a, b = features(seed, n, 1), features(seed + 1, m, 1)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert measures.frechet(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(st.floats(0.1, 5), st.floats(0.1, 5), st.floats(-3, 3)), min_size=2, max_size=6))
@few
def test_the_frechet_distance_of_uncorrelated_features_is_the_sum_over_them(axes):
    d = len(axes)
    cross = np.concatenate([np.eye(d), -np.eye(d)]) * math.sqrt((2 * d - 1) / 2)  # its covariance is 1
    a = cross * [s for s, _, _ in axes]
    b = cross * [s for _, s, _ in axes] + [shift for _, _, shift in axes]
    expected = sum((s - t) ** 2 + shift**2 for s, t, shift in axes)
    assert measures.frechet(a, b) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(0, 1000), st.integers(2, 6))
@few
def test_the_frechet_distance_is_symmetric_and_blind_to_turns_and_shifts(seed, d):
    a, b = features(seed, 30, d), features(seed + 1, 20, d)
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    distance = measures.frechet(a, b)
    assert measures.frechet(b, a) == pytest.approx(distance, rel=1e-7)
    assert measures.frechet(a @ turn + 3, b @ turn + 3) == pytest.approx(distance, rel=1e-7)
    assert measures.frechet(2 * a, 2 * b) == pytest.approx(4 * distance, rel=1e-7)


@pytest.mark.parametrize(("n", "d"), [(100, 5), (5, 20)])  # more images than features, and fewer
def test_the_frechet_distance_of_equal_sets_is_zero_and_of_moved_ones_the_way_squared(n, d):
    a = features(0, n, d)
    assert 0 <= measures.frechet(a, a[::-1]) < 1e-4
    assert measures.frechet(a, a + np.eye(d)[0] * 3) == pytest.approx(9, abs=1e-4)


# -- the kernel distance ---------------------------------------------------------------------------


def plain_kernel_distance(a, b):
    d, scale = a.shape[1], (b**2).mean()

    def kernel(x, y):
        return (sum(p * q for p, q in zip(x, y, strict=True)) / (d * scale) + 1) ** 3

    def among(x):
        pairs = [(i, j) for i in range(len(x)) for j in range(len(x)) if i != j]
        return sum(kernel(x[i], x[j]) for i, j in pairs) / len(pairs)

    between = sum(kernel(x, y) for x in a for y in b) / (len(a) * len(b))
    return among(a) + among(b) - 2 * between


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(2, 12), st.integers(2, 12), st.integers(1, 13))
@few
def test_the_kernel_distance_is_what_loops_find(seed, d, n, m, rows):
    a, b = features(seed, n, d), features(seed + 1, m, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "ROWS", rows)
        assert measures.kernel_distance(a, b) == pytest.approx(plain_kernel_distance(a, b), rel=1e-8)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average():
    rng = np.random.default_rng(0)
    found = [measures.kernel_distance(*rng.standard_normal((2, 30, 4))) for _ in range(1000)]
    assert abs(np.mean(found)) < 4 * np.std(found) / math.sqrt(len(found))
    assert 0.3 < np.mean(np.array(found) < 0) < 0.8
    far = [measures.kernel_distance(rng.standard_normal((30, 4)) + 1, rng.standard_normal((30, 4)))]
    assert far[0] > 5 * np.std(found)


def test_the_scale_of_features_does_not_move_the_kernel_distance():
    a, b = features(0, 20, 6), features(1, 25, 6)
    assert measures.kernel_distance(1e3 * a, 1e3 * b) == pytest.approx(measures.kernel_distance(a, b))


# -- precision and recall --------------------------------------------------------------------------

# Of whole numbers every squared distance is exact in float32, so that even ties must agree.
points = st.integers(1, 3).flatmap(
    lambda d: st.tuples(
        *[
            st.lists(st.lists(st.integers(-4, 4), min_size=d, max_size=d), min_size=5, max_size=14)
            for _ in range(2)
        ]
    )
)


def squared(x, y):
    return sum((p - q) ** 2 for p, q in zip(x, y, strict=True))


def plain_share(of, among, k):
    """The share of points that are within reach of some member; its reach is its k-th nearest neighbour."""
    reach = []
    for i, member in enumerate(among):
        others = [squared(member, other) for j, other in enumerate(among) if j != i]
        reach.append(sorted(others)[k - 1])
    inside = [any(squared(p, m) <= r for m, r in zip(among, reach, strict=True)) for p in of]
    return sum(inside) / len(of)


@given(points, st.integers(1, 4), st.integers(1, 15))
@few
def test_precision_and_recall_are_what_loops_find(sets, k, rows):
    samples, real = sets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "ROWS", rows)
        found = measures.precision_recall(np.array(samples, float), np.array(real, float), k)
    assert found == pytest.approx((plain_share(samples, real, k), plain_share(real, samples, k)))


def test_precision_and_recall_look_at_the_third_neighbour():
    real = np.array([[0.0], [1.0], [2.0], [10.0], [11.0]])  # the reach of 0 is 10
    samples = np.array([[-10.0], [-10.5], [-11.0], [-30.0]])
    precision, _ = measures.precision_recall(samples, real)
    assert precision == 0.25


def test_sets_that_are_equal_apart_or_in_part():
    grid = np.array(list(itertools.product(range(5), range(5))), float)
    assert measures.precision_recall(grid, grid[::-1]) == (1.0, 1.0)
    assert measures.precision_recall(grid, grid + 100) == (0.0, 0.0)
    both = np.concatenate([grid, grid + 100])
    assert measures.precision_recall(grid, both) == (1.0, 0.5)  # one mode is dropped
    assert measures.precision_recall(both, grid) == (0.5, 1.0)  # one mode is made up
    one = np.tile(grid[7], (20, 1))
    assert measures.precision_recall(one, grid) == (1.0, 1 / 25)  # one image is made again and again


# -- the nearest image -----------------------------------------------------------------------------


@given(points, st.integers(1, 15))
@few
def test_the_nearest_is_what_loops_find(sets, rows):
    images, among = sets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "ROWS", rows)
        indices, distances = measures.nearest(np.array(images, float), np.array(among, float))
    for image, index, distance in zip(images, indices, distances, strict=True):
        all_of_them = [squared(image, other) for other in among]
        assert index == all_of_them.index(min(all_of_them))
        assert distance == pytest.approx(math.sqrt(min(all_of_them)))


def test_the_distance_of_an_image_to_itself_is_zero_exactly():
    images = np.random.default_rng(0).random((50, 784))
    indices, distances = measures.nearest(images[::-1], images)
    assert indices.tolist() == list(range(50))[::-1]
    assert not distances.any()


# -- threads ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frechet", "kernel_distance", "precision_recall", "nearest"])
def test_blas_has_one_thread_in_every_measure(monkeypatch, name):
    seen = []
    for where, function in ((measures, "_kernel"), (measures, "_squared_distances"), (np.linalg, "eigh")):
        monkeypatch.setattr(where, function, watched(getattr(where, function), seen))
    with threadpool_limits(2, user_api="blas"):
        getattr(measures, name)(features(1, 20, 6), features(2, 20, 6))
    assert seen
    assert set(seen) == {1}


def watched(function, seen):
    """The function; `seen` gets how many threads BLAS has in each call."""

    def call(*arguments, **options):
        blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
        seen.extend(library["num_threads"] for library in blas)
        return function(*arguments, **options)

    return call
