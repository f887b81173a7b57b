"""One latent for all modalities, from one of seven aggregations of their posteriors.

loss = -sum_m r_m E_q log p(x_m | z) + beta KL(q || N(0, I)), with a single divergence. The divergence of a mixture
has no closed form; the mean of its components' divergences, an upper bound, is used instead.

Sources: product, MVAE, arXiv 1802.05335; mixture, MMVAE, arXiv 1911.03393; mixture of products, MoPoE,
arXiv 2105.02470, equation 6; barycentre and mixture of barycentres, arXiv 2412.20487; Hellinger, HELVAE,
arXiv 2601.06572.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmvm_jax import aggregation
from mmvm_jax.distributions import gaussian_kl, sample
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.objectives.bounds import joint_bound
from mmvm_jax.objectives.interface import Functions, Hyperparameter
from mmvm_jax.objectives.latents import (
    draw,
    single_latent,
    standard_normal_log_ratio,
    standard_normal_prior,
    with_sources,
)
from mmvm_jax.objectives.noise import example_keys, random_member, random_subset
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput

# How the observed members are merged into one Gaussian. Mixtures choose a part of them first.
_MERGE: dict[str, Callable[..., DiagonalGaussian]] = {
    "average": aggregation.average_of_experts,
    "poe": aggregation.product_of_experts,
    "moe": aggregation.product_of_experts,
    "mopoe": aggregation.product_of_experts,
    "hellinger": aggregation.hellinger_of_experts,
    "barycentre": aggregation.barycentre_of_experts,
    "mixture_of_barycentres": aggregation.barycentre_of_experts,
}
AGGREGATIONS = tuple(_MERGE)
_OF_SUBSETS = ("mopoe", "mixture_of_barycentres")
VARIANTS = {name: {"aggregation": name} for name in AGGREGATIONS}
HYPERPARAMETERS: dict[str, Hyperparameter] = {}
prior = standard_normal_prior
log_prior_ratio = standard_normal_log_ratio


@dataclasses.dataclass(frozen=True)
class Options:
    """Aggregation, and whether N(0, I) is an additional factor of the product of all observed posteriors."""

    aggregation: str = "poe"
    prior_expert: bool = False

    def __post_init__(self):
        if self.aggregation not in AGGREGATIONS:
            raise unknown_name("config.method.joint.aggregation", self.aggregation, AGGREGATIONS)
        if self.prior_expert and self.aggregation not in ("poe", "mopoe"):
            raise UserError(
                f"config.method.joint.prior_expert is True with aggregation {self.aggregation!r}, which is not a "
                "product; allowed: aggregation 'poe' or 'mopoe'"
            )


def init(key: Array, batch: Batch, functions: Functions, options: Options) -> dict:
    """Return no parameters.

    Raises:
      UserError: too many modalities for an aggregation that uses all their subsets.
    """
    most = aggregation.MAX_SUBSET_MODALITIES
    if options.aggregation in _OF_SUBSETS and len(functions.names) > most:
        raise UserError(
            f"config.method.joint.aggregation is {options.aggregation!r} with {len(functions.names)} modalities, "
            f"which have too many subsets; allowed: at most {most} modalities"
        )
    return {}


def loss(key: Array, batch: Batch, functions: Functions, hyper: dict, options: Options) -> LossOutput:
    """Return the negative evidence lower bound with one joint latent: [B] nats."""
    latent_key, choice_key = jax.random.split(key)
    experts = functions.encode(batch.inputs)
    q = _drawn_component(choice_key, experts, batch, functions, options)
    z = sample(example_keys(latent_key, batch.index), q)
    log_likelihood = functions.log_likelihood(batch, jnp.broadcast_to(z[None], experts.mean.shape))
    divergence = _mean_divergence(posterior(experts, batch.present, functions, options))
    return joint_bound(functions.names, log_likelihood, divergence, hyper["beta"])


def posterior(posteriors: DiagonalGaussian, present: Array, functions: Functions, options: Options) -> LatentMixture:
    """Return the joint posterior given the observed modalities: components [K, 1, B, D], K = 1, M or 2**M - 1.

    The source of a merged subset is the sum of its members' identifiers, which does not depend on their order.
    """
    if options.aggregation == "moe":
        mixture = aggregation.mixture_of_experts(posteriors, present)
        return with_sources(mixture, functions.identifiers[:, None])
    if options.aggregation not in _OF_SUBSETS:
        return single_latent(_merged(posteriors, present, options, options.prior_expert))
    if options.aggregation == "mopoe":
        mixture = aggregation.mixture_of_products(posteriors, present, options.prior_expert)
    else:
        mixture = aggregation.mixture_of_barycentres(posteriors, present)
    members = jnp.asarray(aggregation.subsets(len(present)), jnp.uint32)
    sources = jnp.sum(members * functions.identifiers[None], axis=1, keepdims=True, dtype=jnp.uint32)
    return with_sources(mixture, sources)


def _drawn_component(key, experts, batch, functions, options) -> DiagonalGaussian:
    """Return the component of the joint posterior from which each example's latent is drawn: [B, D]."""
    members = batch.present
    if options.aggregation == "moe":
        members = random_member(key, batch, functions)
    elif options.aggregation in _OF_SUBSETS:
        members = random_subset(key, batch, functions)
    is_whole = jnp.all(members == batch.present, axis=0)
    return _merged(experts, members, options, options.prior_expert & is_whole)


def _merged(experts: DiagonalGaussian, members: Array, options: Options, prior_expert: bool | Array):
    """Return the members, [M, B] bool, merged into one Gaussian, [B, D]; products may have N(0, I) as a factor."""
    merge = _MERGE[options.aggregation]
    return merge(experts, members, prior_expert) if options.prior_expert else merge(experts, members)


def _mean_divergence(mixture: LatentMixture) -> Array:
    """Return the weighted mean of the components' divergences to N(0, I): [B] nats."""
    weights = jnp.exp(mixture.log_weights)
    return jnp.sum(weights * gaussian_kl(mixture.components), axis=0)[0]
