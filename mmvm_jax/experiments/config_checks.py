"""Checks of a configuration before any long work: one error that names the field, the value and what is allowed."""

import functools

from ml_collections import ConfigDict

from mmvm_jax.artifacts.trackers import check_tracker
from mmvm_jax.config import base, import_modules
from mmvm_jax.data import DATASETS, INCOMPLETE_SPLITS
from mmvm_jax.data.missing import PATTERNS
from mmvm_jax.errors import COUNT, COUNT_OR_NONE, NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range, UserError, unknown_name
from mmvm_jax.models.model import PRECISIONS
from mmvm_jax.networks import NETWORKS, inception
from mmvm_jax.objectives import METHODS
from mmvm_jax.objectives.method import check_method
from mmvm_jax.runtime.devices import check_batch_size
from mmvm_jax.training.optimizer import OPTIMIZERS, SCHEDULES

_DECAY = Range(0.0, 0.999999)  # distinguishable from 1 in float32
_WIDTHS = ("network.mlp.hidden_dims", "network.small_cnn.channels")
RANGES = {
    "seed": SEED,
    "data.memory_gb": NOT_NEGATIVE,
    "data.num_modalities": COUNT,
    "data.pairings": COUNT,
    "data.validation": _DECAY,
    "data.missing.rate": SHARE,
    "data.missing.seed": SEED,
    "network.latent_dim": COUNT,
    "optimizer.learning_rate": POSITIVE,
    "optimizer.b1": _DECAY,
    "optimizer.b2": _DECAY,
    "optimizer.eps": POSITIVE,
    "optimizer.momentum": _DECAY,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.clip_norm": NOT_NEGATIVE,
    "optimizer.schedule.warmup": SHARE,
    "optimizer.schedule.end": Range(1e-9, 1.0),
    "optimizer.schedule.factor": Range(1e-3, 1.0),
    "optimizer.schedule.patience": COUNT,
    "optimizer.schedule.every": COUNT,
    "train.accumulate": COUNT,
    "train.epochs": NOT_NEGATIVE,
    "train.steps": COUNT_OR_NONE,
    "train.checkpoint_every": COUNT,
    "train.log_every": COUNT,
    "train.hide_entries": Range(0.0, 0.5),
    "train.skip_not_finite": COUNT_OR_NONE,
    "train.early_stopping.patience": COUNT_OR_NONE,
    "train.early_stopping.share": _DECAY,
    "train.average": _DECAY,
    "evaluation.batch_size": COUNT,
    "evaluation.probe_examples": COUNT,
    "evaluation.classifier_epochs": COUNT,
    "evaluation.divergence_samples": COUNT,
    "evaluation.likelihood_samples": COUNT_OR_NONE,
    "evaluation.mixture_components": COUNT,
    "evaluation.figure_examples": COUNT,
    "evaluation.embedding_examples": COUNT,
}


def validate(config: ConfigDict) -> None:
    """Check every field that can be checked without the data.

    Raises:
      UserError: a field has a value that is not allowed.
    """
    import_modules(config.imports)
    _check_fields("config", config, base())
    if config.data.name not in DATASETS:
        raise unknown_name("config.data.name", config.data.name, DATASETS)
    if config.network.name not in NETWORKS:
        raise unknown_name("config.network.name", config.network.name, NETWORKS)
    if config.precision not in PRECISIONS:
        raise unknown_name("config.precision", config.precision, PRECISIONS)
    if config.optimizer.name not in OPTIMIZERS:
        raise unknown_name("config.optimizer.name", config.optimizer.name, OPTIMIZERS)
    if config.optimizer.schedule.name not in SCHEDULES:
        raise unknown_name("config.optimizer.schedule.name", config.optimizer.schedule.name, SCHEDULES)
    check_tracker(config.tracker)
    missing = config.data.missing
    if missing.pattern not in PATTERNS:
        raise unknown_name("config.data.missing.pattern", missing.pattern, PATTERNS)
    if missing.split not in INCOMPLETE_SPLITS:
        raise unknown_name("config.data.missing.split", missing.split, INCOMPLETE_SPLITS)
    check_method(config.method, config.network.latent_dim)
    for field, allowed in RANGES.items():
        allowed.check(f"config.{field}", _value(config, field))
    for field in _WIDTHS:
        _check_widths(f"config.{field}", _value(config, field))
    if not config.train.steps and not config.train.epochs:
        raise UserError("config.train.steps and config.train.epochs are 0; allowed: one of them more than 0")
    check_batch_size(config.train.batch_size, "config.train.batch_size", config.train.accumulate)
    if config.evaluation.inception_weights:
        inception.check_weights(config.evaluation.inception_weights)


def _check_fields(place: str, config: ConfigDict, known: ConfigDict) -> None:
    """Raise an error for misspelt fields; methods and networks that a user added have fields of their own."""
    for name, value in config.items():
        if name not in known and name not in METHODS and name not in NETWORKS:
            raise unknown_name(f"a field of {place}", name, known)
        if name in known and isinstance(known[name], ConfigDict) and isinstance(value, ConfigDict):
            _check_fields(f"{place}.{name}", value, known[name])


def _value(config: ConfigDict, field: str):
    """Return the value of a field such as "train.steps"."""
    return functools.reduce(lambda part, name: part[name], field.split("."), config)


def _check_widths(field: str, widths) -> None:
    if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
        raise UserError(f"{field} is {tuple(widths)}; allowed: one or more whole numbers above 0")
