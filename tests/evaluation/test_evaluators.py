"""Each metric on inputs where its value is known, and on degenerate ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.data.dataset import DataSet, Split, complete_split
from mmvm_jax.evaluation.divergence import jensen_shannon
from mmvm_jax.evaluation.reconstruction import imputation, reconstruction
from mmvm_jax.evaluation.translation import Translations, source_sets, translate_split
from mmvm_jax.models.model import make_model
from mmvm_jax.models.trained import Trained, encode_split, map_split
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.types import Batch, DiagonalGaussian, Modality

NAMES = ("a", "b")


class InputsAreMeans:
    """A model whose posteriors are its inputs, with a fixed scale."""

    names = NAMES
    modalities = tuple(Modality(name, (3,), "vector", "normal") for name in NAMES)
    identifiers = jnp.array([modality.identifier for modality in modalities], jnp.uint32)

    def prepare(self, batch):
        return batch

    def bind(self, params):
        return self

    def encode(self, inputs):
        means = jnp.stack([inputs[name] for name in NAMES])
        return DiagonalGaussian(means, jnp.full_like(means, np.log(0.01)))


def _vectors(seed, count=10):
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def _split(a, b):
    return complete_split({"a": a, "b": b}, np.arange(len(a), dtype=np.int32) % 2)


def _jensen_shannon(split):
    trained = Trained(InputsAreMeans(), make_method(base().method), {})
    return jensen_shannon(trained, split, 8, 200, 0)


def test_jensen_shannon_is_zero_where_posteriors_coincide_and_log_m_where_they_are_far():
    a = _vectors(0)
    np.testing.assert_allclose(_jensen_shannon(_split(a, a))["divergence/jensen_shannon"], 0.0, atol=1e-6)
    far = _jensen_shannon(_split(a, a + 10.0))["divergence/jensen_shannon"]
    np.testing.assert_allclose(far, np.log(2.0), rtol=1e-5)


def test_jensen_shannon_leaves_out_what_is_not_finite():
    a = _vectors(0)
    b = a.copy()
    b[3] = np.inf
    np.testing.assert_allclose(_jensen_shannon(_split(a, b))["divergence/jensen_shannon"], 0.0, atol=1e-6)


def test_jensen_shannon_counts_only_examples_with_several_modalities():
    a = _vectors(0)
    split = _split(a, a + 10.0)
    split.present[1, ::2] = False
    np.testing.assert_allclose(_jensen_shannon(split)["divergence/jensen_shannon"], np.log(2.0), rtol=1e-5)
    split.present[1] = False
    assert _jensen_shannon(split) == {}


def test_a_split_is_mapped_whole_and_in_order():
    split = _split(_vectors(0, 21), _vectors(1, 21))
    double = devices.data_parallel(lambda factor, batch: factor * batch.inputs["a"], reduced=False)
    np.testing.assert_array_equal(map_split(double, 2.0, split, 8), 2.0 * split.inputs["a"])


def _translations():
    """Sources a, b, others_a, others_b, all; targets a, b; two examples, the second without b."""
    error = np.arange(20.0).reshape(5, 2, 2)
    error[:, 1, 1] = np.nan
    return Translations(tuple(source_sets(NAMES)), np.ones((5, 2), bool), error, -error)


def test_reconstruction_and_imputation_of_a_known_table():
    values = reconstruction(NAMES, _translations()) | imputation(NAMES, _translations())
    assert values["reconstruction/mse/a"] == 16.5 and values["reconstruction/mse/b"] == 18.0
    assert values["reconstruction/log_likelihood/a"] == -16.5
    assert values["imputation/mse/b_to_a"] == 4.5 and values["imputation/mse/a_to_b"] == 2.0
    assert values["imputation/mse/others_to_a"] == 8.5 and values["imputation/mse/others_to_b"] == 14.0


def test_what_nobody_observed_is_left_out():
    translations = _translations()
    translations.squared_error[:, 1] = np.nan
    values = reconstruction(NAMES, translations) | imputation(NAMES, translations)
    assert np.isfinite(list(values.values())).all()
    assert not [name for name in values if "mse" in name and name.endswith("b")]
    alone = Translations(("a", "others_a", "all"), np.ones((3, 2), bool), *np.ones((2, 3, 1, 2)))
    assert imputation(("a",), alone) == {}


@pytest.fixture(scope="module")
def striped():
    """Two image modalities whose class is the half that is bright; some entries are absent."""
    generator = np.random.default_rng(0)

    def split(count):
        labels = generator.integers(0, 2, count).astype(np.int32)
        images = generator.integers(0, 80, (2, count, 8, 8, 1)).astype(np.uint8)
        images[:, labels == 0, :4] += 150
        images[:, labels == 1, 4:] += 150
        return Split(dict(zip(NAMES, images)), generator.random((2, count)) < 0.8, labels)

    modalities = tuple(Modality(name, (8, 8, 1), "image", "laplace", 0.75) for name in NAMES)
    train, test = split(250), split(30)
    train.present[0, :3], test.present[:, :3] = False, [[False], [True]]
    return DataSet(modalities, train, test, 2, "class", "striped")


@pytest.fixture(scope="module")
def trained(striped):
    config = base()
    config.network.update({"name": "mlp", "latent_dim": 3, "mlp": {"hidden_dims": (8,)}})
    model, method = make_model(striped.modalities, config.network), make_method(config.method)
    return Trained(model, method, jax.jit(model.init)(jax.random.key(0)) | {"method": {}})


def test_translations_equal_the_single_steps(trained, striped):
    """The reconstruction error of MMVM's own posteriors, recomputed example by example."""
    translations = translate_split(trained, None, striped, 16, 7)
    assert translations.predictions is None and translations.real_features is None
    posteriors, joint, *_ = encode_split(trained, striped.test, 16)
    assert posteriors.mean.shape == joint.shape == (2, 30, 3)
    observed = np.broadcast_to(striped.test.present[:, :, None], joint.shape)
    np.testing.assert_array_equal(joint[observed], posteriors.mean[observed])
    batch, functions = trained.model.prepare(_batch(striped.test)), trained.model.bind(trained.params)
    sources = jnp.array([True, False])
    z = trained.translate(functions, functions.encode(batch.inputs), batch, sources, jax.random.key(7))
    decoded = functions.mean(functions.decode(z))
    error = np.square(decoded["b"] - batch.inputs["b"]).mean(axis=(1, 2, 3))
    both = striped.test.present.all(axis=0)
    row = translations.squared_error[translations.sources.index("a"), 1]
    np.testing.assert_array_equal(np.isnan(row), ~both)
    np.testing.assert_allclose(row[both], np.asarray(error)[both], rtol=1e-4)


def _batch(split):
    return Batch(split.inputs, split.present, np.arange(len(split.labels), dtype=np.int32), split.labels)
