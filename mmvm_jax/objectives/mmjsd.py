"""mmJSD: the Jensen-Shannon divergence of the observed posteriors and N(0, I) to their geometric mean.

loss = -sum_m r_m E_q log p(x_m | z) + beta sum_j pi_j KL(q_j || f),  f = prod_j q_j^pi_j / Z

j runs over the observed posteriors and N(0, I), pi_j = 1 / (|O| + 1), and q is the uniform mixture of the
observed posteriors. The divergences have a closed form, since the geometric mean f of Gaussians (the dynamic prior)
is Gaussian.

Source: Sutter, Daunhawer & Vogt 2020, NeurIPS, arXiv 2006.08242.
"""

import jax
import jax.numpy as jnp

from mmvm_jax.aggregation import mixture_of_experts, product_of_experts
from mmvm_jax.distributions import gaussian_kl, sample, where_present
from mmvm_jax.objectives.bounds import joint_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, NoOptions, no_parameters
from mmvm_jax.objectives.latents import draw, standard_normal_log_ratio, standard_normal_prior, with_sources
from mmvm_jax.objectives.noise import example_keys, random_member
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
Options = NoOptions
init = no_parameters
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative bound with the dynamic prior: [B] nats."""
    choice_key, latent_key = jax.random.split(key)
    experts = where_present(batch.present, functions.encode(batch.inputs))
    chosen = product_of_experts(experts, random_member(choice_key, batch, functions))
    z = sample(example_keys(latent_key, batch.index), chosen)
    log_likelihood = functions.log_likelihood(batch, jnp.broadcast_to(z[None], experts.mean.shape))
    divergence = jensen_shannon(experts, batch.present)
    return joint_bound(functions.names, log_likelihood, divergence, hyper["beta"])


def jensen_shannon(experts: DiagonalGaussian, present: Array) -> Array:
    """Return sum_j pi_j KL(q_j || f) over the present experts, of [M, B, D], and N(0, I): [B] nats."""
    weight = 1.0 / (jnp.sum(present, axis=0) + 1.0)
    # A Gaussian to the power of pi is, after normalisation, a Gaussian with pi times the precision.
    standard = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), experts)
    components = jax.tree.map(lambda *parts: jnp.concatenate(parts), experts, standard)
    active = jnp.concatenate([present, jnp.ones_like(present[:1])])
    tempered = components._replace(log_variance=components.log_variance - jnp.log(weight)[None, :, None])
    dynamic_prior = product_of_experts(tempered, active)
    divergences = gaussian_kl(components, jax.tree.map(lambda leaf: leaf[None], dynamic_prior))
    return weight * jnp.sum(jnp.where(active, divergences, 0.0), axis=0)


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the uniform mixture of the observed posteriors: components [M, 1, B, D]."""
    return with_sources(mixture_of_experts(posteriors, present), functions.identifiers[:, None])
