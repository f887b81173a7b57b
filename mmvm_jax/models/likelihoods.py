"""Table of likelihoods by name: how a decoder's output defines a distribution of the data."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmvm_jax import distributions
from mmvm_jax.models import tables
from mmvm_jax.types import Array, Modality

LARGEST_COUNT = 2.0**31  # counts are int32
DEGREES = 4.0  # of freedom of Student's t: heavy tails with a finite variance


class Likelihood(NamedTuple):
    """A distribution of data given a decoder's output [..., *output_shape].

    ``learned`` has the initial values of parameters that do not depend on the latent. There is one per entry of an
    example, or one per image.
    """

    # data, output, modality, {learned parameter: value} or None, mask of counted entries or None -> [...] nats
    log_likelihood: Callable[..., Array]
    # output -> expected data. For categories these are probabilities, whose mean over draws has a meaning.
    expected: Callable[[Array, Modality], Array]
    to_data: Callable[[Array, Modality], Array] = lambda expected, modality: expected  # picks the likeliest category
    learned: Mapping[str, float] = {}
    # expected data, modality, learned parameters -> variance of the data; None if the scale is fixed by hand
    variance: Callable[[Array, Modality, Mapping | None], Array] | None = None

    def mean(self, output: Array, modality: Modality) -> Array:
        """Return the expected data, for categories the likeliest ones."""
        return self.to_data(self.expected(output, modality), modality)


def learned_parameters(modality: Modality) -> dict[str, Array]:
    """Return the initial values of the parameters that the likelihood learns beside the decoder's."""
    shape = () if modality.kind == "image" else modality.shape
    return {name: jnp.full(shape, value) for name, value in LIKELIHOODS[modality.likelihood].learned.items()}


def _scale(modality: Modality, learned: Mapping | None, output: Array) -> Array | float:
    """Return the scale of each entry of an output, or the same fixed scale for all."""
    if not learned:
        return modality.scale
    return modality.scale * jnp.exp(_learned(learned, "log_scale", output))


def _learned(learned: Mapping, name: str, output: Array) -> Array:
    """Return a learned logarithm, limited, in the shape of an output."""
    return jnp.broadcast_to(tables.limited(learned[name]), output.shape)


def _laplace(x, output, modality, learned=None, mask=None):
    return distributions.laplace_log_likelihood(x, output, _scale(modality, learned, output), len(modality.shape), mask)


def _normal(x, output, modality, learned=None, mask=None):
    return distributions.normal_log_likelihood(x, output, _scale(modality, learned, output), len(modality.shape), mask)


def _student_t(x, output, modality, learned=None, mask=None):
    scale, event_ndims = _scale(modality, learned, output), len(modality.shape)
    return distributions.student_t_log_likelihood(x, output, scale, DEGREES, event_ndims, mask)


def _bernoulli(x, output, modality, learned=None, mask=None):
    return distributions.bernoulli_log_likelihood(x, output, len(modality.shape), mask)


def _poisson(x, output, modality, learned=None, mask=None):
    log_rate = output + _log_start(modality, output.shape)
    return distributions.poisson_log_likelihood(x, log_rate, len(modality.shape), mask)


def _negative_binomial(x, output, modality, learned=None, mask=None):
    log_mean, dispersion = output + _log_start(modality, output.shape), _learned(learned, "log_dispersion", output)
    return distributions.negative_binomial_log_likelihood(x, log_mean, dispersion, len(modality.shape), mask)


def _rate(output, modality):
    rate = jnp.exp(output + _log_start(modality, output.shape))
    return jnp.minimum(rate, LARGEST_COUNT)  # exp overflows for extreme latents


def _log_start(modality, shape):
    """Return the log-rate that corresponds to an output of 0, for outputs of this shape."""
    if not modality.rates:
        return math.log(modality.scale)
    return jnp.broadcast_to(jnp.log(jnp.asarray(modality.rates)).reshape(modality.shape), shape)


def _categorical(tokens, logits, modality, learned=None, mask=None):
    counted = ~_after_end(tokens, modality) & ((tokens == modality.end) | (tokens != modality.padding))
    return distributions.categorical_log_likelihood(tokens, logits, jnp.broadcast_to(counted, logits.shape[:-1]))


def most_likely_tokens(scores: Array, modality: Modality) -> Array:
    """Return the most likely tokens, padded after the first end token: scores [..., T, V] -> [..., T].

    The scores are logits or probabilities.
    """
    tokens = jnp.argmax(scores, axis=-1)
    return jnp.where(_after_end(tokens, modality), modality.padding, tokens)


def _after_end(tokens, modality):
    ends = tokens == modality.end
    return jnp.cumsum(ends, axis=-1) > ends


def _is_location(output, modality):
    return output


def _gaussian_variance(factor: float) -> Callable:
    """Return ``variance`` of a likelihood with a learned scale, whose variance is ``factor`` times its square."""
    return lambda expected, modality, learned: factor * jnp.square(_scale(modality, learned, expected))


def _count_variance(mean, modality, learned):
    dispersion = jnp.exp(_learned(learned, "log_dispersion", mean)) if learned else 0.0
    return mean + dispersion * jnp.square(mean)


_LOG_SCALE = {"log_scale": 0.0}
LIKELIHOODS = {
    "laplace": Likelihood(_laplace, _is_location),
    "normal": Likelihood(_normal, _is_location),
    "laplace_learned_scale": Likelihood(_laplace, _is_location, learned=_LOG_SCALE, variance=_gaussian_variance(2.0)),
    "normal_learned_scale": Likelihood(_normal, _is_location, learned=_LOG_SCALE, variance=_gaussian_variance(1.0)),
    "student_t": Likelihood(
        _student_t, _is_location, learned=_LOG_SCALE, variance=_gaussian_variance(DEGREES / (DEGREES - 2.0))
    ),
    "bernoulli": Likelihood(
        _bernoulli,
        lambda logits, modality: jax.nn.sigmoid(logits),
        variance=lambda mean, modality, learned: mean * (1.0 - mean),
    ),
    "poisson": Likelihood(_poisson, _rate, variance=_count_variance),
    "negative_binomial": Likelihood(
        _negative_binomial, _rate, learned={"log_dispersion": -1.0}, variance=_count_variance
    ),
    "categorical": Likelihood(_categorical, lambda logits, modality: jax.nn.softmax(logits), most_likely_tokens),
    "by_column": Likelihood(
        tables.log_likelihood, tables.expected, tables.to_data, learned=_LOG_SCALE, variance=tables.variance
    ),
}
