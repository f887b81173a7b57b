"""Strided convolutions and their transposes, computed the way that suits the backend.

Both layers have a 3 x 3 kernel, stride 2 and padding 1: a side of n becomes ceil(n / 2), and back. They
are adjoint, so three linear maps carry everything, each the derivative of the two others: ``down``
(convolution), ``up`` (its transpose) and ``correlate`` (gradient of the kernel). XLA's CPU backend is slow
at strided convolutions and fast at matrix products, hence the second formulation of the three.
"""

import functools
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from mmvm_jax.types import Array

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Row 2i of a transposed convolution sees kernel row 1 over input row i; row 2i + 1 sees kernel row 2 over
# input row i and kernel row 0 over input row i + 1. {parity: ((shift, kernel row), ...)}, columns alike.
_TAPS = {0: ((0, 1),), 1: ((0, 2), (1, 0))}


def half(size):
    """The side that a stride of two leaves of a side: ceil(size / 2)."""
    return (size + 1) // 2


def formulation(backend):
    """How convolutions run on a backend: "matrix" or "convolution"."""
    return "matrix" if backend == "cpu" else "convolution"


def convolve(x, kernel):
    """Convolution with stride 2 and padding 1.

    Args:
      x: [N, H, W, C].
      kernel: [3, 3, C, F].

    Returns:
      [N, ceil(H / 2), ceil(W / 2), F].
    """
    if formulation(jax.default_backend()) == "matrix":
        return convolve_by_matrix(x, kernel)
    return convolve_by_convolution(x, kernel)


def convolve_transpose(y, kernel, size):
    """Transpose of ``convolve`` as a map of x.

    Args:
      y: [N, ceil(H / 2), ceil(W / 2), F].
      kernel: [3, 3, C, F].
      size: (H, W).

    Returns:
      [N, H, W, C].
    """
    if formulation(jax.default_backend()) == "matrix":
        return convolve_transpose_by_matrix(y, kernel, size)
    return convolve_transpose_by_convolution(y, kernel, size)


def convolve_by_convolution(x, kernel):
    """``convolve`` through XLA's convolution."""
    padding = [(1, 2 * half(side) - side) for side in x.shape[1:3]]
    return lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=_DIMENSIONS)


def convolve_transpose_by_convolution(y, kernel, size):
    """``convolve_transpose`` through XLA's convolution."""
    padding = [(1, 1 + side - (2 * rows - 1)) for side, rows in zip(size, y.shape[1:3])]
    return lax.conv_transpose(
        y, kernel, (2, 2), padding, dimension_numbers=_DIMENSIONS, transpose_kernel=True
    )


def _patches(x):
    """The nine pixels that each output pixel of a convolution sees: [N, ceil(H / 2), ceil(W / 2), 9 C]."""
    rows, columns = half(x.shape[1]), half(x.shape[2])
    x = jnp.pad(x, ((0, 0), (1, 2 * rows - x.shape[1]), (1, 2 * columns - x.shape[2]), (0, 0)))
    pixels = [x[:, i : i + 2 * rows - 1 : 2, j : j + 2 * columns - 1 : 2] for i, j in product(range(3), repeat=2)]
    return jnp.concatenate(pixels, axis=-1)


def _down(x, kernel):
    return _patches(x) @ kernel.reshape(-1, kernel.shape[-1])


def _up(y, kernel, size):
    """One matrix product for each parity of the output's row and column, interleaved."""
    n, rows, columns, _ = y.shape
    y = jnp.pad(y, ((0, 0), (0, 1), (0, 1), (0, 0)))

    def pixels(row_parity, column_parity):
        taps = list(product(_TAPS[row_parity], _TAPS[column_parity]))
        seen = jnp.concatenate([y[:, r : r + rows, c : c + columns] for (r, _), (c, _) in taps], axis=-1)
        return seen @ jnp.concatenate([kernel[i, j].T for (_, i), (_, j) in taps])

    x = jnp.stack([jnp.stack([pixels(r, c) for c in (0, 1)], axis=3) for r in (0, 1)], axis=2)
    return x.reshape(n, 2 * rows, 2 * columns, -1)[:, : size[0], : size[1]]


def _correlate(x, y):
    """Gradient of the kernel, from x [N, H, W, C] and the cotangent y of ``convolve(x, kernel)``."""
    gradient = jnp.einsum("nhwp,nhwf->pf", _patches(x), y)
    return gradient.reshape(3, 3, x.shape[-1], y.shape[-1])


@jax.custom_vjp
def convolve_by_matrix(x, kernel):
    """``convolve`` as patches times a matrix."""
    return _down(x, kernel)


convolve_by_matrix.defvjp(
    lambda x, kernel: (_down(x, kernel), (x, kernel)),
    lambda saved, y: (_up(y, saved[1], saved[0].shape[1:3]), _correlate(saved[0], y)),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve_transpose_by_matrix(y, kernel, size):
    """``convolve_transpose`` as one matrix product for each parity of the output pixel."""
    return _up(y, kernel, size)


convolve_transpose_by_matrix.defvjp(
    lambda y, kernel, size: (_up(y, kernel, size), (y, kernel)),
    lambda size, saved, x: (_down(x, saved[1]), _correlate(x, saved[0])),
)


class Conv(nn.Module):
    """3 x 3 convolution with stride 2, padding 1 and bias: [N, H, W, C] -> [N, ceil(H/2), ceil(W/2), features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(x, kernel) + bias[None, None, None]


class ConvTranspose(nn.Module):
    """Transpose of ``Conv``, with bias: [N, ceil(H / 2), ceil(W / 2), C] -> [N, H, W, features], size = (H, W).

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
        return convolve_transpose(x, kernel, self.size) + bias[None, None, None]
