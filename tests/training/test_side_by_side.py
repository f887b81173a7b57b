"""Runs trained side by side end as they would have alone."""

import copy
import time

import jax
import numpy as np
import pytest
from small_run import ask_after, config, data  # noqa: F401, fixtures

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import MetricWriter, read_metrics
from mmvm_jax.errors import Stopped
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training import side_by_side
from mmvm_jax.training.loop import train
from mmvm_jax.training.state import first_batch, restore


@pytest.fixture
def runs(config, tmp_path):
    """Three that differ in seed, beta, learning rate and alpha."""
    found = []
    for number in range(3):
        one = copy.deepcopy(config)
        one.seed, one.method.beta, one.method.mmvm.alpha = number, 0.5 + number, 0.1 * number
        one.optimizer.update({"learning_rate": 10.0 ** -(2 + number), "eps": 1.0})
        found.append(side_by_side.Replica(one, str(tmp_path / f"run{number}")))
    return found


def _together(runs, data):
    config = runs[0].config
    model = make_model(data.modalities, config.network)
    side_by_side.train_replicas(runs, model, make_method(config.method), data)
    return model


def _restored(run, model, data):
    batch = first_batch(run.config, data)
    return restore(run.config, model, make_method(run.config.method), batch, run.workdir)


def test_every_run_ends_as_it_would_alone(runs, data, tmp_path):
    began = time.monotonic()
    model = _together(runs, data)
    elapsed = time.monotonic() - began
    assert 0.0 < sum(_restored(run, model, data).progress["seconds"] for run in runs) < elapsed
    for number, run in enumerate(runs):
        alone = side_by_side.Replica(run.config, str(tmp_path / f"alone{number}"))
        train(alone.config, model, make_method(alone.config.method), data, alone.workdir)
        ours, theirs = _restored(run, model, data), _restored(alone, model, data)
        assert ours.step == theirs.step and ours.progress["batches"] == theirs.progress["batches"]
        for left, right in zip(jax.tree.leaves(ours.state), jax.tree.leaves(theirs.state), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
        losses = [[line["loss"] for line in read_metrics(one.workdir)] for one in (run, alone)]
        np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_runs_are_different(runs, data):
    model = _together(runs, data)
    first, second = (_restored(run, model, data).state.params for run in runs[:2])
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(first["encoders"]), jax.tree.leaves(second["encoders"])))


def test_a_run_that_is_not_finite_stops_no_other(runs, data):
    runs[1].config.optimizer.learning_rate = float("inf")
    model = _together(runs, data)
    assert [_restored(run, model, data).step for run in (runs[0], runs[2])] == [12, 12]
    with Checkpoints(runs[1].workdir) as checkpoints:
        assert checkpoints.latest_step is None and read_metrics(runs[1].workdir) == []


def test_as_many_at_a_time_as_memory_allows(runs, data, monkeypatch):
    spread, sizes = devices.data_parallel_steps, []

    def small(step, read):
        run = spread(step, read)

        def limited(state, *rest):
            sizes.append(state.step.shape[0])
            if sizes[-1] > 2:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
            return run(state, *rest)

        return limited

    monkeypatch.setattr(devices, "data_parallel_steps", small)
    model = _together(runs, data)
    assert [_restored(run, model, data).step for run in runs] == [12, 12, 12]
    assert sizes[0] == 3 and set(sizes[1:]) == {2, 1}


def test_a_signal_saves_all_runs(runs, data, monkeypatch):
    ask_after(monkeypatch, MetricWriter, "write", 6)
    with pytest.raises(Stopped):
        _together(runs, data)
    for run in runs:
        with Checkpoints(run.workdir) as checkpoints:
            assert 6 < checkpoints.latest_step < 12
