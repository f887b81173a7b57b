"""MVTCAE: the product of the observed posteriors, regularised towards N(0, I) and towards each of its factors.

loss = -(|O| - a) / |O| sum_m r_m E_q log p(x_m | z)
       + beta ( (1 - a) KL(q || N(0, I)) + a / |O| sum_m r_m KL(q || q_m) ),  q = prod_m q_m / Z

Source: Hwang et al. 2021, NeurIPS, "Multi-View Representation Learning via Total Correlation Objective": the convex
combination of two bounds on the total correlation. a (``alpha``) is the weight of the conditional terms KL(q || q_m).
The authors train PolyMNIST with a = 5/6 and beta = 2.5. A published reimplementation has the same formula, but its
default of 0.1 contradicts its own PolyMNIST example of 5/6.
"""

import jax
import jax.numpy as jnp

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.distributions import gaussian_kl, sample, where_present
from mmvm_jax.errors import SHARE
from mmvm_jax.objectives.bounds import joint_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, NoOptions, no_parameters
from mmvm_jax.objectives.latents import draw, single_latent, standard_normal_log_ratio, standard_normal_prior
from mmvm_jax.objectives.noise import example_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS = {"alpha": Hyperparameter(5.0 / 6.0, SHARE)}
Options = NoOptions
init = no_parameters
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative total-correlation bound: [B] nats. Its log-likelihood terms are scaled by (|O| - a) / |O|."""
    present, alpha = batch.present, hyper["alpha"]
    experts = where_present(present, functions.encode(batch.inputs))
    q = product_of_experts(experts, present)
    z = sample(example_keys(key, batch.index), q)
    log_likelihood = functions.log_likelihood(batch, jnp.broadcast_to(z[None], experts.mean.shape))
    to_experts = gaussian_kl(jax.tree.map(lambda leaf: leaf[None], q), experts)
    count = jnp.maximum(jnp.sum(present, axis=0), 1)
    conditional = jnp.sum(jnp.where(present, to_experts, 0.0), axis=0) / count
    divergence = (1.0 - alpha) * gaussian_kl(q) + alpha * conditional
    return joint_bound(functions.names, (1.0 - alpha / count)[None] * log_likelihood, divergence, hyper["beta"])


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the product of the observed posteriors: components [1, 1, B, D]."""
    return single_latent(product_of_experts(posteriors, present))
