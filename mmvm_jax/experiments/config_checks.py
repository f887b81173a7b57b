"""Checks of a configuration before any long work: one error that names the field, the value and what is allowed."""

import functools
from typing import NamedTuple

from ml_collections import ConfigDict

from mmvm_jax.artifacts.metric_writers import check_tracker
from mmvm_jax.config import base
from mmvm_jax.data import DATASETS, INCOMPLETE_SPLITS
from mmvm_jax.data.missing import PATTERNS
from mmvm_jax.errors import UserError, unknown_name
from mmvm_jax.models.model import PRECISIONS
from mmvm_jax.networks import NETWORKS, inception
from mmvm_jax.objectives import METHODS, mmvae_plus
from mmvm_jax.objectives.annealing import SHAPES
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime.devices import check_batch_size


class _Range(NamedTuple):
    """The lowest and the highest value of a field. A compiled program computes with both: in int32 and float32."""

    lowest: float
    highest: float

    @property
    def allowed(self) -> str:
        return f"{self.lowest} to {self.highest}"


_SEED = _Range(0, 2**32 - 1)
_COUNT = _Range(1, 2**31 - 1)
_COUNT_OR_NONE = _Range(0, 2**31 - 1)
_POSITIVE = _Range(1e-30, 1e9)
_NOT_NEGATIVE = _Range(0.0, 1e9)
_SHARE = _Range(0.0, 1.0)
_DECAY = _Range(0.0, 0.999999)  # the next number to 1 that is still far from it in float32
_FRACTION = _Range(1e-6, 1.0)

_WIDTHS = ("network.mlp.hidden_dims", "network.small_cnn.channels")
RANGES = {
    "seed": _SEED,
    "data.memory_gb": _NOT_NEGATIVE,
    "data.num_modalities": _COUNT,
    "data.pairings": _COUNT,
    "data.validation": _DECAY,
    "data.missing.rate": _SHARE,
    "data.missing.seed": _SEED,
    "method.beta": _NOT_NEGATIVE,
    "method.mmvm.alpha": _SHARE,
    "method.mmvm.temperature": _Range(1e-6, 1e9),  # divergences are divided by it
    "method.meme.label_weight": _NOT_NEGATIVE,
    "method.mvtcae.alpha": _SHARE,
    "network.latent_dim": _COUNT,
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.b1": _DECAY,
    "optimizer.b2": _DECAY,
    "optimizer.eps": _POSITIVE,
    "train.accumulate": _COUNT,
    "train.epochs": _NOT_NEGATIVE,
    "train.steps": _COUNT_OR_NONE,
    "train.checkpoint_every": _COUNT,
    "train.log_every": _COUNT,
    "train.skip_not_finite": _COUNT_OR_NONE,
    "evaluation.batch_size": _COUNT,
    "evaluation.probe_examples": _COUNT,
    "evaluation.classifier_epochs": _COUNT,
    "evaluation.divergence_samples": _COUNT,
    "evaluation.likelihood_samples": _COUNT_OR_NONE,
    "evaluation.mixture_components": _COUNT,
    "evaluation.figure_examples": _COUNT,
    "evaluation.embedding_examples": _COUNT,
}


def validate(config: ConfigDict) -> None:
    """Checks every field that can be checked without the data.

    Raises:
      UserError: a field has a value that is not allowed.
    """
    _check_fields("config", config, base())
    if config.data.name not in DATASETS:
        raise unknown_name("config.data.name", config.data.name, DATASETS)
    if config.network.name not in NETWORKS:
        raise unknown_name("config.network.name", config.network.name, NETWORKS)
    if config.precision not in PRECISIONS:
        raise unknown_name("config.precision", config.precision, PRECISIONS)
    check_tracker(config.tracker)
    missing = config.data.missing
    if missing.pattern not in PATTERNS:
        raise unknown_name("config.data.missing.pattern", missing.pattern, PATTERNS)
    if missing.split not in INCOMPLETE_SPLITS:
        raise unknown_name("config.data.missing.split", missing.split, INCOMPLETE_SPLITS)
    make_method(config.method)
    for field, allowed in RANGES.items():
        _check_range(f"config.{field}", _value(config, field), allowed)
    for field in _WIDTHS:
        _check_widths(f"config.{field}", _value(config, field))
    _check_annealing(config.method)
    _check_together(config)
    check_batch_size(config.train.batch_size, "config.train.batch_size", config.train.accumulate)
    if config.evaluation.inception_weights:
        inception.check_weights(config.evaluation.inception_weights)


def _check_fields(place: str, config: ConfigDict, known: ConfigDict) -> None:
    """Misspelt fields, which would change nothing; methods and networks that were added have dictionaries of theirs."""
    for name, value in config.items():
        if name not in known and name not in METHODS and name not in NETWORKS:
            raise unknown_name(f"a field of {place}", name, known)
        if name in known and isinstance(known[name], ConfigDict) and isinstance(value, ConfigDict):
            _check_fields(f"{place}.{name}", value, known[name])


def _value(config: ConfigDict, field: str):
    """What stands at a place such as "train.steps"."""
    return functools.reduce(lambda part, name: part[name], field.split("."), config)


def _check_range(field: str, value: float, allowed: _Range) -> None:
    if not allowed.lowest <= value <= allowed.highest:
        raise UserError(f"{field} is {value}; allowed: {allowed.allowed}")


def _check_widths(field: str, widths) -> None:
    if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(f"{field} is {tuple(widths)}; allowed: one or more whole numbers above 0")


def _check_annealing(config_method: ConfigDict) -> None:
    for name, schedule in config_method[config_method.name].items():
        if not name.startswith("anneal_"):
            continue
        field = f"method.{config_method.name}.{name}"
        if schedule.shape not in SHAPES:
            raise unknown_name(f"config.{field}.shape", schedule.shape, SHAPES)
        _check_range(f"config.{field}.fraction", schedule.fraction, _FRACTION)
        if allowed := RANGES.get(field.replace("anneal_", "")):
            _check_range(f"config.{field}.start", schedule.start, allowed)


def _check_together(config: ConfigDict) -> None:
    """Fields that are allowed each, but not with each other."""
    mmvm = config.method.mmvm
    if config.method.name == "mmvm" and mmvm.alpha == 1 and mmvm.anneal_alpha.shape == "constant":
        raise UserError(
            "config.method.mmvm.alpha is 1 from the start, which leaves nothing of the mixture; allowed: less than 1, "
            "or config.method.name=independent"
        )
    if config.method.name == "mmvae_plus":
        mmvae_plus.check_private_dim(config.method.mmvae_plus.private_dim, config.network.latent_dim)
    if not config.train.steps and not config.train.epochs:
        raise UserError("config.train.steps and config.train.epochs are 0; allowed: one of them more than 0")
