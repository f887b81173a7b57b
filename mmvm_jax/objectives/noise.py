"""Random numbers keyed by example and modality: keys, uniforms, members and subsets."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.objectives.interface import Functions
from mmvm_jax.types import Array, Batch


def example_keys(key: Array, index: Array) -> Array:
    """Return one key per example, which depends only on ``key`` and the example's index: [B] -> [B]."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(index)


def modality_keys(key: Array, index: Array, identifiers: Array) -> Array:
    """Return one key per modality and example, independent of the other modalities: [M, B]."""
    keys = example_keys(key, index)
    return jax.vmap(lambda i: jax.vmap(lambda k: jax.random.fold_in(k, i))(keys))(identifiers)


def keyed_uniforms(key: Array, index: Array, identifiers: Array) -> Array:
    """Return one uniform number in [0, 1) per modality and example: [M, B]."""
    return jax.vmap(jax.vmap(jax.random.uniform))(modality_keys(key, index, identifiers))


def random_member(key: Array, batch: Batch, functions: Functions) -> Array:
    """Return one observed modality per example, each equally likely: [M, B] bool."""
    return highest(keyed_uniforms(key, batch.index, functions.identifiers), batch.present, 1)


def random_subset(key: Array, batch: Batch, functions: Functions) -> Array:
    """Return a non-empty subset of the observed modalities per example, each equally likely: [M, B] bool.

    Draws its size, then its members. The result depends neither on the order of the modalities nor on absent ones.
    """
    size_key, member_key = jax.random.split(key)
    count = jnp.sum(batch.present, axis=0)
    uniform = jax.vmap(jax.random.uniform)(example_keys(size_key, batch.index))
    thresholds = jnp.asarray(_size_thresholds(len(functions.names)), uniform.dtype)[count]
    size = 1 + jnp.sum(uniform[:, None] >= thresholds, axis=1)
    return highest(keyed_uniforms(member_key, batch.index, functions.identifiers), batch.present, size[None])


def _size_thresholds(num_modalities: int) -> np.ndarray:
    """Return P(size <= k), k = 1..M, of a uniform non-empty subset of n = 0..M modalities: [M + 1, M]."""
    sizes = np.array([[math.comb(n, k) for k in range(1, num_modalities + 1)] for n in range(num_modalities + 1)])
    return np.cumsum(sizes, axis=1) / np.maximum(sizes.sum(axis=1, keepdims=True), 1)


def highest(scores: Array, present: Array, count: Array | int) -> Array:
    """Return which observed modalities are among the ``count`` with the highest scores; ties are all included.

    Args:
      scores: [M, B].
      present: [M, B] bool.
      count: at least 1; a number, or [1, B].

    Returns:
      [M, B] bool; at least one per example that has an observed modality.
    """
    higher = (scores[None] > scores[:, None]) & present[None]  # row m: modalities that score higher than m
    return present & (jnp.sum(higher, axis=1) < count)
