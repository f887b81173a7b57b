"""The optimisers and schedules against optax's own, clipping, averaging, and that all of it resumes bit-for-bit."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_run import config, data  # noqa: F401, fixtures

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.config import base
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import clip, learning_rate_factor, make_optimizer
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import _move_average, make_step

RATE = 0.1
PARAMS = {"layer": {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([0.5])}, "embedding": np.array([3.0])}


def _gradients(step):
    return jax.tree.map(lambda leaf: np.sin(leaf + step), PARAMS)


def _after(optimizer, rate=1.0, value=1.0):
    """The parameters after five steps."""
    params, state = PARAMS, optimizer.init(PARAMS)
    for step in range(5):
        updates, state = optimizer.update(_gradients(step), state, params, value=value)
        params = jax.tree.map(lambda p, u: p + rate * u, params, updates)  # noqa: B023
    return params


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("adam", optax.adam(RATE, 0.8, 0.9, 1e-6)),
        ("amsgrad", optax.amsgrad(RATE, 0.8, 0.9, 1e-6)),
        (
            "adamw",
            optax.adamw(
                RATE, 0.8, 0.9, 1e-6, weight_decay=0.3,
                mask={"layer": {"kernel": True, "bias": False}, "embedding": True},
            ),
        ),
        ("sgd", optax.sgd(RATE, momentum=0.7)),
    ],
)  # fmt: skip
def test_an_optimiser_is_that_of_optax(name, expected):
    config = base()
    config.optimizer.update({"name": name, "b1": 0.8, "b2": 0.9, "eps": 1e-6, "weight_decay": 0.3, "momentum": 0.7})
    found = _after(make_optimizer(config), -RATE)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-6),
        found,
        _after(optax.with_extra_args_support(expected)),
    )


def test_weight_decay_leaves_biases_and_normalisation_alone(config, data):
    config.optimizer.update({"name": "adamw", "weight_decay": 1.0, "b1": 0.0, "b2": 0.0})
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    state = init_state(config, model, method, first_batch(config, data))
    nothing = jax.tree.map(jnp.zeros_like, state.params)
    updates, _ = make_optimizer(config).update(nothing, state.optimizer, state.params)
    for path, update in jax.tree_util.tree_leaves_with_path(updates):
        assert bool(jnp.any(update != 0)) == (path[-1].key == "kernel"), path


def test_schedules_at_their_ends_and_between():
    config = base()
    at = lambda step: float(learning_rate_factor(config, jnp.int32(step), 1_000))
    assert [at(step) for step in (0, 500, 999)] == [1.0, 1.0, 1.0]
    config.optimizer.schedule.update({"warmup": 0.1, "end": 0.25})
    np.testing.assert_allclose([at(step) for step in (0, 50, 100, 999)], [0.0, 0.5, 1.0, 1.0])
    config.optimizer.schedule.name = "cosine"
    np.testing.assert_allclose([at(step) for step in (0, 50, 100, 550, 1000)], [0, 0.5, 1, 0.625, 0.25], atol=1e-6)
    config.optimizer.schedule.name = "exponential"
    np.testing.assert_allclose([at(step) for step in (0, 50, 100, 550, 1000)], [0, 0.5, 1, 0.5, 0.25], atol=1e-6)


def test_a_plateau_lowers_the_learning_rate():
    config = base()
    config.optimizer.update({"name": "sgd", "momentum": 0.0})
    config.optimizer.schedule.update({"name": "plateau", "factor": 0.5, "patience": 1, "every": 1})
    optimizer = make_optimizer(config)
    state, sizes = optimizer.init({"a": jnp.zeros(())}), []
    for value in (3.0, 2.0, 2.0, 2.0, 2.0):
        updates, state = optimizer.update({"a": jnp.ones(())}, state, value=value)
        sizes.append(float(updates["a"]))
    assert sizes[:2] == [1.0, 1.0] and sizes[-1] < sizes[1] and set(sizes) <= {1.0, 0.5, 0.25, 0.125}


def test_clipping_keeps_the_direction():
    gradients = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
    clipped = clip(gradients, 1.0)
    np.testing.assert_allclose(clipped["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped["b"], [0.8], rtol=1e-6)
    np.testing.assert_allclose(clip(gradients, 10.0)["a"], gradients["a"])
    assert clip(gradients, 0.0) is gradients


def test_the_norm_that_is_logged_is_that_before_clipping_and_one_step_of_sgd_is_clipped(config, data):
    config.optimizer.update({"name": "sgd", "momentum": 0.0, "clip_norm": 1e-3})
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    batch = first_batch(config, data)
    state = init_state(config, model, method, batch)
    hyper = {"seed": jnp.uint32(0), "learning_rate": jnp.float32(1.0), "beta": 0.5, "alpha": 0.1, "temperature": 1.0}
    step = devices.data_parallel(make_step(config, model, method, 12), reduced=True)
    after, metrics = jax.device_get(step(state, batch, hyper))
    assert metrics["grad_norm"] > 1.0
    moved = jax.tree.map(lambda new, old: new - np.asarray(old), after.params, state.params)
    np.testing.assert_allclose(optax.tree.norm(moved), 1e-3, rtol=1e-3)


def test_the_average_forgets_faster_at_first():
    move = lambda step: _move_average({"a": jnp.float32(0.0)}, {"a": jnp.float32(1.0)}, jnp.int32(step), 0.99)
    np.testing.assert_allclose([float(move(step)["a"]) for step in (0, 5, 10_000)], [0.9, 9 / 15, 0.01], rtol=1e-4)


def _train(config, data, workdir, monitored=None):
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    return train(config, model, method, data, str(workdir), monitored=monitored)


def _everything(config):
    config.optimizer.update({"name": "adamw", "weight_decay": 0.1, "clip_norm": 5.0})
    config.optimizer.schedule.update({"name": "plateau", "every": 2, "patience": 1, "warmup": 0.25})
    config.method.anneal_beta.update({"shape": "linear", "start": 0.0, "fraction": 0.5, "cycles": 2})
    config.train.average = 0.9
    config.train.early_stopping.patience = 2
    config.train.update({"steps": 24, "checkpoint_every": 4, "log_every": 3})


def _values(state, hyper):
    """Monitored values that improve until step 12; training stops at step 20."""
    return {"loss": abs(int(state.step) - 12.0)}


def test_with_everything_on_training_in_two_parts_equals_training_at_once(config, data, tmp_path, monkeypatch):
    _everything(config)
    whole = _train(config, data, tmp_path / "whole", _values)
    save = Checkpoints.save

    def save_then_die(self, step, *rest):
        save(self, step, *rest)
        if step == 16 and self._directory.endswith("checkpoints"):
            self._manager.wait_until_finished()
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        _train(config, data, tmp_path / "parts", _values)
    monkeypatch.setattr(Checkpoints, "save", save)
    parts = _train(config, data, tmp_path / "parts", _values)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    lines = [read_metrics(str(tmp_path / name)) for name in ("whole", "parts")]
    assert lines[0] == lines[1] and lines[0][-1]["step"] == 20
    assert int(whole.step) == 12
    both = jax.tree.leaves(whole.params), jax.tree.leaves(whole.optimizer.average)
    assert all((np.asarray(left) != np.asarray(right)).any() for left, right in zip(*both))
