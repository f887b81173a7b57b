"""Coherence of known tables, joint coherence, and the classifiers behind both, on classes and on binary labels."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mmvm_jax.config import base
from mmvm_jax.data.dataset import DataSet, Split, complete_split
from mmvm_jax.evaluation.classifiers import TextClassifier, classify, load_classifiers
from mmvm_jax.evaluation.coherence import coherence, label_score
from mmvm_jax.evaluation.joint_coherence import agreement, joint_coherence
from mmvm_jax.evaluation.translation import Translations, source_sets, translate_split
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import GaussianMixturePrior
from mmvm_jax.models.trained import Trained, encode_split
from mmvm_jax.objectives.method import make_method
from mmvm_jax.types import Batch, Modality

NAMES = ("a", "b")


def _translations(predictions, real, known):
    sources, nothing = tuple(source_sets(NAMES)), np.zeros((5, 2, known.shape[1]))
    return Translations(sources, known, nothing, nothing, predictions, {}, real, {})


def test_coherence_of_a_known_table():
    """Two examples of classes 3 and 4, the second without b; 0 is wrong."""
    present, labels = np.array([[True, True], [True, False]]), np.array([3, 4])
    predictions = np.array([[[3, 4], [0, 4]], [[3, 0], [3, 0]]] + [[[3, 0], [0, 0]]] * 3)
    known = np.stack([present[row].any(axis=0) for row in source_sets(NAMES).values()])
    real = np.array([[3, 4], [0, 4]])
    values = coherence(NAMES, _translations(predictions, real, known), present, labels)
    assert values == {
        "coherence/a_to_a": 1.0,
        "coherence/a_to_b": 0.5,
        "coherence/b_to_a": 1.0,
        "coherence/b_to_b": 1.0,
        "coherence/cross_mean": 0.75,
        "coherence/leave_one_out_mean": 0.5,  # 1 for a, whose only source is b, and 0 for b
        "coherence/classifier_accuracy/a": 1.0,
        "coherence/classifier_accuracy/b": 0.0,
        "coherence/classifier_accuracy/mean": 0.5,
    }


def test_coherence_of_binary_labels_is_scikit_learns_average_precision():
    generator = np.random.default_rng(0)
    labels = generator.integers(-1, 2, (60, 3))
    labels[:, 2] = 1  # nothing to tell apart
    predictions, real = generator.random((5, 2, 60, 3)), generator.random((2, 60, 3))
    present = generator.random((2, 60)) < 0.8
    known = np.stack([present[row].any(axis=0) for row in source_sets(NAMES).values()])
    values = coherence(NAMES, _translations(predictions, real, known), present, labels)

    def expected(scores, shown):
        chosen = [shown & (labels[:, c] >= 0) for c in range(2)]
        return np.mean([average_precision_score(labels[rows, c], scores[rows, c]) for c, rows in enumerate(chosen)])

    pairs = {(s, t): expected(predictions[s, t], present[s]) for s in range(2) for t in range(2)}
    for (s, t), value in pairs.items():
        assert values[f"coherence/{NAMES[s]}_to_{NAMES[t]}"] == pytest.approx(value)
    assert values["coherence/cross_mean"] == pytest.approx((pairs[0, 1] + pairs[1, 0]) / 2)
    others = [expected(predictions[2 + t, t], present[1 - t]) for t in range(2)]
    assert values["coherence/leave_one_out_mean"] == pytest.approx(np.mean(others))
    assert values["coherence/classifier_average_precision/b"] == pytest.approx(expected(real[1], present[1]))
    assert "coherence/classifier_accuracy/mean" not in values


def test_what_cannot_be_scored_is_left_out():
    present = np.array([[True, True], [False, False]])
    known = np.stack([present[row].any(axis=0) for row in source_sets(NAMES).values()])
    translations = _translations(np.zeros((5, 2, 2), int), np.zeros((2, 2), int), known)
    values = coherence(NAMES, translations, present, np.zeros(2, int))
    assert set(values) == {
        "coherence/a_to_a", "coherence/a_to_b", "coherence/cross_mean", "coherence/leave_one_out_mean",
        "coherence/classifier_accuracy/a", "coherence/classifier_accuracy/mean",
    }  # fmt: skip
    assert label_score(np.zeros((4, 1)), np.array([[1], [1], [-1], [1]])) is None
    assert label_score(np.zeros(3), np.full(3, -1)) is None


def test_agreement_of_known_predictions():
    assert agreement(np.array([[1, 2, 3, 4], [1, 2, 0, 4], [1, 0, 3, 4]])) == 0.5
    probabilities = np.array([[[0.9, 0.1], [0.6, 0.2]], [[0.8, 0.8], [0.4, 0.3]]])  # [M, N, C]
    assert agreement(probabilities) == 0.5  # of the first label once, of the second once


@pytest.fixture(scope="module")
def striped():
    """An image whose class is the half that is bright, and a text that has the token 3 in class 1."""
    generator = np.random.default_rng(0)

    def split(count):
        labels = generator.integers(0, 2, count).astype(np.int32)
        images = generator.integers(0, 80, (count, 8, 8, 1)).astype(np.uint8)
        images[labels == 0, :4] += 150
        images[labels == 1, 4:] += 150
        text = generator.integers(1, 3, (count, 9)).astype(np.int32)
        text[np.arange(count), generator.integers(0, 6, count)] = np.where(labels == 1, 3, 1)
        text[:, 6:] = 0
        return Split({"image": images, "text": text}, generator.random((2, count)) < 0.8, labels)

    image = Modality("image", (8, 8, 1), "image", "laplace", 0.75)
    text = Modality("text", (9,), "tokens", "categorical", vocabulary_size=4, padding=0)
    return DataSet((image, text), split(250), split(30), 2, "class", "striped")


def _multilabel(data):
    """The same with two binary labels: the class, and its opposite; of every second example unknown."""

    def change(split):
        labels = np.stack([split.labels, 1 - split.labels], axis=1)
        labels[::2] = -1
        return split._replace(labels=labels)

    train, test = change(data.train), change(data.test)
    return dataclasses.replace(data, train=train, test=test, label_kind="multilabel", fingerprint="binary")


@pytest.fixture(scope="module")
def trained(striped):
    config = base()
    config.network.update({"name": "by_kind", "latent_dim": 3})
    config.network.small_cnn.channels = (4,)
    model, method = make_model(striped.modalities, config.network), make_method(config.method)
    return Trained(model, method, jax.jit(model.init)(jax.random.key(0)) | {"method": {}})


@pytest.fixture(scope="module")
def judged(trained, striped, tmp_path_factory):
    """Classifiers, where they are kept, and the translations that they classify."""
    cache = tmp_path_factory.mktemp("classifiers")
    classifiers = load_classifiers(trained.model, striped, 1, str(cache))
    return classifiers, cache, translate_split(trained, classifiers, striped, 16, 7)


def test_classifiers_learn_and_are_kept(trained, striped, judged):
    classifiers, cache, translations = judged
    written = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = load_classifiers(trained.model, striped, 1, str(cache))
    jax.tree.map(np.testing.assert_array_equal, classifiers, again)
    assert len(written) == 2 and written == {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    values = coherence(trained.model.names, translations, striped.test.present, striped.test.labels)
    for name in trained.model.names:
        assert values[f"coherence/classifier_accuracy/{name}"] > 0.95
    assert values["coherence/cross_mean"] < 0.9  # the model is untrained


def test_classifiers_that_saw_less_are_others(trained, striped, tmp_path):
    train = striped.train._replace(present=striped.train.present & (np.arange(250) % 2 == 0))
    for data in (striped, dataclasses.replace(striped, train=train)):
        load_classifiers(trained.model, data, 1, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_that_cannot_be_written_does_not_stop_the_evaluation(trained, striped, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        classifiers = load_classifiers(trained.model, striped, 1, str(tmp_path / "file" / "classifiers"))
    assert classifiers.keys() == set(trained.model.names)
    assert caplog.text.count("cannot be written (Not a directory), so this classifier will be trained again") == 2


def test_the_batch_size_is_what_the_devices_divide(trained, striped):
    seven, eight = (encode_split(trained, striped.test, batch_size) for batch_size in (7, 8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), seven, eight)


def test_classifiers_of_binary_labels_learn_what_is_known(trained, striped, tmp_path):
    data = _multilabel(striped)
    classifiers = load_classifiers(trained.model, data, 1, str(tmp_path))
    batch = trained.model.prepare(_batch(data.test))
    probabilities, _ = classify(trained.model, data, classifiers, batch.inputs)
    assert probabilities.shape == (2, 30, 2)
    for row, present in zip(np.asarray(probabilities), data.test.present):
        assert label_score(row[present], data.test.labels[present]) > 0.95
        known = present & (data.test.labels[:, 0] >= 0)
        assert ((row > 0.5) == data.test.labels)[known].mean() > 0.9


def test_classifying_translations_equals_classifying_one_by_one(trained, striped, judged):
    """Predictions and features of what the text gives, recomputed without batches and devices."""
    classifiers, _, translations = judged
    batch = trained.model.prepare(_batch(striped.test))

    @jax.jit
    def generate(batch):
        functions, members = trained.model.bind(trained.params), jnp.array([False, True])
        z = trained.translate(functions, functions.encode(batch.inputs), batch, members, jax.random.key(7))
        return functions.mean(functions.decode(z))

    generated = generate(batch)
    assert generated["text"].dtype == jnp.int32
    predictions, features = classify(trained.model, striped, classifiers, generated)
    np.testing.assert_array_equal(translations.predictions[translations.sources.index("text")], predictions)
    assert set(features) == {"image"}
    np.testing.assert_allclose(translations.features["image"][1], features["image"], rtol=1e-3, atol=1e-4)
    real, features = classify(trained.model, striped, classifiers, batch.inputs)
    np.testing.assert_array_equal(translations.real_predictions, real)
    np.testing.assert_allclose(translations.real_features["image"], features["image"], rtol=1e-3, atol=1e-4)
    assert np.isnan(translations.squared_error[:, 1]).all()  # token ids have no distance


def _batch(split):
    return Batch(split.inputs, split.present, np.arange(len(split.labels), dtype=np.int32), split.labels)


def test_padding_says_nothing():
    network, text = TextClassifier(2, 6, padding=0), np.random.default_rng(0).integers(1, 6, (4, 9)).astype(np.int32)
    padded, longer = (np.pad(text, ((0, 0), (0, count))) for count in (8, 13))
    variables = network.init(jax.random.key(0), text)
    other = jax.tree.map(jnp.copy, variables)
    other["params"]["Embed_0"]["embedding"] = other["params"]["Embed_0"]["embedding"].at[0].set(7.0)
    logits = network.apply(variables, padded).logits
    np.testing.assert_allclose(network.apply(variables, longer).logits, logits, rtol=1e-5)
    np.testing.assert_allclose(network.apply(other, padded).logits, logits, rtol=1e-5)


class SameForAll:
    """Decoders that read off the latent what the classifiers then say, or its opposite."""

    names = NAMES
    latent_dim = 1

    def __init__(self, signs):
        self.signs = signs

    def bind(self, params):
        return self

    def decode(self, z):
        return {name: sign * row for name, sign, row in zip(NAMES, self.signs, z)}

    def mean(self, outputs):
        return outputs


@pytest.mark.parametrize("signs, expected", [((1.0, 1.0), 1.0), ((1.0, -1.0), 0.0)])
def test_joint_coherence_of_decoders_that_agree_and_that_do_not(signs, expected, monkeypatch):
    says = lambda model, data, classifiers, inputs: (jnp.stack([inputs[n][:, 0] > 0 for n in NAMES]), {})
    monkeypatch.setattr("mmvm_jax.evaluation.joint_coherence.classify", says)
    fitted = GaussianMixturePrior(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)))
    data = DataSet((), None, complete_split({}, np.zeros(30, int)), 2, "class", "")
    trained = Trained(SameForAll(signs), make_method(base().method), {})
    assert joint_coherence(trained, {}, fitted, data, 8, 0) == {"coherence/joint": expected}


def test_one_modality_has_no_joint_coherence(trained):
    model = dataclasses.replace(trained.model, modalities=trained.model.modalities[:1])
    assert joint_coherence(Trained(model, trained.method, {}), {}, None, None, 8, 0) == {}
