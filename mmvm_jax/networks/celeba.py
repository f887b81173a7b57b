"""CelebA: residual networks for 64 x 64 images and for 256 characters of text.

Batch normalisation, dropout 0.5 and linear heads without bias. With 3 colours, 41 characters and latent
dimension 128 the networks have 5,454,656 (image encoder), 5,512,579 (image decoder), 3,381,824 (text
encoder) and 3,439,721 (text decoder) parameters, as many as the published ones.

Source: the code released with Sutter et al. 2024, arXiv 2403.05300 (thomassutter/mmvmvae, NetworksImgCelebA
and NetworksTextCelebA).
"""

import flax.linen as nn
import jax

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import Training
from mmvm_jax.networks.residual import Heads, ResidualBlock
from mmvm_jax.networks.shape_checks import check_shape
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image", "tokens")
CHANNELS = 64  # channels of the first layer; the other layers have multiples of it
SIDE, LENGTH = 64, 256


def make(modality, config):
    """Return the encoder and the decoder of a modality, of texts for tokens and of images otherwise.

    Raises:
      UserError: an image is not 64 x 64, or a text does not have 256 tokens.
    """
    if modality.kind == "tokens":
        check_shape("celeba", modality, (LENGTH,))
        return TextEncoder(config.latent_dim, modality.vocabulary_size), TextDecoder(modality.vocabulary_size)
    check_shape("celeba", modality, (SIDE, SIDE, modality.shape[-1]))
    return Encoder(config.latent_dim), Decoder(modality.shape[-1])


class Encoder(nn.Module):
    """Encode images: [N, 64, 64, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> DiagonalGaussian:
        x = Conv(CHANNELS, (3, 3), (2, 2), (2, 2), use_bias=False)(x)  # 33 x 33
        for multiple in (2, 3, 4):
            x = ResidualBlock(multiple * CHANNELS)(x, training)
        x = ResidualBlock(5 * CHANNELS, padding=0)(x, training)  # 4 x 4 -> 1 x 1
        return Heads(self.latent_dim)(x)


class Decoder(nn.Module):
    """Decode images: [N, D] -> [N, 64, 64, channels], without output activation."""

    channels: int = 3

    @nn.compact
    def __call__(self, z: Array, training: Training | None = None) -> Array:
        x = nn.Dense(5 * CHANNELS)(z)[:, None, None]
        x = ResidualBlock(4 * CHANNELS, stride=1, padding=0, up=True)(x, training)  # 1 x 1 -> 4 x 4
        for multiple in (3, 2, 1):
            x = ResidualBlock(multiple * CHANNELS, up=True)(x, training)
        return ConvTranspose(self.channels, gain=1.0, size=(SIDE, SIDE))(x)


class TextEncoder(nn.Module):
    """Encode texts: token ids [N, 256] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    vocabulary_size: int

    @nn.compact
    def __call__(self, tokens: Array, training: Training | None = None) -> DiagonalGaussian:
        x = Conv(CHANNELS, (4,), (2,), (1,))(jax.nn.one_hot(tokens, self.vocabulary_size))
        for multiple in (2, 3, 4, 5, 5):
            x = ResidualBlock(multiple * CHANNELS)(x, training)
        x = ResidualBlock(5 * CHANNELS, padding=0)(x, training)  # 4 -> 1
        return Heads(self.latent_dim)(x)


class TextDecoder(nn.Module):
    """Decode texts: [N, D] -> logits [N, 256, V]."""

    vocabulary_size: int

    @nn.compact
    def __call__(self, z: Array, training: Training | None = None) -> Array:
        x = nn.Dense(5 * CHANNELS)(z)[:, None]
        x = ResidualBlock(5 * CHANNELS, stride=1, padding=0, up=True)(x, training)  # 1 -> 4
        for multiple in (5, 4, 3, 2, 1):
            x = ResidualBlock(multiple * CHANNELS, up=True)(x, training)
        return ConvTranspose(self.vocabulary_size, (4,), (2,), (1,), gain=1.0)(x)
