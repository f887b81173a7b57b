"""Canonical correlations: against scikit-learn's, and where the answer is known."""

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from mmvm_jax.data.batches import some_rows
from mmvm_jax.evaluation.correlation import canonical_correlations, correlation
from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import DiagonalGaussian


def _pair(seed, count, noise=1.0):
    """Features of 5 and 4 dimensions that share 3."""
    generator, maps = np.random.default_rng(seed), np.random.default_rng(100)
    shared = generator.normal(size=(count, 3))
    mix = lambda width: shared @ maps.normal(size=(3, width)) + noise * generator.normal(size=(count, width)) + 2.0
    return mix(5), mix(4)


def test_they_equal_scikit_learns():
    train, test = _pair(0, 400), _pair(1, 300)
    fitted = CCA(n_components=3, scale=False, max_iter=10_000, tol=1e-14).fit(*train)
    for asked in (train, test):
        variables = fitted.transform(*asked)
        expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(variables[0].T, variables[1].T)]
        np.testing.assert_allclose(canonical_correlations(*train, *asked, 3), expected, rtol=1e-4)


def test_on_the_training_examples_they_are_the_roots_of_the_textbook_matrix():
    a, b = _pair(0, 200)
    covariance, width = np.cov(a.T, b.T), a.shape[1]
    aa, bb, ab = covariance[:width, :width], covariance[width:, width:], covariance[:width, width:]
    squares = np.linalg.eigvals(np.linalg.solve(aa, ab) @ np.linalg.solve(bb, ab.T)).real
    expected = np.sqrt(np.sort(squares)[::-1][:4])
    np.testing.assert_allclose(canonical_correlations(a, b, a, b, 10), expected, rtol=1e-8)


def test_a_linear_map_of_the_other_correlates_by_one_and_noise_by_nothing():
    generator = np.random.default_rng(0)
    a, map_ = generator.normal(size=(2, 500, 4)), generator.normal(size=(4, 6))
    b = a @ map_ - 3.0  # of rank 4
    np.testing.assert_allclose(canonical_correlations(a[0], b[0], a[1], b[1], 10), np.ones(4), rtol=1e-10)
    other = generator.normal(size=(2, 500, 4))
    noise = canonical_correlations(a[0], other[0], a[1], other[1], 4)
    assert np.abs(noise).max() < 4.5 / np.sqrt(500)  # while on the training examples the first is above 0


def test_directions_without_variation_take_no_part():
    a, b = (side.astype(np.float32) for side in _pair(0, 100))
    padded = np.concatenate([a, np.full((100, 2), 0.1, np.float32)], axis=1)
    np.testing.assert_allclose(
        canonical_correlations(padded, b, padded, b, 10), canonical_correlations(a, b, a, b, 10), rtol=1e-6
    )
    assert canonical_correlations(np.full((10, 3), 0.1), b[:10], np.zeros((5, 3)), b[:5], 10).size == 0
    assert canonical_correlations(a[:1], b[:1], a, b, 10).size == 0


def _encoded(count, seed):
    """Three modalities: the second a linear map of the first, the third independent."""
    generator, map_ = np.random.default_rng(seed), np.random.default_rng(100).normal(size=(12, 12))
    means = generator.normal(size=(3, count, 12))
    means[1] = means[0] @ map_
    posteriors = DiagonalGaussian(means.astype(np.float32), np.zeros_like(means))
    return Encoded(posteriors, None, np.ones((3, count), bool), np.zeros(count, int))


def test_correlations_of_posterior_means_read_pairs_that_are_present():
    train, test = _encoded(300, 0), _encoded(200, 1)
    train.present[0, :50], test.present[1, 20:40] = False, False
    train.posteriors.mean[0, :50], test.posteriors.mean[1, 20:40] = np.nan, np.nan
    values = correlation(("a", "b", "c"), train, test, 10_000)
    assert set(values) == {"correlation/a_b", "correlation/a_c", "correlation/b_c"}
    assert values["correlation/a_b"] == pytest.approx(1.0, rel=1e-5)
    assert abs(values["correlation/a_c"]) < 0.15
    rows = 50 + some_rows(250, 80)
    expected = canonical_correlations(*train.posteriors.mean[[[0], [2]], rows], *test.posteriors.mean[[0, 2]], 10)
    assert len(expected) == 10
    limited = correlation(("a", "b", "c"), train, test, 80)
    assert limited["correlation/a_c"] == pytest.approx(expected.mean())


def test_pairs_that_nobody_has_are_left_out():
    train, test = _encoded(30, 0), _encoded(20, 1)
    test.present[1] = False
    train.posteriors.mean[2] = 0.25
    assert correlation(("a", "b", "c"), train, test, 100) == {}
    one = _encoded(1, 0)
    assert correlation(("a", "b", "c"), one, one, 100) == {}
