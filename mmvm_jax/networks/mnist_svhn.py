"""MNIST and SVHN: fully connected networks for 28 x 28 pixels, convolutions for 32 x 32.

With latent dimension 64 the networks have 730,240 (MNIST encoder), 698,128 (MNIST decoder), 1,281,824 (SVHN
encoder) and 296,675 (SVHN decoder) parameters. The published ones have as many, except for two more
heads of the SVHN encoder with 32,832 parameters each, whose output is not used.

Source: the code released with Joy et al. 2022, arXiv 2106.12570 (thwjoy/meme, MLPEncoder, MLPDecoder,
MSEncoder and MSDecoder).
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import BatchNorm, Training
from mmvm_jax.networks.shape_checks import check_likelihood, check_shape
from mmvm_jax.types import Array, DiagonalGaussian

KINDS = ("image",)
MNIST_SHAPE, SVHN_SHAPE = (28, 28, 1), (32, 32, 3)
_HIDDEN = 512
_CHANNELS = (32, 64, 128)
# Kernel, strides and padding of a convolution or a transposed convolution.
_HALF = ((4, 4), (2, 2), (1, 1))
_FOUR_AND_ONE = ((4, 4), (1, 1), (0, 0))
_he = nn.initializers.he_normal


def make(modality, config):
    """Return the encoder and the decoder of a modality, by its shape.

    Raises:
      UserError: the shape is neither 28 x 28 x 1 nor 32 x 32 x 3, or the likelihood is Bernoulli.
    """
    check_shape("mnist_svhn", modality, MNIST_SHAPE, SVHN_SHAPE)
    check_likelihood("mnist_svhn", modality, "laplace", "normal")  # the decoders end in a sigmoid
    if modality.shape == MNIST_SHAPE:
        return Encoder(config.latent_dim), Decoder(modality.shape)
    return ConvEncoder(config.latent_dim), ConvDecoder(modality.shape[-1])


class Heads(nn.Module):
    """Mean, and standard deviation by a softplus: [N, F] -> DiagonalGaussian [N, D]."""

    latent_dim: int
    min_std: float

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        mean, raw = jnp.split(nn.Dense(2 * self.latent_dim)(x), 2, axis=-1)
        return DiagonalGaussian(mean, 2.0 * jnp.log(jnp.maximum(nn.softplus(raw), self.min_std)))


class Encoder(nn.Module):
    """Encode images of MNIST: [N, ...] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = nn.elu(nn.Dense(_HIDDEN, kernel_init=_he())(x.reshape(x.shape[0], -1)))
        return Heads(self.latent_dim, 1e-3)(nn.softplus(nn.Dense(_HIDDEN, kernel_init=_he())(x)))


class Decoder(nn.Module):
    """Decode images of MNIST: [N, D] -> [N, *shape] in 0..1."""

    shape: tuple[int, ...] = MNIST_SHAPE

    @nn.compact
    def __call__(self, z: Array) -> Array:
        for _ in range(2):
            z = nn.relu(nn.Dense(_HIDDEN, kernel_init=_he())(z))
        return nn.sigmoid(nn.Dense(math.prod(self.shape))(z)).reshape(-1, *self.shape)


class ConvEncoder(nn.Module):
    """Encode images of SVHN: [N, 32, 32, C] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> DiagonalGaussian:
        for features in _CHANNELS:
            x = nn.relu(BatchNorm()(Conv(features, *_HALF)(x), training))
        x = BatchNorm()(Conv(_HIDDEN, *_FOUR_AND_ONE)(x), training)
        return Heads(self.latent_dim, 1e-4)(x.reshape(x.shape[0], -1))


class ConvDecoder(nn.Module):
    """Decode images of SVHN: [N, D] -> [N, 32, 32, channels] in 0..1."""

    channels: int = 3

    @nn.compact
    def __call__(self, z: Array) -> Array:
        *others, last = _CHANNELS
        # Every pixel of the first layer receives one of the 16 pixels of the kernel.
        x = nn.relu(ConvTranspose(last, *_FOUR_AND_ONE, gain=32.0)(z[:, None, None]))
        for features in reversed(others):
            x = nn.relu(ConvTranspose(features, *_HALF)(x))
        return nn.sigmoid(ConvTranspose(self.channels, *_HALF, gain=1.0)(x))
