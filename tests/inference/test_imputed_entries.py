"""Missing entries and tables from training to imputation."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import tiny

import mmvm_jax
from mmvm_jax.data import dataset_from_arrays
from mmvm_jax.errors import UserError
from mmvm_jax.models.model import Step, _hide, make_model
from mmvm_jax.objectives.method import choose, make_method, variants
from mmvm_jax.runtime import devices
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step

N = 400


def patients(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A mixed table of two common factors without holes, and the same with 30 % of the entries missing."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(N, 2))
    real = factors @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(N, 8))
    whole = pd.DataFrame(real * 10.0 + 500.0, columns=[f"lab_{place}" for place in range(8)])
    whole["ill"] = np.where(factors[:, 0] + 0.3 * rng.normal(size=N) > 0, "yes", "no")
    whole["stage"] = pd.Categorical(np.array(["I", "II", "III"])[np.digitize(factors[:, 1], (-0.5, 0.5))])
    whole["visits"] = rng.poisson(np.exp(0.7 * factors[:, 0] + 0.5))
    whole.index = [f"p{number}" for number in range(N)]
    holed = whole.copy().astype({"visits": "Int64"})
    return whole, holed.mask(rng.random(whole.shape) < 0.3)


@pytest.fixture(scope="module")
def fitted():
    whole, holed = patients()
    config = mmvm_jax.default_config()
    config.network.mlp.hidden_dims = (64,)
    config.network.latent_dim = 8
    config.train.update({"batch_size": 64, "epochs": 60.0})
    return mmvm_jax.fit({"patients": holed}, config), whole, holed


def test_imputation_is_better_than_the_mean_and_the_majority(fitted):
    model, whole, holed = fitted
    out = model.impute({"patients": holed})["patients"]
    hole, labs = holed.isna(), [name for name in whole if name.startswith("lab")]
    scale = whole[labs].std()
    errors = (((out[labs] - whole[labs]) / scale) ** 2).to_numpy()[hole[labs].to_numpy()]
    assert errors.mean() < 0.4  # of the variance, which the mean reaches; the noise is about 0.1
    for name, chance in (("ill", 0.5), ("stage", 0.4)):
        assert (out[name] == whole[name])[hole[name]].mean() > chance + 0.2


def test_tables_come_back_as_they_were_given(fitted):
    model, whole, holed = fitted
    shuffled = holed.iloc[::-1, ::-1]
    outputs = model.impute({"patients": shuffled})
    out, std = outputs["patients"], outputs["patients__std"]
    assert list(out.columns) == list(shuffled.columns) and list(out.index) == list(shuffled.index)
    assert (out.dtypes == shuffled.dtypes).all() and not out.isna().any().any()
    known = shuffled.notna()
    assert (out.astype(object) == shuffled.astype(object))[known].eq(True).to_numpy()[known.to_numpy()].all()
    assert (std.drop(columns="stage").to_numpy()[~known.drop(columns="stage").to_numpy()] > 0).all()
    latents = model.encode({"patients": shuffled})["joint__mean"]
    assert list(latents.index) == list(shuffled.index) and latents.shape == (N, 8)


def test_intervals_cover_what_is_missing(fitted):
    model, whole, holed = fitted
    outputs = model.impute({"patients": holed}, num_samples=50)
    labs = [name for name in whole if name.startswith("lab")]
    inside = np.abs(outputs["patients"][labs] - whole[labs]) < 1.645 * outputs["patients__std"][labs]
    assert 0.8 < inside.to_numpy()[holed[labs].isna().to_numpy()].mean() < 0.99  # of 90 %, with a short training


def mixed(**changes):
    """Every kind with missing entries, beside the tokens."""
    rng = np.random.default_rng(0)
    holed = lambda values: np.where(rng.random(np.shape(values)) < 0.3, np.nan, values)
    data = {
        "height": holed(rng.normal(170, 10, (60, 3))),
        "spikes": holed(rng.poisson(2.0, (60, 4))),
        "flags": holed(rng.random((60, 4)) < 0.4),
        "patients": patients()[1].iloc[:60].reset_index(drop=True),
        "note": tiny.arrays()["note"],
    }
    return data | changes


@pytest.mark.parametrize("variant", variants())
def test_every_method_trains_on_missing_entries(variant):
    config = tiny.config()
    choose(config.method, variant)
    data = dataset_from_arrays(mixed(), config.data)
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    batch = first_batch(config, data)
    state = init_state(config, model, method, batch)
    step = devices.data_parallel(make_step(config, model, method, 3), reduced=True)
    after, metrics = step(devices.replicate(state), batch, hyper_parameters(config))
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after.params))
    moved = after.params["likelihoods"]["height"]["log_scale"]
    assert (moved != state.params["likelihoods"]["height"]["log_scale"]).all()


def test_hidden_entries_are_random_and_only_encoders_miss_them():
    config = tiny.config()
    data = dataset_from_arrays(mixed(), config.data)
    model = make_model(data.modalities, config.network)
    batch = model.prepare(first_batch(config, data))
    variables = model.init(jax.random.key(0)) | {"method": {}}
    shares = []
    height = data.modalities[0]
    for seed in range(50):
        hidden = _hide(batch.inputs["height"], height, Step(batch, jax.random.key(seed), lambda x: x, 0.3))
        known = ~np.isnan(batch.inputs["height"]) & batch.present[0][:, None]
        kept = ~np.isnan(hidden)
        assert (kept <= ~np.isnan(batch.inputs["height"])).all()
        np.testing.assert_array_equal(np.where(kept, hidden, 0), np.where(kept, batch.inputs["height"], 0))
        shares.append(1 - kept[known].mean())
    assert abs(np.mean(shares) - 0.3) < 0.03 and np.std(shares) > 0.01
    one = _hide(batch.inputs["height"], height, Step(batch, jax.random.key(1), lambda x: x, 0.3))
    few = batch._replace(index=batch.index[:5])
    part = _hide(batch.inputs["height"][:5], height, Step(few, jax.random.key(1), lambda x: x, 0.3))
    np.testing.assert_array_equal(part, one[:5])  # keyed by the example
    outputs = model.bind(variables).decode(jnp.zeros((5, 16, 4)))
    plain = model.bind(variables).output_log_likelihood(batch, outputs)
    step = Step(batch, jax.random.key(1), lambda x: x, 0.9)
    np.testing.assert_array_equal(model.bind(variables, step).output_log_likelihood(batch, outputs), plain)


def test_networks_that_cannot_read_missing_entries_say_so():
    config = tiny.config()
    config.network.name = "hippocampal"
    data = dataset_from_arrays({"height": mixed()["height"], "spikes": mixed()["spikes"]}, config.data)
    with pytest.raises(UserError, match="'hippocampal' does not read modality 'height', .* that do: by_kind, mlp"):
        make_model(data.modalities, config.network)
