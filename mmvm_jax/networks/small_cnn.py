"""Three strided convolutions, and three transposed convolutions in reverse order, for small images."""

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image",)
# A ReLU halves the second moment and He's initialiser doubles it, so activations keep their scale. A linear head has
# LeCun's initialiser, because no ReLU follows it.
_he, _lecun = nn.initializers.he_normal, nn.initializers.lecun_normal


def make(modality, config):
    """Return the encoder and the decoder of a modality, from ``config.network``."""
    channels = tuple(config.small_cnn.channels)
    return Encoder(config.latent_dim, channels), Decoder(modality.shape, channels)


class Encoder(nn.Module):
    """Encode images: [N, H, W, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    channels: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        for features in self.channels:
            x = nn.relu(Conv(features)(x))
        x = nn.Dense(2 * self.latent_dim, kernel_init=_lecun())(x.reshape(x.shape[0], -1))
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


class Decoder(nn.Module):
    """Decode images: [N, D] -> [N, *shape], without output activation."""

    shape: tuple[int, int, int]
    channels: tuple[int, ...] = (32, 64, 128)

    @nn.compact
    def __call__(self, z: Array) -> Array:
        sizes: list[tuple[int, ...]] = [self.shape[:2]]
        for _ in self.channels:
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))
        *sizes, (rows, columns) = sizes
        *hidden, features = self.channels
        x = nn.relu(nn.Dense(rows * columns * features, kernel_init=_he())(z))
        x = x.reshape(z.shape[0], rows, columns, features)
        while hidden:
            x = nn.relu(ConvTranspose(hidden.pop(), size=sizes.pop())(x))
        return ConvTranspose(self.shape[-1], gain=1.0, size=sizes.pop())(x)
