"""Table of likelihoods by name: how a decoder's output defines a distribution of the data."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmvm_jax import distributions
from mmvm_jax.types import Array, Modality

LARGEST_COUNT = 2.0**31  # counts are int32


class Likelihood(NamedTuple):
    """Log-density of data given a decoder's output, and the mean of this density (for tokens its mode)."""

    log_likelihood: Callable[[Array, Array, Modality], Array]  # data, output [..., *event], modality -> [...]
    mean: Callable[[Array, Modality], Array]  # output -> expected data, or the most likely tokens


def _laplace(x, output, modality):
    return distributions.laplace_log_likelihood(x, output, modality.scale, len(modality.shape))


def _normal(x, output, modality):
    return distributions.normal_log_likelihood(x, output, modality.scale, len(modality.shape))


def _bernoulli(x, output, modality):
    return distributions.bernoulli_log_likelihood(x, output, len(modality.shape))


def _poisson(x, output, modality):
    return distributions.poisson_log_likelihood(x, output + _log_start(modality, output.shape), len(modality.shape))


def _rate(output, modality):
    rate = jnp.exp(output + _log_start(modality, output.shape))
    return jnp.minimum(rate, LARGEST_COUNT)  # exp overflows for extreme latents


def _log_start(modality, shape):
    """Return the log-rate that corresponds to an output of 0, for outputs of this shape."""
    if not modality.rates:
        return math.log(modality.scale)
    return jnp.broadcast_to(jnp.log(jnp.asarray(modality.rates)).reshape(modality.shape), shape)


def _categorical(tokens, logits, modality):
    mask = ~_after_end(tokens, modality) & ((tokens == modality.end) | (tokens != modality.padding))
    return distributions.categorical_log_likelihood(tokens, logits, jnp.broadcast_to(mask, logits.shape[:-1]))


def most_likely_tokens(scores: Array, modality: Modality) -> Array:
    """Return the most likely tokens, padded after the first end token: scores [..., T, V] -> [..., T].

    The scores are logits or probabilities.
    """
    tokens = jnp.argmax(scores, axis=-1)
    return jnp.where(_after_end(tokens, modality), modality.padding, tokens)


def _after_end(tokens, modality):
    ends = tokens == modality.end
    return jnp.cumsum(ends, axis=-1) > ends


LIKELIHOODS = {
    "laplace": Likelihood(_laplace, lambda location, modality: location),
    "normal": Likelihood(_normal, lambda location, modality: location),
    "bernoulli": Likelihood(_bernoulli, lambda logits, modality: jax.nn.sigmoid(logits)),
    "poisson": Likelihood(_poisson, _rate),
    "categorical": Likelihood(_categorical, most_likely_tokens),
}
