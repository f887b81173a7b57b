"""Likelihoods of data and the importance-weighted bound: float64 oracles, scipy and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import stats
from scipy.special import expit

from mmvm_jax.distributions import (
    bernoulli_log_likelihood,
    categorical_log_likelihood,
    importance_weighted_bound,
    laplace_log_likelihood,
    normal_log_likelihood,
    poisson_log_likelihood,
)
from mmvm_jax.models.likelihoods import LIKELIHOODS
from mmvm_jax.types import Modality

ONE_PARAMETER = {  # name: (kernel, the oracle's name of the parameter, scipy's log-probability)
    "bernoulli": (bernoulli_log_likelihood, "logits", lambda x, a: stats.bernoulli.logpmf(x, expit(a))),
    "poisson": (poisson_log_likelihood, "log_rate", lambda x, a: stats.poisson.logpmf(x, np.exp(a))),
}
WITH_SCALE = {
    "laplace": (laplace_log_likelihood, stats.laplace.logpdf),
    "normal": (normal_log_likelihood, stats.norm.logpdf),
}


@pytest.mark.parametrize("name", WITH_SCALE)
def test_likelihoods_with_a_scale_meet_the_oracle_and_scipy(name, oracles, precision):
    kernel, scipy_log_density = WITH_SCALE[name]
    oracle = oracles["likelihoods"][name]
    x, location = jnp.asarray(oracle["x"]), jnp.asarray(oracle["loc"])
    precision.check(kernel(x, location, oracle["scale"], event_ndims=2), oracle["value"])
    scales = 0.5 + np.abs(np.float64(location))
    elements = scipy_log_density(np.float64(x), np.float64(location), scales)
    for event_ndims in range(4):
        expected = elements.sum(axis=tuple(range(3 - event_ndims, 3)))
        precision.check(kernel(x, location, jnp.asarray(scales), event_ndims), expected)


@pytest.mark.parametrize("name", ONE_PARAMETER)
def test_discrete_likelihoods_meet_the_oracle_and_scipy(name, oracles, precision):
    kernel, parameter_name, scipy_log_mass = ONE_PARAMETER[name]
    oracle = oracles["likelihoods"][name]
    x, parameter = jnp.asarray(oracle["x"], precision.dtype), jnp.asarray(oracle[parameter_name])
    precision.check(kernel(x, parameter, event_ndims=1), oracle["value"])
    precision.check(kernel(x, parameter, event_ndims=0), scipy_log_mass(x, np.float64(parameter)))


def test_bernoulli_of_a_fraction_interpolates_between_its_ends(x64):
    logits = jnp.array([[-3.0, 0.5, 2.0]])
    zero, one, part = (bernoulli_log_likelihood(jnp.full((1, 3), x), logits, 0) for x in (0.0, 1.0, 0.3))
    np.testing.assert_allclose(part, 0.7 * zero + 0.3 * one, rtol=1e-12)


def test_categorical_meets_the_oracle(oracles, precision):
    oracle = oracles["likelihoods"]["categorical"]
    tokens, logits = jnp.asarray(oracle["tokens"]), jnp.asarray(oracle["logits"])
    precision.check(categorical_log_likelihood(tokens, logits), oracle["value"])
    precision.check(categorical_log_likelihood(tokens, logits + 50.0), oracle["value"])


def test_masked_tokens_do_not_count(oracles, precision):
    oracle = oracles["likelihoods"]["categorical"]
    tokens, logits = np.asarray(oracle["tokens"]), jnp.asarray(oracle["logits"])
    lengths = np.array([4, 0, 6])
    mask = jnp.asarray(np.arange(6)[None] < lengths[:, None])
    alone = [categorical_log_likelihood(tokens[i, :n], logits[i, :n]) for i, n in enumerate(lengths)]
    padded = jnp.where(mask, tokens, -1)
    precision.check(categorical_log_likelihood(padded, logits, mask), np.array(alone))


@pytest.mark.parametrize("end, counted", [(0, (2, 3, 4)), (2, (2, 3, 4)), (-1, (1, 2, 4))])
def test_a_sequence_ends_with_the_first_token_that_ends_it(end, counted, x64):
    """Padding is 0, and there it may end sequences itself, or token 2 does, or none."""
    logits = jax.random.normal(jax.random.key(0), (3, 4, 5))
    tokens = {
        0: [[1, 0, 0, 0], [3, 4, 0, 0], [1, 1, 3, 4]],
        2: [[1, 2, 0, 0], [3, 4, 2, 0], [1, 1, 3, 4]],
        -1: [[1, 0, 0, 0], [3, 4, 0, 0], [1, 1, 3, 4]],
    }[end]
    modality = Modality("text", (4,), "tokens", "categorical", vocabulary_size=5, padding=0, end=end)
    values = LIKELIHOODS["categorical"].log_likelihood(jnp.array(tokens), logits, modality)
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    for row, (sequence, count) in enumerate(zip(tokens, counted)):
        expected = sum(log_probabilities[row, place, sequence[place]] for place in range(count))
        np.testing.assert_allclose(values[row], expected, rtol=1e-12)


def test_an_output_of_zero_is_the_rate_that_the_modality_names(x64):
    x, output = np.array([[3.0, 0.0, 200.0]]), np.array([[0.5, -1.0, 0.0]])
    modality = Modality("spikes", (3,), "counts", "poisson", scale=150.0)
    value = LIKELIHOODS["poisson"].log_likelihood(jnp.array(x), jnp.array(output), modality)
    np.testing.assert_allclose(value, stats.poisson.logpmf(x, 150.0 * np.exp(output)).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(LIKELIHOODS["poisson"].mean(output, modality), 150.0 * np.exp(output), rtol=1e-12)


def test_every_entry_may_have_a_rate_of_its_own(x64):
    x, output, rates = np.arange(6.0).reshape(1, 2, 3), np.full((1, 2, 3), 0.3), (0.1, 1.0, 10.0, 2.0, 3.0, 4000.0)
    modality = Modality("spikes", (2, 3), "counts", "poisson", scale=150.0, rates=rates)
    expected = np.reshape(rates, (2, 3)) * np.exp(output)
    value = LIKELIHOODS["poisson"].log_likelihood(jnp.array(x), jnp.array(output), modality)
    np.testing.assert_allclose(value, stats.poisson.logpmf(x, expected).sum(axis=(1, 2)), rtol=1e-12)
    np.testing.assert_allclose(LIKELIHOODS["poisson"].mean(output, modality), expected, rtol=1e-12)


def test_what_is_made_ends_where_a_sequence_does():
    scores = jax.nn.one_hot(jnp.array([[1, 2, 3, 2], [3, 1, 1, 3]]), 4)
    make = lambda **ids: LIKELIHOODS["categorical"].mean(scores, Modality("text", (4,), "tokens", "categorical", **ids))
    np.testing.assert_array_equal(make(padding=0, end=2), [[1, 2, 0, 0], [3, 1, 1, 3]])
    np.testing.assert_array_equal(make(padding=1, end=1), [[1, 1, 1, 1], [3, 1, 1, 1]])
    np.testing.assert_array_equal(make(), [[1, 2, 3, 2], [3, 1, 1, 3]])


@pytest.mark.parametrize("logit", [-1e4, 1e4, -1e30, 1e30])
def test_huge_logits_stay_finite(logit):
    def total(logits, x):
        return jnp.sum(bernoulli_log_likelihood(x, logits, 1)) + jnp.sum(
            categorical_log_likelihood(x.astype(int), jnp.stack([logits, -logits], axis=-1))
        )

    logits, x = jnp.array([[logit, 0.0, logit]]), jnp.array([[0.0, 1.0, 1.0]])
    value, gradient = jax.value_and_grad(total)(logits, x)
    assert np.isfinite(value) and np.all(np.isfinite(gradient))


def test_a_confident_and_right_bernoulli_costs_nothing():
    certain = bernoulli_log_likelihood(jnp.array([[1.0, 0.0]]), jnp.array([[120.0, -120.0]]), 1)
    wrong = bernoulli_log_likelihood(jnp.array([[0.0]]), jnp.array([[120.0]]), 1)
    np.testing.assert_allclose([certain[0], wrong[0]], [0.0, -120.0], atol=1e-5)


def test_gradients_of_likelihoods_are_finite_differences(oracles, x64):
    oracle = jax.tree.map(np.asarray, oracles["likelihoods"], is_leaf=lambda leaf: not isinstance(leaf, dict))
    for name, (kernel, _) in WITH_SCALE.items():
        x, location = oracle[name]["x"], oracle[name]["loc"]
        check_grads(lambda location, scale: kernel(x, location, scale, 2), (location, 0.7), 1, ("rev",))
    for name, (kernel, parameter, _) in ONE_PARAMETER.items():
        x = oracle[name]["x"].astype(float)
        check_grads(lambda parameter: kernel(x, parameter, 1), (oracle[name][parameter],), 1, ("rev",))
    tokens, logits = oracle["categorical"]["tokens"], oracle["categorical"]["logits"]
    check_grads(lambda logits: categorical_log_likelihood(tokens, logits), (logits,), 1, ("rev",))


@pytest.mark.parametrize("bound", ["loose", "tight"])
def test_importance_weighted_bounds_meet_the_oracle(bound, oracles, precision):
    log_weights = jnp.asarray(oracles["iwae"]["log_weight"])
    precision.check(importance_weighted_bound(log_weights, bound), oracles["iwae"][bound])
    everything = jnp.ones((3, 5), bool)
    precision.check(importance_weighted_bound(log_weights, bound, everything), oracles["iwae"][bound])
    assert importance_weighted_bound(log_weights[..., 0], bound).shape == ()


@pytest.mark.parametrize("bound", ["loose", "tight"])
def test_a_bound_without_a_component_is_that_of_the_smaller_array(bound, oracles, precision):
    log_weights = jnp.asarray(oracles["iwae"]["log_weight"])
    present = jnp.array([[1, 1, 0, 0, 1], [1, 0, 1, 0, 0], [1, 1, 0, 0, 0]], bool)
    actual = importance_weighted_bound(log_weights, bound, present)
    for b in range(5):
        rows = np.flatnonzero(present[:, b])
        expected = importance_weighted_bound(log_weights[rows, :, b], bound) if len(rows) else 0.0
        precision.check(actual[b], expected)


@pytest.mark.parametrize("bound", ["loose", "tight"])
def test_bounds_stay_finite_for_huge_weights_and_have_true_gradients(bound, oracles, x64):
    log_weights = jnp.asarray(oracles["iwae"]["log_weight"])
    check_grads(lambda weights: importance_weighted_bound(weights, bound), (log_weights,), 1, ("rev",))
    shifted = importance_weighted_bound(log_weights - 5000.0, bound)
    np.testing.assert_allclose(shifted, np.asarray(oracles["iwae"][bound]) - 5000.0, rtol=1e-12)


def test_tight_is_never_below_loose_and_equal_for_one_component(oracles, x64):
    log_weights = jnp.asarray(oracles["iwae"]["log_weight"])
    tight, loose = (importance_weighted_bound(log_weights, bound) for bound in ("tight", "loose"))
    assert np.all(tight >= loose)
    tight, loose = (importance_weighted_bound(log_weights[:1], bound) for bound in ("tight", "loose"))
    np.testing.assert_allclose(tight, loose, rtol=1e-12)


def test_an_unknown_bound_names_the_known_ones():
    with pytest.raises(ValueError, match="'medium'.*loose, tight"):
        importance_weighted_bound(jnp.zeros((2, 3)), "medium")
