"""MVAE trained on the linear-Gaussian model reaches the exact log-evidence and posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_gaussian import LinearGaussian, exact, make_batch, make_params

from mmvm_jax.aggregation import product_of_experts
from mmvm_jax.objectives import mvae


@pytest.mark.parametrize("names", [("alpha", "beta"), ("alpha", "beta", "gamma")])
def test_mvae_reaches_log_evidence_and_posterior(names, x64):
    # In one dimension the posterior's precision is 1 + sum_m precision_m, so a product of constant-variance linear
    # encoders and N(0, I) is the exact posterior; noise in the gradient vanishes there too (decoders are fixed).
    params = make_params(names, latent_dim=1)
    present = np.random.default_rng(3).uniform(size=(len(names), 64)) < 0.7
    batch = make_batch(params, present | ~present.any(0), seed=5)
    options, hyper = mvae.Options(subsampling=False), {"beta": jnp.asarray(1.0)}
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, 1500))

    def mean_loss(encoders, key):
        keyed = batch._replace(index=batch.index)
        return jnp.mean(mvae.loss(key, keyed, LinearGaussian(params | {"encoders": encoders}), hyper, options).loss)

    def step(carry, key):
        encoders, state = carry
        updates, state = optimizer.update(jax.grad(mean_loss)(encoders, key), state)
        return (optax.apply_updates(encoders, updates), state), None

    @jax.jit
    def train(encoders):
        keys = jax.random.split(jax.random.key(0), 1500)
        (encoders, _), _ = jax.lax.scan(step, (encoders, optimizer.init(encoders)), keys)
        losses = jax.lax.map(lambda key: mean_loss(encoders, key), jax.random.split(jax.random.key(1), 200))
        return encoders, losses

    encoders, losses = train(params["encoders"])
    answers = [exact(params, batch, b) for b in range(64)]
    log_evidence = np.mean([answer[0] for answer in answers])
    assert abs(np.mean(losses) + log_evidence) < 2e-3  # nats
    q = product_of_experts(LinearGaussian(params | {"encoders": encoders}).encode(batch.inputs), batch.present, True)
    np.testing.assert_allclose(q.mean[:, 0], [answer[1][0] for answer in answers], atol=0.01)
    np.testing.assert_allclose(np.exp(q.log_variance[:, 0]), [answer[2][0, 0] for answer in answers], rtol=0.02)
