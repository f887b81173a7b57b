"""Relatedness: distances between the posteriors of two modalities, for the same example and for different examples.

The distance is the squared 2-Wasserstein distance (Joy et al. 2022, arXiv 2106.12570).
"""

import itertools
from typing import NamedTuple

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import roc_auc_score

from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import DiagonalGaussian

_MOST_CLASSES = 200  # whose distances are kept for every pair of modalities


class Relatedness(NamedTuple):
    """Distances between two modalities, in squared latent units.

    The last three are None unless both modalities share 2 to 200 classes.
    """

    matched: np.ndarray  # [N] distances between the two posteriors of one example
    unmatched: np.ndarray  # [N] distances to the posterior of another example
    classes: np.ndarray | None = None  # [C] classes that occur in both modalities
    class_distances: np.ndarray | None = None  # [C, C] mean over all pairs; axis 0 is the first modality
    tree: np.ndarray | None = None  # [C - 1, 4] scipy's linkage of the classes, by average distance


def relatedness(names: tuple[str, ...], test: Encoded, seed: int) -> dict[tuple[str, str], Relatedness]:
    """Return {(a, b): Relatedness} for all pairs of modalities that occur together in at least two examples.

    Posteriors whose distances overflow are left out.
    """
    results = {}
    for a, b in itertools.combinations(range(len(names)), 2):
        points = [_points(test.posteriors, row) for row in (a, b)]
        present = test.present[[a, b]] & [np.isfinite(np.square(side).sum(axis=1)) for side in points]
        both = np.flatnonzero(present.all(axis=0))
        if len(both) > 1:
            first, second = (side[both] for side in points)
            distances = _distances(first, second, seed)
            by_class = _by_class(points, present, test.labels) if test.labels.ndim == 1 else ()
            results[names[a], names[b]] = Relatedness(*distances, *by_class)
    return results


def relatedness_values(results: dict[tuple[str, str], Relatedness]) -> dict[str, float]:
    """Return mean distances, and how well they separate unmatched from matched pairs (AUROC; chance is 0.5)."""
    values = {}
    for (a, b), (matched, unmatched, *_) in results.items():
        is_unmatched = np.repeat([0, 1], [len(matched), len(unmatched)])
        auroc = roc_auc_score(is_unmatched, np.concatenate([matched, unmatched]))
        numbers = {"matched": matched.mean(), "unmatched": unmatched.mean(), "auroc": auroc}
        values |= {f"relatedness/{number}/{a}_{b}": float(value) for number, value in numbers.items()}
    return values


def _points(posteriors: DiagonalGaussian, row: int) -> np.ndarray:
    """Return means and scales as points [N, 2 D], whose Euclidean distances are the Wasserstein distances."""
    mean, log_variance = (leaf[row].astype(np.float64) for leaf in posteriors)
    with np.errstate(over="ignore"):
        return np.concatenate([mean, np.exp(0.5 * log_variance)], axis=1)


def _distances(a: np.ndarray, b: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return squared distances between points [N, F] of the same and of another example, paired by a random cycle."""
    order = np.random.default_rng(seed).permutation(len(a))
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return tuple(np.square(a - partner).sum(axis=1) for partner in (b, b[other]))


def _by_class(points: list[np.ndarray], present: np.ndarray, labels: np.ndarray) -> tuple:
    """Return (classes, mean distances between them, linkage); empty unless both modalities share 2 to 200 classes.

    Args:
      points: points of both modalities, [N, F].
      present: [2, N] bool.
      labels: [N].
    """
    classes = np.intersect1d(*(labels[shown & (labels >= 0)] for shown in present))
    if not 2 <= len(classes) <= _MOST_CLASSES:
        return ()
    means, squares = [], []
    for side, shown in zip(points, present):
        members = [side[shown & (labels == value)] for value in classes]
        means.append(np.stack([one.mean(axis=0) for one in members]))
        squares.append(np.array([np.square(one).sum(axis=1).mean() for one in members]))
    distances = squares[0][:, None] + squares[1][None] - 2.0 * means[0] @ means[1].T
    symmetric = 0.5 * (distances + distances.T)
    np.fill_diagonal(symmetric, 0.0)  # linkage needs a distance of 0 of a class to itself
    return classes, distances, linkage(squareform(symmetric, checks=False), method="average")
