"""Canonical correlation: how well linear maps of two sets of features agree on examples they were not fitted to."""

import itertools

import numpy as np

from mmvm_jax.data.batches import some_rows
from mmvm_jax.models.trained import Encoded

_COMPONENTS = 10
_LEAST_SPREAD = 1e-6  # of a direction, as a share of the largest value; what is below is rounding


def canonical_correlations(
    train_a: np.ndarray, train_b: np.ndarray, test_a: np.ndarray, test_b: np.ndarray, num_components: int
) -> np.ndarray:
    """Correlations of the canonical variables, fitted on one set of examples and measured on another.

    With thin decompositions A = U_a S_a V_a' of the centred features, and of B, the variables are A V_a S_a^-1 P and
    B V_b S_b^-1 Q, where U_a' U_b = P R Q' (Björck & Golub 1973); on the training examples they correlate by R.

    Args:
      train_a: [N, F].
      train_b: [N, G].
      test_a: [T, F].
      test_b: [T, G].
      num_components: at most; never more than there are directions in which the training features vary.

    Returns:
      [components], the strongest of the training examples first; without those that are constant on the test
      examples.
    """
    (a, to_a), (b, to_b) = _whitened(train_a), _whitened(train_b)
    p, _, q = np.linalg.svd(a.T @ b, full_matrices=False)
    variables_a = test_a @ (to_a @ p[:, :num_components])
    variables_b = test_b @ (to_b @ q[:num_components].T)
    covariance, (spread_a, spread_b) = _moments(variables_a, variables_b)
    varied = (spread_a > 0.0) & (spread_b > 0.0)
    return covariance[varied] / (spread_a * spread_b)[varied]


def _whitened(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Orthonormal coordinates of the centred features [N, K], and the map that leads there [F, K]."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    q, r = np.linalg.qr(centred)
    u, spreads, v = np.linalg.svd(r, full_matrices=False)
    kept = spreads > _LEAST_SPREAD * np.abs(features).max()
    return q @ u[:, kept], v[kept].T / spreads[kept]


def _moments(a: np.ndarray, b: np.ndarray):
    """Covariances of the columns [K], and their standard deviations."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.mean(a * b, axis=0), tuple(np.sqrt(np.mean(np.square(side), axis=0)) for side in (a, b))


def correlation(names: tuple[str, ...], train: Encoded, test: Encoded, num_examples: int) -> dict[str, float]:
    """{"correlation/<a>_<b>": mean of the first ten canonical correlations between posterior means}.

    Args:
      names: of the modalities.
      train: what the maps are fitted to.
      test: what they are measured on.
      num_examples: training examples used at most, drawn at random.
    """
    values = {}
    for a, b in itertools.combinations(range(len(names)), 2):
        fitted, measured = (np.flatnonzero(split.present[a] & split.present[b]) for split in (train, test))
        if min(len(fitted), len(measured)) < 2:
            continue
        pairs = [
            split.posteriors.mean[row, rows]
            for split, rows in ((train, fitted[some_rows(len(fitted), num_examples)]), (test, measured))
            for row in (a, b)
        ]
        correlations = canonical_correlations(*pairs, _COMPONENTS)
        if correlations.size:
            values[f"correlation/{names[a]}_{names[b]}"] = float(np.mean(correlations))
    return values
