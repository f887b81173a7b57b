"""Checks of a configuration before any long work: one error that names the field, the value and what is allowed."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from mmvm_jax.data import DATASETS
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.method import make_method
from mmvm_jax.model import PRECISIONS
from mmvm_jax.networks import NETWORKS, inception
from mmvm_jax.parallel import check_batch_size
from mmvm_jax.schedules import SHAPES


class _Range(NamedTuple):
    allowed: str
    holds: Callable[[float], bool]


_POSITIVE = _Range("more than 0", lambda value: value > 0)
_NOT_NEGATIVE = _Range("0 or more", lambda value: value >= 0)
_SHARE = _Range("0 to 1", lambda value: 0 <= value <= 1)
_DECAY = _Range("0 to less than 1", lambda value: 0 <= value < 1)

RANGES = {
    "seed": _Range("0 to 4294967295", lambda value: 0 <= value < 2**32),
    "data.missing.rate": _SHARE,
    "method.beta": _NOT_NEGATIVE,
    "method.mmvm.alpha": _SHARE,
    "method.mmvm.temperature": _POSITIVE,
    "network.latent_dim": _POSITIVE,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.b1": _DECAY,
    "optimizer.b2": _DECAY,
    "optimizer.eps": _POSITIVE,
    "train.accumulate": _POSITIVE,
    "train.epochs": _NOT_NEGATIVE,
    "train.steps": _NOT_NEGATIVE,
    "train.checkpoint_every": _POSITIVE,
    "train.log_every": _POSITIVE,
    "evaluation.probe_examples": _POSITIVE,
    "evaluation.classifier_epochs": _POSITIVE,
    "evaluation.divergence_samples": _POSITIVE,
    "evaluation.likelihood_samples": _NOT_NEGATIVE,
    "evaluation.mixture_components": _POSITIVE,
    "evaluation.figure_examples": _POSITIVE,
    "evaluation.embedding_examples": _POSITIVE,
}


def validate(config: ConfigDict) -> None:
    """Checks every field that can be checked without the data.

    Raises:
      UserError: a field has a value that is not allowed.
    """
    if config.data.name not in DATASETS:
        raise unknown_name("config.data.name", config.data.name, DATASETS)
    if config.network.name not in NETWORKS:
        raise unknown_name("config.network.name", config.network.name, NETWORKS)
    if config.precision not in PRECISIONS:
        raise unknown_name("config.precision", config.precision, PRECISIONS)
    make_method(config.method)
    for field, allowed in RANGES.items():
        _check_range(config, field, allowed)
    _check_annealing(config.method[config.method.name])
    check_batch_size(config.train.batch_size, "config.train.batch_size", config.train.accumulate)
    check_batch_size(config.evaluation.batch_size, "config.evaluation.batch_size")
    if config.evaluation.inception_weights:
        inception.check_weights(config.evaluation.inception_weights)


def _check_range(config: ConfigDict, field: str, allowed: _Range) -> None:
    value = config
    for part in field.split("."):
        value = value[part]
    if not (math.isfinite(value) and allowed.holds(value)):
        raise UserError(f"config.{field} is {value}; allowed: {allowed.allowed}")


def _check_annealing(chosen: ConfigDict) -> None:
    for name, schedule in chosen.items():
        if not name.startswith("anneal_"):
            continue
        if schedule.shape not in SHAPES:
            raise unknown_name(f"config.method.<method>.{name}.shape", schedule.shape, SHAPES)
        if not 0 < schedule.fraction <= 1:
            raise UserError(f"config.method.<method>.{name}.fraction is {schedule.fraction}; allowed: above 0, to 1")
