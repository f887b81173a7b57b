"""What the CelebA and MIMIC-CXR networks share: a residual block for sequences and images, and the heads."""

import flax.linen as nn

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import BatchNorm, Dropout, Training
from mmvm_jax.types import Array, DiagonalGaussian


class ResidualBlock(nn.Module):
    """A wide convolution beside normalisation, ReLU, a narrow convolution, and the same with a wide one.

    [N, *sides, C] -> [N, *sides', features], with one side for a sequence and two for an image. Both
    convolutions of the longer path are followed by dropout; for images they have no bias, and whole
    channels fall out.

    Attributes:
      features: channels of the output.
      stride: of the wide convolution, whose kernel has 4 pixels a side.
      padding: of the wide convolution, on either end of each side.
      up: whether the wide convolution is a transposed one.
    """

    features: int
    stride: int = 2
    padding: int = 1
    up: bool = False

    @nn.compact
    def __call__(self, x: Array, training: Training | None = None) -> Array:
        ndim = x.ndim - 2
        is_image = ndim == 2
        shortcut = BatchNorm()(self._wide(ndim, use_bias=True)(x), training)
        x = nn.relu(BatchNorm()(x, training))
        ones, zeros = (1,) * ndim, (0,) * ndim
        x = Conv(x.shape[-1], ones, ones, zeros, use_bias=not is_image, gain=1.0)(x)
        x = nn.relu(BatchNorm()(Dropout(channels=is_image)(x, training), training))
        x = Dropout(channels=is_image)(self._wide(ndim, use_bias=not is_image)(x), training)
        return shortcut + x

    def _wide(self, ndim: int, use_bias: bool) -> nn.Module:
        make = ConvTranspose if self.up else Conv
        return make(self.features, (4,) * ndim, (self.stride,) * ndim, (self.padding,) * ndim, use_bias)


class Heads(nn.Module):
    """Mean and log-variance, linear without bias: [N, ...] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(x.shape[0], -1)
        return DiagonalGaussian(*(nn.Dense(self.latent_dim, use_bias=False)(x) for _ in range(2)))
