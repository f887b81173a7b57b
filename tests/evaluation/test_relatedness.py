"""Distances between posteriors: against the kernel pair by pair, and where the answer is known."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster

from mmvm_jax.distributions import wasserstein2_squared
from mmvm_jax.evaluation.relatedness import relatedness, relatedness_values
from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import DiagonalGaussian

NAMES = ("a", "b", "c")


def _encoded(seed, labels, present=None):
    """Random posteriors of three modalities."""
    generator, shape = np.random.default_rng(seed), (3, len(labels), 4)
    posteriors = DiagonalGaussian(*(generator.normal(size=shape).astype(np.float32) for _ in range(2)))
    return Encoded(posteriors, None, np.ones(shape[:2], bool) if present is None else present, np.asarray(labels))


def _distance(test, a, i, b, j):
    pick = lambda row, example: DiagonalGaussian(*(leaf[row, example] for leaf in test.posteriors))
    return float(wasserstein2_squared(pick(a, i), pick(b, j)))


def test_distances_equal_the_kernel_pair_by_pair():
    present = np.random.default_rng(1).random((3, 20)) < 0.8
    test = _encoded(0, np.zeros(20, int), present)
    results = relatedness(NAMES, test, 0)
    assert set(results) == set(itertools.combinations(NAMES, 2))
    both = np.flatnonzero(present[0] & present[2])
    matched, unmatched, *_ = results["a", "c"]
    np.testing.assert_allclose(matched, [_distance(test, 0, i, 2, i) for i in both], rtol=1e-5)
    table = np.array([[_distance(test, 0, i, 2, j) for j in both] for i in both])
    partners = np.abs(table - unmatched[:, None]).argmin(axis=1)
    np.testing.assert_allclose(table[np.arange(len(both)), partners], unmatched, rtol=1e-5)
    assert sorted(partners) == list(range(len(both)))  # everyone is asked once,
    assert (partners != np.arange(len(both))).all()  # and by another


def test_class_distances_are_means_over_all_pairs():
    labels, present = np.arange(18) % 3, np.ones((3, 18), bool)
    present[1, labels == 2] = False  # b lacks a class
    test = _encoded(0, np.where(np.arange(18) == 5, -1, labels), present)
    result = relatedness(NAMES, test, 0)["a", "b"]
    np.testing.assert_array_equal(result.classes, [0, 1])
    for c, d in itertools.product(range(2), range(2)):
        pairs = itertools.product(np.flatnonzero(test.labels == c), np.flatnonzero(test.labels == d))
        expected = np.mean([_distance(test, 0, i, 1, j) for i, j in pairs])
        np.testing.assert_allclose(result.class_distances[c, d], expected, rtol=1e-5)
    assert result.tree.shape == (1, 4)
    between = (result.class_distances[0, 1] + result.class_distances[1, 0]) / 2
    np.testing.assert_allclose(result.tree[0, 2], between)


@pytest.mark.parametrize(("num_classes", "has_table"), [(200, True), (201, False)])
def test_the_table_of_classes_is_bounded(num_classes, has_table):
    result = relatedness(NAMES, _encoded(0, np.arange(num_classes)), 0)["a", "b"]
    assert (result.class_distances is not None) == (result.tree is not None) == has_table


def test_the_tree_joins_classes_that_lie_together():
    labels = np.arange(40) % 4
    test = _encoded(0, labels)
    test.posteriors.mean[:] *= 0.1
    test.posteriors.mean[..., 0] += 10.0 * (labels >= 2)  # classes 0 and 1 here, 2 and 3 there
    groups = fcluster(relatedness(NAMES, test, 0)["a", "b"].tree, 2, "maxclust")
    assert groups[0] == groups[1] != groups[2] == groups[3]


def test_matched_and_unmatched_are_told_apart_where_examples_differ_and_not_elsewhere():
    test = _encoded(0, np.zeros(200, int))
    test.posteriors.mean[1] = test.posteriors.mean[0] + 0.01
    test.posteriors.log_variance[1] = test.posteriors.log_variance[0]
    values = relatedness_values(relatedness(NAMES, test, 0))
    assert values["relatedness/auroc/a_b"] == 1.0
    assert values["relatedness/matched/a_b"] == pytest.approx(4e-4, rel=1e-3)
    # Two independent standard normals differ by 2 a dimension, their scales by twice the variance of a scale.
    variance = np.exp(0.5 * test.posteriors.log_variance[0]).var() + 1.0
    assert values["relatedness/unmatched/a_b"] == pytest.approx(8.0 * variance, rel=0.15)
    assert abs(values["relatedness/auroc/a_c"] - 0.5) < 0.1
    assert values == relatedness_values(relatedness(NAMES, test, 0))


def test_posteriors_that_are_out_of_range_are_left_out():
    test = _encoded(0, np.arange(12) % 2)
    expected = relatedness(NAMES, test._replace(present=np.tile(np.arange(12) != 4, (3, 1))), 0)
    test.posteriors.log_variance[1, 4] = 5_000.0
    found = relatedness(NAMES, test, 0)
    assert all(np.isfinite(value) for value in relatedness_values(found).values())
    for pair in (("a", "b"), ("b", "c")):
        np.testing.assert_array_equal(np.sort(found[pair].matched), np.sort(expected[pair].matched))
        assert np.isfinite(found[pair].class_distances).all()
    assert len(found["a", "c"].matched) == 12


def test_degenerate_inputs():
    assert relatedness(NAMES, _encoded(0, [0]), 0) == {}
    present = np.ones((3, 6), bool)
    present[1] = False
    assert set(relatedness(NAMES, _encoded(0, np.zeros(6, int), present), 0)) == {("a", "c")}
    one_class = relatedness(NAMES, _encoded(0, np.zeros(6, int)), 0)["a", "b"]
    assert one_class.class_distances is None and one_class.tree is None
    binary = relatedness(NAMES, _encoded(0, np.zeros((6, 2), int)), 0)["a", "b"]
    assert binary.class_distances is None and len(binary.matched) == 6
    constant = _encoded(0, np.arange(6) % 2)
    for leaf in constant.posteriors:
        leaf[:] = 0.5
    values = relatedness_values(relatedness(NAMES, constant, 0))
    assert values["relatedness/auroc/a_b"] == 0.5 and values["relatedness/unmatched/a_b"] == 0.0
