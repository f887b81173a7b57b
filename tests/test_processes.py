"""Several processes: the same results as one, checkpoints that move between them, and what ends them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import normalised
import numpy as np
import pytest
import tiny

from mmvm_jax.checkpoints import Checkpoints
from mmvm_jax.data.pipeline import Order
from mmvm_jax.errors import RESTART
from mmvm_jax.metrics import read_metrics

pytestmark = pytest.mark.multiprocess
TESTS = pathlib.Path(__file__).parent
STEPS = 50  # whole programs of five steps: a remainder would be one more to compile
ENDLESS = 1_000_000
SECONDS = 60  # in which processes end once another has


def start(arguments, count, precision="float64", devices=1, cwd=None):
    """Starts processes that share one training."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "JAX_ENABLE_X64": str(precision == "float64"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "True",  # as in this process
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
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


def train(workdir, count, steps=STEPS, **options):
    """A whole training; returns the final parameters and statistics, and the losses."""
    flags = [f"--accumulate={options.pop('accumulate', 1)}"]
    finish(start([TESTS / "worker.py", f"--workdir={workdir}", f"--steps={steps}", *flags], count, **options))
    with np.load(workdir / "final.npz") as leaves:
        return list(leaves.values()), [line["loss"] for line in read_metrics(str(workdir))]


def assert_same(actual, expected, tolerance=1e-8):
    for left, right in zip(actual[0], expected[0], strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(actual[1], expected[1], rtol=tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process on one device ends with."""
    workdir = tmp_path_factory.mktemp("alone")
    return train(workdir, 1)


def test_some_shards_lack_a_modality_altogether():
    present, order = normalised.data().train.present, Order(normalised.NUM_EXAMPLES, normalised.BATCH_SIZE, 0)
    shards = np.stack([next(order) for _ in range(STEPS)]).reshape(STEPS, 4, -1)
    lacking = ~present[:, shards].any(axis=-1)
    assert lacking[1].sum() >= 20 and not lacking[1].all(axis=1).all()


@pytest.mark.parametrize("count", [2, 4])
def test_results_do_not_depend_on_the_number_of_processes(alone, tmp_path, count):
    assert_same(train(tmp_path, count), alone)


def test_losses_in_float32(tmp_path):
    (_, one), (_, two) = (train(tmp_path / str(count), count, precision="float32") for count in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_of_two_devices_each(alone, tmp_path):
    assert_same(train(tmp_path, 2, devices=2), alone)


def test_checkpoints_move_between_numbers_of_processes(alone, tmp_path):
    for count, steps in ((4, 20), (2, 30), (1, 40), (4, STEPS)):
        parts = train(tmp_path, count, steps)
    assert_same(parts, alone)


def wait_for_steps(workdir, steps, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = read_metrics(str(workdir))
        if lines and lines[-1]["step"] >= steps:
            return
        time.sleep(0.1)
    raise AssertionError(f"no {steps} steps in {seconds} s")


def test_a_signal_to_one_process_stops_all_and_loses_nothing(tmp_path):
    arguments = [TESTS / "worker.py", f"--workdir={tmp_path}", f"--steps={ENDLESS}"]
    processes = start(arguments, 2)
    wait_for_steps(tmp_path, 20)
    processes[1].send_signal(signal.SIGTERM)
    for said in finish(processes, RESTART):
        assert "stopped and saved at step" in said and "Traceback" not in said
    logged = read_metrics(str(tmp_path))[-1]["step"]
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest_step == logged  # everything that was done is saved


@pytest.mark.parametrize("killed", [0, 1])
def test_a_process_that_dies_takes_the_others_with_it(tmp_path, killed):
    arguments = [TESTS / "worker.py", f"--workdir={tmp_path}", f"--steps={ENDLESS}"]
    processes = start(arguments, 2)
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
        assert "another process stopped or cannot be reached; the same command goes on" in said
        assert "Traceback" not in said
    with Checkpoints(str(tmp_path)) as checkpoints:
        assert checkpoints.latest_step >= 20


def test_the_whole_path_of_two_processes_ends_with_the_same_numbers(tmp_path):
    """Training, classifiers, prior and metrics; the second process leaves nothing behind."""
    np.savez(tmp_path / "data.npz", **tiny.arrays(), labels=np.arange(tiny.N) % 3)
    flags = ["--config=configs/own_data.py:quicktest", f"--config.data.path={tmp_path}/data.npz"]
    flags += [
        "--config.network.latent_dim=3",
        "--config.train.batch_size=16",
        "--config.evaluation.batch_size=8",
        "--config.train.steps=4",
    ]
    found = {}
    for count in (1, 2):
        workdir = tmp_path / f"run{count}"
        processes = start(["-m", "mmvm_jax.main", *flags, f"--workdir={workdir}"], count, cwd=TESTS.parent)
        said = finish(processes)
        assert "Report:" in said[0] and not any("evaluate" in other for other in said[1:])
        found[count] = json.loads((workdir / "evaluation.json").read_text())
        assert (workdir / "report.html").exists()
    timings = ("train/seconds", "train/examples_per_second")
    assert found[1].keys() == found[2].keys()
    for name, value in found[1].items():
        if name not in timings:
            np.testing.assert_allclose(found[2][name], value, rtol=1e-4, atol=1e-6, err_msg=name)
