"""Devices and processes: the only file that knows how many there are and how work is spread over them.

State is the same on all devices and a batch is cut along its examples. What leaves a device is sums, or shares of a
mean over the whole batch, never means over the device's own examples: masks may differ from device to device.

One process a machine (or a device) takes part in a run, and all do the same: each works on its share of every
batch, and what only one can decide or know, such as what the workdir holds, the first decides for all.
"""

import contextlib
import ctypes
import functools
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mmvm_jax import storage
from mmvm_jax.errors import Disconnected, UserError, first_line
from mmvm_jax.types import Batch

_AXIS = "devices"
_CONNECT_SECONDS = 300  # until all processes must have been started
_HEARTBEAT_SECONDS = 30  # of silence after which a process counts as dead and the others end
_SHUTDOWN_SECONDS = 600  # that a process which is done waits for those that still save or write the report
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt(3)
_LOST = ("Gloo", "NCCL", "heartbeat", "coordination service", "Connection reset", "DEADLINE_EXCEEDED", "UNAVAILABLE")


def join(address: str | None, processes: int | None, process: int | None) -> None:
    """Makes this process one of several, before anything is computed; alone where nothing says otherwise.

    TPU pods, SLURM, Kubernetes and Open MPI are found by themselves.

    Args:
      address: "host:port" of the first process, None to find out.
      processes: how many there are, None to find out; 1 for being alone whatever the cluster.
      process: which of them this is, from 0; None to find out.

    Raises:
      Disconnected: the others did not come.
      UserError: only some of the arguments are given.
    """
    if processes == 1:
        return
    given = [value is not None for value in (address, processes, process)]
    if any(given) and not all(given):
        raise UserError("--coordinator_address, --num_processes and --process_id go together; allowed: all or none")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from the training loop
    try:
        jax.distributed.initialize(
            address,
            processes,
            process,
            initialization_timeout=_CONNECT_SECONDS,
            heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
        )
    except ValueError as error:
        if any(given):
            raise UserError(f"--coordinator_address, --num_processes, --process_id: {error}") from error
    except (RuntimeError, OSError) as error:
        where = f"--coordinator_address={address}" if address else "the cluster that this process was found to be in"
        raise Disconnected(f"{where}: cannot connect to the other processes ({first_line(error)})") from error


def keep_freed_memory() -> None:
    """On a CPU, lets the C library keep the memory that one step frees for the next.

    Otherwise the system clears it anew, 4 KB at a time, for every step: a tenth of the small CNN's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's
    if jax.default_backend() == "cpu" and mallopt is not None:
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_MMAP_MAX, 0)


def num_processes() -> int:
    """Processes that share a batch."""
    return jax.process_count()


def is_first() -> bool:
    """Whether this is the process that writes and reports."""
    return jax.process_index() == 0


def working_alone() -> dict:
    """What Orbax is told of a process that waits for no other while it saves and restores."""
    process = jax.process_index()
    return {"primary_host": process, "active_processes": {process}, "barrier_sync_key_prefix": f"process_{process}"}


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


def share(batch_size: int) -> slice:
    """The rows of every batch that this process works on."""
    size = batch_size // num_processes()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Runs a body in which processes wait for each other.

    Raises:
      Disconnected: another process is gone. If it cannot be raised, since this process waits where Python has no
        say, JAX aborts the process, at the latest some 30 seconds later.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if num_processes() == 1 or isinstance(error, UserError) or not any(sign in str(error) for sign in _LOST):
            raise
        message = "another process stopped or cannot be reached; the same command goes on from the last checkpoint"
        raise Disconnected(f"{message} ({first_line(error)})") from error


def from_first(function: Callable, *arguments) -> Any:
    """What ``function(*arguments)`` returns in the first process, given to all; only there it is called.

    Raises:
      UserError: it did, there, or raised any other error; then in all processes, or they would wait for each other.
    """
    if num_processes() == 1:
        return function(*arguments)
    outcome, cause = None, None
    if is_first():
        try:
            outcome = function(*arguments)
        except Disconnected:
            raise
        except Exception as error:
            told = UserError(f"{type(error).__name__}: {first_line(error)}", exit_code=1)
            outcome, cause = error if isinstance(error, UserError) else told, error
    outcome = _broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome from cause
    return outcome


def first_then_others(function: Callable, *arguments) -> Any:
    """``function(*arguments)`` in every process, the first before all others: what it leaves on disk they find.

    Raises:
      UserError: it did in the first process; then in all.
    """
    if num_processes() == 1:
        return function(*arguments)
    results = []
    from_first(lambda: results.append(function(*arguments)))
    return results[0] if is_first() else function(*arguments)


def in_any_process(condition: bool) -> bool:
    """Whether it holds in one process or more."""
    return condition if num_processes() == 1 else bool(multihost_utils.process_allgather(np.array(condition)).any())


@contextlib.contextmanager
def folder_to_write(workdir: str) -> Iterator[str]:
    """The workdir, or a copy of it if it is in object storage, in the first process, which alone writes it.

    Elsewhere a folder that is thrown away.
    """
    if is_first():
        with storage.local_copy(workdir, "workdir") as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="mmvm_jax_") as temporary:
            yield temporary


def _broadcast(value):
    """A value of the first process in all of them; ``value`` is not read elsewhere."""
    data = np.frombuffer(pickle.dumps(value), np.uint8) if is_first() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(data))))
    data = multihost_utils.broadcast_one_to_all(np.resize(data, length))
    return pickle.loads(np.asarray(data).tobytes())


def on_all_devices(tree):
    """The same arrays on every device of this process, placed as functions that are ``spread`` return theirs.

    A state that is placed otherwise makes JAX compile twice: for the first call, and for all others.
    """
    replicated = NamedSharding(Mesh(np.array(jax.local_devices()[: _num_local()]), (_AXIS,)), PartitionSpec())
    return jax.device_put(tree, replicated)


def sum_over_devices(tree):
    """The sum of every leaf over all devices; to be called inside what is ``spread``."""
    return tree if num_devices() == 1 else jax.lax.psum(tree, _AXIS)  # XLA would copy what it sums


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
            # Sums that do not depend on each other may be done in another order by each process, which mixes them
            # up; so this one is made to depend on the others, by a number that is never so low.
            first = jax.tree.leaves(metrics)[0]
            never = jnp.any(first < jnp.finfo(first.dtype).min)
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
