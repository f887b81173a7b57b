"""Configurations that cannot work: one line that names the field, the value and what is allowed."""

import functools
import math
import re
import types

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvm_jax.config import base
from mmvm_jax.errors import UserError
from mmvm_jax.experiments.config_checks import RANGES, validate
from mmvm_jax.objectives import METHODS, mmvm

NAN, INFINITY = math.nan, math.inf

# field: values that are not allowed
WRONG = {
    "seed": (-1, 2**32),
    "precision": ("", "float16"),
    "tracker": ("", "neptune"),
    "data.name": ("", "minst"),
    "data.memory_gb": (-1.0, NAN),
    "data.num_modalities": (0, -1),
    "data.pairings": (0, -2),
    "data.validation": (-0.1, 1.0, NAN),
    "data.missing.pattern": ("", "some"),
    "data.missing.rate": (-0.1, 1.5, NAN),
    "data.missing.split": ("", "validation"),
    "data.missing.seed": (-1,),
    "method.name": ("", "vae"),
    "method.beta": (-1.0, NAN, INFINITY),
    "method.mmvm.estimator": ("exact",),
    "method.mmvm.gate": ("local",),
    "method.mmvm.num_samples": (0, -1),
    "method.mmvm.num_experts": (-1,),
    "method.mmvm.alpha": (-0.1, 1.1, NAN),
    "method.mmvm.anneal_alpha.shape": ("step",),
    "method.mmvm.anneal_alpha.start": (-0.1, 2.0, NAN),
    "method.mmvm.anneal_alpha.fraction": (0.0, 1.5, NAN),
    "method.mmvm.temperature": (0.0, -1.0, NAN),
    "method.mmvm.anneal_temperature.start": (0.0, INFINITY),
    "method.meme.label_weight": (-1.0, NAN),
    "method.mvtcae.alpha": (-0.1, 1.1),
    "network.name": ("", "vit"),
    "network.latent_dim": (0, -1),
    "network.mlp.hidden_dims": ((), (0,), (8, -1), ("a",), (2.5,)),
    "network.small_cnn.channels": ((), (0,), (8.0,)),
    "optimizer.learning_rate": (0.0, -1.0, NAN, INFINITY),
    "optimizer.b1": (-0.1, 1.0),
    "optimizer.b2": (1.0, NAN),
    "optimizer.eps": (0.0,),
    "train.batch_size": (0, -4, 6),  # on four devices
    "train.accumulate": (0, -1),
    "train.epochs": (-1.0, NAN),
    "train.steps": (-1,),
    "train.checkpoint_every": (0,),
    "train.log_every": (0,),
    "train.skip_not_finite": (-1,),
    "evaluation.batch_size": (0, -4),
    "evaluation.probe_examples": (0,),
    "evaluation.classifier_epochs": (0,),
    "evaluation.divergence_samples": (0,),
    "evaluation.likelihood_samples": (-1,),
    "evaluation.inception_weights": ("/nowhere/weights.safetensors",),
    "evaluation.mixture_components": (0,),
    "evaluation.figure_examples": (0,),
    "evaluation.embedding_examples": (0,),
}
CASES = [(field, value) for field, values in WRONG.items() for value in values]

