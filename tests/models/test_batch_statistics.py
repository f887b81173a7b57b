"""Training with batch statistics and dropout: devices, absent inputs, evaluation, methods, resumption."""

import dataclasses

import jax
import jax.numpy as jnp
import normalised
import numpy as np
import pytest

from mmvm_jax import networks
from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.config import base
from mmvm_jax.data.batches import Batches
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.models.model import join_statistics, make_model, split_statistics
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.types import Batch, Modality


@pytest.fixture
def config(monkeypatch):
    monkeypatch.setitem(networks.NETWORKS, "tiny", normalised)
    config = base()
    config.network.update({"name": "tiny", "latent_dim": 3})
    config.method.mmvae_plus.private_dim = 1
    config.method.meme.update({"num_samples": 2, "num_pseudo_inputs": 5})
    config.optimizer.eps = 1.0  # at the default, Adam makes a whole step of the rounding of a zero gradient
    config.train.update({"batch_size": 16, "steps": 6, "checkpoint_every": 2, "log_every": 2})
    return config


@pytest.fixture
def data():
    """Two banks; masks that differ between devices; the first 16 examples lack all of b."""
    generator = np.random.default_rng(0)
    modalities = tuple(Modality(name, (size,), "vector", "normal") for name, size in zip("abc", (5, 4, 5)))
    inputs = {m.name: generator.normal(2.0, 3.0, (64, *m.shape)).astype(np.float32) for m in modalities}
    present = generator.random((3, 64)) < 0.7
    present[0, :4] = False
    present[1, :16] = False
    split = Split(inputs, present, generator.integers(0, 3, 64).astype(np.int32))
    for row, array in enumerate(inputs.values()):
        array[~present[row]] = np.nan
    return DataSet(modalities, split, split, 3, "class", "fingerprint")


def _prepare(config, data):
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    state = init_state(config, model, method, first_batch(config, data))
    step = devices.data_parallel(make_step(config, model, method, config.train.steps), reduced=True)
    return model, state, step, hyper_parameters(config) | {"learning_rate": jnp.float32(1e-2)}


def _steps(config, data, count=4):
    _, state, step, hyper = _prepare(config, data)
    batches, history = Batches(data.train, config.train.batch_size, 0), []
    for _ in range(count):
        state, metrics = step(state, next(batches), hyper)
        history.append(metrics)
    return jax.device_get(state), jax.device_get(history)


def _in_order(data, rows=slice(0, 16)):
    """The batch of these rows."""
    split = data.train
    inputs = {name: array[rows] for name, array in split.inputs.items()}
    index = np.arange(len(split.labels), dtype=np.int32)[rows]
    return Batch(inputs, split.present[:, rows], index, split.labels[rows])


def _assert_same(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


@pytest.mark.parametrize("method", ["mmvae", "mmvae_plus", "meme"])
def test_samples_of_an_absent_modality_leave_statistics_alone(method, config, data):
    """Each of these decodes every modality's samples, also what stands for that of an absent one."""
    config.method.name = method
    means = []
    for names in ("abc", "ac"):
        rows = ["abc".index(name) for name in names]
        split = data.train._replace(
            inputs={name: data.train.inputs[name] for name in names}, present=data.train.present[rows]
        )
        chosen = dataclasses.replace(
            data, modalities=tuple(data.modalities[row] for row in rows), train=split, test=split
        )
        _, state, step, hyper = _prepare(config, chosen)
        state, _ = step(state, _in_order(chosen), hyper)  # all of b is absent from these rows
        means.append(state.statistics["decoders"][0]["batch_stats"]["BatchNorm_0"]["mean"])
    np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-5)


def test_four_devices_equal_one(config, data, monkeypatch):
    """Statistics, dropout and gradients through both: whatever the number of devices."""
    assert devices.num_devices() == 4
    many = _steps(config, data)
    monkeypatch.setattr(devices, "num_devices", lambda: 1)
    _assert_same(many, _steps(config, data), rtol=1e-4, atol=1e-5)


