"""Combine the posteriors of several modalities into one: average, product, mixture and mixture of products.

``experts`` are the posteriors of M modalities, [M, ..., D], and ``present`` [M, ...] says which of them are
observed. Absent ones are ignored, whatever their values. If nothing is present, the result is N(0, I).
All functions raise a ValueError if shapes do not match.

Sources: product, MVAE, Wu & Goodman 2018, arXiv 1802.05335; mixture, MMVAE, Shi et al. 2019, arXiv 1911.03393;
mixture of products, MoPoE, Sutter et al. 2021, arXiv 2105.02470.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from mmvm_jax.distributions import observed, where_present
from mmvm_jax.types import Array, DiagonalGaussian, LatentMixture

MAX_SUBSET_MODALITIES = 12


def average_of_experts(experts: DiagonalGaussian, present: Array | None = None) -> DiagonalGaussian:
    """Return the Gaussian whose mean and variance are the averages over the observed experts: [..., D]."""
    experts, present = observed(experts, present)
    count = jnp.maximum(jnp.sum(present, axis=0), 1)[..., None]
    mean = jnp.sum(experts.mean, axis=0) / count
    log_variances = jnp.where(present[..., None], experts.log_variance, -jnp.inf)
    nothing = ~jnp.any(present, axis=0)[..., None]
    log_sum = logsumexp(jnp.where(nothing[None], 0.0, log_variances), axis=0)
    return DiagonalGaussian(mean, jnp.where(nothing, 0.0, log_sum - jnp.log(count)))


def product_of_experts(
    experts: DiagonalGaussian, present: Array | None = None, prior_expert: bool | Array = False
) -> DiagonalGaussian:
    """Return the normalised product of the observed Gaussians (MVAE); its precision is the sum of theirs.

    Args:
      experts: [M, ..., D].
      present: [M, ...] bool; None if all are present.
      prior_expert: whether N(0, I) is an additional factor; may differ between examples, [...] bool.

    Returns:
      [..., D].
    """
    experts, present = observed(experts, present)
    nothing = ~jnp.any(present, axis=0)
    log_precisions = jnp.where(present[..., None], -experts.log_variance, -jnp.inf)
    # An additional row for N(0, I): always active if it is an expert, else only where the product would be empty.
    standard_row = jnp.where(nothing | prior_expert, 0.0, -jnp.inf)[..., None]
    standard_row = jnp.broadcast_to(standard_row, experts.mean.shape[1:]).astype(log_precisions.dtype)
    log_precisions = jnp.concatenate([log_precisions, standard_row[None]])
    shares = jax.nn.softmax(log_precisions, axis=0)[:-1]
    return DiagonalGaussian(jnp.sum(shares * experts.mean, axis=0), -logsumexp(log_precisions, axis=0))


def mixture_of_experts(experts: DiagonalGaussian, present: Array | None = None) -> LatentMixture:
    """Return the uniform mixture of the observed posteriors (MMVAE), as one latent that all decoders read.

    Returns:
      components [M, 1, ..., D] and log_weights [M, 1, ...].
    """
    return joint_mixture(*observed(experts, present))


def mixture_of_products(
    experts: DiagonalGaussian, present: Array | None = None, prior_expert: bool = False
) -> LatentMixture:
    """Return the uniform mixture of the products over all non-empty subsets of the observed experts (MoPoE).

    Args:
      experts: [M, ..., D].
      present: [M, ...] bool; None if all are present.
      prior_expert: whether N(0, I) is an additional factor of the product of all observed experts, and of no other
        product, as in the authors' code.

    Returns:
      components [2**M - 1, 1, ..., D] and log_weights [2**M - 1, 1, ...].
    """
    experts, present = observed(experts, present)
    products, active = subset_posteriors(experts, present), subset_mask(present)
    if prior_expert:
        sizes = subsets(present.shape[0]).sum(axis=1).reshape(-1, *(1,) * (present.ndim - 1))
        is_whole = (active & (sizes == jnp.sum(present, axis=0)[None]))[..., None]
        whole = product_of_experts(experts, present, prior_expert=True)
        products = jax.tree.map(lambda leaf, other: jnp.where(is_whole, other[None], leaf), products, whole)
    return joint_mixture(products, active)


def joint_mixture(components: DiagonalGaussian, active: Array) -> LatentMixture:
    """Return the uniform mixture of the active components, [K, ..., D], for all decoders; N(0, I) if none is active."""
    something = jnp.any(active, axis=0)
    components = where_present(active, components)
    logits = jnp.where(active | ~something[None], 0.0, -jnp.inf)
    log_weights = jax.nn.log_softmax(logits.astype(components.mean.dtype), axis=0)
    return LatentMixture(jax.tree.map(lambda leaf: leaf[:, None], components), log_weights[:, None])


def subsets(num_modalities: int) -> np.ndarray:
    """Return all non-empty subsets, ordered by size and then lexicographically: [2**M - 1, M] bool.

    Raises:
      ValueError: more than 12 modalities, whose subsets (8,191 of 13) would need too much memory.
    """
    if num_modalities > MAX_SUBSET_MODALITIES:
        raise ValueError(f"{num_modalities} modalities have 2**{num_modalities} - 1 subsets; at most 12 modalities")
    members = range(num_modalities)
    chosen = [c for size in range(1, num_modalities + 1) for c in itertools.combinations(members, size)]
    table = np.zeros((len(chosen), num_modalities), bool)
    for row, subset in zip(table, chosen):
        row[list(subset)] = True
    return table


def subset_mask(present: Array) -> Array:
    """Return which subsets consist of observed members only: [M, ...] bool -> [2**M - 1, ...] bool."""
    table = jnp.asarray(subsets(present.shape[0]))
    absent_members = jnp.tensordot(table.astype(jnp.float32), (~present).astype(jnp.float32), axes=1)
    return absent_members < 0.5


def subset_posteriors(experts: DiagonalGaussian, present: Array | None = None) -> DiagonalGaussian:
    """Return the product of the observed members of every subset, computed as one matrix product.

    Args:
      experts: [M, ..., D].
      present: [M, ...] bool; None if all are present.

    Returns:
      [2**M - 1, ..., D], in the order of ``subsets``; N(0, I) where no member is present.
    """
    experts, present = observed(experts, present)
    precision = jnp.where(present[..., None], jnp.exp(-experts.log_variance), 0.0)
    table = jnp.asarray(subsets(experts.mean.shape[0]), precision.dtype)
    # HIGHEST: reduced-precision matrix units would lose small precisions that are added to large ones. The leaves are
    # flattened to two axes, since with more XLA's CPU backend takes five times as long for product and gradient.
    flat = lambda leaf: leaf.reshape(leaf.shape[0], -1)
    multiply = lambda leaf: jnp.matmul(table, flat(leaf), precision=jax.lax.Precision.HIGHEST)
    add = lambda leaf: multiply(leaf).reshape(-1, *leaf.shape[1:])
    total, weighted = add(precision), add(precision * experts.mean)
    empty = total == 0.0
    safe_total = jnp.where(empty, 1.0, total)
    return DiagonalGaussian(weighted / safe_total, -jnp.log(safe_total))
