"""Training survives tails, and where it does not, the last good state is kept and named."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.artifacts.metric_writers import read_metrics
from mmvm_jax.models.model import limit_growth
from mmvm_jax.objectives import METHODS
from mmvm_jax.training import loop
from mmvm_jax.training.step_checks import NotFinite, explain
from mmvm_jax.types import Batch, Modality


def test_log_variances_near_0_are_unchanged_to_the_bit_and_far_ones_grow_by_a_logarithm(precision):
    near = jnp.linspace(-5, 5, 1001)
    np.testing.assert_array_equal(limit_growth(near), near)
    excess = np.array([1e-3, 1.0, 50.0, 1e6])
    for sign in (-1, 1):
        far = limit_growth(jnp.asarray(sign * (5 + excess)))
        # Variance, or precision, is linear in the excess.
        np.testing.assert_allclose(np.exp(sign * np.asarray(far, float) - 5), 1 + excess, rtol=1e-5)
    slope = jax.vmap(jax.grad(limit_growth))
    np.testing.assert_allclose(slope(jnp.asarray([-5.001, -4.999, 4.999, 5.001])), 1, atol=2e-3)
    assert (slope(jnp.asarray([-1e6, 1e6])) > 0).all()


def tails(count: int = 160) -> dict[str, np.ndarray]:
    """A Gaussian table beside one of lognormal columns (sigma 2), one column of outliers and one constant column."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(count, 2))
    heavy = np.exp(2 * (z @ rng.normal(size=(2, 6)) + 0.5 * rng.normal(size=(count, 6))))
    heavy[17, 3], heavy[:, 4] = 1e6, 3.0
    return {"plain": z @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(count, 4)), "heavy": heavy}


@pytest.mark.parametrize("method, precision", [*((name, "float32") for name in METHODS), ("mmvm", "bfloat16")])
def test_every_method_trains_to_its_end_on_tails(method, precision, tmp_path):
    config = tiny.config(method)
    config.precision, config.network.latent_dim, config.network.mlp.hidden_dims = precision, 32, (64, 64)
    config.optimizer.learning_rate = 1e-3
    config.train.update({"batch_size": 32, "steps": 60, "log_every": 10})
    data = tails(1000) | {"plain__present": np.arange(1000) % 3 != 0}
    model = mmvm_jax.fit(data, config, str(tmp_path))
    losses = [line["loss"] for line in read_metrics(str(tmp_path)) if line["split"] == "train"]
    assert len(losses) == 6 and losses[-1] < losses[0] < 200
    far = data | {"heavy": data["heavy"] * 1e3}  # beyond all that was seen in training
    for shown in (data, far):
        for name, rows in model.encode(shown).items():
            assert np.isfinite(rows[shown.get(name.split("__")[0] + "__present", slice(None))]).all(), name


@pytest.fixture
def breaks(monkeypatch):
    """A configuration whose divergence of 'heavy' is NaN from step 26 on, unless the learning rate is small."""
    make_step = loop.make_step

    def make_breaking_step(config, *arguments):
        step = make_step(config, *arguments)

        def breaking(state, batch, hyper):
            after, metrics = step(state, batch, hyper)
            wrong = (state.step >= 25) & (hyper["learning_rate"] > 1e-3)
            term = jnp.where(wrong, jnp.nan, metrics["divergence/heavy"])
            return after, metrics | {"divergence/heavy": term}

        return breaking

    monkeypatch.setattr(loop, "make_step", make_breaking_step)
    config = tiny.config()
    config.train.update({"batch_size": 32, "steps": 40, "log_every": 10})
    return config


def test_a_failed_fit_without_a_workdir_names_what_it_saw_and_can_continue(breaks, caplog):
    data = tails()
    with pytest.raises(NotFinite) as caught:
        mmvm_jax.fit(data, breaks)
    message = str(caught.value)
    assert message.startswith("step 26: divergence/heavy is not finite; in its batch, after standardisation: 'heavy' ")
    assert "'plain'" not in message and "the checkpoint of step 20 is kept" in message
    largest = float(re.search(r"'heavy' largest value ([\d.]+)", message)[1])
    assert 3 < largest < 160**0.5
    assert -20 < float(re.search(r"smallest log-variance (-?\d+\.\d+)", message)[1]) < 0
    workdir = re.search(r"The workdir is (\S+)$", message)[1]
    assert np.isfinite(mmvm_jax.load(workdir).encode(data)["heavy__mean"]).all()
    breaks.optimizer.learning_rate = float(re.search(r"config.optimizer.learning_rate=(\S+)", message)[1])
    with caplog.at_level("WARNING", logger="mmvm_jax"):
        mmvm_jax.fit(data, breaks, workdir)
    assert "-config.optimizer.learning_rate = 0.01, +config.optimizer.learning_rate = 0.001" in caplog.text
    steps = [line["step"] for line in read_metrics(workdir) if line["split"] == "train"]
    assert steps == [10, 20, 30, 40]


def test_a_failed_run_continues_bit_for_bit_from_its_last_line(breaks, tmp_path):
    """The state kept at step 20 is the one that a run stopped there would have had."""
    with pytest.raises(NotFinite):
        mmvm_jax.fit(tails(), breaks, str(tmp_path / "failed"))
    breaks.optimizer.learning_rate = 1e-3
    mmvm_jax.fit(tails(), breaks, str(tmp_path / "failed"))
    breaks.optimizer.learning_rate = 1e-2
    breaks.train.steps, fraction = 20, breaks.method.mmvm.anneal_alpha.fraction
    breaks.method.mmvm.anneal_alpha.fraction = 2 * fraction  # it ends at the same step
    mmvm_jax.fit(tails(), breaks, str(tmp_path / "stopped"))
    breaks.optimizer.learning_rate, breaks.train.steps = 1e-3, 40
    breaks.method.mmvm.anneal_alpha.fraction = fraction
    mmvm_jax.fit(tails(), breaks, str(tmp_path / "stopped"))
    lines = [
        [line for line in read_metrics(str(tmp_path / name)) if line["split"] == "train"]
        for name in ("failed", "stopped")
    ]
    assert lines[0] == lines[1]


def test_a_failure_before_the_first_line_says_that_nothing_was_kept(breaks):
    breaks.train.log_every = 40
    with pytest.raises(NotFinite, match=r"step 26: .*no step before could be kept"):
        mmvm_jax.fit(tails(), breaks)


def test_the_ids_of_tokens_are_no_large_values():
    words = Modality("words", (5,), "tokens", "categorical", vocabulary_size=900)
    modalities = (Modality("trace", (4,), "vector", "normal"), words)
    inputs = {"trace": np.full((2, 4), 7.5), "words": np.full((2, 5), 899)}
    batch = Batch(inputs, np.ones((2, 2), bool), np.arange(2), np.zeros(2, int))
    encode = lambda inputs: types.SimpleNamespace(log_variance=np.full((2, 2, 3), -4.5))
    model = types.SimpleNamespace(
        modalities=modalities,
        names=tuple(modality.name for modality in modalities),
        prepare=lambda batch: batch,
        bind=lambda variables: types.SimpleNamespace(encode=encode),
    )
    state = types.SimpleNamespace(variables={})
    message = str(explain(NotFinite(3, ["loss"]), tiny.config(), model, state, batch, kept=0))
    assert "'trace' largest value 7.5, smallest log-variance -4.5; 'words' smallest log" in message
