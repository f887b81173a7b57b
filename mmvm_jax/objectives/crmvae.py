"""CRMVAE: the product of the observed posteriors, drawn towards each of them; each also reconstructs its modality.

loss = ( -1/2 sum_m r_m ( E_q log p(x_m | z) + E_{q_m} log p(x_m | z) )
         + beta ( KL(q || N(0, I)) + sum_m r_m KL(q || q_m) ) ) / (|O| + 1),  q = prod_m q_m / Z

Source: Suzuki & Matsuo 2023, openreview Rn8u4MYgeNJ, "Mitigating the Limitations of Multimodal VAEs with
Coordination-based Approach", written for all modalities. A published reimplementation divides by M + 1 where some are
absent, too; the number of observed ones makes the loss that of the model without the absent modalities.
"""

import jax
import jax.numpy as jnp

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import gaussian_kl, sample, where_present
from mmvm_jax.objectives.bounds import joint_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, NoOptions, no_parameters
from mmvm_jax.objectives.latents import draw, single_latent, standard_normal_log_ratio, standard_normal_prior
from mmvm_jax.objectives.noise import example_keys, modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
Options = NoOptions
init = no_parameters
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative bound: [B] nats; 2 M decodings. All its terms are divided by |O| + 1."""
    joint_key, own_key = jax.random.split(key)
    experts = where_present(batch.present, functions.encode(batch.inputs))
    q = product_of_experts(experts, batch.present)
    own = sample(modality_keys(own_key, batch.index, functions.identifiers), experts)
    joint = jnp.broadcast_to(sample(example_keys(joint_key, batch.index), q)[None], own.shape)
    log_likelihood = jnp.mean(functions.log_likelihood(batch, jnp.stack([joint, own], axis=1)), axis=1)
    to_experts = gaussian_kl(jax.tree.map(lambda leaf: leaf[None], q), experts)
    divergence = gaussian_kl(q) + jnp.sum(jnp.where(batch.present, to_experts, 0.0), axis=0)
    share = 1.0 / (jnp.sum(batch.present, axis=0) + 1.0)
    return joint_bound(functions.names, share[None] * log_likelihood, share * divergence, hyper["beta"])


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the product of the observed posteriors: components [1, 1, B, D]."""
    return single_latent(product_of_experts(posteriors, present))
