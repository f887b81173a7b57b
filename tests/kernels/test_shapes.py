"""Kernels refuse arrays that do not fit together, which might broadcast to a wrong value."""

import functools

import jax
import jax.numpy as jnp
import pytest

from mmvm_jax import aggregation, distributions
from mmvm_jax.types import DiagonalGaussian

M = B = 3  # equal, so that every axis broadcasts against every other
EXPERTS = DiagonalGaussian(jnp.zeros((M, B, 4)), jnp.zeros((M, B, 4)))
KERNELS = {
    "kl_to_mixture": lambda experts, present: distributions.kl_to_mixture(experts, present=present),
    "average_of_experts": aggregation.average_of_experts,
    "product_of_experts": aggregation.product_of_experts,
    "mixture_of_experts": aggregation.mixture_of_experts,
    "mixture_of_products": aggregation.mixture_of_products,
    "subset_posteriors": aggregation.subset_posteriors,
    "barycentre_of_experts": aggregation.barycentre_of_experts,
    "hellinger_of_experts": aggregation.hellinger_of_experts,
    "mixture_of_barycentres": aggregation.mixture_of_barycentres,
    "subset_barycentres": aggregation.subset_barycentres,
    "importance_weighted_bound": lambda experts, present: distributions.importance_weighted_bound(
        jnp.moveaxis(experts.mean, -1, 1), present=present
    ),
}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", KERNELS)
def test_a_mask_without_modalities_is_refused(name, compiled):
    kernel = jax.jit(KERNELS[name]) if compiled else KERNELS[name]
    kernel(EXPERTS, jnp.ones((M, B), bool))
    with pytest.raises(ValueError, match=r"^present has shape \[3\]; allowed: \[3, 3\]"):
        kernel(EXPERTS, jnp.ones(B, bool))


@pytest.mark.parametrize("name", sorted(set(KERNELS) - {"importance_weighted_bound"}))
def test_one_variance_for_all_is_refused(name):
    shared = EXPERTS._replace(log_variance=jnp.zeros((B, 4)))
    with pytest.raises(ValueError, match=r"^log_variance has shape \[3, 4\]; allowed: \[3, 3, 4\]$"):
        KERNELS[name](shared, None)


def test_weights_of_the_mixture_are_of_modalities():
    divergence = functools.partial(distributions.kl_to_mixture, EXPERTS)
    divergence(log_weights=jnp.zeros(M)), divergence(log_weights=jnp.zeros((M, B)))
    with pytest.raises(ValueError, match=r"^log_weights has shape \[1, 3\]; allowed: \[3\] or \[3, 3\]$"):
        divergence(log_weights=jnp.zeros((1, B)))
