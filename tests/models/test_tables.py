"""The likelihood of a table equals those of its columns, and learned scales those of the kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mmvm_jax import distributions as d
from mmvm_jax.models import tables
from mmvm_jax.models.likelihoods import DEGREES, LIKELIHOODS, learned_parameters
from mmvm_jax.types import Column, Modality

COLUMNS = (
    Column("categorical", 3),
    Column("normal"),
    Column("poisson", rate=4.0),
    Column("bernoulli"),
    Column("normal"),
    Column("categorical", 4),
)
TABLE = Modality("t", (6,), "table", "by_column", columns=COLUMNS, missing_entries=True)
LEARNED = {"log_scale": jnp.array([9.0, 0.3, 9.0, 9.0, -0.7, 9.0])}
RNG = np.random.default_rng(0)
OUTPUT = RNG.normal(size=(2, 5, 11))  # 2 draws, 5 examples
X = np.stack(
    [[0, 1, 2, 0, 1], RNG.normal(size=5), [0, 3, 1, 9, 2], [0, 1, 1, 0, 1], RNG.normal(size=5), [3, 0, 1, 2, 3]]
)
X = jnp.asarray(X.T, float)[None]


def by_hand(x, output):
    """The log-likelihood of each column: [..., 6]."""
    scale = np.exp(6.0 * np.tanh(np.asarray(LEARNED["log_scale"]) / 6.0))
    level = lambda place, start, stop: jax.nn.log_softmax(output[..., start:stop])[int(x[place])]
    return np.array([
        level(0, 0, 3),
        stats.norm.logpdf(x[1], output[3], scale[1]),
        stats.poisson.logpmf(x[2], 4.0 * np.exp(output[4])),
        stats.bernoulli.logpmf(x[3], 1.0 / (1.0 + np.exp(-output[5]))),
        stats.norm.logpdf(x[4], output[6], scale[4]),
        level(5, 7, 11),
    ])  # fmt: skip


def test_the_likelihood_of_a_table_is_that_of_its_known_columns(x64):
    mask = RNG.random((1, 5, 6)) < 0.6
    holed = jnp.where(mask, X, jnp.nan)
    values = tables.log_likelihood(holed, OUTPUT, TABLE, LEARNED, jnp.asarray(mask))
    for draw in range(2):
        for example in range(5):
            parts = by_hand(np.asarray(X[0, example]), np.asarray(OUTPUT[draw, example]))
            np.testing.assert_allclose(values[draw, example], parts[mask[0, example]].sum(), rtol=1e-6)
    whole = tables.log_likelihood(X, OUTPUT, TABLE, LEARNED)
    np.testing.assert_allclose(whole[1, 2], by_hand(np.asarray(X[0, 2]), np.asarray(OUTPUT[1, 2])).sum(), rtol=1e-6)
    gradient = jax.grad(lambda output: tables.log_likelihood(holed, output, TABLE, LEARNED, jnp.asarray(mask)).sum())
    assert np.isfinite(gradient(OUTPUT)).all()


def test_expected_data_of_a_table(x64):
    means = tables.expected(OUTPUT, TABLE)
    np.testing.assert_allclose(means[..., :3].sum(axis=-1), 1.0)
    np.testing.assert_allclose(means[..., 4], 4.0 * np.exp(OUTPUT[..., 4]), rtol=1e-6)
    data = tables.to_data(means, TABLE)
    np.testing.assert_array_equal(data[..., 0], np.argmax(OUTPUT[..., :3], axis=-1))
    np.testing.assert_array_equal(data[..., 5], np.argmax(OUTPUT[..., 7:], axis=-1))
    np.testing.assert_allclose(data[..., 1], OUTPUT[..., 3])
    variance = tables.variance(means, TABLE, LEARNED)
    np.testing.assert_allclose(variance[..., 4], means[..., 4])  # Poisson
    np.testing.assert_allclose(variance[..., 5], means[..., 5] * (1 - means[..., 5]))
    np.testing.assert_allclose(variance[..., 3], np.exp(12.0 * np.tanh(0.3 / 6.0)), rtol=1e-6)
    assert np.isnan(tables.of_columns(variance, TABLE)[..., [0, 5]]).all()


SCIPY = {  # name: (log-density given x, location or log-mean, learned parameter), variance given mean and parameter
    "laplace_learned_scale": (lambda x, a, s: stats.laplace.logpdf(x, a, np.exp(s)), lambda m, s: 2 * np.exp(2 * s)),
    "normal_learned_scale": (lambda x, a, s: stats.norm.logpdf(x, a, np.exp(s)), lambda m, s: np.exp(2 * s)),
    "student_t": (lambda x, a, s: stats.t.logpdf(x, DEGREES, a, np.exp(s)), lambda m, s: 2 * np.exp(2 * s)),
    "negative_binomial": (
        lambda x, a, s: stats.nbinom.logpmf(x, np.exp(-s), 1.0 / (1.0 + np.exp(a + s))),
        lambda m, s: m + np.exp(s) * m**2,
    ),
}


@pytest.mark.parametrize("name", SCIPY)
def test_learned_scales_meet_scipy(name, x64):
    log_density, variance = SCIPY[name]
    likelihood, modality = LIKELIHOODS[name], Modality("m", (4,), "vector", name)
    x = np.array([[0.0, 1.0, 7.0, 200.0]] * 3)
    output = RNG.normal(size=(3, 4))
    (parameter, start), *_ = learned_parameters(modality).items()
    assert start.shape == (4,)
    learned = {parameter: jnp.array([-1.0, 0.0, 0.5, 1.0])}
    limited = 6.0 * np.tanh(np.asarray(learned[parameter]) / 6.0)
    value = likelihood.log_likelihood(jnp.asarray(x), jnp.asarray(output), modality, learned)
    np.testing.assert_allclose(value, log_density(x, output, limited).sum(axis=-1), rtol=1e-6)
    mask = x != 7.0
    value = likelihood.log_likelihood(
        jnp.where(mask, x, jnp.nan), jnp.asarray(output), modality, learned, jnp.asarray(mask)
    )
    np.testing.assert_allclose(value, np.where(mask, log_density(x, output, limited), 0).sum(axis=-1), rtol=1e-6)
    means = likelihood.mean(jnp.asarray(output), modality)
    expected = variance(np.asarray(means), np.broadcast_to(limited, (3, 4)))
    np.testing.assert_allclose(likelihood.variance(means, modality, learned), expected, rtol=1e-6)


def test_a_negative_binomial_without_dispersion_is_poisson(x64):
    x, log_mean = jnp.arange(8.0), jnp.linspace(-2.0, 3.0, 8)
    value = d.negative_binomial_log_likelihood(x, log_mean, jnp.full(8, -18.0), 0)
    np.testing.assert_allclose(value, d.poisson_log_likelihood(x, log_mean, 0), atol=1e-5)


@pytest.mark.parametrize("log_mean", [-80.0, 0.0, 80.0])
def test_a_negative_binomial_stays_finite(log_mean):
    function = lambda mean, dispersion: d.negative_binomial_log_likelihood(
        jnp.array([0.0, 3.0, 1e6]), mean, dispersion, 1
    )
    for dispersion in (-6.0, 0.0, 6.0):
        value, gradients = jax.value_and_grad(function, (0, 1))(jnp.full(3, log_mean), jnp.full(3, dispersion))
        assert np.isfinite(value) and all(np.isfinite(one).all() for one in gradients)
