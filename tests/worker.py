"""One process of a training with batch statistics and missing modalities: python worker.py --workdir=DIR --steps=N."""

import jax
import normalised
import numpy as np
from absl import flags

from mmvm_jax import command_line, parallel
from mmvm_jax.config import base
from mmvm_jax.data.pipeline import DataSet, Split
from mmvm_jax.method import make_method
from mmvm_jax.model import make_model
from mmvm_jax.networks import NETWORKS
from mmvm_jax.train import train
from mmvm_jax.types import Modality

NUM_EXAMPLES, BATCH_SIZE = 64, 16
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_STEPS = flags.DEFINE_integer("steps", None, "Of the whole training.", required=True)
_ACCUMULATE = flags.DEFINE_integer("accumulate", 1, "As in config.train.")
_join = command_line.process_flags()


def config():
    """Two banks of small networks with batch normalisation."""
    values = base()
    values.network.update({"name": "normalised", "latent_dim": 3})
    values.method.beta = 0.5
    values.train.update({"batch_size": BATCH_SIZE, "checkpoint_every": 10, "log_every": 5})
    return values


def data() -> DataSet:
    """Three modalities, of which the second is so rare that many shards of a batch lack it."""
    generator = np.random.default_rng(0)
    modalities = tuple(Modality(name, (size,), "vector", "normal") for name, size in zip("abc", (5, 4, 5)))
    inputs = {m.name: generator.normal(2.0, 3.0, (NUM_EXAMPLES, *m.shape)) for m in modalities}
    present = generator.random((3, NUM_EXAMPLES)) < np.array([[0.7], [0.3], [0.7]])
    present[0] |= ~present.any(axis=0)
    split = Split(inputs, present, np.zeros(NUM_EXAMPLES, np.int32))
    for row, array in enumerate(inputs.values()):
        array[~present[row]] = np.nan
    return DataSet(modalities, split, split, 1, "class", "fingerprint")


def work() -> None:
    """Trains, and writes the final parameters."""
    _join()
    NETWORKS["normalised"] = normalised
    values, dataset = config(), data()
    values.train.steps, values.train.accumulate = _STEPS.value, _ACCUMULATE.value
    model, method = make_model(dataset.modalities, values.network), make_method(values.method)
    with parallel.together(), parallel.folder_to_write(_WORKDIR.value) as folder:
        state = train(values, model, method, dataset, folder)
    if parallel.is_first():
        leaves = jax.tree.leaves(jax.device_get((state.params, state.statistics)))
        np.savez(f"{_WORKDIR.value}/final.npz", *leaves)


if __name__ == "__main__":
    command_line.start(work)