# Fields that are allowed each but not together, and a part of the answer.
CONTRADICTIONS = [
    ({"method.mmvm.alpha": 1.0}, "alpha is 1 from the start.*method.name=independent"),
    ({"method.name": "mmvae_plus", "method.mmvae_plus.private_dim": 64}, "private_dim is 64; allowed: 1 to 63"),
    ({"method.name": "mmvae_plus", "method.mmvae_plus.private_dim": 0}, "private_dim is 0; allowed: 1 to 63"),
    ({"method.name": "mmvae_plus", "network.latent_dim": 32}, "private_dim is 32; allowed: 1 to 31"),
    ({"method.name": "joint", "method.joint.aggregation": "moe", "method.joint.prior_expert": True}, "not a product"),
    ({"method.name": "joint", "method.joint.aggregation": "sum"}, "aggregation is 'sum'; allowed: average, barycentre"),
    ({"method.name": "mmvae", "method.mmvae.num_samples": 0}, "mmvae.num_samples is 0"),
    ({"method.name": "mmvae", "method.mmvae.bound": "firm"}, "mmvae.bound is 'firm'; allowed: loose, tight"),
    ({"method.name": "meme", "method.meme.num_pseudo_inputs": 0}, "num_pseudo_inputs is 0; allowed: 1 and more"),
    ({"method.name": "mvae", "method.mvae.num_subsets": -1}, "num_subsets is -1"),
    ({"method.mmvm.hard": True}, "hard is True without a gate"),
    ({"train.epochs": 0.0}, "train.steps and config.train.epochs are 0"),
    ({"train.accumulate": 3}, "batch_size is 128; allowed: .* 3 pieces"),
]


def configured(fields: dict):
    config = base()
    config.update_from_flattened_dict(fields)
    return config


def refused(config) -> str:
    with pytest.raises(UserError) as caught:
        validate(config)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("field", "value"), CASES)
def test_a_value_that_is_not_allowed_is_named(field, value):
    message = refused(configured({field: value}))
    assert message.startswith(f"config.{field} is ") and str(value) in message and "allowed: " in message


@pytest.mark.parametrize(("fields", "message"), CONTRADICTIONS)
def test_contradictory_choices_are_named(fields, message):
    assert re.search(message, refused(configured(fields)))


@pytest.mark.parametrize("field", ["trian", "train.stpes", "method.mmvm.aplha", "data.missing.rat", "networks"])
def test_a_misspelt_field_is_named(field):
    config = base()
    place, _, name = f"config.{field}".rpartition(".")
    functools.reduce(getattr, place.split(".")[1:], config)[name] = 2
    assert refused(config).startswith(f"a field of {place} is {name!r}; allowed: ")


def test_a_method_that_was_added_has_its_own_fields(monkeypatch):
    config = base()
    config.method.mine = {"alpha": 0.5}
    assert "a field of config.method is 'mine'" in refused(config)
    monkeypatch.setitem(METHODS, "mine", METHODS["mvtcae"])
    config = base()
    assert config.method.mine.alpha == config.method.mvtcae.alpha
    config.method.mine.alpha = 0.5
    validate(config)
    config.method.mine.alhpa = 0.5
    assert "a field of config.method.mine is 'alhpa'" in refused(config)


def test_alpha_may_end_at_1_and_what_is_not_chosen_may_be_anything():
    validate(configured({"method.mmvm.alpha": 1.0, "method.mmvm.anneal_alpha.shape": "linear"}))
    validate(configured({"method.mmvm.alpha": 1.0, "method.name": "independent"}))
    validate(configured({"method.mmvae_plus.private_dim": 64}))


def test_more_experts_than_modalities():
    functions = types.SimpleNamespace(names=("a", "b", "c"))
    with pytest.raises(UserError, match="config.method.mmvm.num_experts is 4; allowed: 0 to 3"):
        mmvm.init(jax.random.key(0), None, functions, mmvm.Options(num_experts=4))
    assert mmvm.init(jax.random.key(0), None, functions, mmvm.Options(num_experts=3)) == {}


@settings(derandomize=True, database=None, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(RANGES)), st.floats() | st.integers(-(2**40), 2**40))
def test_any_number_in_any_field_is_taken_or_refused_by_name(field, value):
    config = base()
    whole = isinstance(functools.reduce(getattr, field.split("."), config), int)
    number = float(value) if not whole else int(value) if math.isfinite(value) else 0
    config.update_from_flattened_dict({field: number})
    try:
        validate(config)
    except UserError as error:
        assert f"config.{field}" in str(error)
        assert "\n" not in str(error)
