"""Fully connected networks, for vectors and for data that can be flattened to vectors."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.types import Array, Column, DiagonalGaussian

KINDS = ("image", "vector", "counts", "binary", "table")
READS_MISSING_ENTRIES = True
# A ReLU halves the second moment and He's initialiser doubles it, so activations keep their scale. A linear head has
# LeCun's initialiser, because no ReLU follows it.
_he, _lecun = nn.initializers.he_normal, nn.initializers.lecun_normal


def make(modality, config):
    """Return the encoder and the decoder of a modality, from ``config.network``."""
    hidden_dims = tuple(config.mlp.hidden_dims)
    typical = modality.scale if modality.likelihood in ("poisson", "negative_binomial") else 1.0
    encoder = Encoder(
        config.latent_dim,
        hidden_dims,
        typical if modality.kind == "counts" else None,
        modality.columns,
        modality.missing_entries,
    )
    return encoder, Decoder(modality.output_shape, hidden_dims[::-1])


class Encoder(nn.Module):
    """Encode an input: [N, ...] -> DiagonalGaussian [N, D].

    Counts are first transformed to arcsinh(x / typical_count), which is linear near 0 and logarithmic for large counts.
    Otherwise the largest counts would dominate. The transform is also defined for negative inputs, which a method may
    learn. Categories are read as indicators of their levels. Missing entries are zeros, and the mask is an input, too.
    """

    latent_dim: int
    hidden_dims: tuple[int, ...] = (400, 400)
    typical_count: float | None = None
    columns: tuple[Column, ...] = ()
    missing_entries: bool = False

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(x.shape[0], -1)
        known = ~jnp.isnan(x) if self.missing_entries else None
        x = x if known is None else jnp.where(known, x, 0.0)
        x = x if self.typical_count is None else jnp.arcsinh(x / self.typical_count)
        x = _features(x, known, self.columns) if self.columns else x
        x = x if known is None else jnp.concatenate([x, known.astype(x.dtype)], axis=1)
        for features in self.hidden_dims:
            x = nn.relu(nn.Dense(features, kernel_init=_he())(x))
        x = nn.Dense(2 * self.latent_dim, kernel_init=_lecun())(x)
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


def _features(x: Array, known: Array | None, columns: tuple[Column, ...]) -> Array:
    """Return the columns of a table [N, C] as networks read them: counts compressed, levels as indicators."""
    kinds = np.array([column.likelihood for column in columns])
    rates = np.array([column.rate if column.likelihood == "poisson" else 1.0 for column in columns], x.dtype)
    numbers = jnp.where(
        jnp.broadcast_to(kinds == "poisson", x.shape), jnp.arcsinh(x / jnp.broadcast_to(rates, x.shape)), x
    )
    parts = [numbers[:, kinds != "categorical"]]
    for place in np.flatnonzero(kinds == "categorical"):
        levels = jax.nn.one_hot(x[:, place].astype(int), columns[place].levels, dtype=x.dtype)
        parts.append(levels if known is None else jnp.where(known[:, place : place + 1], levels, 0.0))
    return jnp.concatenate(parts, axis=1)


class Decoder(nn.Module):
    """Decode an output: [N, D] -> [N, *shape], without output activation. ``hidden_dims`` are in the order of use."""

    shape: tuple[int, ...]
    hidden_dims: tuple[int, ...] = (400, 400)

    @nn.compact
    def __call__(self, z: Array) -> Array:
        for features in self.hidden_dims:
            z = nn.relu(nn.Dense(features, kernel_init=_he())(z))
        x = nn.Dense(math.prod(self.shape), kernel_init=_lecun())(z)
        return x.reshape(-1, *self.shape)
