"""Geometric: one latent per modality; the common prior is the geometric mean of all posteriors.

loss = sum_m r_m ( -E_{q_m} log p(x_m | z_m) + beta KL(q_m || f) ),  f = N(0, I)^alpha prod_j q_j^v_j / Z

with v_j = (1 - alpha) / |O|. MMVM has the same loss with a mixture instead of the geometric mean. Here f is Gaussian,
so the divergence has a closed form. At alpha = 1 the loss is that of ``independent``. This method is an example of how
to add one; its quality was not measured.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import gaussian_kl, mixture_weights, sample, where_present
from mmvm_jax.errors import SHARE
from mmvm_jax.objectives.bounds import per_modality_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter, no_parameters
from mmvm_jax.objectives.latents import draw
from mmvm_jax.objectives.noise import modality_keys
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

__all__ = ["HYPERPARAMETERS", "Options", "draw", "init", "loss", "posterior", "prior"]

HYPERPARAMETERS = {"alpha": Hyperparameter(0.1, SHARE)}
init = no_parameters


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the method.

    Attributes:
      stop_prior_gradient: stop the gradient of the divergence into f, so that it moves only the posterior.
    """

    stop_prior_gradient: bool = False


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative bound with the geometric mean as prior, summed over the observed modalities: [B] nats."""
    posteriors = where_present(batch.present, functions.encode(batch.inputs))
    z = sample(modality_keys(key, batch.index, functions.identifiers), posteriors)
    f = geometric_mean(posteriors, batch.present, hyper["alpha"])
    if options.stop_prior_gradient:
        f = jax.lax.stop_gradient(f)
    divergence = gaussian_kl(posteriors, jax.tree.map(lambda leaf: leaf[None], f))
    divergence = jnp.where(batch.present, divergence, 0.0)
    return per_modality_bound(functions.names, functions.log_likelihood(batch, z), divergence, hyper["beta"])


def geometric_mean(posteriors: DiagonalGaussian, present: Array, alpha: Array | float) -> DiagonalGaussian:
    """Return f: [M, B, D], present [M, B] -> [B, D]. A Gaussian raised to the power v has v times its precision."""
    weights, of_prior = mixture_weights(present, prior_weight=alpha)
    precisions = weights[..., None] * jnp.exp(-where_present(present, posteriors).log_variance)
    precision = jnp.sum(precisions, axis=0) + of_prior[..., None]
    mean = jnp.sum(precisions * where_present(present, posteriors).mean, axis=0) / precision
    return DiagonalGaussian(mean, -jnp.log(precision))


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the own posterior if observed, otherwise the geometric mean of the observed: components [1, M, B, D]."""
    f = geometric_mean(posteriors, present, 0.0)
    own_or_f = lambda own, other: jnp.where(present[..., None], own, other[None])[None]
    components = jax.tree.map(own_or_f, posteriors, f)
    sources = jnp.where(present, functions.identifiers[:, None], 0)[None]  # absent decoders share the draw of f
    return LatentMixture(components, jnp.zeros(components.mean.shape[:-1], components.mean.dtype), sources)


def prior(functions: Functions, options: Options, num_examples: int, latent_dim: int) -> None:
    """Return None, because f depends on data. Generation fits a mixture of Gaussians to draws."""
