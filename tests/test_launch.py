"""The launchers, as far as they run without a cluster: what they would do, and that they refuse what is wrong."""

import pathlib
import shlex
import subprocess
import sys

import pytest
import yaml

LAUNCH = pathlib.Path(__file__).resolve().parents[1] / "launch"
FLAGS = ["--config=configs/cub.py", "--workdir=runs/with space"]


def _run(*command, code=0):
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def test_slurm_hands_both_kinds_of_options_on():
    words = shlex.split(_run(LAUNCH / "slurm.sh", "--dry_run", "--nodes=2", "--", *FLAGS))
    assert words[0] == "sbatch" and {"--nodes=2", "--requeue", "--signal=TERM@120"} <= set(words)
    assert words[-3:] == [str(LAUNCH / "slurm_job.sh"), *FLAGS]


def test_slurm_wants_the_separator():
    assert "-- is missing; allowed:" in _run(LAUNCH / "slurm.sh", "--dry_run", "--nodes=2", code=2)


@pytest.mark.parametrize("code", [0, 1, 75, 134])
def test_a_job_is_queued_again_when_it_was_asked_to_stop(tmp_path, code):
    for name, body in (("srun", f"exit {code}"), ("scontrol", f'echo "$@" > {tmp_path}/requeued')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "7"}
    result = subprocess.run([LAUNCH / "slurm_job.sh", *FLAGS], env=environment, check=False)
    assert result.returncode == code
    assert (tmp_path / "requeued").exists() == (code in (75, 134))


def test_a_tpu_pod_runs_the_command_on_all_workers():
    words = shlex.split(_run(LAUNCH / "tpu_pod.sh", "--dry_run", "run", "pod", "zone", *FLAGS))
    assert words[:6] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "pod"] and "--worker=all" in words
    on_worker = shlex.split(words[-1].removeprefix("--command="), comments=False)
    assert [word for word in on_worker if word in FLAGS] == FLAGS


@pytest.mark.parametrize("action", ["create", "queue", "install", "follow", "stop", "delete"])
def test_a_tpu_pod_prints_what_it_would_do(action):
    assert "pod" in _run(LAUNCH / "tpu_pod.sh", "--dry_run", action, "pod", "zone", "v5litepod-16", "v2-alpha")


def test_a_tpu_pod_refuses_an_unknown_action():
    assert "allowed: create, queue" in _run(LAUNCH / "tpu_pod.sh", "fly", "pod", "zone", code=2)


@pytest.mark.parametrize("chips", ["--gpus=8", "--tpus=4"])
def test_a_job_set_names_all_processes(chips):
    command = [sys.executable, LAUNCH / "kubernetes.py", "--dry_run", "--name=cub", "--image=i", "--nodes=3", chips]
    pods = yaml.safe_load(_run(*command, "--", *FLAGS))["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert pods["parallelism"] == pods["completions"] == 3 and pods["completionMode"] == "Indexed"
    container = pods["template"]["spec"]["containers"][0]
    assert container["args"][1:3] == ["--num_processes=3", "--process_id=$(JOB_COMPLETION_INDEX)"]
    assert container["args"][3:] == FLAGS
    assert list(container["resources"]["limits"].values()) == [int(chips[-1])]


def test_a_job_set_wants_one_kind_of_chips():
    command = [sys.executable, LAUNCH / "kubernetes.py", "--dry_run", "--name=cub", "--image=i"]
    assert "either --gpus or --tpus" in _run(*command, code=2)


def test_the_scripts_pass_shellcheck():
    _run(
        pathlib.Path(sys.executable).parent / "shellcheck",
        *LAUNCH.glob("*.sh"),
        LAUNCH.parent / "tests" / "launch" / "slurm.sh",
    )
