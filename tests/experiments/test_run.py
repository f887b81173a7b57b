"""What a run does with what its workdir already holds; the evaluation itself is replaced by one that does nothing."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny

from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.errors import UserError
from mmvm_jax.evaluation import evaluate
from mmvm_jax.evaluation.evaluate import Evaluation
from mmvm_jax.experiments import run as running
from mmvm_jax.objectives.method import describe_schedules
from mmvm_jax.report import report


@pytest.fixture
def config(tmp_path):
    """A run of three steps on two vectors."""
    vectors = {name: np.random.default_rng(0).normal(size=(60, 3)) for name in ("height", "width")}
    np.savez(tmp_path / "data.npz", height__present=np.arange(60) % 2 == 0, **vectors)
    config = tiny.config()
    config.data.update({"path": str(tmp_path / "data.npz"), "dir": str(tmp_path / "data")})
    return config


@pytest.fixture
def run(tmp_path, monkeypatch):
    """``run(config, mode)`` in one workdir; returns whether it evaluated."""
    evaluated = []

    def nothing(config, trained, data, prior):
        evaluated.append(config.evaluation.to_dict())
        if config.evaluation.likelihood_samples == 99:
            raise ZeroDivisionError("in the middle of it")
        return Evaluation({}, *[None] * 4)

    def write_report(config, evaluation, description, history, workdir, command):
        (tmp_path / "run" / "report.html").write_text("")

    monkeypatch.setattr(evaluate, "evaluate", nothing)
    monkeypatch.setattr(report, "write_report", write_report)

    def run(config, mode="train_and_evaluate"):
        before = len(evaluated)
        running.run(config, str(tmp_path / "run"), mode, "")
        return len(evaluated) > before

    return run


def test_what_is_finished_is_not_done_again(config, run, tmp_path):
    assert run(config) and not run(config)
    shutil.rmtree(tmp_path / "run" / "checkpoints")  # as a sweep does that keeps none
    assert not run(config)


def test_the_log_says_how_long_alpha_is_annealed(config, run, caplog):
    config.method.mmvm.update({"alpha": 0.1, "anneal_alpha": {"shape": "linear", "start": 1.0, "fraction": 0.5}})
    with caplog.at_level("INFO", logger="mmvm_jax"):
        run(config, "train")
    line = (
        "alpha moves from 1 to 0.1 during the first 2 steps (config.method.mmvm.anneal_alpha.fraction=0.5); with so few"
    )
    assert line in caplog.text
    assert describe_schedules(config.method, 1_000) == {line.replace("first 2 ", "first 500 ").split("; with")[0]: 500}


def test_an_evaluation_after_fewer_steps_is_not_the_last(config, run, tmp_path):
    run(config)
    path = tmp_path / "run" / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"train/steps": 2}))
    assert run(config) and not run(config)


def test_training_alone_does_not_pass_for_an_evaluation_with_new_settings(config, run):
    run(config)
    config.evaluation.likelihood_samples = 7
    assert not run(config, "train")
    assert run(config) and not run(config)


def test_an_evaluation_that_was_cut_off_is_done_again(config, run):
    run(config)
    config.evaluation.likelihood_samples = 99
    with pytest.raises(ZeroDivisionError):
        run(config)
    with pytest.raises(ZeroDivisionError):
        run(config)


def test_evaluation_on_other_data_is_refused_and_changes_nothing(config, run, tmp_path):
    run(config)
    description = (tmp_path / "run" / "data.json").read_text()
    np.savez(tmp_path / "data.npz", height=np.ones((60, 3)), width=np.ones((60, 3)))
    with pytest.raises(UserError, match="holds a run on other data"):
        run(config, "evaluate")
    assert (tmp_path / "run" / "data.json").read_text() == description


def test_how_often_is_logged_and_saved_may_change_but_not_the_networks(config, run):
    run(config, "train")
    config.train.update({"log_every": 1, "checkpoint_every": 7})
    assert run(config)
    config.network.mlp.hidden_dims = (9,)  # which by_kind reads
    with pytest.raises(UserError, match=r"another configuration.*\+config.network.mlp.hidden_dims = \[9\]"):
        run(config)


def test_a_run_may_be_made_longer_where_its_schedules_end_as_they_did(config, run, tmp_path):
    """To the same bits as one that was as long from the start."""
    config.method.mmvm.anneal_alpha.update({"shape": "linear", "fraction": 0.6})
    config.train.steps = 3
    assert run(config)
    config.train.steps = 6
    with pytest.raises(UserError, match=r"anneal_alpha.fraction of training = .1.8 steps.*\+.* = .3.6 steps"):
        run(config)
    config.method.mmvm.anneal_alpha.fraction = 0.3
    assert run(config) and not run(config)
    running.run(config, str(tmp_path / "whole"), "train", "")
    parts, whole = (
        [line for line in read_metrics(str(tmp_path / name)) if line["step"] == 6] for name in ("run", "whole")
    )
    assert parts == whole and [line["split"] for line in whole] == ["train", "test"]
    config.train.steps, config.method.mmvm.anneal_alpha.fraction = 3, 0.6
    with pytest.raises(UserError, match="holds 6 steps of training; allowed: no fewer, not 3"):
        run(config)


def test_a_run_says_what_made_it(config, run, tmp_path):
    run(config, "train")
    made = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert made["devices"] == "4 x cpu" and made["jax"] == jax.__version__ and made["mmvm_jax"]
    assert made["self_check"]["passed"] and max(made["self_check"]["largest_errors"].values()) < 1e-5


def test_data_may_be_moved(config, run, tmp_path):
    run(config)
    config.data.path = str((tmp_path / "data.npz").rename(tmp_path / "moved.npz"))
    assert run(config, "evaluate")


def test_evaluation_repairs_what_says_which_data_they_were(config, run, tmp_path):
    run(config)
    description = (tmp_path / "run" / "data.json").read_text()
    (tmp_path / "run" / "data.json").write_text("{")
    assert run(config, "evaluate")
    assert (tmp_path / "run" / "data.json").read_text() == description


def test_training_goes_where_evaluation_was_tried_too_early(config, run):
    with pytest.raises(UserError, match="holds no checkpoint; train first"):
        run(config, "evaluate")
    assert run(config)


@pytest.mark.parametrize(("alpha", "warnings"), [(0.0, 1), (0.1, 0)])
def test_posteriors_that_nothing_holds_are_warned_of(config, run, caplog, alpha, warnings):
    config.method.mmvm.alpha = alpha
    run(config, "train")
    lines = [line for line in caplog.messages if "of the training examples have a single modality" in line]
    assert len(lines) == warnings
