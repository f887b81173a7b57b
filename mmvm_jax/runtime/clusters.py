"""The cluster that a process is started in: what JAX finds by itself, and what to say while the others do not come."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from mmvm_jax.errors import RESTART
from mmvm_jax.runtime.progress import log

_NOTICE_SECONDS = 5  # of waiting, after which it is said what is waited for
ALONE = "if the command is meant to run alone, as in a shell inside an allocation, add --num_processes=1"


class _Cluster(NamedTuple):
    """Environment variables by which JAX recognises a cluster, and those of its processes."""

    name: str
    signs: tuple[str, ...]  # any of them
    number: str = ""
    size: str = ""


_CLUSTERS = (  # in the order in which JAX tries them
    _Cluster(
        "Open MPI", ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE"), "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
    ),
    _Cluster("SLURM", ("SLURM_STEP_NODELIST",), "SLURM_PROCID", "SLURM_NTASKS"),
    _Cluster("a TPU pod", ("TPU_PROCESS_ADDRESSES_PATH", "TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")),
    _Cluster("Kubernetes", ("KUBERNETES_SERVICE_HOST",)),
)


class Found(NamedTuple):
    """A cluster as the environment describes it."""

    description: str  # such as "SLURM (SLURM_PROCID=0, SLURM_NTASKS=4)"
    is_shared: bool  # whether the environment says that it has several processes


def find(environment: Mapping[str, str] = os.environ) -> Found | None:
    """Return the cluster that the environment names, None if it names none."""
    for cluster in _CLUSTERS:
        if any(sign in environment for sign in cluster.signs):
            names = dict.fromkeys((cluster.number, cluster.size, *cluster.signs))
            values = ", ".join([f"{name}={environment[name]}" for name in names if name in environment][:2])
            return Found(f"{cluster.name} ({values})", environment.get(cluster.size, "1") != "1")
    return None


def is_only_task(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether SLURM says that no other process was started beside this one.

    SLURM_NTASKS, which JAX reads, is the number of tasks of the whole allocation in an interactive shell.
    """
    return environment.get("SLURM_STEP_NUM_TASKS") == "1"


@contextlib.contextmanager
def waiting(where: str, seconds: float) -> Iterator[None]:
    """Say what is waited for while the body connects, and end the process if that takes too long.

    JAX would wait in silence, ignore Ctrl-C, and abort with a stack trace of C++.

    Args:
      where: what the other processes belong to.
      seconds: time after which the process ends with the exit code ``RESTART``.
    """
    notice = threading.Timer(_NOTICE_SECONDS, _say_what_is_missing, (where, seconds))
    end = threading.Timer(seconds, _give_up, (where, seconds))
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            # Python's handlers do not run while JAX waits.
            stack.callback(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_DFL))
        for timer in (notice, end):
            timer.daemon = True
            timer.start()
            stack.callback(timer.cancel)
        yield


def _say_what_is_missing(where: str, seconds: float) -> None:
    log.warning("waiting for the other processes of %s, for up to %.0f s; %s", where, seconds, ALONE)


def _give_up(where: str, seconds: float) -> None:
    message = f"the other processes of {where} did not come within {seconds:.0f} s; start all of them, or {ALONE}"
    print(f"mmvm_jax: error: {message}", file=sys.stderr, flush=True)
    os._exit(RESTART)