def test_the_first_layer_sees_the_mean_of_the_observed(config, data):
    """Running statistics of the first layer after one step, from the data by hand."""
    model, state, step, hyper = _prepare(config, data)
    batch = _in_order(data, slice(16, 32))
    after, _ = step(state, batch, hyper)
    for place, group in enumerate(model.groups):
        for member, row in enumerate(group.rows):
            own = lambda tree: jax.tree.map(lambda leaf: np.asarray(leaf)[member], tree["encoders"][place])
            dense = own(state.params)["params"]["Dense_0"]
            x = batch.inputs[model.names[row]][batch.present[row]] @ dense["kernel"] + dense["bias"]
            found = own(after.statistics)["batch_stats"]["BatchNorm_0"]
            np.testing.assert_allclose(found["mean"], 0.1 * x.mean(axis=0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["variance"], 0.9 + 0.1 * x.var(axis=0, ddof=1), rtol=1e-4)


def test_a_batch_without_a_modality_leaves_its_statistics(config, data):
    model, state, step, hyper = _prepare(config, data)
    after, metrics = step(state, _in_order(data), hyper)
    assert np.isfinite(metrics["loss"])
    moved = jax.tree.map(lambda a, b: np.asarray(a != b), state.statistics, after.statistics)
    for part in moved:
        for group, statistics in zip(model.groups, moved[part]):
            for leaf in jax.tree.leaves(statistics):
                for member, row in enumerate(group.rows):
                    assert (leaf[member] == (model.names[row] != "b")).all()


def test_what_absent_inputs_hold_changes_nothing(config, data):
    expected = _steps(config, data)
    for row, array in enumerate(data.train.inputs.values()):
        array[~data.train.present[row]] = 1e6
    jax.tree.map(np.testing.assert_array_equal, expected, _steps(config, data))


def test_evaluation_is_frozen_and_blind_to_neighbours(config, data):
    state, _ = _steps(config, data)
    model = make_model(data.modalities, config.network)
    batch = model.prepare(_in_order(data))
    encode = lambda inputs: model.bind(state.variables).encode(inputs)
    whole, alone = encode(batch.inputs), encode({name: x[3:4] for name, x in batch.inputs.items()})
    _assert_same(jax.tree.map(lambda leaf: leaf[:, 3:4], whole), alone, rtol=1e-5, atol=1e-6)
    _, fresh = split_statistics(model.init(jax.random.key(0)))
    unmoved = model.bind(join_statistics(state.params, fresh))
    assert np.abs(whole.mean - unmoved.encode(batch.inputs).mean).max() > 0.01  # it does read them


def test_only_parameters_are_learned(config, data):
    _, state, _, _ = _prepare(config, data)
    names = lambda tree: {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    assert not any("batch_stats" in name for name in names(state.params) | names(state.optimizer))
    assert all("batch_stats" in name for name in names(state.statistics)) and names(state.statistics)
    assert names(state.optimizer.mu) == names(state.params)
    params, statistics = split_statistics(state.variables)
    jax.tree.map(np.testing.assert_array_equal, (params, statistics), (state.params, state.statistics))


@pytest.mark.parametrize(
    "name, option",
    [
        ("joint", {}),
        ("mmvae", {"gradient": "dreg"}),
        ("meme", {}),
    ],
)
def test_methods_do_not_notice(config, data, name, option):
    """Every way of calling the networks, inside a differentiated function too, moves all statistics."""
    config.method.name = name
    config.method[name].update(option)
    _, before, _, _ = _prepare(config, data)
    state, history = _steps(config, data, 2)
    assert all(np.isfinite(value) for metrics in history for value in metrics.values())
    for old, new in zip(jax.tree.leaves(before.statistics), jax.tree.leaves(state.statistics)):
        assert (np.asarray(old) != new).all()


def test_learned_inputs_stay_out_of_the_statistics(config, data):
    """MEME's pseudo-inputs are encoded as in evaluation: encoders have the statistics of another method."""
    _, state, _, _ = _prepare(config, data)
    config.method.name = "meme"
    _, with_pseudo_inputs, step, hyper = _prepare(config, data)
    jax.tree.map(np.testing.assert_array_equal, state.statistics, with_pseudo_inputs.statistics)
    after, _ = step(with_pseudo_inputs, _in_order(data), hyper)
    config.method.name = "mmvm"
    _, _, step, hyper = _prepare(config, data)
    other, _ = step(state, _in_order(data), hyper)
    _assert_same(after.statistics["encoders"], other.statistics["encoders"], rtol=1e-5, atol=1e-6)


def _train(config, data, workdir):
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    return jax.device_get(train(config, model, method, data, str(workdir)))


def test_training_in_two_parts_equals_training_at_once(config, data, tmp_path, monkeypatch):
    whole = _train(config, data, tmp_path / "whole")
    save = Checkpoints.save

    def save_then_die(self, step, *rest):
        save(self, step, *rest)
        if step == 4:
            self._manager.wait_until_finished()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoints, "save", save_then_die)
        _train(config, data, tmp_path / "parts")
    parts = _train(config, data, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert np.abs(whole.statistics["encoders"][0]["batch_stats"]["BatchNorm_0"]["mean"]).min() > 0
