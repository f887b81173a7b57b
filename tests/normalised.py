"""Small networks with batch normalisation and dropout, offered as ``mmvm_jax.networks`` offers a family."""

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.networks.normalization import BatchNorm, Dropout
from mmvm_jax.types import DiagonalGaussian

KINDS = ("vector",)


class Encoder(nn.Module):
    latent_dim: int

    @nn.compact
    def __call__(self, x, training=None):
        x = nn.relu(BatchNorm()(nn.Dense(8)(x), training))
        x = Dropout()(x, training)
        return DiagonalGaussian(*jnp.split(nn.Dense(2 * self.latent_dim)(x), 2, axis=-1))


class Decoder(nn.Module):
    size: int

    @nn.compact
    def __call__(self, z, training=None):
        return nn.Dense(self.size)(Dropout()(nn.relu(BatchNorm()(nn.Dense(8)(z), training)), training))


def make(modality, config):
    return Encoder(config.latent_dim), Decoder(modality.shape[0])
