"""Canonical correlation between two sets of features, fitted to training examples and measured on test examples."""

import itertools

import numpy as np

from mmvm_jax.data.batches import some_rows
from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import Array

_COMPONENTS = 10
_SMALLEST_SINGULAR_VALUE = 1e-6  # relative to the largest feature; anything smaller is rounding error


def canonical_correlations(
    train_a: Array, train_b: Array, test_a: Array, test_b: Array, num_components: int
) -> np.ndarray:
    """Return the correlations of the canonical variables, fitted to one set of examples and measured on another.

    With thin decompositions A = U_a S_a V_a' of the centred features, and of B, the variables are A V_a S_a^-1 P and
    B V_b S_b^-1 Q, where U_a' U_b = P R Q' (Björck & Golub 1973). Their correlations on the training examples are R.

    Args:
      train_a: [N, F].
      train_b: [N, G].
      test_a: [T, F].
      test_b: [T, G].
      num_components: maximum number of components; also limited by the rank of the training features.

    Returns:
      [components], ordered by the correlation on the training examples, largest first. Components that are constant on
      the test examples are left out.
    """
    (a, to_a), (b, to_b) = _whitened(train_a), _whitened(train_b)
    p, _, q = np.linalg.svd(a.T @ b, full_matrices=False)
    variables_a = test_a @ (to_a @ p[:, :num_components])
    variables_b = test_b @ (to_b @ q[:num_components].T)
    covariance, (std_a, std_b) = _moments(variables_a, variables_b)
    varied = (std_a > 0.0) & (std_b > 0.0)
    return covariance[varied] / (std_a * std_b)[varied]


def _whitened(features: Array) -> tuple[np.ndarray, np.ndarray]:
    """Return whitened coordinates of the centred features [N, K], and the whitening matrix [F, K]."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    q, r = np.linalg.qr(centred)
    u, singular_values, v = np.linalg.svd(r, full_matrices=False)
    kept = singular_values > _SMALLEST_SINGULAR_VALUE * np.abs(features).max()
    return q @ u[:, kept], v[kept].T / singular_values[kept]


def _moments(a: np.ndarray, b: np.ndarray):
    """Return the covariances of the columns [K] and their standard deviations."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.mean(a * b, axis=0), tuple(np.sqrt(np.mean(np.square(side), axis=0)) for side in (a, b))


def correlation(names: tuple[str, ...], train: Encoded, test: Encoded, num_examples: int) -> dict[str, float]:
    """Return {"correlation/<a>_<b>": mean of the first ten canonical correlations between posterior means}.

    Args:
      names: names of the modalities.
      train: encoded examples to which the linear maps are fitted.
      test: encoded examples on which the correlations are measured.
      num_examples: maximum number of training examples, drawn at random.
    """
    values = {}
    for a, b in itertools.combinations(range(len(names)), 2):
        fitted, measured = (np.flatnonzero(split.present[a] & split.present[b]) for split in (train, test))
        if min(len(fitted), len(measured)) < 2:
            continue
        train_a, train_b, test_a, test_b = (
            split.posteriors.mean[row, rows]
            for split, rows in ((train, fitted[some_rows(len(fitted), num_examples)]), (test, measured))
            for row in (a, b)
        )
        correlations = canonical_correlations(train_a, train_b, test_a, test_b, _COMPONENTS)
        if correlations.size:
            values[f"correlation/{names[a]}_{names[b]}"] = float(np.mean(correlations))
    return values
