"""Processes: how they join, and what the first process decides for all.

A run has one process per machine (or device). All execute the same program, each on its share of every batch. What
only one process can decide or know, such as the contents of the workdir, the first process decides for all.
"""

import contextlib
import pickle
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmvm_jax.errors import Disconnected, UserError, first_line
from mmvm_jax.runtime import clusters, object_storage
from mmvm_jax.runtime.progress import log

_CONNECT_SECONDS = 300  # in which all processes must start
_HEARTBEAT_SECONDS = 30  # without a heartbeat, after which a process counts as dead and the others end
_SHUTDOWN_SECONDS = 600  # that a finished process waits for those that still save or write the report
_LOST = ("Gloo", "NCCL", "heartbeat", "coordination service", "Connection reset", "DEADLINE_EXCEEDED", "UNAVAILABLE")


def join(address: str | None, processes: int | None, process: int | None) -> None:
    """Connect this process to the others of its run, before anything is computed.

    TPU pods, SLURM, Kubernetes and Open MPI are detected; without them and without arguments the process runs alone. A
    process that waits for others logs it within seconds, and ends with the exit code ``RESTART`` if they do not come.

    Args:
      address: "host:port" of the first process; None to detect it.
      processes: number of processes; None to detect it, 1 to run alone on any cluster.
      process: number of this process, from 0; None to detect it.

    Raises:
      Disconnected: the others cannot be reached.
      UserError: only some of the arguments are given, or the cluster does not say what the processes are.
    """
    if processes == 1:
        return
    given = [value is not None for value in (address, processes, process)]
    if any(given) and not all(given):
        raise UserError("--coordinator_address, --num_processes and --process_id go together; allowed: all or none")
    if not all(given) and clusters.is_only_task():
        log.info("running alone: SLURM_STEP_NUM_TASKS=1, so no other process was started beside this one")
        return
    if all(given):
        _connect(f"--coordinator_address={address}, --num_processes={processes}", address, processes, process)
        return
    cluster = clusters.find()
    try:
        _connect(cluster.description if cluster else "a cluster that JAX found")
    except ValueError as error:  # JAX found no cluster
        if cluster and cluster.is_shared:
            raise UserError(
                f"{cluster.description}: JAX {jax.__version__} does not join these processes; give all of "
                f"--coordinator_address, --num_processes and --process_id, or {clusters.ALONE}"
            ) from error


def _connect(where: str, address: str | None = None, processes: int | None = None, process: int | None = None) -> None:
    """Connect to the other processes; ``where`` describes them in messages.

    Raises:
      Disconnected: they cannot be reached.
      UserError: the arguments or the variables of the cluster are invalid.
      ValueError: JAX found no cluster.
    """
    jax.config.update("jax_enable_preemption_service", False)  # it would take over SIGTERM from the training loop
    try:
        with clusters.waiting(where, _CONNECT_SECONDS):
            jax.distributed.initialize(
                address,
                processes,
                process,
                initialization_timeout=2 * _CONNECT_SECONDS,
                heartbeat_timeout_seconds=_HEARTBEAT_SECONDS,
                shutdown_timeout_seconds=_SHUTDOWN_SECONDS,
            )
    except (jax.errors.JaxRuntimeError, OSError) as error:
        raise Disconnected(f"{where}: cannot connect to the other processes ({first_line(error)})") from error
    except Exception as error:  # JAX raises a different type for each cluster
        if isinstance(error, ValueError) and "defined" in str(error):
            raise
        raise UserError(f"{where}: {first_line(error)}; {clusters.ALONE}") from error


def num_processes() -> int:
    """Return the number of processes that share a batch."""
    return jax.process_count()


def is_first() -> bool:
    """Return whether this is the process that writes files and logs."""
    return jax.process_index() == 0


def working_alone() -> dict:
    """Return the options of Orbax for a process that saves and restores without waiting for others."""
    process = jax.process_index()
    return {"primary_host": process, "active_processes": {process}, "barrier_sync_key_prefix": f"process_{process}"}


def share(batch_size: int) -> slice:
    """Return the rows of every batch that this process works on."""
    size = batch_size // num_processes()
    return slice(jax.process_index() * size, (jax.process_index() + 1) * size)


@contextlib.contextmanager
def detect_disconnection() -> Iterator[None]:
    """Run a body in which processes wait for each other.

    Raises:
      Disconnected: another process is gone. A process that waits inside compiled code cannot raise it; JAX aborts that
        process within about 30 seconds.
    """
    try:
        yield
    except (ValueError, RuntimeError) as error:
        if num_processes() == 1 or isinstance(error, UserError) or not any(sign in str(error) for sign in _LOST):
            raise
        message = "another process stopped or cannot be reached; run the same command again to resume"
        raise Disconnected(f"{message} ({first_line(error)})") from error


def from_first(function: Callable, *arguments) -> Any:
    """Call ``function(*arguments)`` in the first process only; return its result in all processes.

    Raises:
      UserError: the function raised an error. All processes raise it, or they would wait for each other.
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
    """Call ``function(*arguments)`` in every process, in the first before all others, which then find its files.

    Raises:
      UserError: the function raised an error in the first process. All processes raise it.
    """
    if num_processes() == 1:
        return function(*arguments)
    results = []
    from_first(lambda: results.append(function(*arguments)))
    return results[0] if is_first() else function(*arguments)


def in_any_process(condition: bool) -> bool:
    """Return whether the condition holds in any process."""
    return condition if num_processes() == 1 else bool(multihost_utils.process_allgather(np.array(condition)).any())


@contextlib.contextmanager
def folder_to_write(workdir: str) -> Iterator[str]:
    """Yield the workdir, or a local copy of a workdir in object storage, in the first process.

    Other processes, which must not write there, get a temporary folder that is deleted.
    """
    if is_first():
        with object_storage.local_copy(workdir, "workdir") as folder:
            yield folder
    else:
        with tempfile.TemporaryDirectory(prefix="mmvm_jax_") as temporary:
            yield temporary


def _broadcast(value):
    """Return the ``value`` of the first process in all processes."""
    data = np.frombuffer(pickle.dumps(value), np.uint8) if is_first() else np.zeros(0, np.uint8)
    length = int(multihost_utils.broadcast_one_to_all(np.int64(len(data))))
    data = multihost_utils.broadcast_one_to_all(np.resize(data, length))
    return pickle.loads(np.asarray(data).tobytes())
