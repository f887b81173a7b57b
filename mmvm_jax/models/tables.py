"""The likelihood of a table: each column has its own.

Decoders return [..., P]: one number per column, in the order of the columns, or for categories one per level.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from mmvm_jax.distributions import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    normal_log_likelihood,
    poisson_log_likelihood,
)
from mmvm_jax.types import Array, Modality

LARGEST_RATE = 2.0**24  # real numbers of 32 bits hold all integers up to it
_LIMIT = 6.0  # absolute value of learned logarithms


def log_likelihood(x: Array, output: Array, modality: Modality, learned: Mapping, mask: Array | None = None) -> Array:
    """Return the sum of the log-likelihoods of the columns: x [..., C], output [..., P] -> [...] nats."""
    mask = jnp.ones(x.shape, bool) if mask is None else mask
    places, starts = _places(modality)
    pick = lambda name: (x[..., places[name]], output[..., starts[name]], mask[..., places[name]])
    values, location, counted = pick("normal")
    scale = jnp.exp(limited(learned["log_scale"])[places["normal"]])
    total = normal_log_likelihood(values, location, jnp.broadcast_to(scale, location.shape), 1, counted)
    values, logits, counted = pick("bernoulli")
    total += bernoulli_log_likelihood(values, logits, 1, counted)
    values, log_rate, counted = pick("poisson")
    starts_at = jnp.broadcast_to(_log_rates(modality), log_rate.shape)
    total += poisson_log_likelihood(values, log_rate + starts_at, 1, counted)
    for place, start in zip(places["categorical"], starts["categorical"], strict=True):
        logits = output[..., start : start + modality.columns[place].levels]
        level = jnp.where(mask[..., place], x[..., place], 0.0).astype(jnp.int32)
        level = jnp.broadcast_to(level, logits.shape[:-1])
        total += categorical_log_likelihood(level[..., None], logits[..., None, :], mask[..., place, None])
    return total


def limited(logarithm: Array) -> Array:
    """Return learned logarithms, kept between -6 and 6 by a smooth function with slope 1 at 0."""
    return _LIMIT * jnp.tanh(logarithm / _LIMIT)


def expected(output: Array, modality: Modality) -> Array:
    """Return locations, probabilities and rates: [..., P] -> [..., P]."""
    places, starts = _places(modality)
    log_rates = jnp.asarray(_log_rates(modality), output.dtype)
    log_rates = jnp.broadcast_to(log_rates, (*output.shape[:-1], len(starts["poisson"])))
    rates = jnp.minimum(jnp.exp(output[..., starts["poisson"]] + log_rates), LARGEST_RATE)
    result = jnp.asarray(output).at[..., starts["poisson"]].set(rates)
    result = result.at[..., starts["bernoulli"]].set(jax.nn.sigmoid(output[..., starts["bernoulli"]]))
    for place, start in zip(places["categorical"], starts["categorical"], strict=True):
        levels = slice(start, start + modality.columns[place].levels)
        result = result.at[..., levels].set(jax.nn.softmax(output[..., levels]))
    return result


def to_data(means: Array, modality: Modality) -> Array:
    """Return the expected values of the columns, for categories the likeliest level: [..., P] -> [..., C]."""
    places, starts = _places(modality)
    values = jnp.asarray(means)[..., np.sort(np.concatenate(list(starts.values())))]
    for place, start in zip(places["categorical"], starts["categorical"], strict=True):
        scores = means[..., start : start + modality.columns[place].levels]
        values = values.at[..., place].set(jnp.argmax(scores, axis=-1).astype(means.dtype))
    return values


def variance(means: Array, modality: Modality, learned: Mapping | None) -> Array:
    """Return the variance of the data, for categories of the indicators of their levels: [..., P] -> [..., P]."""
    kinds = np.array([column.likelihood for column in modality.columns for _ in range(column.levels)])
    places = np.repeat(np.arange(len(modality.columns)), [column.levels for column in modality.columns])
    assert learned is not None  # a table always has scales
    is_kind = lambda name: jnp.broadcast_to(kinds == name, means.shape)
    squared_scale = jnp.broadcast_to(jnp.exp(2.0 * limited(learned["log_scale"])[places]), means.shape)
    of_category = jnp.where(is_kind("poisson"), means, means * (1.0 - means))
    return jnp.where(is_kind("normal"), squared_scale, of_category)


def of_columns(values: Array, modality: Modality) -> Array:
    """Return one value per column, NaN for categories: [..., P] -> [..., C]."""
    starts = np.cumsum([0, *(column.levels for column in modality.columns)])[:-1]
    is_category = np.array([column.likelihood == "categorical" for column in modality.columns])
    values = values[..., starts]
    return jnp.where(jnp.broadcast_to(is_category, values.shape), jnp.nan, values)


def _places(modality: Modality) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return {likelihood: places of its columns}, and {likelihood: where their outputs start}."""
    kinds = np.array([column.likelihood for column in modality.columns])
    starts = np.cumsum([0, *(column.levels for column in modality.columns)])[:-1]
    names = ("normal", "bernoulli", "poisson", "categorical")
    return {name: np.flatnonzero(kinds == name) for name in names}, {name: starts[kinds == name] for name in names}


def _log_rates(modality: Modality) -> np.ndarray:
    return np.log([column.rate for column in modality.columns if column.likelihood == "poisson"])
