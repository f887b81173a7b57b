"""Gaussians, draws and mixtures against float64 oracles, scipy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats

from mmvm_jax.distributions import (
    gaussian_kl,
    gaussian_log_density,
    mixture_log_density,
    mixture_weights,
    sample,
    standard_normal_like,
    wasserstein2_squared,
)
from mmvm_jax.types import DiagonalGaussian


def pair(oracle):
    q = DiagonalGaussian(jnp.asarray(oracle["q_mean"]), jnp.asarray(oracle["q_log_variance"]))
    p = DiagonalGaussian(jnp.asarray(oracle["p_mean"]), jnp.asarray(oracle["p_log_variance"]))
    return q, p


def test_gaussian_kl_meets_the_oracle(oracles, precision):
    q, p = pair(oracles["gaussian_kl"])
    precision.check(gaussian_kl(q, p), oracles["gaussian_kl"]["kl"])
    precision.check(gaussian_kl(q), oracles["gaussian_kl"]["kl_standard_normal"])


def test_gaussian_kl_of_a_gaussian_to_itself_is_exactly_zero(random_gaussian):
    q = random_gaussian(0, 5, 3)
    assert not np.any(gaussian_kl(q, q))
    assert not np.any(gaussian_kl(standard_normal_like(q)))


def test_gaussian_kl_keeps_its_digits_near_equality_in_float32():
    log_variance = np.float32(2e-4)  # log-scale 1e-4
    q = DiagonalGaussian(jnp.zeros(1), jnp.full(1, log_variance))
    exact = 0.5 * (np.expm1(np.float64(log_variance)) - np.float64(log_variance))
    # expm1 rounds to 1.5e-11, half a unit in the last place of 2e-4; the result is half of 2e-8.
    np.testing.assert_allclose(gaussian_kl(q), [exact], rtol=1.5e-3)
    np.testing.assert_allclose(gaussian_kl(q, standard_normal_like(q)), [exact], rtol=1.5e-3)


def test_wasserstein_distance_meets_the_oracle(oracles, precision):
    q, p = pair(oracles["wasserstein2_squared"])
    precision.check(wasserstein2_squared(q, p), oracles["wasserstein2_squared"]["value"])
    precision.check(wasserstein2_squared(p, q), oracles["wasserstein2_squared"]["value"])


def test_gaussian_log_density_is_that_of_scipy(random_gaussian, precision):
    gaussian, z = random_gaussian(1, 4, 3), random_gaussian(2, 4, 3).mean
    scale = np.exp(0.5 * np.float64(gaussian.log_variance))
    expected = stats.norm.logpdf(np.float64(z), np.float64(gaussian.mean), scale).sum(-1)
    precision.check(gaussian_log_density(gaussian, z), expected)


def test_mixture_log_density_meets_the_oracle(oracles, precision):
    oracle = oracles["mixture_log_density"]
    components = DiagonalGaussian(jnp.asarray(oracle["mean"]), jnp.asarray(oracle["log_variance"]))
    z, log_weights = jnp.asarray(oracle["z"]), jnp.log(jnp.asarray(oracle["weight"]))
    precision.check(mixture_log_density(components, z, log_weights), oracle["value"])
    per_example = jnp.broadcast_to(log_weights[:, None], components.mean.shape[:-1])
    precision.check(mixture_log_density(components, z, per_example), oracle["value"])


def test_a_mixture_component_of_weight_zero_takes_no_part(random_gaussian):
    components, z = random_gaussian(3, 3, 4, 2), random_gaussian(4, 4, 2).mean
    poisoned = jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), components)
    log_weights = jnp.log(jnp.array([0.3, 0.0, 0.7]))
    total = lambda c, z: jnp.sum(mixture_log_density(c, z, log_weights))
    value, (gradient, path) = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(poisoned, z)
    others = jax.tree.map(lambda leaf: leaf[::2], components)
    expected = jnp.sum(mixture_log_density(others, z, jnp.log(jnp.array([0.3, 0.7]))))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert np.all(np.isfinite(path))
    for leaf in gradient:
        assert not np.any(leaf[1]) and np.all(np.isfinite(leaf)) and np.all(np.any(leaf[::2], axis=(1, 2)))


def test_a_mixture_without_components_has_density_zero_and_no_gradient(random_gaussian):
    components, z = random_gaussian(3, 2, 4, 2), random_gaussian(4, 4, 2).mean
    nothing = jnp.full(2, -jnp.inf)
    assert np.all(mixture_log_density(components, z, nothing) == -np.inf)
    total = lambda *arguments: jnp.sum(mixture_log_density(*arguments))
    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(components, z, nothing)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_mixture_weights_are_renormalised_over_the_present(x64):
    present = jnp.array([[True, True, False], [True, False, False], [True, True, False]])
    log_weights = jnp.log(jnp.array([2.0, 3.0, 5.0]))
    weights, prior = mixture_weights(present, log_weights, prior_weight=0.2)
    expected = 0.8 * np.array([[0.2, 2 / 7, 0], [0.3, 0, 0], [0.5, 5 / 7, 0]])
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    np.testing.assert_allclose(prior, [0.2, 0.2, 1.0], rtol=1e-12)
    uniform, _ = mixture_weights(present)
    np.testing.assert_allclose(uniform, [[1 / 3, 0.5, 0], [1 / 3, 0, 0], [1 / 3, 0.5, 0]], rtol=1e-12)


@pytest.mark.parametrize("function", [gaussian_kl, wasserstein2_squared], ids=lambda f: f.__name__)
def test_gradients_of_divergences_are_finite_differences(function, random_gaussian, x64):
    check_grads(function, (random_gaussian(5, 3, 2), random_gaussian(6, 3, 2)), order=1, modes=("rev",))


def test_gradients_of_densities_are_finite_differences(random_gaussian, x64):
    gaussian, z = random_gaussian(5, 3, 2), random_gaussian(6, 3, 2).mean
    check_grads(gaussian_log_density, (gaussian, z), order=1, modes=("rev",))
    check_grads(gaussian_kl, (gaussian,), order=1, modes=("rev",))
    components, log_weights = random_gaussian(7, 4, 3, 2), jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    check_grads(jax.jit(mixture_log_density), (components, z, log_weights), order=1, modes=("rev",))


@pytest.mark.parametrize("log_variance", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("other", [-30.0, 30.0])
def test_extreme_variances_stay_finite_in_float32(log_variance, other):
    q = DiagonalGaussian(jnp.full((2, 3), 2.0), jnp.full((2, 3), log_variance))
    p = DiagonalGaussian(jnp.full((2, 3), -2.0), jnp.full((2, 3), other))
    components = jax.tree.map(lambda *leaves: jnp.stack(leaves), q, p)

    def total(q, p, components):
        z, log_weights = sample(jax.random.key(0), q), jnp.log(jnp.array([0.5, 0.5]))
        densities = gaussian_log_density(q, p.mean) + mixture_log_density(components, z, log_weights)
        return jnp.sum(gaussian_kl(q, p) + gaussian_kl(q) + wasserstein2_squared(q, p) + densities)

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, p, components)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradients))


def test_draws_have_the_moments_of_their_gaussian(random_gaussian, x64):
    gaussian, count = random_gaussian(8, 3, 2), 40_000
    z = sample(jax.random.key(1), gaussian, count)
    variance = np.exp(gaussian.log_variance)
    assert z.shape == (count, 3, 2)
    assert np.all(np.abs(z.mean(0) - gaussian.mean) < 4 * np.sqrt(variance / count))
    assert np.all(np.abs(z.var(0) - variance) < 4 * variance * np.sqrt(2 / count))
    correlation = np.corrcoef(z.reshape(count, -1), rowvar=False) - np.eye(6)
    assert np.max(np.abs(correlation)) < 4 / np.sqrt(count)


def test_one_draw_has_no_sample_axis(random_gaussian):
    gaussian, key = random_gaussian(8, 3, 2), jax.random.key(1)
    np.testing.assert_array_equal(sample(key, gaussian), sample(key, gaussian, 1)[0])
    keys = jax.random.split(key, 3)
    np.testing.assert_array_equal(sample(keys, gaussian), sample(keys, gaussian, 1)[0])
    assert sample(keys, gaussian, 5).shape == (5, 3, 2)


@pytest.mark.parametrize("num_samples", [None, 4])
def test_a_draw_with_its_own_key_ignores_its_neighbours(num_samples, random_gaussian):
    gaussian = random_gaussian(9, 2, 3, 2)
    keys = jax.random.split(jax.random.key(2), (2, 3))
    together = sample(keys, gaussian, num_samples)
    for m, b in np.ndindex(2, 3):
        one = DiagonalGaussian(gaussian.mean[m, b], gaussian.log_variance[m, b])
        alone = sample(keys[m, b], one, num_samples)
        np.testing.assert_allclose(together[..., m, b, :], alone, rtol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_draws_with_their_own_keys_differ(shape):
    keys = jax.random.split(jax.random.key(2), shape)
    noise = sample(keys, DiagonalGaussian(jnp.zeros((*shape, 4)), jnp.zeros((*shape, 4))), 5)
    assert len(np.unique(noise)) == noise.size


def test_draws_are_reparametrised(random_gaussian, x64):
    gaussian, key = random_gaussian(10, 3, 2), jax.random.key(3)
    gradient = jax.grad(lambda gaussian: jnp.sum(sample(key, gaussian)))(gaussian)
    np.testing.assert_array_equal(gradient.mean, np.ones((3, 2)))
    expected = 0.5 * (sample(key, gaussian) - gaussian.mean)
    np.testing.assert_allclose(gradient.log_variance, expected, rtol=1e-12)
