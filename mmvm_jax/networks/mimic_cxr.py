"""MIMIC-CXR: residual networks for 224 x 224 images, five blocks down and six up.

Batch normalisation, dropout 0.5 and linear heads without bias, as for CelebA. With 1 channel and latent
dimension 256 the encoder has 8,916,864 parameters and the decoder 5,823,617, as many as the published ones.

Source: the code released with Sutter et al. 2024, arXiv 2403.05300 (agostini335/mmvmvae-mimic,
NetworksImgMimicCXR with image size 224).
"""

import flax.linen as nn

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import Training
from mmvm_jax.networks.residual import Heads, ResidualBlock
from mmvm_jax.networks.shape_checks import check_shape
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image",)
CHANNELS = 64  # channels of the first layer; the other layers have multiples of it
SIDE = 224
_MARGIN = 16  # pixels that are cropped from each side of the decoder's 256 x 256 output


def make(modality, config):
    """Return the encoder and the decoder of a modality.

    Raises:
      UserError: an image is not 224 x 224.
    """
    check_shape("mimic_cxr", modality, (SIDE, SIDE, modality.shape[-1]))
    return Encoder(config.latent_dim), Decoder(modality.shape[-1])


class Encoder(nn.Module):
    """Encode images: [N, 224, 224, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> DiagonalGaussian:
        x = Conv(CHANNELS, use_bias=False)(x)
        for multiple in (2, 3, 4):
            x = ResidualBlock(multiple * CHANNELS)(x, training)
        x = ResidualBlock(5 * CHANNELS, stride=4)(x, training)  # 14 x 14 -> 4 x 4
        x = ResidualBlock(5 * CHANNELS, padding=0)(x, training)  # 4 x 4 -> 1 x 1
        return Heads(self.latent_dim)(x)


class Decoder(nn.Module):
    """Decode images: [N, D] -> [N, 224, 224, channels], without output activation."""

    channels: int = 1

    @nn.compact
    def __call__(self, z: Array, training: Training | None = None) -> Array:
        x = nn.Dense(5 * CHANNELS)(z)[:, None, None]
        x = ResidualBlock(4 * CHANNELS, stride=1, padding=0, up=True)(x, training)  # 1 x 1 -> 4 x 4
        for multiple in (3, 2, 1, 1, 1):
            x = ResidualBlock(multiple * CHANNELS, up=True)(x, training)
        side = SIDE + 2 * _MARGIN
        x = ConvTranspose(self.channels, gain=1.0, size=(side, side))(x)
        return x[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
