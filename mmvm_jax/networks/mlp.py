"""Fully connected networks, for vectors and for data that can be flattened to vectors."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image", "vector", "counts")
# A ReLU halves the second moment and He's initialiser doubles it, so activations keep their scale. A linear head has
# LeCun's initialiser, because no ReLU follows it.
_he, _lecun = nn.initializers.he_normal, nn.initializers.lecun_normal


def make(modality, config):
    """Return the encoder and the decoder of a modality, from ``config.network``."""
    hidden_dims = tuple(config.mlp.hidden_dims)
    typical = modality.scale if modality.likelihood == "poisson" else 1.0
    encoder = Encoder(config.latent_dim, hidden_dims, typical if modality.kind == "counts" else None)
    return encoder, Decoder(modality.shape, hidden_dims[::-1])


class Encoder(nn.Module):
    """Encode an input: [N, ...] -> DiagonalGaussian [N, D].

    Counts are first transformed to arcsinh(x / typical_count), which is linear near 0 and logarithmic for large counts.
    Otherwise the largest counts would dominate. The transform is also defined for negative inputs, which a method may
    learn.
    """

    latent_dim: int
    hidden_dims: tuple[int, ...] = (400, 400)
    typical_count: float | None = None

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(x.shape[0], -1)
        x = x if self.typical_count is None else jnp.arcsinh(x / self.typical_count)
        for features in self.hidden_dims:
            x = nn.relu(nn.Dense(features, kernel_init=_he())(x))
        x = nn.Dense(2 * self.latent_dim, kernel_init=_lecun())(x)
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


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
