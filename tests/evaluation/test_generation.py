"""Unconditional latents: the fitted mixture against a known one, and draws against the prior they come from."""

import jax
import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import GaussianMixturePrior, fit_prior, map_unconditional, sample_latents
from mmvm_jax.models.trained import Trained
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


def test_the_fit_recovers_a_known_mixture_from_what_is_present():
    generator = np.random.default_rng(0)
    component = (generator.random((2, 4000)) < 0.75).astype(int)
    noise = generator.normal(size=(2, 4000, 3)) * np.sqrt(FITTED.variances[component])
    means = FITTED.means[component] + noise
    present = np.ones((2, 4000), bool)
    present[1, ::2] = False
    means[~present] = np.nan
    fitted = fit_prior(means, present, 2, seed=0)
    order = np.argsort(fitted.weights)
    np.testing.assert_allclose(fitted.weights[order], FITTED.weights, atol=0.02)
    np.testing.assert_allclose(fitted.means[order], FITTED.means, atol=0.08)
    np.testing.assert_allclose(fitted.variances[order], FITTED.variances, rtol=0.1)
    for one, other in zip(fitted, fit_prior(means, present, 2, seed=0)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 3, 3)])
def test_no_more_components_than_different_means(shape):
    means = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    fitted = fit_prior(means, np.ones(shape[:2], bool), 50, seed=0)
    assert fitted.means.shape == (shape[0] * shape[1], 3)
    np.testing.assert_allclose(np.sort(fitted.means[:, 0]), means[..., 0].ravel(), atol=1e-6)
    assert (fitted.variances > 0).all() and np.isclose(fitted.weights.sum(), 1.0)


def test_a_constant_latent_has_one_component():
    fitted = fit_prior(np.full((2, 10, 3), 0.5, np.float32), np.ones((2, 10), bool), 50, seed=0)
    np.testing.assert_allclose(fitted.means, [[0.5] * 3], rtol=1e-6)


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
