"""Convolutions along time, for signals [T] or [T, channels]."""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("vector", "counts")
_WIDTH, _STRIDE = 5, 2


def make(modality, config):
    """Return the encoder and the decoder of a modality, from ``config.network``."""
    features = tuple(config.signal_cnn.features)
    return Encoder(config.latent_dim, features), Decoder(modality.shape, features[::-1])


class Encoder(nn.Module):
    """Encode a signal: [N, T] or [N, T, channels] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    features: tuple[int, ...]

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(*x.shape[:2], -1)
        for features in self.features:
            x = nn.relu(nn.Conv(features, (_WIDTH,), _STRIDE)(x))
        x = nn.Dense(2 * self.latent_dim)(x.reshape(x.shape[0], -1))
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


class Decoder(nn.Module):
    """Decode a signal: [N, D] -> [N, *shape], without output activation. ``features`` are in the order of use."""

    shape: tuple[int, ...]
    features: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        length, channels = self.shape[0], math.prod(self.shape[1:])
        start = math.ceil(length / _STRIDE ** len(self.features))
        x = nn.Dense(start * self.features[0])(z).reshape(-1, start, self.features[0])
        for features in (*self.features[1:], channels):
            x = nn.ConvTranspose(features, (_WIDTH,), (_STRIDE,))(nn.relu(x))
        return x[:, :length].reshape(-1, *self.shape)
