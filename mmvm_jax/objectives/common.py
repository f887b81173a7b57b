"""What several objectives share: keyed noise, and the evidence lower bound put together."""

from typing import Protocol

import jax
import jax.numpy as jnp

from mmvm_jax.distributions import sample
from mmvm_jax.types import Array, Batch, DiagonalGaussian, LatentMixture, LossOutput


class Functions(Protocol):
    """What an objective may ask of a model whose parameters are fixed (``mmvm_jax.model.BoundModel``)."""

    names: tuple[str, ...]  # of the modalities, M of them
    identifiers: Array  # [M] uint32, from the names
    method_params: dict  # what the method's ``init`` returned, as trained

    def encode(self, inputs: dict[str, Array]) -> DiagonalGaussian:
        """{name: [B, ...]} -> [M, B, D]."""

    def log_likelihood(self, batch: Batch, z: Array) -> Array:
        """z [M, ..., B, D], row m read by decoder m -> weighted log p(x_m | z_m) [M, ..., B]; 0 where absent."""


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


def per_modality_bound(
    names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array
) -> LossOutput:
    """Negative evidence lower bound with one divergence a modality: [M, B], [M, B] -> LossOutput."""
    terms = {f"divergence/{name}": row for name, row in zip(names, divergence)}
    return _bound(names, log_likelihood, jnp.sum(divergence, axis=0), beta, terms)


def joint_bound(names: tuple[str, ...], log_likelihood: Array, divergence: Array, beta: Array) -> LossOutput:
    """Negative evidence lower bound with one divergence in all: [M, B], [B] -> LossOutput."""
    return _bound(names, log_likelihood, divergence, beta, {"divergence/joint": divergence})


def _bound(names, log_likelihood, divergence, beta, terms) -> LossOutput:
    terms = terms | {f"log_likelihood/{name}": row for name, row in zip(names, log_likelihood)}
    return LossOutput(beta * divergence - jnp.sum(log_likelihood, axis=0), terms)


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


def standard_normal_prior(
    functions: Functions, hyper: dict, options, num_examples: int, latent_dim: int
) -> LatentMixture:
    """``prior`` of the methods whose one latent is N(0, I): components [1, 1, B, D]."""
    zeros = jnp.zeros((num_examples, latent_dim))
    return single_latent(DiagonalGaussian(zeros, zeros))


def single_latent(q: DiagonalGaussian) -> LatentMixture:
    """A joint Gaussian posterior, [B, D], as the latent that all decoders read."""
    components = jax.tree.map(lambda leaf: leaf[None, None], q)
    return LatentMixture(components, jnp.zeros(components.mean.shape[:-1], q.mean.dtype))
