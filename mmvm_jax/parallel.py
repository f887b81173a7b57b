"""Devices: the only file that knows how many there are and how work is spread over them.

State is the same on all devices and a batch is cut along its examples. Sums, never means, leave a device, and the
division happens once, after the sums are added up: masks may differ from device to device.
"""

import functools
from collections.abc import Callable

import jax
import numpy as np

from mmvm_jax.errors import UserError
from mmvm_jax.types import Batch

_AXIS = "devices"


def num_devices() -> int:
    """Devices that share a batch."""
    return jax.local_device_count()


def check_batch_size(batch_size: int, field: str) -> None:
    """Raises UserError unless the devices divide the batch."""
    if batch_size < 1 or batch_size % num_devices():
        raise UserError(f"{field} is {batch_size}; allowed: a positive multiple of the {num_devices()} devices")


def largest_batch_size(wanted: int, num_examples: int) -> int:
    """The largest batch size up to ``wanted`` that the devices divide and the examples fill."""
    devices = num_devices()
    return max(min(wanted, num_examples) // devices, 1) * devices


def on_this_machine(tree):
    """Types and shapes of arrays that are to lie on a device of this process, wherever they lay before."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def sum_over_devices(tree):
    """The sum of every leaf over all devices; to be called inside ``spread``."""
    return jax.lax.psum(tree, _AXIS)


def spread(function: Callable, reduced: bool) -> Callable:
    """Runs ``function(state, batch, *rest)`` on all devices, each with its share of the examples.

    Args:
      function: of a state that all devices share, a ``Batch`` and further arguments that all devices share.
      reduced: whether every output has been made equal on all devices by ``sum_over_devices``. If not, outputs
        must have the examples as their first axis, and they come back put together.

    Returns:
      A function of the same arguments, with the whole batch.
    """
    compiled = functools.cache(lambda num_rest: _pmap(function, num_rest, reduced))
    # Several CPU devices share their threads: with two sums over devices under way, each may wait for the other.
    one_at_a_time = jax.default_backend() == "cpu" and num_devices() > 1

    def run(state, batch: Batch, *rest):
        output = compiled(len(rest))(state, _shard(batch), *rest)
        if one_at_a_time:
            jax.block_until_ready(output)
        return output if reduced else jax.tree.map(_unshard, output)

    return run


def _pmap(function, num_rest, reduced):
    return jax.pmap(
        function,
        axis_name=_AXIS,
        in_axes=(None, 0, *(None,) * num_rest),
        out_axes=None if reduced else 0,
    )


def _shard(batch: Batch) -> Batch:
    """Cuts a host batch along its examples: a leading axis of devices on every leaf."""
    devices = num_devices()
    cut = lambda leaf: np.asarray(leaf).reshape(devices, -1, *leaf.shape[1:])
    present = np.moveaxis(cut(np.asarray(batch.present).T), -1, 1)
    return jax.tree.map(cut, batch._replace(present=batch.index))._replace(present=present)


def _unshard(leaf):
    """[devices, B / devices, ...] -> [B, ...] on the host."""
    return np.asarray(leaf).reshape(-1, *leaf.shape[2:])
