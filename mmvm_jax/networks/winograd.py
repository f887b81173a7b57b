"""Winograd's algorithm: 3 x 3 convolutions of stride 1 with a quarter of the multiplications, on images [C, H, W, N].

The output is cut into tiles of 4 x 4 pixels, each of which reads 6 x 6 inputs. After linear transforms of inputs and
kernel, the convolution is 36 matrix products over channels, one per position in a transformed tile; another linear
transform gives the outputs.

Source: Lavin & Gray 2016, arXiv 1509.09308, F(4 x 4, 3 x 3).
"""

import jax.numpy as jnp
import numpy as np
from jax import lax

from mmvm_jax.networks.patches import in_memory

_TILE, _READ = 4, 6
_INPUT = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
_KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
_OUTPUT = np.array([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def down(x, kernel, form):
    """Convolve: [C, H, W, N] -> [F, rows, columns, N]."""
    inputs = _transformed_inputs(x, form)
    kernels = _both_sides("ia,jb,cabf->ijfc", kernel)
    products = jnp.einsum("ijfc,ijcp->ijfp", kernels, inputs.reshape(*inputs.shape[:3], -1))
    return _outputs(products.reshape(_READ, _READ, -1, *inputs.shape[3:]), form)


down_tangent = down  # its transpose is as fast as ``up``


def up(y, kernel, form):
    """Apply the transpose of ``down``, a convolution with the flipped kernel: [F, rows, columns, N] -> [C, H, W, N]."""
    padding = tuple(2 - pixels for pixels in form.padding)
    return down(y, kernel[:, ::-1, ::-1].transpose(3, 1, 2, 0), form._replace(size=form.output_size, padding=padding))


def correlate(x, y, form):
    """Return the gradient of the kernel: [C, 3, 3, F]."""
    inputs, outputs = _transformed_inputs(x, form), _transformed_outputs(y, form)
    flat = lambda tiles: tiles.reshape(*tiles.shape[:3], -1)
    products = jnp.einsum("ijcp,ijfp->ijcf", flat(inputs), flat(outputs))
    return _both_sides("ia,jb,ijcf->cabf", products)


def _both_sides(equation, array):
    transform = jnp.asarray(_KERNEL, array.dtype)
    return jnp.einsum(equation, transform, transform, array)


def _num_tiles(form):
    return [-(-side // _TILE) for side in form.output_size]


def _transformed_inputs(x, form):
    """Cut images into overlapping tiles and transform them: [C, H, W, N] -> [6, 6, C, tiles, tiles, N]."""
    counts = _num_tiles(form)
    ends = [(p, _TILE * count + 2 - side - p, 0) for p, count, side in zip(form.padding, counts, form.size)]
    x = _padded(x, ends)
    rows, columns = (slice(0, _TILE * (count - 1) + 1, _TILE) for count in counts)
    shifted = lambda part, k: slice(part.start + k, part.stop + k, part.step)
    x = _combined(_INPUT, [x[:, shifted(rows, k)] for k in range(_READ)], 0)
    return _combined(_INPUT, [x[:, :, :, shifted(columns, k)] for k in range(_READ)], 1)


def _transformed_outputs(y, form):
    """Apply the transpose of ``_outputs``: [F, rows, columns, N] -> [6, 6, F, tiles, tiles, N]."""
    counts = _num_tiles(form)
    y = _padded(y, [(0, _TILE * count - side, 0) for count, side in zip(counts, form.output_size)])
    y = y.reshape(y.shape[0], counts[0], _TILE, counts[1], _TILE, -1)
    y = _combined(_OUTPUT.T, [y[:, :, k] for k in range(_TILE)], 0)
    return _combined(_OUTPUT.T, [y[:, :, :, :, k] for k in range(_TILE)], 1)


def _outputs(products, form):
    """Transform the products back and join the tiles: [6, 6, F, tiles, tiles, N] -> [F, rows, columns, N]."""
    _, _, features, down, across, n = products.shape
    y = _combined(_OUTPUT, [products[:, k] for k in range(_READ)], 4)
    y = _combined(_OUTPUT, list(y), 2).reshape(features, _TILE * down, _TILE * across, n)
    return y[:, : form.output_size[0], : form.output_size[1]]


def _padded(x, ends):
    return in_memory(lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *ends, (0, 0, 0))))


def _combined(transform, parts, axis):
    """Return weighted sums of the parts, one per row of the transform, along a new axis."""
    shape = [1] * (parts[0].ndim + 1)
    shape[axis] = len(transform)
    weights = jnp.asarray(transform, parts[0].dtype)
    return in_memory(sum(weights[:, k].reshape(shape) * jnp.expand_dims(part, axis) for k, part in enumerate(parts)))
