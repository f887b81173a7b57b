"""Data of every kind with a model small enough to be made for a single test."""

import numpy as np

from mmvm_jax.config import own_data

KINDS = {"photo": "image", "map": "image", "height": "vector", "spikes": "counts", "note": "tokens"}
N = 60


def arrays(**changes) -> dict[str, np.ndarray]:
    """One array of every kind, each absent from some examples; changes replace or, where None, remove arrays."""
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (N, 5))
    words[np.arange(5) >= rng.integers(2, 6, N)[:, None]] = 0
    contents = {
        "photo": rng.integers(0, 256, (N, 4, 4), dtype=np.uint8),
        "map": rng.random((N, 4, 4, 2)),
        "height": rng.normal(170, 10, (N, 3)),
        "spikes": rng.poisson(3.0, (N, 4)),
        "note": words,
    }
    present = rng.random((len(contents), N)) < 0.7
    present[0] |= ~present.any(axis=0)
    contents |= {f"{name}__present": row for name, row in zip(list(contents), present, strict=True)}
    return {name: array for name, array in {**contents, **changes}.items() if array is not None}


def config(method: str = "mmvm"):
    """Three steps of one small hidden layer."""
    values = own_data()
    values.method.name = method
    values.method.mmvae_plus.private_dim = 2
    values.method.meme.update({"num_samples": 1, "num_pseudo_inputs": 2})
    values.network.latent_dim = 4
    values.network.mlp.hidden_dims = (8,)
    values.network.small_cnn.channels = (4,)
    values.optimizer.learning_rate = 1e-2
    values.train.update({"batch_size": 16, "steps": 3, "log_every": 3})
    values.evaluation.update({"batch_size": 16, "mixture_components": 3})
    return values
