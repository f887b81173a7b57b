"""One separate variational autoencoder per modality: a baseline that cannot translate between modalities.

loss = sum_m r_m ( -E_{q_m} log p(x_m | z_m) + beta KL(q_m || N(0, I)) )
"""

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import gaussian_kl, sample, where_present
from mmvm_jax.objectives.bounds import per_modality_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, NoOptions, no_parameters
from mmvm_jax.objectives.latents import draw, with_sources
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
Options = NoOptions
init = no_parameters


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative evidence lower bound, summed over the observed modalities: [B] nats."""
    posteriors = where_present(batch.present, functions.encode(batch.inputs))
    z = sample(modality_keys(key, batch.index, functions.identifiers), posteriors)
    divergence = jnp.where(batch.present, gaussian_kl(posteriors), 0.0)
    return per_modality_bound(functions.names, functions.log_likelihood(batch, z), divergence, hyper["beta"])


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return each modality's own posterior if it is observed, else the prior: components [1, M, B, D]."""
    components = jax.tree.map(lambda leaf: leaf[None], where_present(present, posteriors))
    mixture = LatentMixture(components, jnp.zeros(components.mean.shape[:-1], posteriors.mean.dtype))
    return with_sources(mixture, functions.identifiers[None])


def prior(functions: Functions, options: Options, num_examples: int, latent_dim: int) -> LatentMixture:
    """Return a separate N(0, I) per modality: components [1, M, B, D]."""
    zeros = jnp.zeros((1, len(functions.names), num_examples, latent_dim))
    return with_sources(LatentMixture(DiagonalGaussian(zeros, zeros), zeros[..., 0]), functions.identifiers[None])
