"""MMVM: a latent for each modality, and the mixture of all posteriors as their common, data-dependent prior.

loss = sum_m r_m ( -E_{q_m} log p(x_m | z_m) + beta KL(q_m || h) ),  h = sum_j v_j q_j + alpha N(0, I)

Source: Sutter et al. 2024, arXiv 2403.05300, equations 3 and 4. Without alpha an example with a single observed
modality has divergence exactly 0, so nothing holds its variance up: with missing data end at alpha > 0.
"""

import dataclasses

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import ESTIMATORS, kl_to_mixture, sample, where_present
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.objectives.common import Functions, draw, modality_keys, no_parameters, per_modality_bound
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

HYPERPARAMETERS = ("alpha", "temperature")
init = no_parameters


@dataclasses.dataclass(frozen=True)
class Options:
    """How the divergence to the mixture is estimated, and whether it also moves the mixture."""

    estimator: str = "pairwise"
    num_samples: int = 1
    stop_prior_gradient: bool = False

    def __post_init__(self):
        if self.estimator not in ESTIMATORS:
            raise unknown_name("config.method.mmvm.estimator", self.estimator, ESTIMATORS)
        if self.num_samples < 1:
            raise UserError(f"config.method.mmvm.num_samples is {self.num_samples}; allowed: 1 and more")


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Negative bound with the mixture prior, summed over the observed modalities: [B] nats."""
    latent_key, divergence_key = jax.random.split(key)
    keys = lambda purpose: modality_keys(purpose, batch.index, functions.identifiers)
    posteriors = where_present(batch.present, functions.encode(batch.inputs))
    z = sample(keys(latent_key), posteriors)
    divergence = kl_to_mixture(
        posteriors,
        present=batch.present,
        prior_weight=hyper["alpha"],
        estimator=options.estimator,
        temperature=hyper["temperature"],
        key=keys(divergence_key),
        num_samples=options.num_samples,
        prior_gradient=not options.stop_prior_gradient,
    )
    return per_modality_bound(
        functions.names, functions.log_likelihood(batch, z), divergence, hyper["beta"]
    )


def posterior(
    posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options
) -> LatentMixture:
    """Own posterior where observed, the mixture of the observed ones where not: components [M, M, B, D].

    Axis 0 is the component, axis 1 the decoder; with nothing observed it is N(0, I).
    """
    num_modalities = present.shape[0]
    components = where_present(present, posteriors)
    something = jnp.any(present, axis=0)
    mixture = (present | ~something[None])[:, None]
    own = jnp.eye(num_modalities, dtype=bool)[:, :, None]
    active = jnp.where(present[None], own, mixture)
    log_weights = jax.nn.log_softmax(jnp.where(active, 0.0, -jnp.inf).astype(components.mean.dtype), axis=0)
    # [K, B, D] -> [K, M, B, D]: every decoder may read every component.
    repeat = lambda leaf: jnp.repeat(leaf[:, None], num_modalities, axis=1)
    return LatentMixture(jax.tree.map(repeat, components), log_weights)


def prior(
    functions: Functions, hyper: dict, options: Options, num_examples: int, latent_dim: int
) -> None:
    """None: the prior depends on data. Generation fits a mixture of Gaussians to the aggregate posterior."""
