"""Small networks with batch normalisation and dropout, a family like those of ``mmvm_jax.networks``, and their data."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmvm_jax.config import base
from mmvm_jax.data.dataset import DataSet, Split
from mmvm_jax.networks.normalization import BatchNorm, Dropout
from mmvm_jax.types import DiagonalGaussian, Modality

KINDS = ("vector",)
NUM_EXAMPLES, BATCH_SIZE = 64, 16


class Encoder(nn.Module):
    latent_dim: int

    @nn.compact
    def __call__(self, x, training=None):
        x = nn.relu(BatchNorm()(nn.Dense(8)(x), training))
        x = Dropout()(x, training)
        return DiagonalGaussian(*jnp.split(nn.Dense(2 * self.latent_dim)(x), 2, axis=-1))


class Decoder(nn.Module):
    size: int

    @nn.compact
    def __call__(self, z, training=None):
        return nn.Dense(self.size)(Dropout()(nn.relu(BatchNorm()(nn.Dense(8)(z), training)), training))


def make(modality, config):
    return Encoder(config.latent_dim), Decoder(modality.shape[0])


def config():
    """Small networks with batch normalisation."""
    values = base()
    values.network.update({"name": "normalised", "latent_dim": 3})
    values.method.beta = 0.5
    values.train.update({"batch_size": BATCH_SIZE, "checkpoint_every": 10, "log_every": 5})
    return values


def data(sizes=(5, 4, 5)) -> DataSet:
    """Three modalities, in a bank for each size, of which the second is so rare that many shards of a batch lack it."""
    generator = np.random.default_rng(0)
    modalities = tuple(Modality(name, (size,), "vector", "normal") for name, size in zip("abc", sizes, strict=True))
    inputs = {m.name: generator.normal(2.0, 3.0, (NUM_EXAMPLES, *m.shape)) for m in modalities}
    present = generator.random((3, NUM_EXAMPLES)) < np.array([[0.7], [0.3], [0.7]])
    present[0] |= ~present.any(axis=0)
    split = Split(inputs, present, np.zeros(NUM_EXAMPLES, np.int32))
    for row, array in enumerate(inputs.values()):
        array[~present[row]] = np.nan
    return DataSet(modalities, split, split, 1, "class", "fingerprint")
