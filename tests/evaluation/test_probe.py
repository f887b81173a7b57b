"""Latent probes against scikit-learn's own numbers, on classes and on binary labels, and on degenerate inputs."""

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmvm_jax.evaluation.probe import chance_level, fit_probe, logistic_regression, probe_all, random_forest, score
from mmvm_jax.models.trained import Encoded
from mmvm_jax.types import DiagonalGaussian

NAMES = ("a", "b")
METRICS = ("accuracy", "average_precision", "auroc")


def _vectors(seed, count):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def _classes(x):
    return (x[:, 0] > 0.3).astype(int) + (x[:, 1] > 0.5)


def _labels(x, seed):
    """Three noisy binary labels and one that is constant; a fifth of each is unknown."""
    generator = np.random.default_rng(seed)
    labels = (x + generator.normal(size=x.shape) > 0.5).astype(np.int32)
    labels = np.concatenate([labels, np.ones((len(x), 1), np.int32)], axis=1)
    return np.where(generator.random(labels.shape) < 0.2, -1, labels)


def _encoded(means, labels, present=None, joint=None):
    present = np.ones(means.shape[:2], bool) if present is None else present
    joint = means if joint is None else joint
    return Encoded(DiagonalGaussian(means, np.zeros_like(means)), joint, present, labels)


def _probe(train, train_labels, test, test_labels):
    return score(fit_probe(train, train_labels), test, test_labels)


def test_classes_equal_scikit_learn():
    train, test = _vectors(0, 200), _vectors(1, 100)
    values = _probe(train, _classes(train), test, _classes(test))
    reference = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(train, _classes(train))
    probabilities, truth = reference.predict_proba(test), _classes(test)[:, None] == np.arange(3)
    expected = {
        "accuracy": reference.score(test, _classes(test)),
        "average_precision": np.mean([average_precision_score(truth[:, c], probabilities[:, c]) for c in range(3)]),
        "auroc": np.mean([roc_auc_score(truth[:, c], probabilities[:, c]) for c in range(3)]),
    }
    assert values.keys() == expected.keys()
    np.testing.assert_allclose([values[m] for m in expected], list(expected.values()), rtol=1e-12)


@pytest.mark.parametrize(
    "make_classifier, reference",
    [
        (logistic_regression, lambda: make_pipeline(StandardScaler(), LogisticRegression(tol=1e-10, max_iter=1000))),
        (random_forest, lambda: RandomForestClassifier(random_state=0)),
    ],
)
def test_binary_labels_equal_scikit_learn_label_by_label(make_classifier, reference):
    train, test = _vectors(0, 300), _vectors(1, 200)
    train_labels, test_labels = _labels(train, 2), _labels(test, 3)
    values = score(fit_probe(train, train_labels, make_classifier), test, test_labels)
    expected = []
    for label in range(3):
        fitted, asked = train_labels[:, label] >= 0, test_labels[:, label] >= 0
        classifier = reference().fit(train[fitted], train_labels[fitted, label])
        scores, truth = classifier.predict_proba(test[asked])[:, 1], test_labels[asked, label]
        functions = (lambda t, s: np.mean((s > 0.5) == t), average_precision_score, roc_auc_score)
        expected.append([function(truth, scores) for function in functions])
    np.testing.assert_allclose([values[metric] for metric in METRICS], np.mean(expected, axis=0), rtol=1e-6)


def test_average_precision_of_noise_is_the_share_of_positives():
    generator = np.random.default_rng(0)
    labels = (generator.random((4000, 2)) < [0.1, 0.3]).astype(np.int32)
    values = _probe(_vectors(0, 2000), labels[:2000], _vectors(1, 2000), labels[2000:])
    assert abs(values["average_precision"] - 0.2) < 0.03 and abs(values["auroc"] - 0.5) < 0.04


def test_noise_is_chance():
    labels = np.random.default_rng(2).integers(0, 2, 1000)
    values = _probe(_vectors(0, 1000), labels, _vectors(1, 1000), labels[::-1])
    assert abs(values["accuracy"] - 0.5) < 4 * 0.5 / np.sqrt(1000)
    assert abs(values["auroc"] - 0.5) < 0.08


@pytest.mark.parametrize("as_columns", [False, True])
def test_degenerate_inputs(as_columns):
    shape = (lambda labels: labels[:, None]) if as_columns else (lambda labels: labels)
    features, labels = _vectors(0, 20), shape(np.arange(20) % 2)
    assert _probe(features, np.zeros_like(labels), features, labels) == {}
    assert _probe(features, np.full_like(labels, -1), features, labels) == {}
    assert _probe(features, labels, features[:1], labels[:1]) == {}
    assert _probe(features[:0], labels[:0], features, labels) == {}
    assert _probe(features[:1], labels[:1], features, labels) == {}
    constant = _probe(np.zeros((20, 3)), labels, np.zeros((20, 3)), labels)
    assert constant["accuracy"] == constant["auroc"] == constant["average_precision"] == 0.5


