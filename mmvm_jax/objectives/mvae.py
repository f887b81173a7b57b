"""MVAE: the product of the observed posteriors and N(0, I), also trained on subsets of the observed modalities.

loss = -ELBO(O) - sum_{m in O} ELBO({m}) - sum_k ELBO(X_k), where X_k are random subsets of the observed O and
ELBO(X) = sum_{m in X} E_q log p(x_m | z) - beta KL(q || N(0, I)),  q = N(0, I) prod_{m in X} q_m / Z

Source: Wu & Goodman 2018, arXiv 1802.05335: product of experts and sub-sampled training.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import gaussian_kl, sample
from mmvm_jax.objectives.bounds import joint_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, check_at_least, no_parameters
from mmvm_jax.objectives.latents import draw, single_latent, standard_normal_log_ratio, standard_normal_prior
from mmvm_jax.objectives.noise import example_keys, modality_keys, random_subset
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
init = no_parameters
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the sub-sampled training.

    Attributes:
      subsampling: whether the bounds of single modalities and of random subsets are added.
      num_subsets: number of random subsets.
    """

    subsampling: bool = True
    num_subsets: int = 1

    def __post_init__(self):
        check_at_least(0, "mvae", "num_subsets", self)


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the sum of the negative evidence lower bounds of all observed modalities and of subsets: [B] nats."""
    experts = functions.encode(batch.inputs)
    keys = jax.random.split(key, 2 + options.num_subsets)
    bounds = [_subset_terms(keys[0], batch.present, experts, batch)]
    if options.subsampling:
        bounds.append(_single_terms(keys[1], experts, batch, functions))
        for subset_key in keys[2:]:
            choice_key, latent_key = jax.random.split(subset_key)
            bounds.append(_subset_terms(latent_key, random_subset(choice_key, batch, functions), experts, batch))
    z, members, divergence = zip(*bounds)
    log_likelihood = functions.log_likelihood(batch, jnp.stack(z, axis=1))  # [M, subsets, B]
    log_likelihood = jnp.sum(jnp.where(jnp.stack(members, axis=1), log_likelihood, 0.0), axis=1)
    return joint_bound(functions.names, log_likelihood, sum(divergence), hyper["beta"])


def _subset_terms(key, members, experts, batch):
    """Return the latents for the decoders [M, B, D], the decoders that are counted [M, B], and the divergence [B]."""
    q = product_of_experts(experts, members, prior_expert=True)
    z = sample(example_keys(key, batch.index), q)
    return jnp.broadcast_to(z[None], experts.mean.shape), members, gaussian_kl(q)


def _single_terms(key, experts, batch, functions):
    """Return these terms for all single modalities at once: each latent is read only by its own decoder."""
    own = jax.tree.map(lambda leaf: leaf[None], experts)
    q = product_of_experts(own, batch.present[None], prior_expert=True)
    z = sample(modality_keys(key, batch.index, functions.identifiers), q)
    return z, batch.present, jnp.sum(gaussian_kl(q), axis=0)


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the product of the observed posteriors and N(0, I): components [1, 1, B, D]."""
    return single_latent(product_of_experts(posteriors, present, prior_expert=True))
