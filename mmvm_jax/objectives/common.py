"""What several objectives share: keyed noise and choices, and the bounds put together."""

import math
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.distributions import (
    BOUNDS,
    importance_weighted_bound,
    masked_logsumexp,
    sample,
    where_present,
)
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput


class Functions(Protocol):
    """What an objective may ask of a model whose parameters are fixed (``mmvm_jax.model.BoundModel``)."""

    names: tuple[str, ...]  # of the modalities, M of them
    identifiers: Array  # [M] uint32, from the names
    method_params: dict  # what the method's ``init`` returned, as trained

    def encode(self, inputs: dict[str, Array]) -> DiagonalGaussian:
        """{name: [B, ...]} -> [M, B, D]."""

    def log_likelihood(self, batch: Batch, z: Array, active: Array | bool = True) -> Array:
        """z [M, ..., B, D], row m read by decoder m -> weighted log p(x_m | z_m) [M, ..., B]; absent: 0.

        Latents of sources that are absent are not ``active``, bool [M, ..., B] or to be broadcast to it: they are
        kept out of the decoders' batch statistics.
        """


GRADIENTS = ("reparametrised", "dreg")


def no_parameters(key: Array, batch: Batch, functions: Functions, options) -> dict:
    """``init`` of the methods that learn nothing besides encoders and decoders."""
    return {}


def example_keys(key: Array, index: Array) -> Array:
    """One key an example, which depends on nothing but ``key`` and the example's index: [B] -> [B]."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def modality_keys(key: Array, index: Array, identifiers: Array) -> Array:
    """One key a modality and example, independent of which other modalities there are: [M, B]."""
    keys = example_keys(key, index)
    return jax.vmap(lambda i: jax.vmap(lambda k: jax.random.fold_in(k, i))(keys))(identifiers)


def keyed_uniforms(key: Array, index: Array, identifiers: Array) -> Array:
    """One number in [0, 1) a modality and example: [M, B]."""
    return jax.vmap(jax.vmap(jax.random.uniform))(modality_keys(key, index, identifiers))


def random_member(key: Array, batch: Batch, functions: Functions) -> Array:
    """One observed modality an example, each equally likely: [M, B] bool."""
    return highest(keyed_uniforms(key, batch.index, functions.identifiers), batch.present, 1)


def random_subset(key: Array, batch: Batch, functions: Functions) -> Array:
    """A non-empty subset of the observed, each equally likely: [M, B] bool.

    First its size, then its members. Neither the order of the modalities nor those that are absent change it.
    """
    size_key, member_key = jax.random.split(key)
    count = jnp.sum(batch.present, axis=0)
    uniform = jax.vmap(jax.random.uniform)(example_keys(size_key, batch.index))
    thresholds = jnp.asarray(_size_thresholds(len(functions.names)), uniform.dtype)[count]
    size = 1 + jnp.sum(uniform[:, None] >= thresholds, axis=1)
    return highest(keyed_uniforms(member_key, batch.index, functions.identifiers), batch.present, size[None])


def _size_thresholds(num_modalities: int) -> np.ndarray:
    """P(size <= k), k = 1..M, of a uniform non-empty subset of n = 0..M: [M + 1, M], 1 from k = n on."""
    sizes = np.array([[math.comb(n, k) for k in range(1, num_modalities + 1)] for n in range(num_modalities + 1)])
    return np.cumsum(sizes, axis=1) / np.maximum(sizes.sum(axis=1, keepdims=True), 1)


def highest(scores: Array, present: Array, count: Array | int) -> Array:
    """Which observed modalities are among the ``count`` with the highest scores; equal scores stand together.

    Args:
      scores: [M, B].
      present: [M, B] bool.
      count: at least 1; a number, or [1, B].

    Returns:
      [M, B] bool; at least one an example that has an observed modality.
    """
    higher = (scores[None] > scores[:, None]) & present[None]  # row m: which modalities stand above m
    return present & (jnp.sum(higher, axis=1) < count)


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


def check_at_least(least: int, method: str, field: str, options) -> None:
    """Raises UserError if a whole number among a method's options is too small."""
    if getattr(options, field) < least:
        value = getattr(options, field)
        raise UserError(f"config.method.{method}.{field} is {value}; allowed: {least} and more")


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


def own_or_mixture(posteriors: DiagonalGaussian, present: Array, scores: Array | None = None) -> LatentMixture:
    """Own posterior where observed, the mixture of the observed ones where not: components [M, M, B, D].

    Axis 0 is the component, axis 1 the decoder; with nothing observed it is N(0, I).

    Args:
      posteriors: [M, B, D].
      present: [M, B] bool.
      scores: [M, B], log-weights of the mixture before they are normalised; None for uniform ones.
    """
    num_modalities = present.shape[0]
    components = where_present(present, posteriors)
    scores = jnp.zeros(present.shape, components.mean.dtype) if scores is None else scores
    something = jnp.any(present, axis=0)
    mixture = jnp.where(something, jnp.where(present, scores, -jnp.inf), 0.0)
    own = jnp.where(jnp.eye(num_modalities, dtype=bool)[:, :, None], 0.0, -jnp.inf)
    log_weights = jax.nn.log_softmax(jnp.where(present[None], own, mixture[:, None]), axis=0)
    # [K, B, D] -> [K, M, B, D]: every decoder may read every component.
    repeat = lambda leaf: jnp.repeat(leaf[:, None], num_modalities, axis=1)
    return LatentMixture(jax.tree.map(repeat, components), log_weights)


def draw(key: Array, index: Array, mixture: LatentMixture, options) -> Array:
    """One draw a decoder and example: a component by its weight, then a latent from it.

    Args:
      key: of the draw.
      index: [B], of the examples; a draw does not depend on the examples beside it.
      mixture: [K, M or 1, B, D].
      options: the method's; not read here, but by methods whose latents are not Gaussian.

    Returns:
      [M or 1, B, D].
    """

    def draw_example(key, components, log_weights):
        choice_key, noise_key = jax.random.split(key)
        chosen = jax.random.categorical(choice_key, log_weights, axis=0)
        pick = lambda leaf: jnp.take_along_axis(leaf, chosen[None, :, None], axis=0)[0]
        return sample(noise_key, jax.tree.map(pick, components))

    keys = example_keys(key, index)
    return jax.vmap(draw_example, in_axes=(0, 2, 2), out_axes=1)(keys, *mixture)


def standard_normal_prior(functions: Functions, options, num_examples: int, latent_dim: int) -> LatentMixture:
    """``prior`` of the methods whose one latent is N(0, I): components [1, 1, B, D]."""
    zeros = jnp.zeros((num_examples, latent_dim))
    return single_latent(DiagonalGaussian(zeros, zeros))


def single_latent(q: DiagonalGaussian) -> LatentMixture:
    """A joint Gaussian posterior, [B, D], as the latent that all decoders read."""
    components = jax.tree.map(lambda leaf: leaf[None, None], q)
    return LatentMixture(components, jnp.zeros(components.mean.shape[:-1], q.mean.dtype))
