"""Fréchet distance against its oracle, its closed form and its symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import config

from mmvm_jax.data.dataset import Split
from mmvm_jax.evaluation.frechet import classifier_frechet, frechet_distance, inception_frechet
from mmvm_jax.evaluation.translation import Translations, source_sets
from mmvm_jax.models.model import make_model
from mmvm_jax.models.trained import Trained
from mmvm_jax.networks import inception
from mmvm_jax.objectives.method import make_method
from mmvm_jax.types import Batch, Modality


def features(seed, count, width):
    generator = np.random.default_rng(seed)
    mixing, mean = generator.normal(size=(width, width)), generator.normal(size=width)
    return generator.normal(size=(count, width)) @ mixing + mean


def test_it_meets_the_oracle(oracles):
    oracle = oracles["frechet_distance"]
    distance = frechet_distance(oracle["a"], oracle["b"])
    assert isinstance(distance, float)
    assert distance == pytest.approx(oracle["value"], rel=1e-8)


def test_one_feature_has_the_closed_form():
    a, b = features(0, 30, 1), features(1, 40, 1)
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [4, 200])  # fewer examples than the 10 features, and more
def test_it_is_symmetric_zero_at_equality_and_moves_with_the_mean(count):
    a, b = features(2, count, 10), features(3, count + 3, 10)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-10)
    assert frechet_distance(a, b[::-1]) == pytest.approx(frechet_distance(b, a), rel=1e-12)
    assert frechet_distance(a, a + 2.0) == pytest.approx(40.0, rel=1e-10)
    stretched, variance = 3.0 * a - 2.0 * a.mean(axis=0), a.var(axis=0, ddof=1).sum()
    assert frechet_distance(a, stretched) == pytest.approx(4.0 * variance, rel=1e-10)


def test_singular_covariances_in_orthogonal_directions_add_their_variances():
    a, b = np.zeros((5, 6)), np.zeros((7, 6))
    a[:, 0], b[:, 3] = np.arange(5), np.arange(7)
    expected = 2.0**2 + 3.0**2 + np.var(np.arange(5), ddof=1) + np.var(np.arange(7), ddof=1)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_it_is_computed_in_float64():
    a = features(4, 50, 3)
    b = (a + 1e4).astype(np.float32)
    assert frechet_distance(b, b + np.float32(1.0)) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("shapes", [((1, 3), (5, 3)), ((5, 3), (5, 4)), ((5,), (5,))])
def test_what_has_no_covariance_is_refused(shapes):
    with pytest.raises(ValueError, match="two or more examples"):
        frechet_distance(*(np.zeros(shape) for shape in shapes))


def test_images_are_compared_pair_by_pair_where_they_were_observed():
    generator, names = np.random.default_rng(0), ("image", "text")
    real, generated = {"image": generator.normal(size=(9, 3))}, {"image": generator.normal(size=(2, 9, 3))}
    present = generator.random((2, 9)) < 0.7
    known = np.stack([present[row].any(axis=0) for row in source_sets(names).values()])
    nothing = np.zeros((5, 2, 9))
    translations = Translations(tuple(source_sets(names)), known, nothing, nothing, None, generated, None, real)
    shown = real["image"][present[0]]
    assert classifier_frechet(names, translations, present) == {
        "frechet/classifier/image_to_image": frechet_distance(shown, generated["image"][0, present[0]]),
        "frechet/classifier/text_to_image": frechet_distance(shown, generated["image"][1, present[1]]),
    }
    present[0, 1:] = False
    assert classifier_frechet(names, translations, present) == {}


def test_inception_sees_the_images_that_each_source_alone_makes(monkeypatch):
    """By features that can be computed by hand; a grey image, one of two channels, and a vector."""
    monkeypatch.setattr(inception, "read_weights", lambda path: {"factor": jnp.float32(len(path))})
    monkeypatch.setattr(
        inception, "features", lambda state, x: state["factor"] * jnp.stack([x.mean((1, 2, 3)), x.max((1, 2, 3))], 1)
    )
    shapes = {"grey": (8, 8, 1), "two": (8, 8, 2), "vector": (4,)}
    kinds = {"grey": "image", "two": "image", "vector": "vector"}
    model = make_model(tuple(Modality(n, s, kinds[n], "normal") for n, s in shapes.items()), config("joint").network)
    params = jax.jit(model.init)(jax.random.key(0)) | {"method": {}}
    trained = Trained(model, make_method(config("joint").method), params)
    generator = np.random.default_rng(0)
    inputs = {name: generator.random((11, *shape)).astype(np.float32) for name, shape in shapes.items()}
    split = Split(inputs, generator.random((3, 11)) < 0.7, np.full(11, -1))
    split.present[2, 1:] = False
    values = inception_frechet(trained, split, "four", 0)
    assert values.keys() == {"frechet/inception/grey_to_grey", "frechet/inception/two_to_grey"}
    batch, functions = model.prepare(Batch(*split[:2], np.arange(11), split.labels)), model.bind(trained.params)

    @jax.jit
    def from_two(key):
        members, posteriors = jnp.array([False, True, False]), functions.encode(batch.inputs)
        return functions.mean(functions.decode(trained.translate(functions, posteriors, batch, members, key)))["grey"]

    made = np.clip(from_two(jax.random.key(0)), 0.0, 1.0)
    real, made = (4 * np.stack([x.mean((1, 2, 3)), x.max((1, 2, 3))], 1) for x in (inputs["grey"], made))
    expected = frechet_distance(real[split.present[0]], made[split.present[1]])
    assert values["frechet/inception/two_to_grey"] == pytest.approx(expected, rel=1e-3)
