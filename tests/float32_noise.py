"""Equal noise in float32 and in float64, of which JAX draws different numbers from one key."""

import jax
import jax.numpy as jnp
import pytest


@pytest.fixture
def float32_noise(monkeypatch):
    """All draws are made in float32 and then given in the type that was asked for."""

    def replace(name):
        original = getattr(jax.random, name)

        def draw(key, shape=(), dtype=None):
            return original(key, shape, jnp.float32).astype(dtype or jnp.result_type(float))

        monkeypatch.setattr(jax.random, name, draw)

    for name in ("normal", "uniform", "laplace", "gumbel"):
        replace(name)
