"""Strided convolutions and their transposes, computed the way that suits the backend.

Both layers have a 3 x 3 kernel, stride 2 and padding 1: a side of n becomes ceil(n / 2), and back. They are
adjoint, so three linear maps carry everything, each the derivative of the other two: ``_down`` (convolution),
``_up`` (its transpose) and ``_correlate`` (gradient of the kernel).

The matrix formulation works on images [C, H, W, N], channels first and examples last: a convolution is then a
plain matrix product with nothing transposed, and every loop beside it runs along contiguous examples, however
few channels there are. Between two layers XLA keeps that order in memory, so only the first and last transpose.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from mmvm_jax.types import Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def half(side):
    """The side that a stride of two leaves of a side: ceil(side / 2)."""
    return (side + 1) // 2


def formulation(backend):
    """How convolutions run on a backend: a key of ``FORMULATIONS``.

    XLA's CPU backend has no fast path for the kernel gradient of a transposed convolution (30 times the
    matrix product) nor for the grouped convolution that ``vmap`` over kernels makes (10 times).
    """
    return "matrix" if backend == "cpu" else "convolution"


def convolve(x, kernel, bias):
    """Convolution with stride 2 and padding 1.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, F].
      bias: [F].

    Returns:
      [N, ceil(H / 2), ceil(W / 2), F].
    """
    return FORMULATIONS[formulation(jax.default_backend())][0](x, kernel, bias)


def convolve_transpose(y, kernel, bias, size):
    """Transpose of ``convolve`` as a map of x, plus a bias.

    Args:
      y: [N, ceil(H / 2), ceil(W / 2), F].
      kernel: [3, 3, C, F].
      bias: [C].
      size: (H, W).

    Returns:
      [N, H, W, C].
    """
    return FORMULATIONS[formulation(jax.default_backend())][1](y, kernel, bias, size)


class Conv(nn.Module):
    """3 x 3 convolution with stride 2, padding 1: [N, H, W, C] -> [N, ceil(H / 2), ceil(W / 2), features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(x, kernel, bias)


class ConvTranspose(nn.Module):
    """Transpose of ``Conv``: [N, ceil(H / 2), ceil(W / 2), C] -> [N, H, W, features], where size = (H, W).

    ``gain`` is the variance that the initial kernel gives its output: 2 before a ReLU, which halves it.
    """

    features: int
    size: tuple[int, int]
    gain: float = 2.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # An output pixel sees 9 / 4 of the nine kernel pixels on average, so the fan-in is a quarter of 9 C.
        initializer = nn.initializers.variance_scaling(
            4 * self.gain, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
        )
        kernel = self.param("kernel", initializer, (3, 3, self.features, x.shape[-1]))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve_transpose(x, kernel, bias, self.size)


def _convolve_by_convolution(x, kernel, bias):
    padding = [(1, 2 * half(side) - side) for side in x.shape[1:3]]
    y = lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=_DIMENSIONS)
    return y + bias[None, None, None]


def _transpose_by_convolution(y, kernel, bias, size):
    padding = [(1, 2 + side - 2 * rows) for side, rows in zip(size, y.shape[1:3], strict=True)]
    x = lax.conv_transpose(y, kernel, (2, 2), padding, dimension_numbers=_DIMENSIONS, transpose_kernel=True)
    return x + bias[None, None, None]


def _in_memory(x):
    """x, written to memory in the order of its axes.

    Left alone, XLA merges the loop that fills x with what reads it, at the cost of a division for every index.
    """
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _sources(height, width):
    """Where in a flattened image each output pixel finds its nine inputs: [3, 3, rows, columns].

    Padding is pixel ``height * width``, which does not exist.
    """
    row, column = (2 * np.arange(half(side)) + np.arange(-1, 2)[:, None] for side in (height, width))
    row, column = row[:, None, :, None], column[None, :, None, :]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside, row * width + column, height * width)


def _patches(x):
    """The nine pixels under the kernel, for each output pixel: [C, H, W, N] -> [9 C, rows * columns * N]."""
    channels, height, width, n = x.shape
    pixels = x.reshape(channels, -1, n).at[:, _sources(height, width)].get(mode="fill", fill_value=0)
    return _in_memory(pixels).reshape(9 * channels, -1)


def _overlap(patches, size):
    """Adds patches [C, 3, 3, rows, columns, N] where they overlap: [C, *size, N], the transpose of _patches."""
    zero = jnp.zeros((), patches.dtype)
    sides = list(zip(size, patches.shape[3:5], strict=True))

    def placed(*offsets):
        shifts = [(i - 1, side - 2 * rows + 2 - i, 1) for i, (side, rows) in zip(offsets, sides, strict=True)]
        return lax.pad(patches[:, *offsets], zero, ((0, 0, 0), *shifts, (0, 0, 0)))

    return _in_memory(sum(placed(i, j) for i in range(3) for j in range(3)))


def _down(x, kernel):
    _, height, width, n = x.shape
    features = kernel.shape[-1]
    y = kernel.reshape(-1, features).T @ _patches(x)
    return y.reshape(features, half(height), half(width), n)


def _up(y, kernel, size):
    patches = kernel.reshape(-1, kernel.shape[-1]) @ y.reshape(y.shape[0], -1)
    return _overlap(patches.reshape(*kernel.shape[:3], *y.shape[1:]), size)


def _correlate(x, y):
    gradient = _patches(x) @ y.reshape(y.shape[0], -1).T
    return gradient.reshape(x.shape[0], 3, 3, y.shape[0])


def _shifted(images, bias):
    return images + bias[:, None, None, None]


@jax.custom_vjp
def _convolve(x, kernel, bias):
    return _convolve_forward(x, kernel, bias)[0]


def _convolve_forward(x, kernel, bias):
    return _shifted(_down(x, kernel), bias), (x, kernel)


def _convolve_backward(saved, y):
    x, kernel = saved
    y = _in_memory(y)
    return _up(y, kernel, x.shape[1:3]), _correlate(x, y), y.sum((1, 2, 3))


_convolve.defvjp(_convolve_forward, _convolve_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _convolve_transpose(y, kernel, bias, size):
    return _convolve_transpose_forward(y, kernel, bias, size)[0]


def _convolve_transpose_forward(y, kernel, bias, size):
    return _shifted(_up(y, kernel, size), bias), (y, kernel)


def _convolve_transpose_backward(size, saved, x):
    y, kernel = saved
    x = _in_memory(x)
    return _down(x, kernel), _correlate(x, y), x.sum((1, 2, 3))


_convolve_transpose.defvjp(_convolve_transpose_forward, _convolve_transpose_backward)


def _examples_last(x):
    """[N, H, W, C] -> [C, H, W, N], and back."""
    return x.transpose(3, 1, 2, 0)


def _convolve_by_matrix(x, kernel, bias):
    return _examples_last(_convolve(_examples_last(x), kernel.transpose(2, 0, 1, 3), bias))


def _transpose_by_matrix(y, kernel, bias, size):
    y = _convolve_transpose(_examples_last(y), kernel.transpose(2, 0, 1, 3), bias, size)
    return _examples_last(y)


FORMULATIONS = {
    "matrix": (_convolve_by_matrix, _transpose_by_matrix),
    "convolution": (_convolve_by_convolution, _transpose_by_convolution),
}
