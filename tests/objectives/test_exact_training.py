"""MVAE trained on the linear-Gaussian model reaches the exact log-evidence and posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_gaussian import LinearGaussian, exact, make_batch, make_params

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.objectives import mvae

STEPS, EXAMPLES = 4000, 64


@pytest.mark.parametrize("names", [("alpha", "beta"), ("alpha", "beta", "gamma")])
def test_mvae_reaches_log_evidence_and_posterior(names, x64):
    # In one dimension the posterior's precision is 1 + sum_m precision_m, so the product of N(0, I) and
    # linear encoders of constant variance can be exact, with decoders that learn too and any mask.
    params = make_params(names, latent_dim=1)
    present = np.random.default_rng(3).uniform(size=(len(names), EXAMPLES)) < 0.7
    batch = make_batch(params, present | ~present.any(0), seed=5)
    options, hyper = mvae.Options(subsampling=False), {"beta": jnp.asarray(1.0)}
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, STEPS))

    def mean_loss(params, key):
        return jnp.mean(mvae.loss(key, batch, LinearGaussian(params), hyper, options).loss)

    def step(carry, key):
        params, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params):
        keys = jax.random.split(jax.random.key(0), STEPS)
        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)
        keys = jax.random.split(jax.random.key(1), 5000)
        return params, jax.lax.map(lambda key: mean_loss(params, key), keys, batch_size=1000)

    start = np.mean([exact(params, batch, b)[0] for b in range(EXAMPLES)])
    params, losses = train(params)
    log_evidence, means, covariances = zip(*(exact(params, batch, b) for b in range(EXAMPLES)))
    assert np.mean(log_evidence) > start + 0.1
    standard_error = np.std(losses) / np.sqrt(len(losses))
    assert standard_error < 1.5e-3
    # Nats per example; the bound lies below the evidence.
    assert -4 * standard_error < np.mean(losses) + np.mean(log_evidence) < 2e-3 + 4 * standard_error
    q = product_of_experts(LinearGaussian(params).encode(batch.inputs), batch.present, True)
    np.testing.assert_allclose(q.mean[:, 0], np.array(means)[:, 0], atol=0.04)
    np.testing.assert_allclose(np.exp(q.log_variance[:, 0]), np.array(covariances)[:, 0, 0], rtol=0.03)
