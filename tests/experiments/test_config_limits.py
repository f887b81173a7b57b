"""Every number that a compiled program is given, at the limits of what the checks allow."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import config, data  # noqa: F401, fixtures

from mmvm_jax.config import base
from mmvm_jax.data import missing
from mmvm_jax.errors import NOT_NEGATIVE, UserError
from mmvm_jax.experiments.config_checks import RANGES, validate
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.loop import num_steps
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import first_batch, init_state
from mmvm_jax.training.step import make_step

ALL = RANGES | {"method.beta": NOT_NEGATIVE}
ALL |= {
    f"method.{name}.{key}": hyperparameter.allowed
    for name, module in METHODS.items()
    for key, hyperparameter in module.HYPERPARAMETERS.items()
}
LIMITS = [(field, limit) for field, allowed in ALL.items() for limit in (allowed.lowest, allowed.highest)]
# Those that enter a step as numbers, and what must be chosen for them to be read.
CHOICES = {
    "seed": {},
    "method.beta": {},
    "method.mmvm.alpha": {"method.mmvm.anneal_alpha.shape": "linear"},
    "method.mmvm.temperature": {"method.mmvm.estimator": "variational"},
    "method.meme.label_weight": {"method.name": "meme"},
    "method.mvtcae.alpha": {"method.name": "mvtcae"},
    "optimizer.learning_rate": {},
    "optimizer.b1": {},
    "optimizer.b2": {},
    "optimizer.eps": {},
    "train.steps": {"method.mmvm.anneal_alpha.shape": "linear"},
}
IN_STEPS = [(field, limit) for field, limit in LIMITS if field in CHOICES]
IN_STEPS += [("method.mmvm.anneal_alpha.fraction", 1e-6), ("method.mmvm.anneal_temperature.start", 1e-6)]


def configured(config, fields: dict):
    """The configuration with the fields, of which annealed ones do anneal."""
    config = config.copy_and_resolve_references()
    for field, value in fields.items():
        config.update_from_flattened_dict(CHOICES.get(field, {}) | {field: value})
        if ".anneal_" in field:
            config.update_from_flattened_dict({field.rpartition(".")[0] + ".shape": "cosine"})
    return config


@pytest.mark.parametrize(("field", "limit"), LIMITS)
def test_the_limits_are_allowed_and_nothing_beyond(field, limit):
    allowed = ALL[field]
    whole = isinstance(functools.reduce(getattr, field.split("."), base()), int)
    fields = {field: int(limit) if whole else float(limit)}
    if fields[field] == 0 and field in ("train.epochs", "train.steps"):  # one of them must be more
        fields |= {"train.epochs": 1.0} if field == "train.steps" else {"train.steps": 1}
    if field == "train.accumulate":
        fields["train.batch_size"] = fields[field] * devices.num_devices()
    fields = CHOICES.get(field, {}) | fields  # alpha may not be 1 throughout
    validate(configured(base(), fields))
    outwards = math.inf if limit == allowed.highest else -math.inf
    beyond = fields[field] + int(math.copysign(1, outwards)) if whole else math.nextafter(limit, outwards)
    with pytest.raises(UserError) as caught:
        validate(configured(base(), fields | {field: beyond}))
    assert str(caught.value) == f"config.{field} is {beyond}; allowed: {allowed.lowest} to {allowed.highest}"


@pytest.mark.parametrize(("field", "limit"), IN_STEPS)
def test_a_step_can_be_computed_at_the_limits(config, data, field, limit):
    config = configured(config, {field: limit})
    validate(config)
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    batch, total_steps = first_batch(config, data), max(num_steps(config, 64), 1)
    state = init_state(config, model, method, batch)
    if field == "train.steps":  # the last of so many
        state = state._replace(step=jnp.int32(total_steps - 1))
    step = devices.data_parallel(make_step(config, model, method, total_steps), reduced=True)
    after, metrics = step(state, batch, hyper_parameters(config))
    assert after.step == (total_steps if field == "train.steps" else 1)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after.params, after.optimizer, metrics)))


def test_seeds_are_told_apart_up_to_the_last(config, data):
    """Also those above 2^31, which a signed number of 32 bits cannot hold."""
    model, method = make_model(data.modalities, config.network), make_method(config.method)
    first_weights = []
    for seed in (0, 2**31 - 1, 2**31, 2**32 - 1):
        changed = configured(config, {"seed": seed})
        state = init_state(changed, model, method, first_batch(changed, data))
        first_weights.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(state.params)]))
    assert len({weights.tobytes() for weights in first_weights}) == 4


def test_seeds_of_missing_entries_at_the_limits():
    draws = [missing.draw_presence("random", 0.5, 3, 40, [seed, 0]) for seed in (0, 2**31, 2**32 - 1)]
    assert len({present.tobytes() for present in draws}) == 3


def test_more_steps_than_can_be_counted_are_refused():
    config = base()
    config.train.epochs = 1e9
    with pytest.raises(UserError, match="config.train.epochs is 1000000000.0, .* up to 2147483 epochs of 1000"):
        num_steps(config, 128_000)
    config.train.epochs = 2147483.0
    assert num_steps(config, 128_000) == 2147483000
