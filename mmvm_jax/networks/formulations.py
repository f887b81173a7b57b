"""Convolutions and transposed convolutions, computed by a formulation that depends on backend and layer.

A convolution is linear in its input and in its kernel. Hence three maps are enough to compute it, its transpose and
all their gradients: ``down`` (the convolution), ``up`` (its transpose) and ``correlate`` (the gradient of the kernel).
Each formulation implements them for speed, since JAX's own derivatives would be slow. They are connected by
forward-mode rules, from which JAX also derives reverse mode.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax import lax
from jax.custom_derivatives import SymbolicZero

from mmvm_jax.networks import patches, winograd
from mmvm_jax.networks.patches import in_memory

_MANY_RUNS = contextvars.ContextVar("many_runs", default=False)
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class Form(NamedTuple):
    """Geometry of a convolution. All fields are pairs, for rows and columns."""

    size: tuple[int, int]  # of the input
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int]  # on both ends

    @property
    def output_size(self) -> tuple[int, int]:
        rows, columns = ((side + 2 * pixels - k) // stride + 1 for side, k, stride, pixels in zip(*self))
        return rows, columns

    @property
    def is_pointwise(self) -> bool:
        """Whether every output reads only the input at its own position."""
        return self.kernel == self.strides == (1, 1) and self.padding == (0, 0)

    @property
    def ends(self) -> list[tuple[int, int]]:
        """Padding before and after. The latter ends where the last output reads; negative if inputs are unused."""
        sides = zip(self.output_size, *self)
        return [(p, (outputs - 1) * stride + k - side - p) for outputs, side, k, stride, p in sides]


def convolve(x, kernel, strides, padding):
    """Convolve images or sequences, with equal padding on both ends.

    Args:
      x: [N, *sides, C], with one or two sides.
      kernel: [*kernel sides, C, F].
      strides: one per side.
      padding: one per side, in pixels on each end.

    Returns:
      [N, *sides', F], where side' = (side + 2 padding - kernel) // stride + 1.
    """
    form, (x, kernel) = _as_images(x.shape[1:-1], strides, padding, x, kernel)
    chosen = formulation(jax.default_backend(), form, kernel)
    y = FORMULATIONS[chosen][0](x, kernel, form)
    return y if len(strides) == 2 else y[:, 0]


def convolve_transpose(y, kernel, strides, padding, size):
    """Apply the transpose of ``convolve`` as a linear map of x.

    Args:
      y: [N, *sides', F].
      kernel: [*kernel sides, C, F].
      strides: one per side.
      padding: one per side, in pixels on each end.
      size: the sides of the result.

    Returns:
      [N, *sides, C].
    """
    form, (y, kernel) = _as_images(size, strides, padding, y, kernel)
    chosen = formulation(jax.default_backend(), form, kernel)
    x = FORMULATIONS[chosen][1](y, kernel, form)
    return x if len(strides) == 2 else x[:, 0]


def _as_images(size, strides, padding, images, kernel):
    """Return the geometry, and images and kernel with two sides: a sequence becomes an image of one row."""
    if len(strides) == 1:
        size, strides, padding = (1, *size), (1, *strides), (0, *padding)
        images, kernel = images[:, None], kernel[None]
    return Form(tuple(size), kernel.shape[:2], tuple(strides), tuple(padding)), (images, kernel)


@contextlib.contextmanager
def for_many_runs() -> Iterator[None]:
    """Trace programs for many runs side by side, with ``vmap`` over all kernels."""
    token = _MANY_RUNS.set(True)
    try:
        yield
    finally:
        _MANY_RUNS.reset(token)


def many_runs() -> bool:
    """Return whether a program for many runs is being traced."""
    return _MANY_RUNS.get()


def formulation(backend: str, form: Form, kernel) -> str:
    """Return the formulation of a convolution on a backend: a key of ``FORMULATIONS``.

    XLA's CPU backend is slow for gradients of kernels, for transposed convolutions, and for the grouped convolutions
    that result from ``vmap`` over kernels. On CPUs, Winograd's algorithm is fastest for images of more than 8 pixels
    per side (tiles of 4 x 4 waste little) and 16 or more channels (which outweigh the transforms). The transforms lose
    about one decimal digit, too much for bfloat16. Timings: ``docs/notes/performance.md``. On a GPU, twelve runs side
    by side take a quarter of the time with patches (``benchmarks/README.md``); other backends were not measured.
    """
    if backend != "cpu":
        return "patches" if backend == "gpu" and many_runs() else "convolution"
    is_plain = form.kernel == (3, 3) and form.strides == (1, 1) and kernel.dtype.itemsize >= 4
    return "winograd" if is_plain and min(form.output_size) > 8 and min(kernel.shape[2:]) >= 16 else "patches"


def _convolution(x, kernel, form):
    return lax.conv_general_dilated(x, kernel, form.strides, form.ends, dimension_numbers=_DIMENSIONS)


def _transposed_convolution(y, kernel, form):
    ends = [tuple(k - 1 - pixels for pixels in end) for k, end in zip(form.kernel, form.ends)]
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    return lax.conv_general_dilated(y, flipped, (1, 1), ends, lhs_dilation=form.strides, dimension_numbers=_DIMENSIONS)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _down(maps, form, x, kernel):
    return maps.down(x, kernel, form)


@functools.partial(_down.defjvp, symbolic_zeros=True)
def _down_jvp(maps, form, primals, tangents):
    (x, kernel), y = primals, maps.down(*primals, form)
    of_x = lambda x: in_memory(maps.down_tangent(x, kernel, form))
    of_kernel = _transpose(lambda y: maps.correlate(x, in_memory(y), form), y)
    return y, _sum_of_tangents((of_x, of_kernel), tangents)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _up(maps, form, y, kernel):
    return maps.up(y, kernel, form)


@functools.partial(_up.defjvp, symbolic_zeros=True)
def _up_jvp(maps, form, primals, tangents):
    (y, kernel), x = primals, maps.up(*primals, form)
    of_y = _transpose(lambda x: maps.down(in_memory(x), kernel, form), x)
    of_kernel = _transpose(lambda x: maps.correlate(in_memory(x), y, form), x)
    return x, _sum_of_tangents((of_y, of_kernel), tangents)


def _transpose(gradient, output):
    """Return the map of tangents whose transpose is ``gradient``, the linear map from cotangents to the gradient.

    Backpropagation transposes it again, and so computes the gradient by ``gradient`` itself.
    """
    return lambda tangent: jax.linear_transpose(gradient, output)(tangent)[0]


def _sum_of_tangents(functions, tangents):
    pairs = zip(functions, tangents, strict=True)
    return sum(function(tangent) for function, tangent in pairs if not isinstance(tangent, SymbolicZero))


def _examples_last(function, maps):
    """Return a map of images [N, H, W, C] and kernels [kh, kw, C, F], given one of [C, H, W, N] and [C, kh, kw, F].

    Between two layers XLA keeps the latter order in memory, so only the first and the last layer are transposed.
    """

    def run(images, kernel, form):
        images = function(maps, form, images.transpose(3, 1, 2, 0), kernel.transpose(2, 0, 1, 3))
        return images.transpose(3, 1, 2, 0)

    return run


FORMULATIONS = {
    "convolution": (_convolution, _transposed_convolution),
    "patches": (_examples_last(_down, patches), _examples_last(_up, patches)),
    "winograd": (_examples_last(_down, winograd), _examples_last(_up, winograd)),
}
