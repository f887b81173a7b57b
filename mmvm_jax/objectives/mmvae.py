"""MMVAE: the mixture of the observed posteriors, with an importance-weighted bound from S samples per component.

loss = -mean_{m in O} log mean_s w_ms (loose)  or  -log mean_{m in O, s} w_ms (tight),  z_ms ~ q_m,
log w_ms = sum_n r_n log p(x_n | z_ms) + beta ( log p(z_ms) - log mean_{j in O} q_j(z_ms) )

Source: Shi et al. 2019, arXiv 1911.03393 (the authors train with the loose bound); gradient "dreg": Tucker et al.
2019, arXiv 1810.04152. Only the tight bound with beta = 1 converges to the log-evidence.

For a mixture, "dreg" is biased: it replaces the score of q by a path through samples of q, but here a sample comes
from one component while the score is that of the whole mixture. It agrees in expectation with "reparametrised" for
one modality, where all posteriors coincide, and for the loose bound with S = 1.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmvm_jax.aggregation import mixture_of_experts
from mmvm_jax.distributions import gaussian_log_density, sample, where_present
from mmvm_jax.objectives.bounds import check_importance_options, importance_weighted_loss, log_mean_density
from mmvm_jax.objectives.interface import Functions, Hyperparameter, no_parameters
from mmvm_jax.objectives.latents import draw, standard_normal_log_ratio, standard_normal_prior, with_sources
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS: dict[str, Hyperparameter] = {}
init = no_parameters
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


@dataclasses.dataclass(frozen=True)
class Options:
    """Number of samples per component, bound, and estimator of its gradient."""

    num_samples: int = 1
    bound: str = "loose"
    gradient: str = "reparametrised"

    def __post_init__(self):
        check_importance_options("mmvae", self)


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative importance-weighted bound: [B] nats. All decoders read every sample: M^2 S decodings."""
    present, beta = batch.present, hyper["beta"]
    posteriors = where_present(present, functions.encode(batch.inputs))
    keys = modality_keys(key, batch.index, functions.identifiers)
    z = jnp.swapaxes(sample(keys, posteriors, options.num_samples), 0, 1)  # [M, S, B, D]
    if options.gradient == "dreg":
        posteriors = jax.lax.stop_gradient(posteriors)
    standard_normal = DiagonalGaussian(jnp.zeros_like(z), jnp.zeros_like(z))
    # Broadcast against the samples: [M, 1, 1, B, D].
    components, observed = jax.tree.map(lambda leaf: leaf[:, None, None], (posteriors, present))

    def log_weight(z):
        as_read = jnp.broadcast_to(z[None], (len(z), *z.shape))
        log_likelihood = functions.log_likelihood(batch, as_read, present[:, None])
        log_mixture = log_mean_density(gaussian_log_density(components, z[None]), observed)
        divergence = log_mixture - gaussian_log_density(standard_normal, z)
        return jnp.sum(log_likelihood, axis=0) - beta * divergence, (log_likelihood, divergence)

    return importance_weighted_loss(functions.names, log_weight, z, present, beta, options)


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the uniform mixture of the observed posteriors: components [M, 1, B, D]."""
    return with_sources(mixture_of_experts(posteriors, present), functions.identifiers[:, None])
