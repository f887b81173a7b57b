"""k-means on latents whose clusters are known, scores against their textbook formulas."""

import numpy as np
import pytest

from mmvm_jax.evaluation.clusters import cluster_quality, clusters
from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import DiagonalGaussian

METRICS = {"normalized_mutual_information", "adjusted_rand_index"}


def _textbook(labels, assigned):
    """Mutual information over the mean entropy, and the adjusted Rand index, from the table of counts."""
    table = np.array([[np.sum((labels == a) & (assigned == b)) for b in set(assigned)] for a in set(labels)])
    p = table / table.sum()
    rows, columns = p.sum(axis=1, keepdims=True), p.sum(axis=0, keepdims=True)
    entropy = lambda q: -np.sum(q * np.log(q))
    information = np.sum(p[p > 0] * np.log((p / (rows * columns))[p > 0]))
    pairs = lambda counts: np.sum(counts * (counts - 1) / 2)
    both, first, second = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0))
    chance = first * second / pairs(table.sum())
    return {
        "normalized_mutual_information": information / (0.5 * (entropy(rows) + entropy(columns))),
        "adjusted_rand_index": (both - chance) / (0.5 * (first + second) - chance),
    }


def test_scores_of_known_clusters_equal_the_textbook():
    """Three tight groups; the classes are the groups but for every fifth example."""
    groups = np.arange(60) % 3
    features = 10.0 * np.eye(3)[groups] + 0.1 * np.random.default_rng(0).normal(size=(60, 3))
    labels = np.where(np.arange(60) % 5 == 0, (groups + 1) % 3, groups)
    assert cluster_quality(features, labels, 0) == pytest.approx(_textbook(labels, groups))
    assert cluster_quality(features, groups, 0) == {metric: 1.0 for metric in METRICS}


def test_noise_scores_nothing():
    generator = np.random.default_rng(0)
    quality = cluster_quality(generator.normal(size=(1000, 4)), generator.integers(0, 5, 1000), 0)
    assert abs(quality["adjusted_rand_index"]) < 0.02 and quality["normalized_mutual_information"] < 0.03


@pytest.mark.parametrize("features, labels", [(np.eye(4), np.zeros(4, int)), (np.eye(1), np.zeros(1, int))])
def test_one_class_or_one_example_has_no_quality(features, labels):
    assert cluster_quality(features, labels, 0) == {}


def test_a_constant_latent_scores_nothing():
    assert cluster_quality(np.full((20, 3), 0.5), np.arange(20) % 4, 0) == {metric: 0.0 for metric in METRICS}


def test_modalities_are_clustered_by_what_was_observed():
    labels, generator = np.arange(40) % 2, np.random.default_rng(0)
    means = np.stack([5.0 * np.eye(2)[labels], generator.normal(size=(40, 2)), np.full((40, 2), np.nan)])
    present = np.ones((3, 40), bool)
    present[0, ::7], present[2] = False, False
    means[0, ::7] = np.nan
    unknown = np.where(np.arange(40) == 1, -1, labels)
    values = clusters(("a", "b", "c"), Encoded(DiagonalGaussian(means, None), None, present, unknown), 0)
    assert set(values) == {f"cluster/{metric}/{name}" for metric in METRICS for name in ("a", "b", "mean")}
    assert values["cluster/adjusted_rand_index/a"] == 1.0
    expected = 0.5 * (1.0 + values["cluster/adjusted_rand_index/b"])
    assert values["cluster/adjusted_rand_index/mean"] == expected
