"""Metrics: a tracker gets what metrics.jsonl has, and resumes where it was."""

import os

import mlflow
import numpy as np
import pytest
import tiny
import wandb

from mmvm_jax.artifacts import trackers
from mmvm_jax.artifacts.metric_writers import MetricWriter, read_metrics
from mmvm_jax.artifacts.trackers import check_tracker, track_evaluation
from mmvm_jax.errors import UserError


@pytest.fixture
def runs(monkeypatch):
    """The runs that are begun at Weights & Biases, without its server."""
    begun, init = [], wandb.init
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(wandb, "init", lambda **options: begun.append(init(**options)) or begun[-1])
    return begun


def test_a_tracker_is_told_what_is_written_and_goes_on_where_it_was(tmp_path, runs):
    config = tiny.config()
    config.tracker = "wandb"
    with MetricWriter(str(tmp_path), config) as writer:
        writer.write(3, "train", {"loss": 2.5, "grad_norm": np.nan})
        writer.write(6, "train", {"loss": 2.0})
        told = dict(runs[0].summary)
    with MetricWriter(str(tmp_path), config, from_step=3) as writer:
        writer.write(4, "train", {"loss": 2.25})
        told_again = dict(runs[1].summary)
    assert [(line["step"], line["loss"]) for line in read_metrics(str(tmp_path))] == [(3, 2.5), (4, 2.25)]
    first, second = runs
    assert first.id == second.id and first.name == tmp_path.name
    assert (told["step"], told["train/loss"]) == (6, 2.0) and "train/grad_norm" not in told
    assert (told_again["step"], told_again["train/loss"]) == (4, 2.25)
    assert second.config["method"]["name"] == "mmvm"
    assert any(name.endswith(first.id) for name in os.listdir(tmp_path / "wandb"))


def test_no_tracker_unless_asked_for(tmp_path, runs):
    with MetricWriter(str(tmp_path), tiny.config()) as writer:
        writer.write(1, "train", {"loss": 1.0})
    assert not runs


def test_a_tracker_that_cannot_be_reached_is_one_line(tmp_path, monkeypatch):
    def refuse(**options):
        raise wandb.errors.UsageError("No API key configured.\nMore lines")

    monkeypatch.setattr(wandb, "init", refuse)
    config = tiny.config()
    config.tracker = "wandb"
    with pytest.raises(UserError, match=r"config.tracker='wandb': No API key configured\.; log in \(wandb login\)"):
        MetricWriter(str(tmp_path), config)


def test_a_tracker_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    check_tracker("none")
    with pytest.raises(UserError, match=r"config.tracker='wandb' is not installed; pip install 'mmvm_jax\[wandb\]'"):
        check_tracker("wandb")


@pytest.fixture
def store(tmp_path, monkeypatch):
    """MLflow's client of a store on the local disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return mlflow.MlflowClient()


def test_mlflow_is_told_the_same_under_the_same_names(tmp_path, store):
    config, workdir = tiny.config(), tmp_path / "run"
    config.tracker = "mlflow"
    workdir.mkdir()
    with MetricWriter(str(workdir), config) as writer:
        writer.write(3, "train", {"loss": 2.5, "grad_norm": np.nan})
        writer.write(6, "test", {"loss": 2.0, "divergence/height": 1.5})
    with MetricWriter(str(workdir), config, from_step=6) as writer:
        writer.write(9, "train", {"loss": 1.5})
    track_evaluation(str(workdir), config, 9, {"probe/accuracy/mean": 0.75})
    (experiment,) = [one for one in store.search_experiments() if one.name == "mmvm_jax"]
    (run,) = store.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run" and run.info.status == "FINISHED"
    assert run.data.metrics == {
        "train/loss": 1.5, "test/loss": 2.0, "test/divergence/height": 1.5, "evaluation/probe/accuracy/mean": 0.75,
    }  # fmt: skip
    assert [(one.step, one.value) for one in store.get_metric_history(run.info.run_id, "train/loss")] == [
        (3, 2.5),
        (9, 1.5),
    ]
    assert run.data.params["method.name"] == "mmvm" and run.data.params["network.mlp.hidden_dims"] == "(8,)"


def test_a_store_of_mlflow_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://")
    config = tiny.config()
    config.tracker = "mlflow"
    with pytest.raises(UserError, match=r"config.tracker='mlflow': .*set MLFLOW_TRACKING_URI"):
        MetricWriter(str(tmp_path), config)


def test_callbacks_are_called_with_every_line(tmp_path):
    lines = []
    with MetricWriter(str(tmp_path), tiny.config(), callbacks=[lambda *line: lines.append(line)]) as writer:
        writer.write(3, "train", {"loss": 2.5, "grad_norm": np.nan})
    assert lines == [(3, "train", {"loss": 2.5, "grad_norm": None})]
