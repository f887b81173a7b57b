"""Cluster quality: whether k-means on the posterior means finds the classes."""

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
    """Agreement of the classes with as many clusters: 1 where they coincide, near 0 by chance.

    Args:
      features: [N, D].
      labels: [N] classes.
      seed: of the first guesses.

    Returns:
      {metric: value}; empty where there are not two classes.
    """
    num_classes = len(np.unique(labels))
    if num_classes < 2:
        return {}
    with warnings.catch_warnings():
        # A latent with fewer different points than classes: they are the clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        clusters = KMeans(num_classes, n_init=_STARTS, random_state=seed).fit_predict(features)
    return {metric: float(function(labels, clusters)) for metric, function in _SCORES.items()}


def clusters(names: tuple[str, ...], test: Encoded, seed: int) -> dict[str, float]:
    """{"cluster/<metric>/<modality>": value} of the test examples' posterior means, and ".../mean"."""
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
