"""Convolutions and transposed convolutions with PyTorch's padding and initial kernels that preserve the scale.

By default a convolution halves the sides of an image, and a transposed convolution doubles them. ``formulations``
decides how they are computed.

``gain`` is the factor by which an initial kernel multiplies the second moment of its input. A ReLU halves the second
moment, so ``gain`` is 2 (He's initialiser) after a ReLU and 1 otherwise.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmvm_jax.networks.formulations import convolve, convolve_transpose
from mmvm_jax.types import Array

Sides = tuple[int, ...]  # one number per side

_TRUNCATED = 0.87962566103423978  # standard deviation of a standard normal variable truncated to -2 to 2


class Conv(nn.Module):
    """Convolve [N, *sides, C] -> [N, *sides', features], where side' = (side + 2 padding - kernel) // stride + 1."""

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
        return _with_bias(self, convolve(x.astype(kernel.dtype), kernel, self.strides, self.padding))


class ConvTranspose(nn.Module):
    """Transposed convolution [N, *sides, C] -> [N, *sides', features], side' = (side - 1) stride - 2 padding + kernel.

    Attributes:
      size: the output sides, if they are to be longer than side', by up to stride - 1 pixels.
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
        # Along each side, an output pixel receives only one in ``stride`` pixels of the kernel.
        variance = self.gain * math.prod(self.strides) / (math.prod(self.kernel) * x.shape[-1])
        kernel = self.param("kernel", _scaled(variance), (*self.kernel, self.features, x.shape[-1]))
        forms = zip(x.shape[1:-1], self.kernel, self.strides, self.padding, strict=True)
        size = self.size or tuple((side - 1) * stride - 2 * pixels + k for side, k, stride, pixels in forms)
        return _with_bias(self, convolve_transpose(x, kernel, self.strides, self.padding, size))


def _scaled(variance):
    """Return an initialiser: truncated normal numbers with the given variance."""

    def draw(key, shape):
        # Draw a flat array: XLA takes several times as long to compile draws along four axes.
        numbers = jax.random.truncated_normal(key, -2, 2, (math.prod(shape),)).reshape(shape)
        return numbers * (jnp.sqrt(jnp.asarray(variance, numbers.dtype)) / jnp.asarray(_TRUNCATED, numbers.dtype))

    return draw


def _with_bias(module, x):
    if not module.use_bias:
        return x
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
