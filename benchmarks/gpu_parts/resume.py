"""A short training that is stopped and resumed, against the same training left alone."""

import contextlib
import os
import signal
import tempfile

import jax
import numpy as np

from benchmarks.workloads import random_batch, workload
from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.data.dataset import DataSet, complete_split
from mmvm_jax.errors import Stopped
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.loop import train

STEPS, EVERY = 40, 4  # between checkpoints
ALLOWED = 1e-3  # of the norm of an array, where not all bits are the same


def run(table, options) -> None:
    """Adds how far two equal trainings, and a stopped and resumed one, end from each other."""
    options.wait()
    config, modalities = workload("small_cnn", 0)
    config.train.update(
        {"batch_size": 8 if options.toy else 128, "steps": STEPS, "checkpoint_every": EVERY, "log_every": EVERY}
    )
    batch = random_batch(modalities, 10 * config.train.batch_size)
    split = complete_split(batch.inputs, batch.labels)
    data = DataSet(modalities, split, split, 10, "class", "random")
    with tempfile.TemporaryDirectory() as folder:
        # Equal programs are compiled once: their kernels could be chosen differently the next time.
        jax.config.update("jax_compilation_cache_dir", os.path.join(folder, "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        alone = _train(config, data, os.path.join(folder, "alone"))
        _add(table, options.name, "the same training twice", alone, _train(config, data, os.path.join(folder, "twice")))
        stopped = os.path.join(folder, "stopped")
        step = _stop_half_way(config, data, stopped)
        _add(table, options.name, f"stopped at step {step} of {STEPS}, resumed", alone, _train(config, data, stopped))


def _train(config, data, workdir, held_out=None) -> list[np.ndarray]:
    """All arrays of the state that training ends with."""
    os.makedirs(workdir, exist_ok=True)
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    state = train(config, model, method, data, workdir, held_out)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]


def _stop_half_way(config, data, workdir) -> int:
    """Asks to stop at the first checkpoint; returns the step at which it did."""

    def ask_to_stop(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    with contextlib.suppress(Stopped):
        _train(config, data, workdir, ask_to_stop)
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest_step == STEPS:
            raise RuntimeError("training did not stop when it was asked to")
        return checkpoints.latest_step


def _add(table, part: str, what: str, ours, theirs) -> None:
    same = all(np.array_equal(left, right) for left, right in zip(ours, theirs, strict=True))
    distances = [
        float(np.linalg.norm((left - right).astype(np.float64)) / max(np.linalg.norm(left), 1e-30))
        for left, right in zip(ours, theirs, strict=True)
    ]
    passed = all(distance < ALLOWED for distance in distances)
    table.add(part, what, passed=passed, to_the_bit=same, largest_distance=max(distances))
