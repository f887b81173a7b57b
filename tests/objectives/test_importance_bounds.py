"""Importance-weighted bounds against the exact log-evidence, and the bias and variance of the DReG gradient."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from linear_gaussian import LinearGaussian, exact, make_batch, make_params
from scipy.special import logsumexp

from mmvm_jax.objectives import common, mmvae, mmvae_plus

BOTH = np.ones((2, 1), bool)
REPEATS = 4000


def setting(names=("alpha", "beta"), spread=1.0):
    """One example of a one-dimensional latent; encoders are off the posterior, by a factor ``spread``."""
    params = make_params(names, latent_dim=1)
    batch = make_batch(params, BOTH[: len(names)], seed=1)
    _, mean, covariance = exact(params, batch, 0)
    for offset, name in zip((-0.5, 0.5), names):
        encoder = params["encoders"][name]
        encoder["matrix"], encoder["spread"] = 0.0 * encoder["matrix"], 0.0 * encoder["spread"]
        encoder["offset"] = jnp.asarray(mean + spread * offset * np.sqrt(np.diag(covariance)))
        encoder["log_variance"] = jnp.asarray(np.log(np.diag(covariance)) + 0.4)
    return params, batch


@functools.partial(jax.jit, static_argnames=("options", "repeats", "module"))
def repeated(params, batch, options, repeats=REPEATS, beta=1.0, module=mmvae):
    """Losses and encoder gradients of independent draws: [R], {..: [R, ...]}."""

    def loss(params, key):
        return module.loss(key, batch, LinearGaussian(params), {"beta": beta}, options).loss[0]

    values, gradients = jax.vmap(jax.value_and_grad(loss), (None, 0))(params, jax.random.split(jax.random.key(0), repeats))
    return values, gradients


def mean_and_error(values):
    return np.mean(values, axis=0), np.std(values, axis=0, ddof=1) / math.sqrt(len(values))


def encoder_gradients(params, batch, repeats=REPEATS, **options):
    """[R, number of encoder parameters that matter]: offsets and log-variances of both encoders."""
    beta = options.pop("beta", 1.0)
    _, gradients = repeated(params, batch, mmvae.Options(**options), repeats, beta)
    columns = [gradients["encoders"][name][leaf] for name in params["encoders"] for leaf in ("offset", "log_variance")]
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize("module", [mmvae, mmvae_plus])
@pytest.mark.parametrize("bound", ["loose", "tight"])
def test_bounds_rise_with_the_number_of_samples(bound, module, x64):
    params, batch = setting(spread=3.0)
    if module is mmvae_plus:
        params = make_params(("alpha", "beta"), latent_dim=2)
        batch = make_batch(params, BOTH, seed=1)
        params["method"] = {"mean": jnp.zeros((2, 1)), "log_variance": jnp.zeros((2, 1))}
        choose = lambda **kwargs: mmvae_plus.Options(private_dim=1, **kwargs)
    else:
        choose = mmvae.Options
    results = []
    for num_samples in (1, 4, 16):
        losses, _ = repeated(params, batch, choose(num_samples=num_samples, bound=bound), 2000, module=module)
        results.append(mean_and_error(-losses))
    for (low, low_error), (high, high_error) in zip(results, results[1:]):
        assert high > low + 4 * math.hypot(low_error, high_error)


def test_tight_bound_tends_to_the_log_evidence_and_the_loose_one_does_not(x64):
    params, batch = setting(spread=3.0)
    log_evidence, _, _ = exact(params, batch, 0)
    estimates = {}
    for bound in ("loose", "tight"):
        losses, _ = repeated(params, batch, mmvae.Options(num_samples=4000, bound=bound), 50)
        estimates[bound], error = mean_and_error(-losses)
        assert error < 2e-3
    assert abs(estimates["tight"] - log_evidence) < 5e-3
    # The loose limit is the mean over m of log E_{q_m}[p(x, z) / q_mix(z)], by quadrature.
    model = LinearGaussian(params)
    q = jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0, 0], model.encode(batch.inputs))
    grid = np.linspace(-12, 12, 20001)
    z = jnp.broadcast_to(grid[None, :, None, None], (2, grid.size, 1, 1))
    log_likelihood = np.asarray(model.log_likelihood(batch, z)).sum(axis=0)[:, 0]
    log_normal = lambda mean, log_variance: -0.5 * (
        math.log(2 * math.pi) + log_variance + (grid - mean) ** 2 * math.exp(-log_variance)
    )
    log_q = np.array([log_normal(q.mean[m], q.log_variance[m]) for m in range(2)])
    log_weight = log_likelihood + log_normal(0.0, 0.0) - (logsumexp(log_q, axis=0) - math.log(2))
    limit = np.mean(logsumexp(log_q + log_weight, axis=1) + math.log(grid[1] - grid[0]))
    assert limit < log_evidence - 0.05
    assert abs(estimates["loose"] - limit) < 5e-3


AGREEING = {
    "one modality": (setting, {"names": ("alpha",)}, {"num_samples": 4, "bound": "loose"}),
    "one modality, tight": (setting, {"names": ("alpha",)}, {"num_samples": 4, "bound": "tight"}),
    "coinciding posteriors": (setting, {"spread": 0.0}, {"num_samples": 4, "bound": "loose"}),
    "coinciding posteriors, tight": (setting, {"spread": 0.0}, {"num_samples": 4, "bound": "tight"}),
    "one sample, loose": (setting, {"spread": 3.0}, {"num_samples": 1, "bound": "loose"}),
    "one modality, beta 0.5": (setting, {"names": ("alpha",)}, {"num_samples": 4, "beta": 0.5}),
}


def difference(setting_options, options, repeats=REPEATS):
    """DReG minus reparametrised, in standard errors and in size, both estimates, and both variances."""
    params, batch = setting(**setting_options)
    runs = [encoder_gradients(params, batch, repeats, gradient=name, **options) for name in common.GRADIENTS]
    (plain, plain_error), (dreg, dreg_error) = map(mean_and_error, runs)
    # Both are sums over the posteriors where these coincide; only what moves all of them has to agree.
    return plain, dreg, np.hypot(plain_error, dreg_error), [np.var(run, axis=0) for run in runs]


@pytest.mark.parametrize("name", AGREEING)
def test_dreg_agrees_in_expectation_where_it_must(name, x64):
    _, setting_options, options = AGREEING[name]
    plain, dreg, error, _ = difference(setting_options, options)
    print(name, plain, dreg, error)
    assert np.all(np.abs(dreg - plain) < 4 * error)
