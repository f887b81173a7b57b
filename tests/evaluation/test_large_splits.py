"""Every evaluator with a compiled program, on a split of 40,000 examples in one batch, against float64 in small ones.

Relatedness, clusters, correlations and Fréchet distances are computed by NumPy in float64 from what is tested here.
"""

import dataclasses

import jax
import numpy as np
import pytest
from float32_noise import float32_noise  # noqa: F401

from mmvm_jax.config import base
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.evaluation.classifiers import classifier
from mmvm_jax.evaluation.divergence import jensen_shannon
from mmvm_jax.evaluation.held_out import held_out_objective
from mmvm_jax.evaluation.joint_coherence import joint_coherence
from mmvm_jax.evaluation.likelihood import likelihood
from mmvm_jax.evaluation.translation import translate_split
from mmvm_jax.models.model import make_model, split_statistics
from mmvm_jax.models.trained import Trained, encode_split
from mmvm_jax.objectives.method import final_hyper, make_method
from mmvm_jax.training.state import TrainState
from mmvm_jax.types import Modality

NUM_EXAMPLES, SMALL = 40_000, 2_000
MODALITIES = tuple(Modality(name, (4,), "vector", "normal") for name in "abcde")
TOLERANCE = 1e-4  # of the largest value


@pytest.fixture(scope="module")
def split():
    generator = np.random.default_rng(0)
    inputs = {m.name: generator.normal(size=(NUM_EXAMPLES, *m.shape)).astype(np.float32) for m in MODALITIES}
    present = generator.random((len(MODALITIES), NUM_EXAMPLES)) < 0.8
    present[0] |= ~present.any(axis=0)
    return Split(inputs, present, generator.integers(0, 3, NUM_EXAMPLES).astype(np.int32))


def make_trained(method_name):
    """A small network with the weights that it starts from."""
    config = base()
    config.network.update({"name": "mlp", "latent_dim": 4, "mlp": {"hidden_dims": (8,)}})
    config.method.update({"name": method_name, "joint": {"aggregation": "moe"}})
    model, method = make_model(MODALITIES, config.network), make_method(config.method)
    params = jax.jit(model.init)(jax.random.key(0)) | {"method": {}}
    return config, Trained(model, method, jax.device_get(params))


def held_out(config, trained, split, batch_size):
    config.train.update({"batch_size": NUM_EXAMPLES, "accumulate": NUM_EXAMPLES // batch_size})
    measure = held_out_objective(config, trained.model, trained.method, split, 1)
    hyper = final_hyper(config.method) | {"seed": np.uint32(0)}
    return measure(TrainState(np.int32(0), *split_statistics(trained.params), None), hyper)


def translations(config, trained, split, batch_size):
    found = translate_split(trained, None, DataSet(MODALITIES, split, split, 3, "class", ""), batch_size, 0)
    return found.squared_error, found.log_likelihood


def joint(config, trained, split, batch_size):
    data = DataSet(MODALITIES, split, split, 3, "class", "")
    keys = jax.random.split(jax.random.key(1), len(MODALITIES))
    classifiers = {m.name: classifier(m, 3).init(key, np.zeros((1, 4))) for m, key in zip(MODALITIES, keys)}
    return joint_coherence(trained, classifiers, None, data, batch_size, 0)


EVALUATORS = {  # method, (config, trained, split, batch_size) -> arrays
    "encoded": ("mmvm", lambda config, trained, split, batch_size: encode_split(trained, split, batch_size)),
    "encoded jointly": ("joint", lambda config, trained, split, batch_size: encode_split(trained, split, batch_size)),
    "divergence": ("mmvm", lambda config, *rest: jensen_shannon(*rest, 2, 0)),
    "likelihood": ("joint", lambda config, *rest: likelihood(*rest, 2, 0)),
    "held-out objective": ("mmvm", held_out),
    "translations": ("mmvm", translations),
    "joint coherence": ("joint", joint),
}


@pytest.mark.parametrize("name", EVALUATORS)
def test_an_evaluator(name, split, in_float64, float32_noise):  # noqa: F811
    method, evaluator = EVALUATORS[name]
    config, trained = make_trained(method)
    computed = evaluator(config, trained, split, NUM_EXAMPLES)
    with in_float64():
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), trained.params)
        expected = evaluator(config, dataclasses.replace(trained, params=params), split, SMALL)
    for one, other in zip(jax.tree.leaves(computed), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=0.0, atol=TOLERANCE * np.nanmax(np.abs(other)))
