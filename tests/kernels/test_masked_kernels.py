"""One contract for every masked kernel: what an absent entry holds changes nothing, and nothing overflows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmvm_jax import aggregation, distributions
from mmvm_jax.types import DiagonalGaussian

KEYS = jax.random.split(jax.random.key(5), (3, 4))
PRESENT = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]], bool)  # three, two, one and none observed


def divergence(experts, present, estimator, **options):
    """Weights of the mixture come from the experts, so that the absent ones' weights are poisoned too."""
    log_weights = experts.mean[..., 0]
    options = {"estimator": estimator, "key": KEYS, **options}
    return distributions.kl_to_mixture(experts, log_weights, present, **options)


def logsumexp_of_means(experts, present):
    return distributions.masked_logsumexp(experts.mean[..., 0], present, axis=0)


def shares(experts, present):
    return distributions.mixture_weights(present, experts.mean[..., 0], 0.3)


def mixture_density(experts, present):
    log_weights = jnp.where(present, 0.3 * experts.mean[..., 0], -jnp.inf)
    return distributions.mixture_log_density(experts, jnp.full(experts.mean.shape[1:], 0.5), log_weights)


def token_likelihood(experts, present):
    tokens = jnp.where(present, 1, 1_000)
    return distributions.categorical_log_likelihood(tokens, experts.mean, present)


def importance_bound(experts, present, bound):
    return distributions.importance_weighted_bound(jnp.moveaxis(experts.mean, -1, 1), bound, present)


KERNELS = {  # (experts [M, B, D], present [M, B]) -> arrays
    "where_present": lambda experts, present: distributions.where_present(present, experts),
    "masked_logsumexp": logsumexp_of_means,
    "mixture_weights": shares,
    "mixture_log_density": mixture_density,
    "kl_pairwise": functools.partial(divergence, estimator="pairwise"),
    "kl_pairwise_prior": functools.partial(divergence, estimator="pairwise", prior_weight=0.3),
    "kl_variational": functools.partial(divergence, estimator="variational"),
    "kl_variational_prior": functools.partial(
        divergence, estimator="variational", prior_weight=0.3, temperature=2.0, prior_gradient=False
    ),
    "kl_monte_carlo": functools.partial(divergence, estimator="monte_carlo", num_samples=2),
    "kl_monte_carlo_prior": functools.partial(divergence, estimator="monte_carlo", prior_weight=0.3),
    "categorical_log_likelihood": token_likelihood,
    "importance_loose": functools.partial(importance_bound, bound="loose"),
    "importance_tight": functools.partial(importance_bound, bound="tight"),
    "average_of_experts": aggregation.average_of_experts,
    "product_of_experts": aggregation.product_of_experts,
    "product_with_prior": functools.partial(aggregation.product_of_experts, prior_expert=True),
    "mixture_of_experts": aggregation.mixture_of_experts,
    "mixture_of_products": aggregation.mixture_of_products,
    "subset_posteriors": aggregation.subset_posteriors,
    "barycentre_of_experts": aggregation.barycentre_of_experts,
    "hellinger_of_experts": aggregation.hellinger_of_experts,
    "mixture_of_barycentres": aggregation.mixture_of_barycentres,
    "subset_barycentres": aggregation.subset_barycentres,
    "joint_mixture": aggregation.joint_mixture,
}


@functools.cache
def run(name):
    """Jitted: (experts, present) -> (scalar, values), gradients; the scalar is a weighted sum."""

    def weighted_sum(experts, present):
        values = jax.tree.leaves(KERNELS[name](experts, present))
        flat = jnp.concatenate([leaf.ravel() for leaf in values])
        finite = jnp.where(jnp.isneginf(flat), 0.0, flat)  # -inf: the log-weight of an absent component
        return jnp.sum(finite * jnp.cos(jnp.arange(flat.size, dtype=flat.dtype))), values

    return jax.jit(jax.value_and_grad(weighted_sum, has_aux=True))


def filled(experts, value, present=PRESENT):
    return DiagonalGaussian(*(jnp.where(present[..., None], leaf, value) for leaf in experts))


@pytest.mark.parametrize("name", KERNELS)
def test_what_an_absent_entry_holds_changes_no_bit(name, random_gaussian):
    experts = random_gaussian(40, 3, 4, 2)
    (_, expected), expected_gradients = run(name)(filled(experts, 0.0), PRESENT)
    for leaf in expected:
        assert not np.any(np.isnan(leaf))
    for filling in (jnp.nan, jnp.inf, -1e30):
        (_, values), gradients = run(name)(filled(experts, filling), PRESENT)
        jax.tree.map(np.testing.assert_array_equal, values, expected)
        jax.tree.map(np.testing.assert_array_equal, gradients, expected_gradients)
    for leaf in expected_gradients:
        assert np.all(np.isfinite(leaf)) and not np.any(leaf[~PRESENT])
    assert np.any(expected_gradients.mean)


@pytest.mark.parametrize("name", KERNELS)
def test_extreme_variances_give_finite_values_and_gradients(name):
    generator = np.random.default_rng(41)
    extremes = jnp.linspace(-30.0, 30.0, 24)
    for present in (PRESENT, np.ones_like(PRESENT)):
        mean = jnp.asarray(generator.uniform(-3, 3, (3, 4, 2)))
        experts = DiagonalGaussian(mean, generator.permutation(extremes).reshape(3, 4, 2))
        (value, _), gradients = run(name)(experts, present)
        assert np.isfinite(value)
        assert all(np.all(np.isfinite(leaf)) for leaf in gradients)


@pytest.mark.parametrize("name", KERNELS)
def test_vmap_of_a_kernel_is_its_loop(name, random_gaussian, x64):
    experts = random_gaussian(42, 3, 3, 4, 2)
    present = jnp.asarray(np.stack([PRESENT, PRESENT[::-1], np.ones_like(PRESENT)]))
    mapped = jax.tree.leaves(jax.jit(jax.vmap(KERNELS[name]))(experts, present))
    for i in range(3):
        (_, alone), _ = run(name)(DiagonalGaussian(experts.mean[i], experts.log_variance[i]), present[i])
        for together, single in zip(mapped, alone):
            np.testing.assert_allclose(together[i], single, rtol=1e-12, atol=1e-14)
