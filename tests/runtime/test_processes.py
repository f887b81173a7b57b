"""Several processes: the same results as one, checkpoints that move between them, and what ends them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import normalised
import numpy as np
import pytest
import tiny

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data.batches import Order
from mmvm_jax.errors import RESTART

pytestmark = pytest.mark.multiprocess
TESTS = pathlib.Path(__file__).parents[1]
STEPS = 55  # whole programs of five steps: a remainder would be one more to compile
ENDLESS = 1_000_000
SECONDS = 60  # in which processes end once another has


class Run(NamedTuple):
    """One training of ``worker.py``."""

    workdir: pathlib.Path
    steps: int = STEPS
    precision: str = "float64"

    def flag(self):
        return f"--run={self.precision},{self.steps},{self.workdir}"

    def result(self):
        """The final parameters and statistics, and the losses."""
        with np.load(self.workdir / "final.npz") as leaves:
            return list(leaves.values()), [line["loss"] for line in read_metrics(str(self.workdir))]


def start(arguments, count, devices=1, cwd=None):
    """Starts processes that share their work."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JAX_ENABLE_X64": "True",  # sums in another order shall not turn a class that is as likely as another
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
    }
    shared = [f"--coordinator_address=localhost:{port}", f"--num_processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [sys.executable, *map(str, arguments), *shared, *([f"--process_id={number}"] if shared else [])],
            env=environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(count)
    ]


def finish(processes, code=0):
    """Waits for all; returns what each has said."""
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), "\n".join(said)
    return said


def start_trainings(count, *runs, devices=1):
    """Starts whole trainings, one after the other in the same processes."""
    return start([TESTS / "worker.py", *(run.flag() for run in runs)], count, devices)


def train(count, run, devices=1):
    """A whole training; what it ends with."""
    finish(start_trainings(count, run, devices=devices))
    return run.result()


def assert_same(actual, expected, tolerance=1e-8):
    for left, right in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(actual[1], expected[1], rtol=tolerance)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Trainings that several tests read: a folder per number of processes, and "moved", which all numbers continue."""
    folder = tmp_path_factory.mktemp("trainings")
    for count, steps, precisions in (
        (1, 20, ("float64", "float32")),
        (4, 30, ("float64",)),
        (2, 40, ("float64", "float32")),
    ):
        runs = [Run(folder / f"{count}/{precision}", precision=precision) for precision in precisions]
        finish(start_trainings(count, *runs, Run(folder / "moved", steps)))
    return folder


def test_some_shards_lack_a_modality_altogether():
    present, order = normalised.data().train.present, Order(normalised.NUM_EXAMPLES, normalised.BATCH_SIZE, 0)
    shards = np.stack([next(order) for _ in range(STEPS)]).reshape(STEPS, 4, -1)
    lacking = ~present[:, shards].any(axis=-1)
    assert lacking[1].sum() > 20 and not lacking[1].all(axis=1).all()


@pytest.mark.parametrize("count", [2, 4])
def test_results_do_not_depend_on_the_number_of_processes(folder, count):
    assert_same(Run(folder / f"{count}/float64").result(), Run(folder / "1/float64").result())


def test_losses_in_float32(folder):
    (_, one), (_, two) = (Run(folder / f"{count}/float32").result() for count in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_of_two_devices_each(folder, tmp_path):
    assert_same(train(2, Run(tmp_path), devices=2), Run(folder / "1/float64").result())


def test_checkpoints_move_between_numbers_of_processes(folder):
    """From one process to four, from four to two, and from two to one."""
    assert_same(train(1, Run(folder / "moved")), Run(folder / "1/float64").result())


def wait_for_steps(workdir, steps, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = read_metrics(str(workdir))
        if lines and lines[-1]["step"] >= steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {steps} steps in {seconds} s")


def test_a_signal_to_one_process_stops_all_and_loses_nothing(tmp_path):
    processes = start_trainings(2, Run(tmp_path, ENDLESS))
    wait_for_steps(tmp_path, 20)
    processes[1].send_signal(signal.SIGTERM)
    for said in finish(processes, RESTART):
        assert "stopped and saved at step" in said and "Traceback" not in said
    logged = read_metrics(str(tmp_path))[-1]["step"]
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest_step == logged  # everything that was done is saved


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_dies_takes_the_others_with_it(tmp_path, killed):
    processes = start_trainings(2, Run(tmp_path, ENDLESS))
    wait_for_steps(tmp_path, 25)
    processes[killed].kill()
    processes[killed].communicate()
    since = time.monotonic()
    said = processes[1 - killed].communicate(timeout=SECONDS)[0]
    assert time.monotonic() - since < SECONDS
    if processes[1 - killed].returncode == -signal.SIGABRT:  # JAX noticed first
        assert "another task died" in said
    else:
        assert processes[1 - killed].returncode == RESTART, said
        assert "another process stopped or cannot be reached; run the same command again to resume" in said
        assert "Traceback" not in said
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest_step >= 20


def own_data_flags(folder, *more):
    """Arguments of a quick run on data of the user's own, which are written to ``folder``."""
    np.savez(folder / "data.npz", **tiny.arrays(), labels=np.arange(tiny.N) % 3)
    flags = ["--config=configs/own_data.py:quicktest", f"--config.data.path={folder}/data.npz"]
    flags += ["--config.modalities=('height','spikes')", "--config.network.latent_dim=3"]
    flags += ["--config.train.batch_size=16", "--config.evaluation.batch_size=8"]
    return ["-m", "mmvm_jax.main", *flags, *more]


def test_an_error_of_the_first_process_ends_all(tmp_path, monkeypatch):
    """It alone talks to the tracker, which knows no key here."""
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = own_data_flags(tmp_path, "--config.tracker=wandb", f"--workdir={tmp_path}/run")
    for said in finish(start(flags, 2, cwd=TESTS.parent), code=1):
        assert "mmvm_jax: error: config.tracker='wandb'" in said and "Traceback" not in said


def test_the_whole_path_of_two_processes_ends_with_the_same_numbers(tmp_path):
    """Training, classifiers, prior and metrics; the second process leaves nothing behind."""
    flags = own_data_flags(tmp_path, "--config.train.steps=4")
    workdirs = [tmp_path / "alone", tmp_path / "shared"]
    alone, shared = (
        start([*flags, f"--workdir={workdir}"], count, cwd=TESTS.parent)
        for count, workdir in enumerate(workdirs, start=1)
    )
    finish(alone)
    said = finish(shared)
    assert "Report:" in said[0] and "evaluate" not in said[1]
    expected, found = (json.loads((workdir / "evaluation.json").read_text()) for workdir in workdirs)
    assert all((workdir / "report.html").exists() for workdir in workdirs)
    assert found.keys() == expected.keys()
    for name in found.keys() - {"train/seconds", "train/examples_per_second"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-6, err_msg=name)
