"""The training step and loop: devices, noise, resumption, and what stops a run."""

import json
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import ask_after, config, data  # noqa: F401, fixtures

from mmvm_jax.artifacts.checkpoints import Checkpoints
from mmvm_jax.artifacts.metric_writers import MetricWriter, read_metrics
from mmvm_jax.data.batches import Batches
from mmvm_jax.errors import Stopped, UserError
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives import mmvm
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.runtime.signals import Interruption, obey_termination
from mmvm_jax.training.loop import num_steps, train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step
from mmvm_jax.types import LossOutput


def _prepare(config, data):
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    batch = first_batch(config, data)
    state = init_state(config, model, method, batch)
    hyper = hyper_parameters(config) | {"learning_rate": jnp.float32(1e-2)}
    return model, method, state, hyper


def _steps(config, data, count):
    model, method, state, hyper = _prepare(config, data)
    step = devices.data_parallel(make_step(config, model, method, 12), reduced=True)
    batches, history = Batches(data.train, config.train.batch_size, 0), []
    for _ in range(count):
        state, metrics = step(state, next(batches), hyper)
        history.append(metrics)
    return jax.device_get(state), jax.device_get(history)


@pytest.mark.parametrize("name", ["mmvm", "joint", "independent"])
def test_four_devices_equal_one(config, data, monkeypatch, name):
    config.method.name = name
    config.optimizer.eps = 1.0  # at the default, Adam blows the rounding of a zero gradient up to a whole step
    many, many_metrics = _steps(config, data, 5)
    assert devices.num_devices() == 4
    monkeypatch.setattr(devices, "num_devices", lambda: 1)
    one, one_metrics = _steps(config, data, 5)
    for left, right in zip(jax.tree.leaves(many), jax.tree.leaves(one)):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    for left, right in zip(many_metrics, one_metrics):
        assert left.keys() == right.keys()
        for term in left:
            np.testing.assert_allclose(left[term], right[term], rtol=1e-4, atol=1e-5, err_msg=term)


def test_pieces_of_a_batch_equal_the_whole(config, data):
    whole, whole_metrics = _steps(config, data, 3)
    config.train.accumulate = 2
    pieces, metrics = _steps(config, data, 3)
    for left, right in zip(jax.tree.leaves(pieces), jax.tree.leaves(whole)):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)
    for left, right in zip(metrics, whole_metrics):
        np.testing.assert_allclose(left["loss"], right["loss"], rtol=1e-5)


def test_terms_add_up_to_the_loss(config, data):
    _, history = _steps(config, data, 2)
    for metrics in history:
        divergence = sum(value for name, value in metrics.items() if name.startswith("divergence/"))
        log_likelihood = sum(value for name, value in metrics.items() if name.startswith("log_likelihood/"))
        np.testing.assert_allclose(metrics["loss"], 0.5 * divergence - log_likelihood, rtol=1e-5)


def test_a_loss_that_is_not_one_number_per_example_is_refused(config, data, monkeypatch):
    loss = mmvm.loss
    monkeypatch.setattr(mmvm, "loss", lambda *args, **options: LossOutput(jnp.mean(loss(*args, **options).loss), {}))
    with pytest.raises(ValueError, match=r"^'loss' of method 'mmvm' has shape \[\]; allowed: \[4\]"):
        _steps(config, data, 1)


def test_a_step_is_adam_on_the_mean_loss(config, data):
    """The first step of Adam moves every parameter by the learning rate against its gradient's sign."""
    model, method, state, hyper = _prepare(config, data)
    batch = first_batch(config, data)
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    loss = lambda params: jnp.mean(method.loss(key, model.prepare(batch), model.bind(params), hyper).loss)
    gradients = jax.device_get(jax.grad(loss)(state.params))
    step = devices.data_parallel(make_step(config, model, method, 12), reduced=True)
    after, _ = step(state, batch, hyper)
    for gradient, old, new in zip(*map(jax.tree.leaves, (gradients, state.params, jax.device_get(after.params)))):
        large = np.abs(gradient) > 1e-5
        np.testing.assert_allclose((new - old)[large], -1e-2 * np.sign(gradient)[large], rtol=2e-2)


def test_the_seed_decides_everything(config, data):
    first, _ = _steps(config, data, 2)
    again, _ = _steps(config, data, 2)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    config.seed = 1
    other, _ = _steps(config, data, 2)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(first.params), jax.tree.leaves(other.params)))


def _train(config, data, workdir):
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    return train(config, model, method, data, str(workdir))


