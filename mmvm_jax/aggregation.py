"""Combine the posteriors of several modalities into one Gaussian or one mixture of Gaussians.

``experts`` are the posteriors of M modalities, [M, ..., D], and ``present`` [M, ...] says which of them are
observed. Absent ones are ignored, whatever their values. If nothing is present, the result is N(0, I).
All functions raise a ValueError if shapes do not match.

Sources: product, MVAE, Wu & Goodman 2018, arXiv 1802.05335; mixture, MMVAE, Shi et al. 2019, arXiv 1911.03393;
mixture of products, MoPoE, Sutter et al. 2021, arXiv 2105.02470; Wasserstein barycentre and mixture of barycentres,
Qiu et al. 2025, arXiv 2412.20487; Hellinger, HELVAE, Vo & Valera 2026, arXiv 2601.06572.
"""

import itertools
import math

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
    return DiagonalGaussian(_mean(experts.mean, present), _log_mean_exp(experts.log_variance, present))


def barycentre_of_experts(experts: DiagonalGaussian, present: Array | None = None) -> DiagonalGaussian:
    """Return the 2-Wasserstein barycentre of the observed experts: [..., D].

    The mean and the standard deviation of the barycentre of diagonal Gaussians are the averages of theirs.
    """
    experts, present = observed(experts, present)
    log_scale = _log_mean_exp(0.5 * experts.log_variance, present)
    return DiagonalGaussian(_mean(experts.mean, present), 2.0 * log_scale)


def _mean(values: Array, present: Array) -> Array:
    """Return the mean over the observed entries of values that are 0 where absent: [M, ..., D] -> [..., D]."""
    return jnp.sum(values, axis=0) / jnp.maximum(jnp.sum(present, axis=0), 1)[..., None]


def _log_mean_exp(values: Array, present: Array) -> Array:
    """Return log mean exp of the observed entries: [M, ..., D] -> [..., D]; 0 where nothing is observed."""
    nothing = ~jnp.any(present, axis=0)[..., None]
    kept = jnp.where(present[..., None], values, -jnp.inf)
    total = logsumexp(jnp.where(nothing[None], 0.0, kept), axis=0)
    count = jnp.maximum(jnp.sum(present, axis=0), 1)[..., None]
    return jnp.where(nothing, 0.0, total - jnp.log(count))


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


def hellinger_of_experts(experts: DiagonalGaussian, present: Array | None = None) -> DiagonalGaussian:
    """Return the Gaussian with the means and variances of the normalised (sum_m sqrt(q_m))^2 (HELVAE).

    This density has the smallest sum of squared Hellinger distances to the observed experts. It is a
    mixture with one component per ordered pair of experts: sqrt(q_i q_j) is a Gaussian times a Bhattacharyya
    coefficient, the weight.

    Args:
      experts: [M, ..., D]; the coefficients are those of all D dimensions together.
      present: [M, ...] bool; None if all are present.

    Returns:
      [..., D].
    """
    experts, present = observed(experts, present)
    pair = np.stack(np.triu_indices(len(present)))  # [2, pairs]; i < j stands for two ordered pairs
    pairs = jax.tree.map(lambda leaf: leaf[pair], experts)
    means, log_variances = product_of_experts(pairs)  # of q_i q_j; its square root has twice the variance
    nothing = ~jnp.any(present, axis=0)
    log_weights = _log_bhattacharyya(*(jax.tree.map(lambda leaf: leaf[i], pairs) for i in (0, 1)))
    log_weights += np.log(1.0 + (pair[0] < pair[1])).reshape(-1, *[1] * nothing.ndim).astype(log_weights.dtype)
    active = jnp.all(present[pair], axis=0) | nothing[None]
    weights = jax.nn.softmax(jnp.where(active, log_weights, -jnp.inf), axis=0)[..., None]
    mean = jnp.sum(weights * means, axis=0)
    variance = jnp.sum(weights * (2.0 * jnp.exp(log_variances) + jnp.square(means - mean[None])), axis=0)
    return DiagonalGaussian(mean, jnp.where(nothing[..., None], 0.0, jnp.log(variance)))


def _log_bhattacharyya(q: DiagonalGaussian, p: DiagonalGaussian) -> Array:
    """Return log integral sqrt(q p): [..., D] -> [...] nats, at most 0; 0 for equal Gaussians."""
    half_ratio = 0.5 * (q.log_variance - p.log_variance)
    log_cosh = jnp.logaddexp(half_ratio, -half_ratio) - math.log(2.0)
    precision = jnp.exp(-jnp.logaddexp(q.log_variance, p.log_variance))
    return -jnp.sum(0.5 * log_cosh + 0.25 * jnp.square(q.mean - p.mean) * precision, axis=-1)


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


def mixture_of_barycentres(experts: DiagonalGaussian, present: Array | None = None) -> LatentMixture:
    """Return the uniform mixture of the Wasserstein barycentres of all non-empty subsets of the observed experts.

    Returns:
      components [2**M - 1, 1, ..., D] and log_weights [2**M - 1, 1, ...].
    """
    experts, present = observed(experts, present)
    return joint_mixture(subset_barycentres(experts, present), subset_mask(present))


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
    total, weighted = _sums_over_subsets(precision), _sums_over_subsets(precision * experts.mean)
    empty = total == 0.0
    safe_total = jnp.where(empty, 1.0, total)
    return DiagonalGaussian(weighted / safe_total, -jnp.log(safe_total))


def subset_barycentres(experts: DiagonalGaussian, present: Array | None = None) -> DiagonalGaussian:
    """Return the Wasserstein barycentre of the observed members of every subset; shapes as in ``subset_posteriors``."""
    experts, present = observed(experts, present)
    scales = jnp.where(present[..., None], jnp.exp(0.5 * experts.log_variance), 0.0)
    count = _sums_over_subsets(present[..., None].astype(scales.dtype))
    empty, count = count == 0.0, jnp.maximum(count, 1.0)
    mean_scale = jnp.where(empty, 1.0, _sums_over_subsets(scales) / count)
    return DiagonalGaussian(_sums_over_subsets(experts.mean) / count, 2.0 * jnp.log(mean_scale))


def _sums_over_subsets(values: Array) -> Array:
    """Return the sum over the members of every subset, as one matrix product: [M, ..., D] -> [2**M - 1, ..., D]."""
    table = jnp.asarray(subsets(len(values)), values.dtype)
    # HIGHEST: reduced-precision matrix units would lose small precisions that are added to large ones. The values are
    # flattened to two axes, since with more XLA's CPU backend takes five times as long for product and gradient.
    total = jnp.matmul(table, values.reshape(len(values), -1), precision=jax.lax.Precision.HIGHEST)
    return total.reshape(-1, *values.shape[1:])
