"""Training that starts from the parameters of another run."""

import numpy as np
import pytest
import tiny

import mmvm_jax
from mmvm_jax.errors import UserError

DATA = {name: array for name, array in tiny.arrays().items() if name in ("height", "spikes")}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    return folder, mmvm_jax.fit(DATA, tiny.config(), folder)


def test_a_run_starts_with_the_parameters_of_another(first, tmp_path):
    config = tiny.config()
    config.train.start_from, config.optimizer.learning_rate = first[0], 1e-30
    config.optimizer.name, config.method.beta = "sgd", 3.0  # these may differ
    second = mmvm_jax.fit(DATA, config, tmp_path)
    for name, values in first[1].encode(DATA).items():
        np.testing.assert_array_equal(second.encode(DATA)[name], values)
    config.train.update({"start_from": "", "steps": 6})  # a run that has begun no longer needs the other
    config.method.mmvm.anneal_alpha.fraction /= 2
    mmvm_jax.fit(DATA, config, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.network.mlp.update({"hidden_dims": (9,)}), "no checkpoint with the same modalities"),
        (lambda config: config.method.update({"name": "mmvae_plus"}), "allowed: such a run|has other parameters"),
        (lambda config: config.train.update({"start_from": "nowhere"}), "nowhere holds no run"),
    ],
)
def test_a_run_with_other_parameters_is_refused(first, change, message):
    config = tiny.config()
    config.train.start_from = first[0]
    change(config)
    with pytest.raises(UserError, match=message):
        mmvm_jax.fit(DATA, config)