def test_classes_never_trained_on():
    features, labels = _vectors(0, 20), np.arange(20) % 2
    unseen = _probe(features, labels, features, np.arange(20) % 3)
    assert 0.0 <= unseen["auroc"] <= 1.0
    assert _probe(features, labels, features, labels + 2) == {}


def test_probes_read_only_what_was_observed():
    labels = np.arange(40) % 2
    means = np.stack([labels[:, None] * 2.0 - 1.0 + np.zeros((40, 3)), np.full((40, 3), np.nan)])
    split = _encoded(means, labels, np.stack([np.ones(40, bool), np.zeros(40, bool)]))
    values = probe_all(NAMES, split, split, 40, with_forest=False)
    assert values["probe/accuracy/a"] == values["probe/accuracy/mean"] == values["probe_shared/accuracy/mean"] == 1.0
    assert not any(name.endswith("/b") for name in values)


def test_one_probe_for_all_tells_whether_modalities_mean_the_same():
    """The second modality has the classes the wrong way round: a probe of its own reads it, a shared one cannot."""
    labels = np.arange(400) % 2
    noise = np.random.default_rng(0).normal(size=(2, 400, 2)).astype(np.float32)
    means = 0.1 * noise + (2.0 * labels[:, None] - 1.0) * np.array([1.0, -1.0])[:, None, None]
    split = _encoded(means, labels)
    values = probe_all(NAMES, split, split, 400, with_forest=False)
    assert values["probe/accuracy/mean"] == 1.0
    assert values["probe_shared/accuracy/mean"] == pytest.approx(
        0.5 * (values["probe_shared/accuracy/a"] + values["probe_shared/accuracy/b"])
    )
    assert abs(values["probe_shared/accuracy/mean"] - 0.5) < 0.1
    aligned = _encoded(means * np.array([1.0, -1.0])[:, None, None], labels)
    assert probe_all(NAMES, aligned, aligned, 400, with_forest=False)["probe_shared/accuracy/mean"] == 1.0


def test_the_shared_probe_equals_scikit_learn_on_stacked_means():
    train, test = (np.stack([_vectors(seed, 150), _vectors(seed + 1, 150)]) for seed in (0, 2))
    train_labels, test_labels = _labels(train[0], 4), _labels(test[0] + test[1], 5)
    values = probe_all(NAMES, _encoded(train, train_labels), _encoded(test, test_labels), 300, with_forest=True)
    stacked = np.stack(train, axis=1).reshape(300, 3)  # a mean of each, in turn
    expected = score(fit_probe(stacked, np.repeat(train_labels, 2, axis=0)), test[1], test_labels)
    assert {m: values[f"probe_shared/{m}/b"] for m in METRICS} == pytest.approx(expected)
    prefixes = ("probe", "probe_forest", "probe_shared")
    assert set(values) == {f"{p}/{m}/{name}" for p in prefixes for m in METRICS for name in (*NAMES, "mean")}


def test_probes_learn_from_all_classes_of_a_sorted_split():
    labels = np.sort(np.arange(300) % 10)
    means = np.stack([np.eye(10)[labels]] * 2).astype(np.float32)
    split = _encoded(means, labels, joint=means[:1])
    values = probe_all(NAMES, split, split, 100, with_forest=False)
    for name in ("probe/accuracy/mean", "probe/accuracy/joint", "probe_shared/accuracy/mean"):
        assert values[name] == 1.0, name


def test_a_joint_latent_is_probed_too():
    labels = np.arange(40) % 2
    joint = np.repeat(labels[None, :, None] * 2.0, 3, axis=2)
    split = _encoded(np.stack([_vectors(0, 40)] * 2), labels, joint=joint)
    values = probe_all(NAMES, split, split, 40, with_forest=False)
    assert values["probe/accuracy/joint"] == 1.0 and values["probe/accuracy/mean"] < 1.0


def test_the_chance_level_ignores_the_data():
    values = chance_level(np.array([0, 0, 1, -1]), np.array([0, 1, 1, 1, -1]))
    assert values == {
        "probe_chance/accuracy": 0.25, "probe_chance/average_precision": 0.5, "probe_chance/auroc": 0.5,
    }  # fmt: skip
    train = np.array([[0, 1], [0, 1], [1, 0]])
    values = chance_level(train, np.array([[0, 1], [0, 0], [0, 1], [1, 0]]))
    assert values["probe_chance/accuracy"] == (0.75 + 0.5) / 2
    assert values["probe_chance/average_precision"] == (0.25 + 0.5) / 2
    assert chance_level(np.full(3, -1), np.full(3, -1)) == {}
