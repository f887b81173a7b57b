"""What training does where numbers or memory run out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.data import dataset_from_arrays
from mmvm_jax.data.batches import Batches
from mmvm_jax.errors import UserError
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.loop import train
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step

POISONED = 5  # a training example, of which there are 48: in one of the three steps of every epoch


@pytest.fixture
def config():
    config = tiny.config()
    config.train.update({"steps": 9, "log_every": 1, "checkpoint_every": 3})
    return config


@pytest.fixture
def data(config):
    vectors = {name: np.random.default_rng(0).normal(size=(60, 3)) for name in ("height", "width")}
    return dataset_from_arrays(vectors, config.data)


def poisoned_steps(config, data) -> list[int]:
    """The steps, from 1 on, that read the poisoned example."""
    batches = Batches(data.train, config.train.batch_size, config.seed)
    return [step for step in range(1, config.train.steps + 1) if POISONED in next(batches).index]


def steep(config):
    """A method whose loss is finite, and whose gradient is not, where the poisoned example is read."""
    method = make_method(config.method)
    finite_loss = method.loss

    def loss(key, batch, functions, hyper):
        output = finite_loss(key, batch, functions, hyper)
        weight = jax.tree.leaves(functions.variables["encoders"])[-1].reshape(-1)[0]
        root = jnp.sqrt(jnp.square((batch.index - POISONED) * weight))  # at 0 infinitely steep
        return output._replace(loss=output.loss + 1e-30 * root)

    object.__setattr__(method, "loss", loss)
    return method


def run(config, data, workdir, method=None):
    model = make_model(data.modalities, config.network)
    return train(config, model, method or make_method(config.method), data, str(workdir))


def test_a_gradient_that_is_not_finite_is_named_with_its_step(config, data, tmp_path):
    first = poisoned_steps(config, data)[0]
    with pytest.raises(UserError, match=rf"^step {first}: grad_norm is not finite; in its batch") as caught:
        run(config, data, tmp_path, steep(config))
    assert caught.value.exit_code == 1


def test_a_skipped_step_changes_nothing_but_the_number_of_steps(config, data):
    config.train.skip_not_finite = 1
    model, method = make_model(data.modalities, config.network), steep(config)
    step = devices.data_parallel(make_step(config, model, method, 9), reduced=True)
    hyper, batches = hyper_parameters(config), Batches(data.train, config.train.batch_size, config.seed)
    state = init_state(config, model, method, first_batch(config, data))
    skipped = []
    for _ in range(3):
        before, (state, metrics) = state, step(state, next(batches), hyper)
        skipped.append(int(metrics["skipped"]))
        assert int(state.step) == int(before.step) + 1
        pairs = list(zip(jax.tree.leaves(before[1:]), jax.tree.leaves(state[1:]), strict=True))
        assert all((np.asarray(a) == np.asarray(b)).all() for a, b in pairs) == bool(skipped[-1])
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))
    assert [place + 1 for place, one in enumerate(skipped) if one] == poisoned_steps(config, data)[:1]


def test_steps_are_skipped_and_counted_up_to_the_limit(config, data, tmp_path):
    steps = poisoned_steps(config, data)
    data.train.inputs["height"][POISONED] = np.nan
    assert len(steps) == 3
    config.train.skip_not_finite = 2
    with pytest.raises(
        UserError, match=rf"step {steps[2]}: .*log_likelihood/height.* config.train.skip_not_finite=2 allows no more"
    ):
        run(config, data, tmp_path)
    assert [line["step"] for line in read_metrics(str(tmp_path))] == list(range(1, steps[2]))
    config.train.skip_not_finite = 3  # resumes at step 6 with a count of 2
    state = run(config, data, tmp_path)
    lines = read_metrics(str(tmp_path))
    assert [line["skipped"] for line in lines] == [sum(step <= n for step in steps) for n in range(1, 10)]
    assert [line["step"] for line in lines if line["loss"] is None] == steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(jax.device_get(state)))


def test_skipped_steps_do_not_enter_the_means(config, data, tmp_path):
    data.train.inputs["height"][POISONED] = np.nan
    config.train.update({"log_every": 3, "skip_not_finite": 9})
    run(config, data, tmp_path)
    lines = read_metrics(str(tmp_path))
    assert [line["skipped"] for line in lines] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) for line in lines)


@pytest.mark.parametrize("error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), MemoryError()])
def test_memory_that_runs_out_says_what_helps(config, data, tmp_path, monkeypatch, error):
    def data_parallel_steps(step, read):
        def steps(*arguments):
            raise error

        return steps

    monkeypatch.setattr(devices, "data_parallel_steps", data_parallel_steps)
    with pytest.raises(UserError, match="batch_size=16 .* config.train.accumulate=2 or config.train.batch_size=8 or"):
        run(config, data, tmp_path)
    config.train.batch_size = 4  # one example a device: nothing to halve
    with pytest.raises(UserError, match="allowed in another --workdir: a smaller config.network"):
        run(config, data, tmp_path)


def test_another_error_of_the_device_stays_what_it_is(config, data, tmp_path, monkeypatch):
    def data_parallel_steps(step, read):
        def steps(*arguments):
            raise jax.errors.JaxRuntimeError("INTERNAL: bug")

        return steps

    monkeypatch.setattr(devices, "data_parallel_steps", data_parallel_steps)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        run(config, data, tmp_path)