def test_training_in_two_parts_equals_training_at_once(config, data, tmp_path, monkeypatch):
    whole = _train(config, data, tmp_path / "whole")
    save, stop_at = Checkpoints.save, 8

    def save_then_die(self, step, *rest):
        save(self, step, *rest)
        if step == stop_at:
            self._manager.wait_until_finished()
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        _train(config, data, tmp_path / "parts")
    monkeypatch.setattr(Checkpoints, "save", save)
    parts = _train(config, data, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    assert read_metrics(str(tmp_path / "whole")) == read_metrics(str(tmp_path / "parts"))


def test_metrics_of_steps_to_be_done_again_are_dropped(config, data, tmp_path):
    _train(config, data, tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 13, "split": "train", "loss": 0.0}) + "\n" + '{"step": 1')
    _train(config, data, tmp_path)
    assert [line["step"] for line in read_metrics(str(tmp_path))] == [3, 4, 6, 8, 9, 12]


def test_a_loss_that_is_not_finite_names_step_and_term_and_keeps_the_checkpoint(config, data, tmp_path):
    config.train.update({"log_every": 1, "checkpoint_every": 1})
    batches = Batches(data.train, config.train.batch_size, config.seed)
    next(batches), next(batches)
    poisoned = next(row for row in next(batches).index if data.train.present[2, row])
    data.train.inputs["c"][poisoned] = np.nan
    with pytest.raises(UserError, match=r"step 3: .*log_likelihood/c.* not finite") as caught:
        _train(config, data, tmp_path)
    assert caught.value.exit_code == 1
    model, method, state, _ = _prepare(config, data)
    with Checkpoints(str(tmp_path)) as checkpoints:
        restored = checkpoints.restore(state)
    assert restored.step == 2
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(restored.state)))


def test_epochs_and_steps(config):
    assert num_steps(config, 100) == 12
    config.train.update({"steps": 0, "epochs": 2.0, "batch_size": 16})
    assert num_steps(config, 100) == 12  # 6 full batches an epoch


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_training_and_loses_nothing(config, data, tmp_path, monkeypatch, number):
    config.train.update({"log_every": 1, "checkpoint_every": 100})
    whole = _train(config, data, tmp_path / "whole")
    ask_after(monkeypatch, MetricWriter, "write", 3, number)
    with pytest.raises(Stopped, match="stopped and saved at step") as stopped:
        _train(config, data, tmp_path / "parts")
    with Checkpoints(str(tmp_path / "parts")) as checkpoints:
        assert f"step {checkpoints.latest_step};" in str(stopped.value)
        assert 3 < checkpoints.latest_step < 7  # a few steps were under way
    parts = _train(config, data, tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def handlers():
    """The handlers of signals may be changed."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    yield
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, before[number])


def test_what_was_started_to_survive_its_terminal_does(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with Interruption() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert not interruption.requested
    obey_termination()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_that_collecting_garbage_would_swallow_comes_later(handlers, number):
    obey_termination()

    def _xla_gc_callback():
        signal.raise_signal(number)
        return "went on"

    assert _xla_gc_callback() == "went on"
    with pytest.raises(KeyboardInterrupt):
        time.sleep(1)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_signal_during_the_last_steps_is_not_forgotten(config, data, tmp_path, monkeypatch):
    ask_after(monkeypatch, Checkpoints, "save", 12)
    with pytest.raises(Stopped, match="stopped and saved at step 12;"):
        _train(config, data, tmp_path)
    assert int(_train(config, data, tmp_path).step) == 12


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's, of reads it gave up
@pytest.mark.parametrize("damage", ["truncate", "empty", "metadata"])
def test_a_damaged_checkpoint_leads_back_to_the_one_before(config, data, tmp_path, caplog, damage):
    whole = _train(config, data, tmp_path / "whole")
    _train(config, data, tmp_path / "parts")
    newest = tmp_path / "parts" / "checkpoints" / "12"
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size)
    for path in files:
        if damage == "metadata" and "METADATA" in path.name.upper():
            path.write_text("{}")
        elif damage != "metadata" and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == "truncate" else b"")
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        parts = _train(config, data, tmp_path / "parts")
    assert f"{newest} cannot be read" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(parts))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Orbax's, of reads it gave up
def test_no_checkpoint_that_can_be_read(config, data, tmp_path):
    _train(config, data, tmp_path)
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(UserError, match="no checkpoint there fits this version"):
        _train(config, data, tmp_path)
