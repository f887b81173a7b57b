"""A run small enough for a test of the loop: its configuration, its data, and a signal that comes during it."""

import os
import signal

import numpy as np
import pytest

from mmvm_jax.config import base
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.types import Modality


@pytest.fixture
def config():
    config = base()
    config.network.name = "mlp"
    config.network.latent_dim = 3
    config.network.mlp.hidden_dims = (8,)
    config.method.beta = 0.5
    config.train.update({"batch_size": 16, "steps": 12, "checkpoint_every": 4, "log_every": 3})
    return config


@pytest.fixture
def data():
    """Two vectors and an image; every example lacks something, and the first eight lack all of ``b``."""
    generator = np.random.default_rng(0)
    modalities = (
        Modality("a", (5,), "vector", "normal"),
        Modality("b", (4, 4, 1), "image", "laplace", scale=0.75),
        Modality("c", (5,), "vector", "normal"),
    )
    split = Split(
        {
            "a": generator.normal(size=(64, 5)).astype(np.float32),
            "b": generator.integers(0, 255, (64, 4, 4, 1)).astype(np.uint8),
            "c": generator.normal(size=(64, 5)).astype(np.float32),
        },
        generator.random((3, 64)) < 0.7,
        generator.integers(0, 3, 64).astype(np.int32),
    )
    split.present[1, :8] = False
    split.inputs["a"][~split.present[0]] = np.nan
    return DataSet(modalities, split, split, 3, "class", "fingerprint")


def ask_after(monkeypatch, owner, method, step, number=signal.SIGTERM):
    """Sends this process a signal once ``owner.method`` has been called for a step."""
    call = getattr(owner, method)

    def call_then_ask(self, done, *rest):
        call(self, done, *rest)
        if done == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(owner, method, call_then_ask)
