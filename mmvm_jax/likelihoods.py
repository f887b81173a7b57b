"""What a decoder's output means: the likelihood of each kind of data, by name."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmvm_jax import distributions
from mmvm_jax.types import Array, Modality


class Likelihood(NamedTuple):
    """The log-density of data given a decoder's output, and the mean of that density, for tokens its mode."""

    log_likelihood: Callable[[Array, Array, Modality], Array]  # data, output [..., *event], modality -> [...]
    mean: Callable[[Array], Array]  # output -> expected data, or the most likely tokens


def _laplace(x, output, modality):
    return distributions.laplace_log_likelihood(x, output, modality.scale, len(modality.shape))


def _normal(x, output, modality):
    return distributions.normal_log_likelihood(x, output, modality.scale, len(modality.shape))


def _bernoulli(x, output, modality):
    return distributions.bernoulli_log_likelihood(x, output, len(modality.shape))


def _poisson(x, output, modality):
    return distributions.poisson_log_likelihood(x, output, len(modality.shape))


def _categorical(tokens, logits, modality):
    mask = tokens != modality.padding
    return distributions.categorical_log_likelihood(tokens, logits, jnp.broadcast_to(mask, logits.shape[:-1]))


LIKELIHOODS = {
    "laplace": Likelihood(_laplace, lambda output: output),
    "normal": Likelihood(_normal, lambda output: output),
    "bernoulli": Likelihood(_bernoulli, jax.nn.sigmoid),
    "poisson": Likelihood(_poisson, jnp.exp),
    "categorical": Likelihood(_categorical, lambda logits: jnp.argmax(logits, axis=-1)),
}
