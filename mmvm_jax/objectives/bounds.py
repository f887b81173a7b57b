"""Losses that are built from log-likelihoods and divergences: evidence lower bounds and importance-weighted bounds."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import BOUNDS, importance_weighted_bound, masked_logsumexp
from mmvm_jax.errors import unknown_name
from mmvm_jax.objectives.interface import check_at_least
from mmvm_jax.types import Array, LossOutput

GRADIENTS = ("reparametrised", "dreg")


def per_modality_bound(names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array) -> LossOutput:
    """Return the negative evidence lower bound with one divergence per modality: [M, B], [M, B] -> LossOutput."""
    terms = {f"divergence/{name}": row for name, row in zip(names, divergence)}
    return _bound(names, log_likelihood, jnp.sum(divergence, axis=0), beta, terms)


def joint_bound(names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array) -> LossOutput:
    """Return the negative evidence lower bound with a single divergence: [M, B], [B] -> LossOutput."""
    return _bound(names, log_likelihood, divergence, beta, {"divergence/joint": divergence})


def _bound(names, log_likelihood, divergence, beta, terms) -> LossOutput:
    terms = terms | {f"log_likelihood/{name}": row for name, row in zip(names, log_likelihood)}
    return LossOutput(beta * divergence - jnp.sum(log_likelihood, axis=0), terms)


def check_importance_options(method: str, options) -> None:
    """Raise UserError unless the options ``num_samples``, ``bound`` and ``gradient`` have allowed values."""
    for field, allowed in (("bound", BOUNDS), ("gradient", GRADIENTS)):
        if getattr(options, field) not in allowed:
            raise unknown_name(f"config.method.{method}.{field}", getattr(options, field), allowed)
    check_at_least(1, method, "num_samples", options)


def log_mean_density(log_densities: Array, active: Array) -> Array:
    """Return the log-density of the uniform mixture of the active components; 0 where none is active.

    Args:
      log_densities: [K, ...] nats.
      active: bool, with the same number of axes; all except the first may have size 1.

    Returns:
      [...] nats.
    """
    count = jnp.sum(active, axis=0)
    total = masked_logsumexp(log_densities, jnp.broadcast_to(active, log_densities.shape), axis=0)
    return jnp.where(count > 0, total - jnp.log(jnp.maximum(count, 1).astype(total.dtype)), 0.0)


def importance_weighted_loss(
    names: tuple[str, ...], log_weight: Callable, z: Array, present: Array, beta: Array, options
) -> LossOutput:
    """Return the negative importance-weighted bound from S samples of every observed modality's posterior.

    Args:
      names: of the modalities.
      log_weight: z -> (log_weights [M, S, B], (log_likelihood [M, M, S, B], divergence [M, S, B])). Axis 0 of the
        log-likelihood is the decoder, axis 1 the modality whose posterior was sampled. For the "dreg" gradient,
        ``log_weight`` must stop the gradient of the posterior's parameters.
      z: [M, S, B, D], the argument of ``log_weight``; its gradient flows into the encoders.
      present: [M, B] bool.
      beta: weight of the divergence inside ``log_weight``.
      options: of the method; reads ``bound`` and ``gradient``.

    Returns:
      The loss [B] nats, with the terms ``log_likelihood/<name>`` and ``divergence/joint``.
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
    """Return the bound [B] with the gradient of Tucker et al. 2019, arXiv 1810.04152, and the parts of ``log_weight``.

    Let w~ be the normalised weights. Decoders get the usual gradient, sum w~ d log w. The path through z is weighted by
    (1 - beta) w~ + beta w~^2: dropping the score of q squares the weight of the terms that beta multiplies.
    """
    log_weights, pull_back, parts = jax.vjp(log_weight, jax.lax.stop_gradient(z), has_aux=True)
    total = lambda values: jnp.sum(importance_weighted_bound(values, bound, present))
    share = jax.grad(total)(jax.lax.stop_gradient(log_weights))
    # The loose bound is a mean over the observed modalities; the weights of each of them add up to 1.
    normalised = share * jnp.sum(present, axis=0)[None, None] if bound == "loose" else share
    (path,) = pull_back(share * ((1.0 - beta) + beta * normalised))
    # Its value is 0; its gradient with respect to z is the weighted path.
    carrier = jnp.sum(jax.lax.stop_gradient(path) * (z - jax.lax.stop_gradient(z)), axis=(0, 1, 3))
    return importance_weighted_bound(log_weights, bound, present) + carrier, parts
