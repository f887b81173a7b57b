"""Convolutions and their transposes, padding as in PyTorch, with initial kernels that keep the scale.

By default they halve images and bring them back. How they are computed is decided in ``formulations``.

A ReLU halves the second moment of what it is given; ``gain`` is the variance that a kernel gives its output
in return: 2 (He's initialiser), or 1 where no ReLU came before.
"""

import math

import flax.linen as nn

from mmvm_jax.networks.formulations import convolve, convolve_transpose
from mmvm_jax.types import Array

Sides = tuple[int, ...]  # one number for each side


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
        initializer = nn.initializers.variance_scaling(self.gain, "fan_in", "truncated_normal")
        kernel = self.param("kernel", initializer, (*self.kernel, x.shape[-1], self.features))
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
        scale = self.gain * math.prod(self.strides)
        initializer = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2)
        kernel = self.param("kernel", initializer, (*self.kernel, self.features, x.shape[-1]))
        forms = zip(x.shape[1:-1], self.kernel, self.strides, self.padding, strict=True)
        size = self.size or tuple((side - 1) * stride - 2 * pixels + k for side, k, stride, pixels in forms)
        return _shifted(self, convolve_transpose(x, kernel, self.strides, self.padding, size))


def _shifted(module, x):
    if not module.use_bias:
        return x
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return x + bias.reshape((1,) * (x.ndim - 1) + bias.shape)
