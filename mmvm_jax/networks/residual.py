"""Parts shared by the CelebA and MIMIC-CXR networks: a residual block for sequences and images, and the heads."""

import flax.linen as nn

from mmvm_jax.networks.layers import Conv, ConvTranspose
from mmvm_jax.networks.normalization import BatchNorm, Dropout, Training
from mmvm_jax.types import Array, DiagonalGaussian


class ResidualBlock(nn.Module):
    """Residual block: [N, *sides, C] -> [N, *sides', features], with one side for sequences and two for images.

    The short path is a wide convolution and normalisation. The long path is normalisation, ReLU and a narrow
    convolution, then normalisation, ReLU and a wide convolution. Dropout follows both convolutions of the long path.
    For images these convolutions have no bias, and dropout removes whole channels.

    Attributes:
      features: number of output channels.
      stride: stride of the wide convolution, whose kernel has 4 pixels per side.
      padding: padding of the wide convolution, at both ends of each side.
      up: use a transposed wide convolution.
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
    """Linear heads without bias for mean and log-variance: [N, ...] -> DiagonalGaussian [N, D]."""

    latent_dim: int

    @nn.compact
    def __call__(self, x: Array) -> DiagonalGaussian:
        x = x.reshape(x.shape[0], -1)
        return DiagonalGaussian(*(nn.Dense(self.latent_dim, use_bias=False)(x) for _ in range(2)))
