"""Devices: how work is spread over them and summed.

State is the same on all devices and a batch is cut along its examples. What leaves a device is sums, or shares of a
mean over the whole batch, never means over the device's own examples: masks may differ from device to device.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmvm_jax.errors import UserError
from mmvm_jax.runtime.processes import num_processes
from mmvm_jax.types import Batch

_AXIS = "devices"


_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)


def keep_freed_memory() -> None:
    """On a CPU, lets the C library keep the memory that one step frees for the next.

    Otherwise the system clears it anew, 4 KB at a time, for every step: a tenth of the small CNN's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if jax.default_backend() == "cpu" and mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_MMAP_MAX, 0)


def num_devices() -> int:
    """Devices, of all processes, that share a batch."""
    return jax.device_count()


def check_batch_size(batch_size: int, field: str, pieces: int = 1) -> None:
    """Raises UserError unless the devices divide the batch, and their shares into so many pieces."""
    if batch_size < 1 or batch_size % (num_devices() * pieces):
        extra = f" x {pieces} pieces (config.train.accumulate)" if pieces > 1 else ""
        raise UserError(f"{field} is {batch_size}; allowed: a positive multiple of the {num_devices()} devices{extra}")


def largest_batch_size(wanted: int, num_examples: int) -> int:
    """The largest batch size up to ``wanted`` that the devices divide and the examples fill."""
    devices = num_devices()
    return max(min(wanted, num_examples) // devices, 1) * devices


def on_all_devices(tree):
    """The same arrays on every device of this process, placed as functions that are ``spread`` return theirs.

    A state that is placed otherwise makes JAX compile twice: for the first call, and for all others.
    """
    replicated = NamedSharding(Mesh(np.array(jax.local_devices()[: _num_local()]), (_AXIS,)), PartitionSpec())
    return jax.device_put(tree, replicated)


def sum_over_devices(tree):
    """The sum of every leaf over all devices; to be called inside what is ``spread``."""
    return tree if num_devices() == 1 else jax.lax.psum(tree, _AXIS)  # XLA would copy what it sums


def on_each_device(function: Callable, *arguments):
    """Runs ``function(*arguments)`` on every device of this process, with the same arguments.

    Returns:
      Its outputs on the host, with a leading axis of devices.
    """
    local = jax.local_devices()[: _num_local()]
    in_axes = (0, *(None,) * len(arguments))  # pmap wants an argument that is mapped
    one = lambda _, *arguments: function(*arguments)
    # Without a name JAX names the axis by an address, which makes another program of it in every process.
    run = jax.pmap(one, axis_name=_AXIS, in_axes=in_axes, devices=local)
    return jax.tree.map(np.asarray, run(np.arange(len(local)), *arguments))


def spread(function: Callable, reduced: bool) -> Callable:
    """Runs ``function(state, batch, *rest)`` on all devices, each with its share of the examples.

    Args:
      function: of a state that all devices share, a ``Batch`` and further arguments that all devices share.
      reduced: whether every output has been made equal on all devices by ``sum_over_devices``. If not, outputs
        must have the examples as their first axis, and they come back put together, of all processes.

    Returns:
      A function of the same arguments, with the rows of the batch that are this process's ``share``.
    """
    compiled = functools.cache(lambda num_rest: _pmap(function, num_rest, reduced))

    def run(state, batch: Batch, *rest):
        output = _one_at_a_time(compiled(len(rest))(state, _cut(batch), *rest))
        return output if reduced else _from_all(jax.tree.map(_put_together, output))

    return run


def spread_steps(step: Callable, read: Callable) -> Callable:
    """Runs several steps in one program on all devices.

    Args:
      step: (state, batch, hyper) -> (state, metrics), both made equal on all devices by ``sum_over_devices``.
      read: (table, item) -> the device's ``Batch``; an item is a device's part of what one step is given.

    Returns:
      (state, items, table, hyper, flag) -> (state, metrics, raised). ``items`` is a list, an item a step, with the
      rows that are this process's ``share``; ``table`` comes from ``on_all_devices``. Of the metrics, the leaves
      have the steps as their first axis. ``raised`` is above 0 where the flag was set in any process.
    """

    def steps(state, items, flags, table, hyper):
        def one(state, item_and_flag):
            item, flag = item_and_flag
            state, metrics = step(state, read(table, item), hyper)
            # Processes may compute sums that do not depend on each other in different orders, and then mix them up. So
            # the flag is made to depend on the metrics: no number is both NaN and infinite, but XLA does not know it.
            first = jax.tree.leaves(metrics)[0]
            never = jnp.any(jnp.isnan(first) & jnp.isinf(first))
            return state, (metrics, sum_over_devices(flag + never))

        state, (metrics, raised) = jax.lax.scan(one, state, (items, flags))
        return state, metrics, raised.sum()

    compiled = jax.pmap(steps, axis_name=_AXIS, in_axes=(None, 0, 0, None, None), out_axes=None)

    def run(state, items: Sequence, table, hyper, flag: bool):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves, axis=1), *map(_cut, items))
        flags = np.full((_num_local(), len(items)), flag, np.int32)
        return _one_at_a_time(compiled(state, stacked, flags, table, hyper))

    return run


def _pmap(function, num_rest, reduced):
    return jax.pmap(
        function,
        axis_name=_AXIS,
        in_axes=(None, 0, *(None,) * num_rest),
        out_axes=None if reduced else 0,
    )


def _one_at_a_time(output):
    """Several CPU devices share their threads: with two sums over them under way, each may wait for the other."""
    return jax.block_until_ready(output) if jax.default_backend() == "cpu" and num_devices() > 1 else output


def _num_local() -> int:
    return num_devices() // num_processes()


def _cut(item):
    """Cuts host arrays along their examples: a leading axis of devices on every leaf."""
    devices = _num_local()
    cut = lambda leaf: np.asarray(leaf).reshape(devices, -1, *leaf.shape[1:])
    if not isinstance(item, Batch):
        return jax.tree.map(cut, item)
    present = np.moveaxis(cut(np.asarray(item.present).T), -1, 1)
    return jax.tree.map(cut, item._replace(present=item.index))._replace(present=present)


def _put_together(leaf):
    """[devices, B / devices, ...] -> [B, ...] on the host."""
    return np.asarray(leaf).reshape(-1, *leaf.shape[2:])


def _from_all(tree):
    """Rows of this process -> those of all, in the order of their shares."""
    return tree if num_processes() == 1 else multihost_utils.process_allgather(tree, tiled=True)
