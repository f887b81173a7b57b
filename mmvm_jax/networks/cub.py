"""CUB: strided convolutions for 64 x 64 images, word embeddings and convolutions for captions of 32 words.

With 3 colours, 1,868 words and latent dimension 256 the networks have 6,951,360 (image encoder), 4,853,699
(image decoder), 1,584,064 (text encoder) and 1,061,644 (text decoder) parameters, as many as the published
ones.

Source: the code released with Sutter et al. 2024, arXiv 2403.05300 (thomassutter/mmvmvae, NetworksCUBimg and
NetworksCUBsent); the architecture is that of Shi et al. 2019, arXiv 1911.03393.
"""

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import BatchNorm, Training
from mmvm_jax.networks.shape_checks import check_likelihood, check_shape
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image", "tokens")
SIDE, LENGTH = 64, 32
_EMBEDDING = 128
_IMAGE_CHANNELS = (64, 128, 256, 512)
# Kernel, strides and padding of a convolution or a transposed convolution.
_BOTH_SIDES = ((4, 4), (2, 2), (1, 1))
_COLUMNS = ((1, 4), (1, 2), (0, 1))
_ONE_TO_FOUR = ((4, 4), (1, 1), (0, 0))


def make(modality, config):
    """Return the encoder and the decoder of a modality, of captions for tokens and of images otherwise.

    Raises:
      UserError: an image is not 64 x 64 or has a Bernoulli likelihood, or a caption does not have 32 tokens.
    """
    if modality.kind == "tokens":
        check_shape("cub", modality, (LENGTH,))
        return TextEncoder(config.latent_dim, modality.vocabulary_size), TextDecoder(modality.vocabulary_size)
    check_shape("cub", modality, (SIDE, SIDE, modality.shape[-1]))
    check_likelihood("cub", modality, "laplace", "normal")  # the decoder ends in a sigmoid
    return Encoder(config.latent_dim), Decoder(modality.shape[-1])


class Encoder(nn.Module):
    """Encode images: [N, 64, 64, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        for features in _IMAGE_CHANNELS:
            x = nn.relu(Conv(features, *_BOTH_SIDES)(x))
        x = nn.Dense(2 * self.latent_dim)(x.reshape(x.shape[0], -1))
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


class Decoder(nn.Module):
    """Decode images: [N, D] -> [N, 64, 64, channels] in 0..1."""

    channels: int = 3

    @nn.compact
    def __call__(self, z: Array) -> Array:
        *others, last = _IMAGE_CHANNELS
        # Every pixel of the first layer receives one of the 16 pixels of the kernel.
        x = nn.relu(ConvTranspose(last, *_ONE_TO_FOUR, gain=32.0)(z[:, None, None]))
        for features in reversed(others):
            x = nn.relu(ConvTranspose(features, *_BOTH_SIDES)(x))
        return nn.sigmoid(ConvTranspose(self.channels, *_BOTH_SIDES, gain=1.0)(x))


class TextEncoder(nn.Module):
    """Encode captions: token ids [N, 32] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    vocabulary_size: int

    @nn.compact
    def __call__(self, tokens: Array, training: Training | None = None) -> DiagonalGaussian:
        x = nn.Embed(self.vocabulary_size, _EMBEDDING)(tokens)[..., None]  # an image of words x embedding
        for features, form in zip((32, 64, 128, 128, 128), (*[_BOTH_SIDES] * 3, _COLUMNS, _COLUMNS)):
            x = nn.relu(BatchNorm()(Conv(features, *form, use_bias=False)(x), training))
        x = nn.Dense(2 * self.latent_dim, use_bias=False)(x.reshape(x.shape[0], -1))
        return DiagonalGaussian(*jnp.split(x, 2, axis=-1))


class TextDecoder(nn.Module):
    """Decode captions: [N, D] -> logits [N, 32, V]."""

    vocabulary_size: int

    @nn.compact
    def __call__(self, z: Array, training: Training | None = None) -> Array:
        x = z[:, None, None]
        forms = (_ONE_TO_FOUR, _COLUMNS, _COLUMNS, _BOTH_SIDES, _BOTH_SIDES)
        for features, form in zip((128, 128, 128, 64, 32), forms):
            x = nn.relu(BatchNorm()(ConvTranspose(features, *form, use_bias=False)(x), training))
        x = nn.relu(ConvTranspose(1, *_BOTH_SIDES, use_bias=False)(x))
        return nn.Dense(self.vocabulary_size)(x[..., 0])
