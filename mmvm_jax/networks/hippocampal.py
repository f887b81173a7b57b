"""Hippocampal spike counts: fully connected networks whose layers are as wide as the n inputs.

The networks have leaky ReLUs of slope 0.01, and one layer as wide as the latent before the two heads. With latent
dimension 2 and n = 920, 790, 1,040, 490 and 460 (the neurons of five rats times 10 bins) the encoders have
1,696,494, 1,251,374, 2,167,374, 482,174 and 425,054 parameters and the decoders 1,697,400, 1,252,150,
2,168,400, 482,650 and 425,500, as many as the published ones.

Source: the code released with Sutter et al. 2024, arXiv 2403.05300 (yangmeng96/mmvmvae-hippocampal,
NetworksRatsspike).
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("vector", "counts")
_he = nn.initializers.he_normal


def make(modality, config):
    """Return the encoder and the decoder of a modality."""
    return Encoder(config.latent_dim), Decoder(modality.shape)


class Encoder(nn.Module):
    """Encode counts: [N, ...] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(x.shape[0], -1)
        for features in (x.shape[1], x.shape[1], self.latent_dim):
            x = nn.leaky_relu(nn.Dense(features, kernel_init=_he())(x), 0.01)
        return DiagonalGaussian(*jnp.split(nn.Dense(2 * self.latent_dim)(x), 2, axis=-1))


class Decoder(nn.Module):
    """Decode counts: [N, D] -> [N, *shape], without output activation."""

    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        size = math.prod(self.shape)
        for _ in range(2):
            z = nn.leaky_relu(nn.Dense(size, kernel_init=_he())(z), 0.01)
        return nn.Dense(size)(z).reshape(-1, *self.shape)
