"""Latent probes: how well a simple classifier predicts the labels from the posterior means."""

import warnings

import numpy as np
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmvm_jax.data.batches import some_rows
from mmvm_jax.models.trained import Encoded

_MAX_ITERATIONS = 300
_SEED = 0


def logistic_regression(num_classes: int):
    """Return a logistic regression on standardised features, with scikit-learn's default penalty."""
    # Newton converges in a few steps with one column of weights; with more classes its Hessian would be too large.
    solver = "newton-cholesky" if num_classes == 2 else "lbfgs"
    return make_pipeline(StandardScaler(), LogisticRegression(solver=solver, max_iter=_MAX_ITERATIONS))


def random_forest(num_classes: int):
    """Return a random forest with scikit-learn's default of a hundred trees."""
    return RandomForestClassifier(n_jobs=-1, random_state=_SEED)


def fit_probe(features: np.ndarray, labels: np.ndarray, make_classifier=logistic_regression):
    """Fit a classifier of the classes, or a list of classifiers, one per binary label.

    Args:
      features: [N, D].
      labels: [N] classes, or [N, C] binary; -1 where unknown.
      make_classifier: maps the number of classes to a scikit-learn classifier.

    Returns:
      A fitted classifier; None if all known labels are equal.
    """
    if labels.ndim == 2:
        return [fit_probe(features, column, make_classifier) for column in labels.T]
    known = labels >= 0
    num_classes = len(np.unique(labels[known]))
    if num_classes < 2:
        return None
    with warnings.catch_warnings():
        # Separable classes have no finite optimum; the decisions no longer change.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return make_classifier(num_classes).fit(features[known], labels[known])


def score(fitted, features: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, average precision and AUROC; for binary labels, their means over the labels.

    Average precision and AUROC score each class against the rest, and average over the classes of the test labels.

    Args:
      fitted: result of ``fit_probe``.
      features: [N, D].
      labels: [N] or [N, C], as for ``fit_probe``.

    Returns:
      {metric: value}; empty if there are fewer than two classes. Binary labels with only one value, in training or in
      ``labels``, do not enter the means.
    """
    if labels.ndim == 2:
        return _means([_score(one, features, column, binary=True) for one, column in zip(fitted, labels.T)])
    return _score(fitted, features, labels, binary=False)


def _score(fitted, features, labels, binary: bool) -> dict[str, float]:
    known = labels >= 0
    labels = labels[known]
    if fitted is None or len(np.unique(labels)) < 2 or not np.isin(labels, fitted.classes_).any():
        return {}
    probabilities = fitted.predict_proba(features[known])
    accuracy = np.mean(fitted.classes_[np.argmax(probabilities, axis=1)] == labels)
    columns = [1] if binary else np.flatnonzero(np.isin(fitted.classes_, labels))
    truth, scores = labels[:, None] == fitted.classes_[columns], probabilities[:, columns]
    return {
        "accuracy": float(accuracy),
        "average_precision": float(average_precision_score(truth, scores, average="macro")),
        "auroc": float(roc_auc_score(truth, scores, average="macro")),
    }


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of every metric over the entries that are not empty."""
    scores = [one for one in scores if one]
    return {metric: float(np.mean([one[metric] for one in scores])) for metric in (scores[0] if scores else ())}


def probe_all(
    names: tuple[str, ...], train: Encoded, test: Encoded, num_examples: int, with_forest: bool
) -> dict[str, float]:
    """Fit and score probes of each modality, of the joint latent, and one shared probe for all modalities.

    Args:
      names: names of the modalities.
      train: encoded examples to which the probes are fitted.
      test: encoded examples on which they are scored.
      num_examples: maximum number of posterior means per fit, drawn at random from the training examples.
      with_forest: also fit random forests.

    Returns:
      {"probe/<metric>/<modality>": value}, "probe_forest/..." and "probe_shared/..."; ".../mean" is the mean over the
      modalities. "probe" and "probe_forest" also have ".../joint" if all decoders read the same latent.
    """
    makers = {"probe": logistic_regression} | ({"probe_forest": random_forest} if with_forest else {})
    values = {}
    for prefix, make_classifier in makers.items():
        results = {}
        for name, (features, labels), tested in zip(names, _by_modality(train), _by_modality(test)):
            rows = some_rows(len(labels), num_examples)
            results[name] = score(fit_probe(features[rows], labels[rows], make_classifier), *tested)
        if len(train.joint) == 1:
            rows = some_rows(len(train.labels), num_examples)
            fitted = fit_probe(train.joint[0][rows], train.labels[rows], make_classifier)
            results["joint"] = score(fitted, test.joint[0], test.labels)
        values |= _named(prefix, names, results)
    shared = fit_probe(*_pooled(train, num_examples))
    results = {name: score(shared, *tested) for name, tested in zip(names, _by_modality(test))}
    return values | _named("probe_shared", names, results)


def chance_level(train_labels: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the scores of predictions that ignore the data: {"probe_chance/<metric>": value}.

    The accuracy is that of always predicting the most frequent training label, and the average precision the share of
    positives.

    Args:
      train_labels: [N] or [N, C], as for ``fit_probe``.
      labels: those of the test examples.
    """
    nothing = lambda labels: np.zeros((len(labels), 1))
    fitted = fit_probe(nothing(train_labels), train_labels, lambda num_classes: DummyClassifier())
    return {f"probe_chance/{metric}": v for metric, v in score(fitted, nothing(labels), labels).items()}


def _by_modality(split: Encoded):
    """Yield (features, labels) per modality, of the examples in which it is present."""
    for mean, present in zip(split.posteriors.mean, split.present):
        yield mean[present], split.labels[present]


def _pooled(split: Encoded, num_examples: int):
    """Return (features, labels) of all modalities in one set, ordered by example."""
    examples, modalities = np.nonzero(split.present.T)
    chosen = some_rows(len(examples), num_examples)
    return split.posteriors.mean[modalities[chosen], examples[chosen]], split.labels[examples[chosen]]


def _named(prefix, names, results) -> dict[str, float]:
    results = results | {"mean": _means([results[name] for name in names])}
    return {f"{prefix}/{metric}/{name}": v for name, result in results.items() for metric, v in result.items()}
