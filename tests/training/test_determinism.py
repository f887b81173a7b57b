"""The same configuration, machine and number of devices: the same bits, in another process too."""

import os
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from mmvm_jax.artifacts.metric_writers import read_metrics

FLAGS = (
    "--config=configs/own_data.py:quicktest", "--config.network.latent_dim=4", "--config.network.mlp.hidden_dims=(8,)",
    "--config.train.steps=10", "--mode=train",
)  # fmt: skip
OPTIMISED = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "False"}


def results(folder, path, *flags):
    """Return the state and the metrics of a training in a separate process."""
    command = [sys.executable, "-m", "mmvm_jax.main", *FLAGS, f"--config.data.path={path}", f"--workdir={folder}"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=300, env=OPTIMISED)
    assert done.returncode == 0, done.stderr
    with ocp.CheckpointManager(folder / "checkpoints") as manager:
        items = ocp.args.Composite(state=ocp.args.StandardRestore())
        state = manager.restore(manager.latest_step(), args=items).state
    return jax.tree.leaves(state), read_metrics(str(folder))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "my.npz"
    arrays = {name: array for name, array in tiny.arrays().items() if name.startswith(("height", "spikes"))}
    there = arrays["height__present"] | arrays["spikes__present"]
    np.savez(path, **{name: array[there] for name, array in arrays.items()})
    return path


def test_two_processes_end_in_the_same_bits_and_another_seed_in_others(path, data_dir, tmp_path):
    directory = f"--config.data.dir={data_dir}"
    first, second = (results(tmp_path / name, path, directory) for name in ("first", "second"))
    for left, right in zip(first[0], second[0], strict=True):
        np.testing.assert_array_equal(left, right)
    assert first[1] == second[1]
    other = results(tmp_path / "other", path, directory, "--config.seed=1")
    assert any((left != right).any() for left, right in zip(first[0], other[0], strict=True))
