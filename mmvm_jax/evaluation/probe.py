"""Latent probe: how well a linear classifier reads the label off the posterior means."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, label_binarize

_MAX_ITERATIONS = 300


def probe(
    train_features: np.ndarray, train_labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray
) -> dict[str, float]:
    """Accuracy, and average precision and AUROC from probabilities, averaged over the classes of the test labels.

    Args:
      train_features: [N, D].
      train_labels: [N] classes.
      test_features: [T, D].
      test_labels: [T] classes.

    Returns:
      {metric: value}; empty where training or test labels have a single class.
    """
    if len(np.unique(train_labels)) < 2 or len(np.unique(test_labels)) < 2:
        return {}
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=_MAX_ITERATIONS))
    with warnings.catch_warnings():
        # Separable features have no optimum to converge to; the decision stays the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(train_features, train_labels)
    probabilities = classifier.predict_proba(test_features)
    scores = _per_class_scores(classifier.classes_, probabilities, test_labels)
    accuracy = np.mean(classifier.classes_[np.argmax(probabilities, axis=1)] == test_labels)
    return {"accuracy": float(accuracy), **scores}


def _per_class_scores(classes, probabilities, labels) -> dict[str, float]:
    present = [column for column, value in enumerate(classes) if value in set(labels)]
    truth = np.stack([labels == classes[column] for column in present], axis=1)
    scores = probabilities[:, present]
    return {
        "average_precision": float(average_precision_score(truth, scores, average="macro")),
        "auroc": float(roc_auc_score(truth, scores, average="macro")),
    }


def probe_all(names, train, test, num_examples: int) -> dict[str, float]:
    """Probes of every modality's own posterior means and of the joint representation.

    Args:
      names: of the modalities.
      train: (means [M, N, D], joint [M or 1, N, D], labels [N], present [M, N]).
      test: the same for T test examples.
      num_examples: training examples used at most, from the start.

    Returns:
      {"probe/<metric>/<modality>": value}, ".../joint" where all decoders read one latent, and ".../mean" over
      the modalities.
    """
    results = {}
    for row, name in enumerate(names):
        parts = [_observed(means[row], labels, present[row]) for means, _, labels, present in (train, test)]
        results[name] = probe(*(part[:num_examples] for part in parts[0]), *parts[1])
    if len(train[1]) == 1:
        results["joint"] = probe(train[1][0][:num_examples], train[2][:num_examples], test[1][0], test[2])
    values = {f"probe/{m}/{name}": v for name, result in results.items() for m, v in result.items()}
    for metric in ("accuracy", "average_precision", "auroc"):
        own = [results[name][metric] for name in names if results[name]]
        if own:
            values[f"probe/{metric}/mean"] = float(np.mean(own))
    return values


def _observed(features, labels, present):
    return features[present], labels[present]
