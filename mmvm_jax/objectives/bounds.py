"""Evidence lower bounds put together from likelihoods and divergences."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import BOUNDS, importance_weighted_bound, masked_logsumexp
from mmvm_jax.errors import unknown_name
from mmvm_jax.objectives.interface import check_at_least
from mmvm_jax.types import Array, LossOutput

GRADIENTS = ("reparametrised", "dreg")


def per_modality_bound(names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array) -> LossOutput:
    """Negative evidence lower bound with one divergence a modality: [M, B], [M, B] -> LossOutput."""
    terms = {f"divergence/{name}": row for name, row in zip(names, divergence)}
    return _bound(names, log_likelihood, jnp.sum(divergence, axis=0), beta, terms)


def joint_bound(names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array) -> LossOutput:
    """Negative evidence lower bound with one divergence in all: [M, B], [B] -> LossOutput."""
    return _bound(names, log_likelihood, divergence, beta, {"divergence/joint": divergence})


def _bound(names, log_likelihood, divergence, beta, terms) -> LossOutput:
    terms = terms | {f"log_likelihood/{name}": row for name, row in zip(names, log_likelihood)}
    return LossOutput(beta * divergence - jnp.sum(log_likelihood, axis=0), terms)


def check_importance_options(method: str, options) -> None:
    """Raises UserError unless ``num_samples``, ``bound`` and ``gradient`` of the options are allowed."""
    for field, allowed in (("bound", BOUNDS), ("gradient", GRADIENTS)):
        if getattr(options, field) not in allowed:
            raise unknown_name(f"config.method.{method}.{field}", getattr(options, field), allowed)
    check_at_least(1, method, "num_samples", options)


def log_mean_density(log_densities: Array, active: Array) -> Array:
    """Log-density of the uniform mixture of the active components; 0 where none is.

    Args:
      log_densities: [K, ...] nats.
      active: bool, as many axes, those but the first possibly of size 1.

    Returns:
      [...] nats.
    """
    count = jnp.sum(active, axis=0)
    total = masked_logsumexp(log_densities, jnp.broadcast_to(active, log_densities.shape), axis=0)
    return jnp.where(count > 0, total - jnp.log(jnp.maximum(count, 1).astype(total.dtype)), 0.0)


def importance_weighted_loss(
    names: tuple[str, ...], log_weight: Callable, z: Array, present: Array, beta: Array, options
) -> LossOutput:
    """Negative importance-weighted bound from S samples of every observed modality's posterior.

    Args:
      names: of the modalities.
      log_weight: z -> (log_weights [M, S, B], (log_likelihood [M, M, S, B], divergence [M, S, B])), the
        log-likelihood under the decoder of axis 0 of a sample that the modality of axis 1 gave. For the
        "dreg" gradient the parameters of the posterior must be stopped inside.
      z: [M, S, B, D], what ``log_weight`` is given; its gradient leads to the encoders.
      present: [M, B] bool.
      beta: of the divergence inside ``log_weight``.
      options: with ``bound`` and ``gradient``.
    """
    if options.gradient == "dreg":
        bound, (log_likelihood, divergence) = _doubly_reparametrised(log_weight, z, present, beta, options.bound)
    else:
        log_weights, (log_likelihood, divergence) = log_weight(z)
        bound = importance_weighted_bound(log_weights, options.bound, present)
    count = jnp.maximum(jnp.sum(present, axis=0), 1)
    mean = lambda values: jnp.sum(jnp.where(present, jnp.mean(values, axis=1), 0.0), axis=0) / count
    terms = {f"log_likelihood/{name}": mean(row) for name, row in zip(names, log_likelihood)}
    return LossOutput(-bound, terms | {"divergence/joint": mean(divergence)})


def _doubly_reparametrised(log_weight: Callable, z: Array, present: Array, beta: Array, bound: str):
    """The bound [B] with the gradient of Tucker et al. 2019, arXiv 1810.04152, and what comes with it.

    With w~ the normalised weights, decoders get the usual gradient, sum w~ d log w, and the path through z
    is weighted by (1 - beta) w~ + beta w~^2: dropping the score of q doubles the power of the beta share.
    """
    log_weights, pull_back, parts = jax.vjp(log_weight, jax.lax.stop_gradient(z), has_aux=True)
    total = lambda values: jnp.sum(importance_weighted_bound(values, bound, present))
    share = jax.grad(total)(jax.lax.stop_gradient(log_weights))
    # Of the loose bound, a mean over the observed, the weights add up to 1 for every one of them.
    normalised = share * jnp.sum(present, axis=0)[None, None] if bound == "loose" else share
    (path,) = pull_back(share * ((1.0 - beta) + beta * normalised))
    # 0 in value; its gradient with respect to z is the weighted path.
    carrier = jnp.sum(jax.lax.stop_gradient(path) * (z - jax.lax.stop_gradient(z)), axis=(0, 1, 3))
    return importance_weighted_bound(log_weights, bound, present) + carrier, parts
