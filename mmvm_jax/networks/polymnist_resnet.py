"""PolyMNIST: residual networks with 64, 128 and 256 channels at 28, 14 and 7 pixels per side.

The networks have leaky ReLUs of slope 0.2 and residuals with weight 0.1. With images of 28 x 28 x 3 and latent
dimension 512 the encoder has 13,516,224 parameters and the decoder 7,104,963 (256: 7,093,184 and 3,893,699), as many as
the published ones.

Source: the code released with Sutter et al. 2024, arXiv 2403.05300 (thomassutter/mmvmvae, ResnetEncoder and
ResnetDecoder).
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.errors import UserError
from mmvm_jax.networks.layers import Conv
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image",)
CHANNELS = (64, 128, 256)
_RESIDUAL_WEIGHT = 0.1
# Kernel, strides and padding.
_SAME = ((3, 3), (1, 1), (1, 1))
_POINT = ((1, 1), (1, 1), (0, 0))


def make(modality, config):
    """Return the encoder and the decoder of a modality.

    Raises:
      UserError: a side of the image is not a multiple of 4.
    """
    if any(side % 4 for side in modality.shape[:2]):
        raise UserError(
            f"network 'polymnist_resnet' halves images twice; {modality.name!r} has shape {modality.shape}; "
            "allowed: sides that are multiples of 4"
        )
    return Encoder(config.latent_dim), Decoder(modality.shape)


def _active(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions plus the identity or a 1 x 1 convolution: [N, H, W, C] -> [N, H, W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shortcut = x
        if x.shape[-1] != self.features:
            shortcut = Conv(self.features, *_POINT, use_bias=False, gain=1.0)(x)
        x = Conv(min(x.shape[-1], self.features), *_SAME)(_active(x))
        return shortcut + _RESIDUAL_WEIGHT * Conv(self.features, *_SAME)(_active(x))


class Encoder(nn.Module):
    """Encode images: [N, H, W, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        first, *others = CHANNELS
        x = ResidualBlock(first)(Conv(first, *_SAME, gain=1.0)(x))
        for features in others:
            x = nn.avg_pool(x, (3, 3), (2, 2), [(1, 1), (1, 1)])
            x = ResidualBlock(features)(x)
        x = nn.Dense(2 * self.latent_dim)(x.reshape(x.shape[0], -1))
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


class Decoder(nn.Module):
    """Decode images: [N, D] -> [N, *shape], without output activation."""

    shape: tuple[int, int, int]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        *others, last = CHANNELS
        small = (self.shape[0] // 4, self.shape[1] // 4, last)
        x = nn.Dense(math.prod(small))(z).reshape(-1, *small)
        for features in reversed(others):
            x = ResidualBlock(features)(x)
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return Conv(self.shape[-1], *_SAME, gain=1.0)(_active(ResidualBlock(CHANNELS[0])(x)))
