"""Cluster quality: how well k-means on the posterior means recovers the classes."""

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from mmvm_jax.models.trained import Encoded

_STARTS = 10
_SCORES = {
    "normalized_mutual_information": normalized_mutual_info_score,
    "adjusted_rand_index": adjusted_rand_score,
}


def cluster_quality(features: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, float]:
    """Compare the classes with one k-means cluster per class: 1 is perfect agreement, chance is near 0.

    Args:
      features: [N, D].
      labels: [N] classes.
      seed: seed of the initial cluster centres.

    Returns:
      {metric: value}; empty if there are fewer than two classes.
    """
    num_classes = len(np.unique(labels))
    if num_classes < 2:
        return {}
    with warnings.catch_warnings():
        # scikit-learn warns if there are fewer distinct points than clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(num_classes, n_init=_STARTS, random_state=seed).fit_predict(features)
    return {metric: float(function(labels, clusters)) for metric, function in _SCORES.items()}


def clusters(names: tuple[str, ...], test: Encoded, seed: int) -> dict[str, float]:
    """Return {"cluster/<metric>/<modality>": value} and ".../mean", from the posterior means of the test examples."""
    results = {}
    for name, means, present in zip(names, test.posteriors.mean, test.present):
        known = present & (test.labels >= 0)
        if quality := cluster_quality(means[known], test.labels[known], seed):
            results[name] = quality
    values = {}
    for metric in _SCORES if results else ():
        values |= {f"cluster/{metric}/{name}": quality[metric] for name, quality in results.items()}
        values[f"cluster/{metric}/mean"] = float(np.mean([quality[metric] for quality in results.values()]))
    return values
