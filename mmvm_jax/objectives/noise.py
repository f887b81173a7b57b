"""Random numbers keyed by example and modality: noise, members and subsets."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.objectives.interface import Functions
from mmvm_jax.types import Array, Batch


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
