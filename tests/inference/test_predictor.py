"""What is said of a batch: by every method, for every kind of data, in the units that came in."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from mmvm_jax.api import FittedModel
from mmvm_jax.config import base
from mmvm_jax.data import dataset_from_arrays
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.data.description import Description, describe, from_text, to_text
from mmvm_jax.data.inputs import Inputs
from mmvm_jax.data.rows import MemoryRows
from mmvm_jax.inference.impute import impute
from mmvm_jax.inference.predictor import Predictor, as_type
from mmvm_jax.models.model import make_model
from mmvm_jax.models.priors import GaussianMixturePrior, has_prior
from mmvm_jax.models.trained import Trained, encode_split
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.state import first_batch
from mmvm_jax.types import DiagonalGaussian, Modality

FEW = ("height", "spikes", "note")


@pytest.fixture(scope="module")
def untrained():
    """A function (method, **options) -> the model that training begins with, of ``FEW`` modalities."""
    dataset = dataset_from_arrays(few(), tiny.config().data)
    model = make_model(dataset.modalities, tiny.config().network)
    variables, batch = jax.jit(model.init)(jax.random.key(0)), first_batch(tiny.config(), dataset)

    @functools.cache
    def make(name: str, **options) -> FittedModel:
        config = tiny.config(name)
        config.method[name].update(options)
        method = make_method(config.method)
        functions = model.bind(variables | {"method": {}})
        own = method.init(jax.random.key(1), model.prepare(batch), functions)
        trained = Trained(model, method, variables | {"method": own})
        prior = None
        if not has_prior(trained):
            prior = GaussianMixturePrior(np.ones(1), np.zeros((1, 4)), np.ones((1, 4)))
        return FittedModel(Predictor(trained, describe(dataset), prior, 16), base())

    return make


def few() -> dict:
    """The data of a few modalities, whose networks are quickly compiled; every example has one of them."""
    data = tiny.arrays(height__present=np.arange(tiny.N) % 3 > 0, spikes__present=np.arange(tiny.N) % 3 < 2)
    return {name: array for name, array in data.items() if name.startswith(FEW)}


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in METHODS]
    + [("joint", {"aggregation": kind}) for kind in ("average", "mopoe", "hellinger", "mixture_of_barycentres")]
    + [
        ("mmvae_plus", {"latent_distribution": "laplace"}),
        ("mmvae_plus", {"clusters": 3}),
        ("mmvm", {"gate": "per_example"}),
    ],
)
def test_every_method_answers_every_task(name, options, untrained):
    data, model = few(), untrained(name, **options)
    encoded, imputed, made = model.encode(data), model.impute(data, num_samples=2), model.generate(3)
    for modality in FEW:
        there = data[f"{modality}__present"]
        for quantity in ("mean", "log_variance"):
            values = encoded[f"{modality}__{quantity}"]
            assert values.shape == (tiny.N, 4) and values.dtype == np.float32
            np.testing.assert_array_equal(np.isfinite(values).all(axis=1), there)
            assert np.isnan(values[~there]).all()
        assert imputed[modality].shape == data[modality].shape and imputed[modality].dtype == data[modality].dtype
        np.testing.assert_array_equal(imputed[modality][there], data[modality][there])
        assert np.isfinite(imputed[modality]).all()
    assert encoded["joint__mean"].shape == (tiny.N, 4) and np.isfinite(encoded["joint__mean"]).all()
    assert {n: (a.shape, a.dtype.name) for n, a in made.items()} == {
        "height": ((3, 3), "float64"),  # as the offset of its unit may need it
        "spikes": ((3, 4), "float32"),
        "note": ((3, 5), "int32"),
    }


@pytest.mark.parametrize("name", METHODS)
def test_the_joint_representation_is_that_of_the_evaluation(name, untrained):
    model, data = untrained(name), few()
    encoded, present = model.encode(data), np.stack([data[f"{n}__present"] for n in FEW])
    modalities = model.predictor.description.modalities
    to_model = model.predictor.description.to_model
    inputs = {m.name: to_model(m, data[m.name], there) for m, there in zip(modalities, present, strict=True)}
    split = complete_split(inputs, np.zeros(tiny.N, np.int32))._replace(present=present)
    posteriors, joint, *_ = encode_split(model.predictor.trained, split, 16)
    np.testing.assert_allclose(encoded["joint__mean"], joint.mean(axis=0), atol=1e-5)
    one_gaussian = {"joint", "mvae", "mvtcae", "crmvae", "mmvm"}  # with the options of own data
    assert ("joint__log_variance" in encoded) == (name in one_gaussian)
    if name not in {"mvae"}:  # whose posterior given one modality is its product with N(0, I)
        own = np.stack([encoded[f"{n}__mean"] for n in FEW])
        np.testing.assert_allclose(own[present], posteriors.mean[present], atol=1e-5)


class Unprepared:
    """A model that takes its inputs as they are and has no parameters."""

    method_params = {}
    model = property(lambda self: self)

    def prepare(self, batch):
        return batch

    def bind(self, params):
        return self


class Votes(Unprepared):
    """A model of one token: seven draws of ten say 1 by a little, the others 0 by far."""

    modalities = (Modality("note", (1,), "tokens", "categorical", vocabulary_size=2),)
    names, latent_dim = ("note",), 1
    identifiers = jnp.array([modalities[0].identifier], jnp.uint32)

    def encode(self, inputs):
        return DiagonalGaussian(*jnp.zeros((2, 1, len(inputs["note"]), 1)))

    def decode(self, z):
        return {"note": jnp.where(z[0][..., None] > 0.52, jnp.array([[[9.0, 0.0]]]), jnp.array([[[0.0, 0.2]]]))}

    def mean(self, decoded):
        return {"note": jnp.argmax(decoded["note"], axis=-1)}


def test_imputed_tokens_are_the_most_probable_ones_not_the_most_frequent():
    description = dataclasses.replace(_description(Votes.modalities), dtypes={"note": "int32"})
    trained = Trained(Votes(), make_method(tiny.config("joint").method), {})
    blocks = Inputs(description, MemoryRows({"note": np.zeros((4, 1), int)})).blocks(4)
    keys = jax.random.split(jax.random.key(0), 200)
    outputs = jax.jit(lambda batch: impute(True, trained, {}, batch, keys))(next(blocks).batch)["note"]
    assert 0.6 < outputs["samples"].mean() < 0.8
    assert (outputs["mean"] == 0).all() and "std" not in outputs


def _description(modalities, units=None):
    dtypes = {modality.name: "float32" for modality in modalities}
    return Description(modalities, dtypes, units or {}, {}, (), "")


class Identity(Unprepared):
    """A model whose latents are its inputs, and whose decoders give them back."""

    modalities = tuple(Modality(name, (2,), "vector", "normal") for name in ("a", "b"))
    names, latent_dim = ("a", "b"), 2
    identifiers = jnp.array([modality.identifier for modality in modalities], jnp.uint32)

    def encode(self, inputs):
        means = jnp.stack([inputs[name] for name in self.names])
        return DiagonalGaussian(means, jnp.full_like(means, -30.0))

    def decode(self, z):
        return dict(zip(self.names, z, strict=True))

    def mean(self, decoded):
        return dict(decoded)


def test_units_go_in_and_come_out():
    units = {
        "a": (np.array([100, 0], np.float32), np.array([10, 2], np.float32)),
        "b": (np.array([-5, 3], np.float32), np.array([0.1, 7], np.float32)),
    }
    trained = Trained(Identity(), make_method(tiny.config().method), {})
    model = FittedModel(Predictor(trained, _description(Identity.modalities, units), None, 8), base())
    standard = np.random.default_rng(0).normal(size=(9, 2))
    a, b = (standard * scale + mean for mean, scale in units.values())
    given_a = model.impute({"a": a, "b": np.full_like(b, np.nan), "b__present": np.zeros(9)}, keep_samples=True)
    np.testing.assert_allclose(given_a["b"], b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(given_a["b__samples"][:, 3], b, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.generate(given={"b": b})["a"], a, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(model.encode({"a": a})["a__mean"], standard, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("uint8", [-3.0, 0.4, 0.6, 254.6, 300.0], [0, 0, 1, 255, 255]),
        ("int64", [-3.4, 2.5, 3.5], [-3, 2, 4]),
        ("int64", [-1e30, 1e30], [-(2**63), 2**63 - 1024]),
        ("bool", [-1.0, 0.4, 0.6, 7.0], [False, False, True, True]),
        ("float64", [0.25], [0.25]),
    ],
)
def test_real_numbers_become_the_nearest_value_of_a_type(dtype, values, expected):
    result = as_type(np.array(values, np.float32), np.dtype(dtype))
    np.testing.assert_array_equal(result, np.array(expected, dtype), strict=True)


@pytest.mark.parametrize(
    ("dtype", "ids", "expected"), [("uint8", 256, "uint8"), ("uint8", 257, "uint16"), ("int64", 999, "int64")]
)
def test_token_ids_fit_into_the_type_of_what_is_imputed(dtype, ids, expected):
    modality = Modality("note", (2,), "tokens", "categorical", vocabulary_size=ids)
    model = Predictor(None, _description((modality,)), None, 8)
    drawn = {"mean": np.full((3, 2), ids - 1)}
    filled = model._impute_one(modality, np.zeros((3, 2), dtype), np.array([True, False, False]), drawn)["note"]
    np.testing.assert_array_equal(filled, np.array([[0, 0], [ids - 1] * 2, [ids - 1] * 2], expected), strict=True)


def test_the_description_survives_its_file():
    dataset = dataset_from_arrays(tiny.arrays(), tiny.config().data)
    dataset = dataclasses.replace(dataset, vocabularies={"note": ("", "a")}, class_names=("x",))
    one, other = describe(dataset), from_text(to_text(describe(dataset)))
    for mine, theirs in zip(one.units["height"], other.units["height"], strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)
    assert dataclasses.replace(one, units={}) == dataclasses.replace(other, units={})
