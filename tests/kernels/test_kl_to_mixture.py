"""KL of posteriors to their mixture: oracles, the order of the estimators, limits, masks and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mmvm_jax.distributions import ESTIMATORS, gaussian_kl, kl_to_mixture
from mmvm_jax.types import DiagonalGaussian

ROWS = range(16)
KEY = jax.random.key(11)
DRAWS = 20_000
_jitted = jax.jit(kl_to_mixture, static_argnames=("estimator", "num_samples", "prior_gradient"))


def repeated(gaussian, count):
    """[M, D] -> [M, count, D]."""
    return DiagonalGaussian(*(jnp.repeat(leaf[:, None], count, axis=1) for leaf in gaussian))


def select(gaussian, index):
    return DiagonalGaussian(*(leaf[index] for leaf in gaussian))


def kls_from(posteriors, m, q=None):
    """KL(q || q_j) for every j, with q = q_m if None: [M, B]."""
    q = select(posteriors, m) if q is None else q
    return jnp.stack([gaussian_kl(q, select(posteriors, j)) for j in range(posteriors.mean.shape[0])])


def within_four_standard_errors(draws, expected):
    """Whether the mean of [M, S] independent draws is the expected one, the floor being that of rounding."""
    draws = np.asarray(draws, np.float64)
    error = 4.0 * draws.std(axis=1) / np.sqrt(draws.shape[1]) + 1e-6
    return np.all(np.abs(draws.mean(axis=1) - expected) < error)


@pytest.fixture(params=ROWS)
def row(request, oracles):
    return {name: np.asarray(values) for name, values in oracles["kl_to_mixture_1d"][request.param].items()}


def posteriors_of(row):
    return DiagonalGaussian(jnp.asarray(row["mean"])[:, None], jnp.log(jnp.asarray(row["variance"]))[:, None])


def test_bounds_meet_the_oracle(row, precision):
    posteriors, log_weights = posteriors_of(row), jnp.log(jnp.asarray(row["weight"]))
    for estimator in ("pairwise", "variational"):
        expected = row[f"{estimator}_bound"]
        precision.check(_jitted(posteriors, log_weights, estimator=estimator), expected)
        precision.check(_jitted(posteriors, log_weights + 3.0, estimator=estimator), expected, "unnormalised")


def test_monte_carlo_meets_the_quadrature(row):
    posteriors, log_weights = repeated(posteriors_of(row), DRAWS), jnp.log(jnp.asarray(row["weight"]))
    draws = _jitted(posteriors, log_weights, estimator="monte_carlo", key=KEY)
    assert within_four_standard_errors(draws, row["exact"])


def test_monte_carlo_averages_its_samples(oracles):
    row = oracles["kl_to_mixture_1d"][8]
    posteriors = repeated(posteriors_of(row), 2_000)
    draws = _jitted(posteriors, estimator="monte_carlo", key=KEY, num_samples=100)
    single = _jitted(posteriors, estimator="monte_carlo", key=KEY)
    assert within_four_standard_errors(draws, row["exact"])
    # The ratio is 10, known to 8 % where a tail makes the kurtosis of one draw 50: sqrt(50 / (4 * 2,000)).
    ratio = np.std(single, axis=1) / np.std(draws, axis=1)
    np.testing.assert_allclose(ratio, 10.0, rtol=0.32)


def test_prior_weight_in_the_bounds_is_one_more_component(random_gaussian, precision):
    posteriors, log_weights = random_gaussian(20, 3, 4, 2), jnp.log(jnp.array([0.2, 0.3, 0.5]))
    extended = DiagonalGaussian(*(jnp.concatenate([leaf, jnp.zeros_like(leaf[:1])]) for leaf in posteriors))
    weights = jnp.log(jnp.array([0.14, 0.21, 0.35, 0.3]))
    for estimator in ("pairwise", "variational"):
        actual = _jitted(posteriors, log_weights, prior_weight=0.3, estimator=estimator)
        precision.check(actual, _jitted(extended, weights, estimator=estimator)[:3])


def test_prior_weight_in_monte_carlo_is_one_more_component(oracles):
    row = oracles["kl_to_mixture_1d"][9]  # its first component is N(0, 1)
    posteriors = repeated(select(posteriors_of(row), slice(1, None)), DRAWS)
    alpha, log_weights = row["weight"][0], jnp.log(jnp.asarray(row["weight"][1:]))
    draws = _jitted(posteriors, log_weights, prior_weight=alpha, estimator="monte_carlo", key=KEY)
    assert within_four_standard_errors(draws, row["exact"][1:])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_prior_weight_one_is_the_kl_to_the_standard_normal(estimator, random_gaussian, x64):
    posteriors = repeated(random_gaussian(21, 3, 2), DRAWS)
    actual = _jitted(posteriors, prior_weight=jnp.asarray(1.0), estimator=estimator, key=KEY)
    expected = gaussian_kl(posteriors)[:, 0]
    if estimator == "monte_carlo":
        assert within_four_standard_errors(actual, expected)
    else:
        np.testing.assert_allclose(actual, jnp.repeat(expected[:, None], DRAWS, axis=1), rtol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_prior_weight_zero_is_no_prior_and_traces(estimator, random_gaussian):
    posteriors = random_gaussian(22, 3, 4, 2)
    without = _jitted(posteriors, estimator=estimator, key=KEY)
    swept = jax.vmap(lambda alpha: _jitted(posteriors, prior_weight=alpha, estimator=estimator, key=KEY))
    several = swept(jnp.array([0.0, 1e-7, 0.5]))
    np.testing.assert_allclose(several[0], without, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(several[1], without, rtol=1e-4, atol=1e-5)
    assert np.all(np.abs(several[2] - without) > 1e-3)


def test_temperature_runs_from_the_tightest_bound_to_pairwise(random_gaussian, x64):
    posteriors = random_gaussian(23, 4, 50, 3)
    log_weights = 0.7 * random_gaussian(24, 4, 50).mean
    bound = functools.partial(_jitted, posteriors, log_weights, prior_weight=0.1)
    tightest = bound(estimator="variational")
    for temperature in (0.1, 0.5, 0.9, 1.1, 2.0, 10.0):
        assert np.all(bound(estimator="variational", temperature=temperature) >= tightest - 1e-12)
    warm, hot = (bound(estimator="variational", temperature=t) for t in (2.0, 1e9))
    assert np.mean(warm) > np.mean(tightest) + 0.01
    np.testing.assert_allclose(hot, bound(estimator="pairwise"), rtol=1e-6)


def test_exact_is_below_variational_is_below_pairwise(random_gaussian, x64):
    posteriors, log_weights = random_gaussian(25, 4, 60, 2), random_gaussian(26, 4, 60).mean
    variational = _jitted(posteriors, log_weights, estimator="variational")
    draw = lambda key: kl_to_mixture(posteriors, log_weights, estimator="monte_carlo", key=key)
    draws = jax.jit(jax.vmap(draw))(jax.random.split(KEY, 2_000))
    error = 4 * draws.std(axis=0) / np.sqrt(2_000)
    assert np.all(draws.mean(axis=0) - error <= variational)
    assert np.all(variational <= _jitted(posteriors, log_weights, estimator="pairwise"))
    assert np.all(variational <= -jax.nn.log_softmax(log_weights, axis=0) + 1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_coinciding_posteriors_have_no_divergence(estimator, random_gaussian, x64):
    posteriors = DiagonalGaussian(*(jnp.repeat(leaf[None], 4, axis=0) for leaf in random_gaussian(27, 5, 3)))
    log_weights = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    actual = _jitted(posteriors, log_weights, estimator=estimator, key=KEY)
    np.testing.assert_allclose(actual, 0.0, atol=1e-12)


@pytest.mark.parametrize("estimator", ["variational", "monte_carlo"])
def test_distant_posteriors_have_a_jensen_shannon_divergence_of_log_m(estimator, x64):
    posteriors = DiagonalGaussian(jnp.array([0.0, 1e3, -1e3])[:, None, None], jnp.zeros((3, 1, 1)))
    divergence = jnp.mean(_jitted(posteriors, estimator=estimator, key=KEY), axis=0)
    np.testing.assert_allclose(divergence, np.log(3.0), rtol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_modality_alone_has_no_divergence(estimator, random_gaussian, x64):
    posteriors = random_gaussian(28, 3, 2, 4)
    present = jnp.array([[False, False], [True, False], [False, False]])
    options = {"estimator": estimator, "key": KEY}
    np.testing.assert_allclose(_jitted(posteriors, present=present, **options), 0.0, atol=1e-12)
    with_prior = _jitted(posteriors, present=present, prior_weight=0.5, **options)
    assert with_prior[1, 0] != 0.0 and not np.any(with_prior[:, 1]) and not np.any(with_prior[::2])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_masked_example_is_that_of_the_smaller_model(estimator, random_gaussian, x64):
    posteriors, log_weights = random_gaussian(29, 4, 4, 3), random_gaussian(30, 4).mean
    present = jnp.array([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]], bool)
    keys = jax.random.split(KEY, (4, 4))
    run = functools.partial(_jitted, prior_weight=0.2, estimator=estimator)
    actual = run(posteriors, log_weights, present, key=keys)
    for b in range(4):
        rows = np.flatnonzero(present[:, b])
        expected = run(select(posteriors, (rows, b)), log_weights[rows], key=keys[rows, b])
        np.testing.assert_allclose(actual[rows, b], expected, rtol=1e-12, atol=1e-14)
    assert not np.any(actual[~present])


@pytest.mark.parametrize("estimator", ["pairwise", "variational"])
def test_a_posterior_of_weight_zero_is_compared_but_no_component(estimator, random_gaussian, x64):
    posteriors, off = random_gaussian(44, 3, 4, 2), jnp.array([0.0, -jnp.inf, 0.0])
    total = lambda q, log_weights: jnp.sum(_jitted(q, log_weights, estimator=estimator)[0])
    kls = kls_from(posteriors, 1)[::2]
    expected = jnp.mean(kls, axis=0)
    if estimator == "variational":
        expected = -jax.nn.logsumexp(-kls, axis=0) + np.log(2.0)
    np.testing.assert_allclose(_jitted(posteriors, off, estimator=estimator)[1], expected, rtol=1e-12)
    gradient, weight_gradient = jax.grad(total, argnums=(0, 1))(posteriors, off)
    assert not np.any(gradient.mean[1]) and not np.any(gradient.log_variance[1]) and weight_gradient[1] == 0.0
    assert np.all(np.isfinite(weight_gradient)) and np.all(gradient.mean[::2] != 0.0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_permuting_modalities_permutes_the_divergences(estimator, random_gaussian, x64):
    posteriors, log_weights = random_gaussian(32, 4, 5, 2), random_gaussian(33, 4, 5).mean
    present = jnp.asarray(np.random.default_rng(34).random((4, 5)) < 0.7)
    keys, order = jax.random.split(KEY, (4, 5)), np.array([2, 0, 3, 1])
    run = functools.partial(_jitted, prior_weight=0.1, estimator=estimator)
    straight = run(posteriors, log_weights, present, key=keys)
    permuted = run(select(posteriors, order), log_weights[order], present[order], key=keys[order])
    np.testing.assert_allclose(permuted, straight[order], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_finite_differences(estimator, random_gaussian, x64):
    posteriors, log_weights = random_gaussian(35, 3, 4, 2), jnp.log(jnp.array([0.2, 0.3, 0.5]))
    present = jnp.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)

    def divergence(posteriors, log_weights, prior_weight, temperature):
        options = {"temperature": temperature, "key": KEY, "num_samples": 2}
        return _jitted(posteriors, log_weights, present, prior_weight, estimator, **options)

    check_grads(divergence, (posteriors, log_weights, 0.3, 1.7), order=1, modes=("rev",))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_stopped_prior_passes_no_gradient_to_the_other_posteriors(estimator, random_gaussian):
    posteriors = random_gaussian(36, 3, 4, 2)
    run = functools.partial(_jitted, prior_weight=0.2, estimator=estimator, key=KEY)
    np.testing.assert_array_equal(run(posteriors, prior_gradient=False), run(posteriors))
    stopped = jax.grad(lambda q: jnp.sum(run(q, prior_gradient=False)[1]))(posteriors)
    free = jax.grad(lambda q: jnp.sum(run(q)[1]))(posteriors)
    for stopped_leaf, free_leaf in zip(stopped, free):
        assert not np.any(stopped_leaf[::2]) and np.all(stopped_leaf[1] != 0.0)
        assert np.all(free_leaf[::2] != 0.0)


@pytest.mark.parametrize("estimator", ["pairwise", "variational"])
def test_a_stopped_prior_leaves_the_gradient_of_the_compared_posterior(estimator, random_gaussian, x64):
    posteriors = random_gaussian(37, 3, 4, 2)
    total = lambda q: jnp.sum(_jitted(q, estimator=estimator, prior_gradient=False)[1])
    weights = jnp.full((3, 4), 1 / 3)
    if estimator == "variational":  # -log sum_j v_j exp(-KL_j) has the derivative of KL_j weighed by phi_j
        weights = jax.nn.softmax(-kls_from(posteriors, 1), axis=0)
    expected = jax.grad(lambda q: jnp.sum(weights * kls_from(posteriors, 1, q)))(select(posteriors, 1))
    for leaf, reference in zip(jax.grad(total)(posteriors), expected):
        np.testing.assert_allclose(leaf[1], reference, rtol=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_kernel_is_the_same_for_every_example_alone(estimator, random_gaussian, x64):
    posteriors, keys = random_gaussian(38, 3, 4, 2), jax.random.split(KEY, (3, 4))
    run = functools.partial(_jitted, prior_weight=0.2, estimator=estimator, num_samples=3)
    batched = run(posteriors, key=keys)
    mapped = jax.vmap(lambda q, keys: run(q, key=keys), in_axes=1, out_axes=1)(posteriors, keys)
    looped = np.stack([run(select(posteriors, (slice(None), b)), key=keys[:, b]) for b in range(4)], axis=1)
    np.testing.assert_allclose(batched, looped, rtol=1e-12)
    np.testing.assert_allclose(mapped, looped, rtol=1e-12)


def test_wrong_requests_are_refused(random_gaussian):
    with pytest.raises(ValueError, match="'exact'.*pairwise, variational, monte_carlo"):
        kl_to_mixture(random_gaussian(39, 2, 3), estimator="exact")
    with pytest.raises(ValueError, match="needs a key"):
        kl_to_mixture(random_gaussian(39, 2, 3), estimator="monte_carlo")
