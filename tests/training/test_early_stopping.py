"""Early stopping: the monitored values, the step at which training stops, and the use of the best checkpoint."""

import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.artifacts.checkpoints import BEST, Checkpoints
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.errors import UserError
from mmvm_jax.experiments import run as running
from mmvm_jax.training.early_stopping import EarlyStopping


@pytest.fixture
def config():
    config = tiny.config()
    config.train.update({"steps": 40, "checkpoint_every": 4, "log_every": 4})
    config.train.early_stopping.update({"patience": 2, "share": 0.25})
    config.method.mmvm.anneal_alpha.steps = 4
    return config


def _stopping(config, *values):
    stopping = EarlyStopping(config, {})
    return stopping, [stopping.update(4 * (place + 1), {"loss": value}) for place, value in enumerate(values)]


def test_it_stops_after_so_many_checkpoints_without_improvement(config):
    stopping, improved = _stopping(config, 3.0, 2.0, 2.5)
    assert improved == [True, True, False] and not stopping.is_over and stopping.best_step(12) == 8
    resumed = EarlyStopping(config, stopping.progress)
    assert not resumed.update(16, {"loss": 2.0}) and resumed.is_over and resumed.best_step(16) == 8
    config.train.early_stopping.patience = 0
    stopping, _ = _stopping(config, 3.0, 4.0, 5.0, 6.0)
    assert not stopping.is_over and stopping.progress == {}


def test_a_log_likelihood_is_better_if_it_is_higher(config):
    config.train.early_stopping.metric = "log_likelihood/height"
    stopping = EarlyStopping(config, {})
    assert stopping.update(4, {"log_likelihood/height": -3.0}) and stopping.update(8, {"log_likelihood/height": -2.0})


def test_nan_is_no_improvement(config):
    stopping, improved = _stopping(config, np.nan, 2.0, np.nan)
    assert improved == [False, True, False]


def test_the_best_checkpoint_is_used_and_a_finished_run_is_finished(config, tmp_path, monkeypatch):
    """The loss of the monitored examples is made best at step 8; training stops at step 16."""
    measure = running.held_out_objective

    def best_at_8(*arguments, annealed=True, **options):
        found = measure(*arguments, annealed=annealed, **options)
        return found if annealed else lambda state, hyper: {"loss": abs(int(state.step) - 8.0)}

    monkeypatch.setattr(running, "held_out_objective", best_at_8)
    data, workdir = tiny.arrays(photo=None, map=None, note=None), str(tmp_path)
    seen = data["height__present"] | data["spikes__present"]
    data = {name: array[seen] for name, array in data.items() if not name.startswith(("photo", "map", "note"))}
    model = mmvm_jax.fit(data, config, workdir)
    for split in ("monitored", "train"):
        assert [line["step"] for line in read_metrics(workdir) if line["split"] == split] == [4, 8, 12, 16]
    with Checkpoints(workdir) as newest, Checkpoints(workdir, BEST) as best:
        assert (newest.latest_step, best.latest_step) == (16, 8)
    loaded = mmvm_jax.load(workdir)
    np.testing.assert_array_equal(loaded.encode(data)["height__mean"], model.encode(data)["height__mean"])
    config.train.update({"steps": 8})
    alone = mmvm_jax.fit(data, config, str(tmp_path / "alone"))
    np.testing.assert_array_equal(loaded.encode(data)["height__mean"], alone.encode(data)["height__mean"])


def test_an_unknown_metric_is_named_at_the_first_checkpoint(config, tmp_path):
    config.train.early_stopping.metric = "los"
    data = {"height": tiny.arrays()["height"]}
    with pytest.raises(UserError, match="config.train.early_stopping.metric is 'los'; allowed: divergence/height, l"):
        mmvm_jax.fit(data, config, str(tmp_path))


def test_a_share_that_leaves_nothing_is_refused(config):
    config.train.early_stopping.share = 0.001
    with pytest.raises(UserError, match="config.train.early_stopping.share is 0.001; allowed: a share of 48 training"):
        mmvm_jax.fit({"height": tiny.arrays()["height"]}, config)
