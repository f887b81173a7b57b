"""The objective on held-out examples: what it is of, and where it is logged."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import config, data  # noqa: F401, fixtures

from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data.batches import gather, some_rows
from mmvm_jax.data.dataset import select_examples
from mmvm_jax.evaluation.held_out import held_out_objective
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training import side_by_side
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state

TEST_EXAMPLES = 37  # the last batch of 16 is not full


@pytest.fixture
def prepared(config, data):
    config.method.mmvm.update({"estimator": "monte_carlo", "alpha": 0.2})
    config.method.mmvm.anneal_alpha.update({"shape": "linear", "start": 1.0, "fraction": 0.5})
    test = select_examples(data.test, np.arange(64) < TEST_EXAMPLES)
    data = dataclasses.replace(data, test=test)
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    return config, model, method, data


def test_it_is_the_mean_loss_with_the_hyper_parameters_of_the_step(prepared):
    config, model, method, data = prepared
    state = init_state(config, model, method, first_batch(config, data))
    hyper = hyper_parameters(config)
    measure = held_out_objective(config, model, method, data.test, 12)
    batch = model.prepare(gather(data.test, np.arange(TEST_EXAMPLES, dtype=np.int32)))
    for step, alpha in ((0, 1.0), (3, 0.6), (6, 0.2), (12, 0.2)):
        now = hyper | {"alpha": jnp.asarray(alpha)}
        key = jax.random.key(config.seed)
        expected = method.loss(key, batch, model.bind(state.variables), now)
        actual = measure(state._replace(step=jnp.int32(step)), hyper)
        assert actual.keys() == {"loss", *expected.terms}
        for name, values in (expected.terms | {"loss": expected.loss}).items():
            np.testing.assert_allclose(actual[name], np.mean(values), rtol=1e-5, err_msg=name)


def test_ten_batches_suffice(prepared):
    config, model, method, data = prepared
    config.train.batch_size = 4
    chosen = some_rows(64, 40)
    data.train.inputs["c"][np.setdiff1d(np.arange(64), chosen)] = np.nan
    state = init_state(config, model, method, first_batch(config, data))
    measured = held_out_objective(config, model, method, data.train, 12)(state, hyper_parameters(config))
    assert np.isfinite(measured["loss"])
    data.train.inputs["c"][chosen[data.train.present[2, chosen]][:1]] = np.nan
    measured = held_out_objective(config, model, method, data.train, 12)(state, hyper_parameters(config))
    assert np.isnan(measured["loss"])


@pytest.mark.parametrize(("validation", "split"), [(0.0, "test"), (0.2, "validation")])
def test_it_is_logged_with_every_checkpoint_under_its_split(prepared, tmp_path, validation, split):
    config, model, method, data = prepared
    config.data.validation = validation
    held_out = held_out_objective(config, model, method, data.test, 12)
    state = train(config, model, method, data, str(tmp_path), held_out)
    lines = read_metrics(str(tmp_path))
    assert [line["step"] for line in lines if line["split"] == split] == [4, 8, 12]
    assert {line["split"] for line in lines} == {"train", split}
    np.testing.assert_allclose(lines[-1]["loss"], held_out(state, hyper_parameters(config))["loss"], rtol=1e-6)


def test_runs_side_by_side_have_the_lines_of_runs_alone(prepared, tmp_path):
    config, model, method, data = prepared
    held_out, found = held_out_objective(config, model, method, data.test, 12), {}
    for where in ("together", "alone"):
        runs = [side_by_side.Replica(copy.deepcopy(config), str(tmp_path / f"{where}{number}")) for number in range(2)]
        runs[1].config.update({"seed": 1, "method": {"beta": 2.0}})
        if where == "together":
            side_by_side.train_replicas(runs, model, method, data, held_out)
        else:
            for run in runs:
                train(run.config, model, method, data, run.workdir, held_out)
        lines = [line for run in runs for line in read_metrics(run.workdir)]
        found[where] = [(line["step"], line["split"]) for line in lines], [line["loss"] for line in lines]
    assert found["together"][0] == found["alone"][0]
    np.testing.assert_allclose(found["together"][1], found["alone"][1], rtol=1e-4)
