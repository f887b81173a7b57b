"""Impute the missing modalities of one batch by the moments of draws."""

import jax
import jax.numpy as jnp

from mmvm_jax.inference.expected import as_data, expected_data, variance
from mmvm_jax.models import tables
from mmvm_jax.models.trained import Trained
from mmvm_jax.types import Array, Batch


def impute(keep_samples: bool, trained: Trained, params: dict, batch: Batch, keys: Array) -> dict:
    """Return moments of S draws {name: {"mean", "std": [B, ...], "samples": [B, S, ...]}}; for tokens only the mode.

    The variance is that of the expected data over the draws, plus the mean variance of the data around them.
    """
    functions, batch = trained.model.bind(params), trained.model.prepare(batch)
    posteriors, everything = functions.encode(batch.inputs), jnp.ones(len(functions.names), bool)

    def draw(key):
        return expected_data(functions, trained.translate(functions, posteriors, batch, everything, key))

    def add(moments, numbered):
        (number, key), (means, squares) = numbered, moments
        drawn = draw(key)
        spread = variance(functions, drawn)
        updated = jax.tree.map(lambda mean, x: mean + (x - mean) / number, means, drawn)  # Welford 1962
        squares = jax.tree.map(lambda s, x, old, new: s + (x - old) * (x - new), squares, drawn, means, updated)
        squares = jax.tree.map(jnp.add, squares, spread)
        return (updated, squares), as_data(functions, drawn) if keep_samples else None

    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(draw, keys[0]))
    numbers = jnp.arange(1.0, len(keys) + 1.0)
    (means, squares), samples = jax.lax.scan(add, (zeros, zeros), (numbers, keys))
    outputs = {name: {"mean": mean} for name, mean in as_data(functions, means).items()}
    for modality in functions.model.modalities:
        if modality.kind != "tokens":
            std = jnp.sqrt(squares[modality.name] / len(keys))
            outputs[modality.name]["std"] = tables.of_columns(std, modality) if modality.columns else std
        if keep_samples:
            outputs[modality.name]["samples"] = jnp.moveaxis(samples[modality.name], 0, 1)
    return outputs
