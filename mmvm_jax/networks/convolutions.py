"""Convolutions and their transposes, padding as in PyTorch, with initial kernels that keep the scale.

A ReLU halves the second moment of what it is given; ``gain`` is the variance that a kernel gives its output
in return: 2 (He's initialiser), or 1 where no ReLU came before.
"""

import math

import flax.linen as nn

Sides = tuple[int, ...]  # one number for each side


def convolution(
    features: int, kernel: Sides, strides: Sides, padding: Sides, use_bias: bool = True, gain: float = 2.0
) -> nn.Module:
    """[N, *sides, C] -> [N, *sides', features], where side' = (side + 2 padding - kernel) // stride + 1."""
    ends = [(pixels, pixels) for pixels in padding]
    initializer = nn.initializers.variance_scaling(gain, "fan_in", "truncated_normal")
    return nn.Conv(features, kernel, strides, ends, use_bias=use_bias, kernel_init=initializer)


def transposed_convolution(
    features: int, kernel: Sides, strides: Sides, padding: Sides, use_bias: bool = True, gain: float = 2.0
) -> nn.Module:
    """[N, *sides, C] -> [N, *sides', features], where side' = (side - 1) stride - 2 padding + kernel."""
    ends = [(size - 1 - pixels,) * 2 for size, pixels in zip(kernel, padding)]
    # An output pixel sees but one in ``stride`` of the kernel's pixels along a side.
    scale = gain * math.prod(strides)
    initializer = nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
    return nn.ConvTranspose(features, kernel, strides, ends, use_bias=use_bias, kernel_init=initializer)
