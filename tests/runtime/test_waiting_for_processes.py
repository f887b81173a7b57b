"""Clusters that JAX finds by itself: a process that waits for others says so, and how to stay alone."""

import os
import re
import signal
import subprocess
import sys

import pytest

from mmvm_jax.errors import RESTART
from mmvm_jax.runtime import clusters

SHELL = {  # inside a SLURM allocation of four tasks
    "SLURM_JOB_ID": "4242",
    "SLURM_STEP_NODELIST": "localhost",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
JOIN = """
from mmvm_jax.runtime import clusters, command_line, processes
clusters._NOTICE_SECONDS, processes._CONNECT_SECONDS = 0.5, {seconds}
def work():
    processes.join({arguments})
    print("processes:", processes.num_processes())
command_line.start(work, "")
"""


def join(environment, arguments="None, None, None", seconds=3):
    """Start a process that joins its cluster."""
    command = [sys.executable, "-c", JOIN.format(arguments=arguments, seconds=seconds)]
    return subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.multiprocess
@pytest.mark.parametrize("environment", [SHELL, SHELL | {"SLURM_PROCID": "1"}, OPEN_MPI], ids=str)
def test_a_process_that_waits_says_what_it_found_and_ends_without_a_stack_trace(environment):
    process = join(environment)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == RESTART, said
    found = clusters.find(environment).description
    assert re.search(rf"waiting for the other processes of {re.escape(found)}, .* add --num_processes=1", said)
    assert re.search(rf"error: the other processes of {re.escape(found)} did not come within 3 s", said)
    assert "stack trace" not in said and "Traceback" not in said


@pytest.mark.multiprocess
def test_ctrl_c_ends_the_waiting():
    with join(SHELL, seconds=300) as process:
        for line in process.stdout:
            if "waiting for the other processes" in line:
                process.send_signal(signal.SIGINT)
                break
        assert process.wait(timeout=10) == -signal.SIGINT


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        (SHELL, "None, 1, None"),
        (SHELL | {"SLURM_STEP_NUM_TASKS": "1"}, "None, None, None"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "None, None, None"),
        ({"SLURM_JOB_ID": "4242", "SLURM_NTASKS": "4"}, "None, None, None"),  # a batch script, without srun
    ],
    ids=str,
)
def test_a_process_that_is_alone_does_not_wait(environment, arguments):
    process = join(environment, arguments)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and "processes: 1" in said and "waiting" not in said, said


@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (SHELL | {"SLURM_NTASKS": "two"}, r"SLURM \(SLURM_PROCID=0, SLURM_NTASKS=two\): .*--num_processes=1"),
        (SHELL | {"SLURM_PROCID": "4"}, r"SLURM \(SLURM_PROCID=4, SLURM_NTASKS=4\): .*--num_processes=1"),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, r"Open MPI \(OMPI_COMM_WORLD_SIZE=2\): .*--num_processes=1"),
    ],
    ids=str,
)
def test_a_cluster_that_cannot_be_used_is_named(environment, message):
    process = join(environment)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and re.search(message, said) and "Traceback" not in said, said


def test_clusters_are_recognised_in_the_order_of_jax():
    assert clusters.find({}) is None
    assert clusters.find(SHELL | OPEN_MPI).description.startswith("Open MPI (OMPI_COMM_WORLD_RANK=0")
    assert clusters.find({"TPU_WORKER_HOSTNAMES": "a,b"}).description == "a TPU pod (TPU_WORKER_HOSTNAMES=a,b)"
    assert not clusters.find(SHELL | {"SLURM_NTASKS": "1"}).is_shared
