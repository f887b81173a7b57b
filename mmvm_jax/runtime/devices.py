"""Devices: running functions on all of them, and sums over them.

All devices have the same state, and a batch is split along its examples. A device returns sums, or shares of a mean
over the whole batch, never means over its own examples, because masks may differ between devices.
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
    """On a CPU, let the C library keep the memory that a step frees for the next step.

    Otherwise the system clears it again for every step, 4 KB at a time, which takes a tenth of the small CNN's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if jax.default_backend() == "cpu" and mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_MMAP_MAX, 0)


def num_devices() -> int:
    """Return the number of devices, of all processes, that share a batch."""
    return jax.device_count()


def check_batch_size(batch_size: int, field: str, pieces: int = 1) -> None:
    """Raise UserError unless the batch can be split evenly over the devices, and each share into ``pieces``."""
    if batch_size < 1 or batch_size % (num_devices() * pieces):
        extra = f" x {pieces} pieces (config.train.accumulate)" if pieces > 1 else ""
        raise UserError(f"{field} is {batch_size}; allowed: a positive multiple of the {num_devices()} devices{extra}")


def largest_batch_size(wanted: int, num_examples: int) -> int:
    """Return the largest multiple of the number of devices up to ``wanted`` and ``num_examples``, at least one each."""
    devices = num_devices()
    return max(min(wanted, num_examples) // devices, 1) * devices


def replicate(tree):
    """Copy arrays to every device of this process, with the placement of the outputs of ``data_parallel`` functions.

    With another placement, JAX would compile twice: for the first call, and for all later calls.
    """
    replicated = NamedSharding(Mesh(np.array(jax.local_devices()[: _num_local()]), (_AXIS,)), PartitionSpec())
    return jax.device_put(tree, replicated)


def sum_over_devices(tree):
    """Sum every leaf over all devices. Must be called inside a ``data_parallel`` function."""
    return tree if num_devices() == 1 else jax.lax.psum(tree, _AXIS)  # even for one device, psum would copy


def on_each_device(function: Callable, *arguments):
    """Run ``function(*arguments)`` on every device of this process, with the same arguments.

    Returns:
      Its outputs on the host, with a leading axis of devices.
    """
    local = jax.local_devices()[: _num_local()]
    in_axes = (0, *(None,) * len(arguments))  # pmap needs a mapped argument
    one = lambda _, *arguments: function(*arguments)
    # The axis has a name, since JAX's default name contains a memory address, which defeats the compilation cache.
    run = jax.pmap(one, axis_name=_AXIS, in_axes=in_axes, devices=local)
    return jax.tree.map(np.asarray, run(np.arange(len(local)), *arguments))


def data_parallel(function: Callable, reduced: bool) -> Callable:
    """Return a function that runs ``function(state, batch, *rest)`` on all devices, each with its share of examples.

    Args:
      function: of a state that all devices share, a ``Batch`` and further arguments that all devices share.
      reduced: whether ``sum_over_devices`` has made every output equal on all devices. If not, the outputs must have
        the examples as their first axis; those of all devices and processes are concatenated.

    Returns:
      A function of the same arguments. It takes only this process's ``share`` of the rows of the batch.
    """
    compiled = functools.cache(lambda num_rest: _pmap(function, num_rest, reduced))

    def run(state, batch: Batch, *rest):
        output = _one_at_a_time(compiled(len(rest))(state, _cut(batch), *rest))
        return output if reduced else _from_all(jax.tree.map(_put_together, output))

    return run


def data_parallel_steps(step: Callable, read: Callable) -> Callable:
    """Return a function that runs several steps in one program on all devices.

    Args:
      step: (state, batch, hyper) -> (state, metrics), both made equal on all devices by ``sum_over_devices``.
      read: (table, item) -> the device's ``Batch``; an item is a device's part of the input of one step.

    Returns:
      (state, items, table, hyper, flag) -> (state, metrics, raised). ``items`` has one item per step, with this
      process's ``share`` of the rows; ``table`` comes from ``replicate``. The metrics have the steps as their
      first axis. ``raised`` is positive if the flag was set in any process.
    """

    def steps(state, items, flags, table, hyper):
        def one(state, item_and_flag):
            item, flag = item_and_flag
            state, metrics = step(state, read(table, item), hyper)
            # Processes may run independent all-reduces in different orders, and so confuse them. An always-false
            # dependency on the metrics fixes the order: no number is both NaN and infinite, but XLA does not know it.
            first = jax.tree.leaves(metrics)[0]
            always_false = jnp.any(jnp.isnan(first) & jnp.isinf(first))
            return state, (metrics, sum_over_devices(flag + always_false))

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
    """Wait for the output if several CPU devices share threads: two concurrent sums over them could deadlock."""
    return jax.block_until_ready(output) if jax.default_backend() == "cpu" and num_devices() > 1 else output


def _num_local() -> int:
    return num_devices() // num_processes()


def _cut(item):
    """Split host arrays along their examples: add a leading axis of devices to every leaf."""
    devices = _num_local()
    cut = lambda leaf: np.asarray(leaf).reshape(devices, -1, *leaf.shape[1:])
    if not isinstance(item, Batch):
        return jax.tree.map(cut, item)
    present = np.moveaxis(cut(np.asarray(item.present).T), -1, 1)
    return jax.tree.map(cut, item._replace(present=item.index))._replace(present=present)


def _put_together(leaf):
    """Join the shares of the devices: [devices, B / devices, ...] -> [B, ...] on the host."""
    return np.asarray(leaf).reshape(-1, *leaf.shape[2:])


def _from_all(tree):
    """Gather the rows of all processes, in the order of their shares."""
    return tree if num_processes() == 1 else multihost_utils.process_allgather(tree, tiled=True)
