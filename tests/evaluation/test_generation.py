"""Unconditional latents: the fitted mixture against a known one, and draws against the prior they come from."""

import jax
import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.data.dataset import Split
from mmvm_jax.models import priors
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import GaussianMixturePrior, draw_aggregate, fit_prior, map_unconditional, sample_latents
from mmvm_jax.models.trained import Trained, encode_split, map_split
from mmvm_jax.objectives.method import make_method
from mmvm_jax.types import Modality

FITTED = GaussianMixturePrior(
    np.array([0.25, 0.75]), np.array([[-4.0, 0.0, 1.0], [4.0, 2.0, 1.0]]), np.array([[0.25, 1.0, 0.01]] * 2)
)


def _trained(method: str) -> Trained:
    """Two vectors, a latent of 3 dimensions and parameters as they start."""
    config = base()
    config.network.update({"name": "mlp", "latent_dim": 3, "mlp": {"hidden_dims": (4,)}})
    config.method.name = method
    config.method.mmvae_plus.private_dim = 1
    model = make_model(tuple(Modality(name, (2,), "vector", "normal") for name in "ab"), config.network)
    return Trained(model, make_method(config.method), model.init(jax.random.key(0)) | {"method": {}})


def test_the_fit_recovers_a_known_mixture():
    generator = np.random.default_rng(0)
    component = (generator.random(6000) < 0.75).astype(int)
    noise = generator.normal(size=(6000, 3)) * np.sqrt(FITTED.variances[component])
    draws = FITTED.means[component] + noise
    fitted = fit_prior(draws, 2, seed=0)
    order = np.argsort(fitted.weights)
    np.testing.assert_allclose(fitted.weights[order], FITTED.weights, atol=0.02)
    np.testing.assert_allclose(fitted.means[order], FITTED.means, atol=0.08)
    np.testing.assert_allclose(fitted.variances[order], FITTED.variances, rtol=0.1)
    for one, other in zip(fitted, fit_prior(draws, 2, seed=0)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("count", [1, 6])
def test_no_more_components_than_different_draws(count):
    draws = np.arange(3 * count, dtype=np.float32).reshape(count, 3)
    fitted = fit_prior(draws, 50, seed=0)
    assert fitted.means.shape == (count, 3)
    np.testing.assert_allclose(np.sort(fitted.means[:, 0]), draws[:, 0], atol=1e-6)
    assert (fitted.variances > 0).all() and np.isclose(fitted.weights.sum(), 1.0)


def test_a_constant_latent_has_one_component():
    fitted = fit_prior(np.full((20, 3), 0.5, np.float32), 50, seed=0)
    np.testing.assert_allclose(fitted.means, [[0.5] * 3], rtol=1e-6)


def _split_of_wide_posteriors(count: int) -> Split:
    """Two vectors of NaN where absent: each modality from two in three examples, and none from every ninth."""
    generator, numbers = np.random.default_rng(0), np.arange(count)
    inputs = {name: generator.normal(size=(count, 2)).astype(np.float32) for name in "ab"}
    present = np.stack([numbers % 3 > 0, numbers // 3 % 3 > 0])
    for name, row in zip("ab", present, strict=True):
        inputs[name][~row] = np.nan
    return Split(inputs, present, np.full(count, -1, np.int32))


def test_the_fitted_prior_is_as_wide_as_the_aggregate_posterior():
    """At the start posteriors are much wider than their means lie apart; the fit has the variance of both together."""
    trained, split = _trained("mmvm"), _split_of_wide_posteriors(6000)
    posteriors, *_ = encode_split(trained, split, 500)
    means, variances = posteriors.mean[split.present], np.exp(posteriors.log_variance[split.present])
    expected = variances.mean(axis=0) + means.var(axis=0)
    assert (means.var(axis=0) < 0.5 * expected).all()
    draws = draw_aggregate(trained, split, 500, seed=0)
    assert draws.shape == (split.present.sum(), 3) and np.isfinite(draws).all()
    fitted = fit_prior(draws, 3, seed=0)
    mean = fitted.weights @ fitted.means
    total = fitted.weights @ (fitted.variances + (fitted.means - mean) ** 2)
    # Five standard deviations of a sample variance, and of a sample mean; a mixture's are hardly above a Gaussian's.
    np.testing.assert_allclose(total, expected, rtol=5 * (2.5 / len(draws)) ** 0.5)
    np.testing.assert_allclose(mean, means.mean(axis=0), atol=5 * (expected.max() / len(draws)) ** 0.5)
    np.testing.assert_array_equal(draws, draw_aggregate(trained, split, 500, seed=0))
    assert (draws != draw_aggregate(trained, split, 500, seed=1)).any()


def test_only_the_examples_that_are_drawn_from_are_encoded(monkeypatch):
    trained, split, encoded = _trained("mmvm"), _split_of_wide_posteriors(900), []
    monkeypatch.setattr(priors, "_MAX_POINTS", 50)
    monkeypatch.setattr(priors, "map_split", lambda *args: encoded.append(len(args[2].labels)) or map_split(*args))
    assert priors.draw_aggregate(trained, split, 500, seed=0).shape == (50, 3)
    assert 40 < encoded[0] <= 50


def test_draws_follow_the_fitted_mixture_and_all_decoders_read_the_same():
    z = np.asarray(sample_latents(_trained("mmvm"), FITTED, 4000, jax.random.key(1)))
    assert z.shape == (2, 4000, 3)
    np.testing.assert_array_equal(z[0], z[1])
    second = z[0, :, 0] > 0
    np.testing.assert_allclose(second.mean(), 0.75, atol=0.03)
    np.testing.assert_allclose(z[0, second].mean(axis=0), FITTED.means[1], atol=0.08)
    np.testing.assert_allclose(z[0, ~second].var(axis=0), FITTED.variances[0], rtol=0.15)


def test_draws_are_the_same_whatever_their_number():
    trained = _trained("mmvm")
    many = sample_latents(trained, FITTED, 530, jax.random.key(1))
    few = sample_latents(trained, FITTED, 7, jax.random.key(1))
    np.testing.assert_array_equal(few, many[:, :7])


@pytest.mark.parametrize(
    "method, shared, private",  # dimensions that the decoders read the same in, and those that they do not
    [
        ("joint", slice(0, 3), slice(0, 0)),
        ("independent", slice(0, 0), slice(0, 3)),
        ("mmvae_plus", slice(1, 3), slice(0, 1)),
    ],
)
def test_methods_with_a_prior_draw_from_it(method, shared, private):
    z = np.asarray(sample_latents(_trained(method), None, 4000, jax.random.key(1)))
    np.testing.assert_allclose(z.mean(axis=1), 0.0, atol=0.08)
    np.testing.assert_allclose(z.var(axis=1), 1.0, atol=0.1)
    np.testing.assert_array_equal(z[0, :, shared], z[1, :, shared])
    assert (z[0, :, private] != z[1, :, private]).all()


def test_a_method_without_a_prior_needs_a_fitted_one():
    with pytest.raises(ValueError, match="method 'mmvm' has no prior of its own"):
        sample_latents(_trained("mmvm"), None, 4, jax.random.key(0))


def test_every_example_is_mapped_once_and_in_order():
    numbers = map_unconditional(lambda functions, index, key: index, _trained("mmvm"), 21, 8, jax.random.key(0))
    np.testing.assert_array_equal(numbers, np.arange(21))
