"""Convolutions and their transposes, padding as in PyTorch, with initial kernels that keep the scale.

By default they halve images and bring them back. How they are computed is decided in ``formulations``.

A ReLU halves the second moment of what it is given; ``gain`` is the variance that a kernel gives its output
in return: 2 (He's initialiser), or 1 where no ReLU came before.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmvm_jax.networks.formulations import convolve, convolve_transpose
from mmvm_jax.types import Array

Sides = tuple[int, ...]  # one number for each side

_TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal number between -2 and 2


class Conv(nn.Module):
    """[N, *sides, C] -> [N, *sides', features], where side' = (side + 2 padding - kernel) // stride + 1."""

    features: int
    kernel: Sides = (3, 3)
    strides: Sides = (2, 2)
    padding: Sides = (1, 1)
    use_bias: bool = True
    gain: float = 2.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = math.prod(self.kernel) * x.shape[-1]
        kernel = self.param("kernel", _scaled(self.gain / fan_in), (*self.kernel, x.shape[-1], self.features))
        return _shifted(self, convolve(x.astype(kernel.dtype), kernel, self.strides, self.padding))


class ConvTranspose(nn.Module):
    """[N, *sides, C] -> [N, *sides', features], where side' = (side - 1) stride - 2 padding + kernel.

    Attributes:
      size: the sides', where they are not those but up to stride - 1 longer.
    """

    features: int
    kernel: Sides = (3, 3)
    strides: Sides = (2, 2)
    padding: Sides = (1, 1)
    use_bias: bool = True
    gain: float = 2.0
    size: Sides | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # An output pixel sees but one in ``stride`` of the kernel's pixels along a side.
        variance = self.gain * math.prod(self.strides) / (math.prod(self.kernel) * x.shape[-1])
        kernel = self.param("kernel", _scaled(variance), (*self.kernel, self.features, x.shape[-1]))
        forms = zip(x.shape[1:-1], self.kernel, self.strides, self.padding, strict=True)
        size = self.size or tuple((side - 1) * stride - 2 * pixels + k for side, k, stride, pixels in forms)
        return _shifted(self, convolve_transpose(x, kernel, self.strides, self.padding, size))


def _scaled(variance):
    """An initialiser: normal numbers cut off at two standard deviations, of this variance after that."""

    def draw(key, shape):
        # In a row, as XLA takes several times as long to compile draws along four axes.
        numbers = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),)).reshape(shape)
        return numbers * (jnp.sqrt(jnp.asarray(variance, numbers.dtype)) / jnp.asarray(_TRUNCATED, numbers.dtype))

    return draw


def _shifted(module, x):
    if not module.use_bias:
        return x
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
