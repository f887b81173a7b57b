"""Latents as decoders read them: mixtures of posteriors, draws, and the standard normal prior."""

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import (
    gaussian_log_density,
    mixture_log_density,
    sample,
    standard_normal_like,
    where_present,
)
from mmvm_jax.objectives.interface import Functions
from mmvm_jax.objectives.noise import example_keys
from mmvm_jax.types import Array, DiagonalGaussian, LatentMixture


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


def standard_normal_log_ratio(mixture: LatentMixture, z: Array, options) -> tuple[Array, Array]:
    """``log_prior_ratio`` of the methods whose one latent is N(0, I); nothing of it is private to a modality."""
    log_prior = gaussian_log_density(standard_normal_like(DiagonalGaussian(z, z)), z)
    shared = log_prior - mixture_log_density(mixture.components, z, mixture.log_weights)
    return shared[0], jnp.zeros_like(shared)


def single_latent(q: DiagonalGaussian) -> LatentMixture:
    """A joint Gaussian posterior, [B, D], as the latent that all decoders read."""
    components = jax.tree.map(lambda leaf: leaf[None, None], q)
    return LatentMixture(components, jnp.zeros(components.mean.shape[:-1], q.mean.dtype))
