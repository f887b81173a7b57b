"""Convolutions as matrix products over patches, on images [C, H, W, N] and kernels [C, kh, kw, F].

With channels first and examples last, a convolution is a plain matrix product without transposes, and all other loops
run along contiguous examples, even if there are few channels.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def down(x, kernel, form):
    """Convolve: [C, H, W, N] -> [F, rows, columns, N]."""
    features = kernel.shape[-1]
    return (kernel.reshape(-1, features).T @ _patches(x, form)).reshape(features, *form.output_size, -1)


def down_tangent(x, kernel, form):
    """Convolve by strided slices instead of a gather.

    This is slower than ``down``, but its transpose as a map of x is a sum of pads, like ``up``.
    """
    channels, *_, n = x.shape
    (rows, columns), (down, across) = form.output_size, form.strides
    ends = [(before, after, 0) for before, after in form.ends]
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0)))

    def pixels_under(i, j):
        limits = (channels, i + down * (rows - 1) + 1, j + across * (columns - 1) + 1, n)
        return lax.slice(x, (0, i, j, 0), limits, (1, down, across, 1))

    pixels = jnp.stack([pixels_under(i, j) for i in range(form.kernel[0]) for j in range(form.kernel[1])], axis=1)
    flat = kernel.reshape(-1, kernel.shape[-1])
    return (flat.T @ pixels.reshape(len(flat), -1)).reshape(-1, rows, columns, n)


def up(y, kernel, form):
    """Apply the transpose of ``down``: [F, rows, columns, N] -> [C, H, W, N]."""
    patches = kernel.reshape(-1, kernel.shape[-1]) @ y.reshape(y.shape[0], -1)
    return _overlap(patches.reshape(*kernel.shape[:3], *y.shape[1:]), form)


def correlate(x, y, form):
    """Return the gradient of the kernel: [C, kh, kw, F]."""
    gradient = _patches(x, form) @ y.reshape(y.shape[0], -1).T
    return gradient.reshape(x.shape[0], *form.kernel, y.shape[0])


def in_memory(x):
    """Force x to be written to memory in the order of its axes.

    Otherwise XLA fuses the loop that computes x with its consumers, which costs a division per index.
    """
    return with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))


def _patches(x, form):
    """Return the pixels under the kernel for each output pixel: [C, H, W, N] -> [C kh kw, rows columns N]."""
    channels, *_, n = x.shape
    if form.is_pointwise:
        return x.reshape(channels, -1)
    pixels = jnp.pad(x.reshape(channels, -1, n), ((0, 0), (0, 1), (0, 0)))[:, _sources(form)]
    return in_memory(pixels).reshape(channels * form.kernel[0] * form.kernel[1], -1)


def _sources(form):
    """Return the positions of each output pixel's inputs in a flattened image: [kh, kw, rows, columns].

    Padding has position ``height * width``, behind the last pixel.
    """
    sides = zip(form.output_size, form.kernel, form.strides, form.padding)
    row, column = (stride * np.arange(side) + np.arange(k)[:, None] - pixels for side, k, stride, pixels in sides)
    row, column = row[:, None, :, None], column[None, :, None, :]
    height, width = form.size
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return np.where(inside, row * width + column, height * width)


def _overlap(patches, form):
    """Sum overlapping patches, the transpose of _patches: [C, kh, kw, rows, columns, N] -> [C, H, W, N]."""
    zero = jnp.zeros((), patches.dtype)

    def placed(*offsets):
        shifts = []
        for offset, (rows, side, _, stride, pixels) in zip(offsets, zip(form.output_size, *form)):
            before = offset - pixels
            shifts.append((before, side - before - (rows - 1) * stride - 1, stride - 1))
        return lax.pad(patches[:, *offsets], zero, ((0, 0, 0), *shifts, (0, 0, 0)))

    return in_memory(sum(placed(i, j) for i in range(form.kernel[0]) for j in range(form.kernel[1])))
