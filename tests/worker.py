"""One process of a training with batch statistics and missing modalities: python worker.py --workdir=DIR --steps=N."""

import jax
import normalised
import numpy as np
from absl import flags

from mmvm_jax import command_line, parallel
from mmvm_jax.method import make_method
from mmvm_jax.model import make_model
from mmvm_jax.networks import NETWORKS
from mmvm_jax.train import train

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_STEPS = flags.DEFINE_integer("steps", None, "Of the whole training.", required=True)
_ACCUMULATE = flags.DEFINE_integer("accumulate", 1, "As in config.train.")
_join = command_line.process_flags()


def work() -> None:
    """Trains, and writes the final parameters."""
    _join()
    NETWORKS["normalised"] = normalised
    values, dataset = normalised.config(), normalised.data()
    values.train.steps, values.train.accumulate = _STEPS.value, _ACCUMULATE.value
    model, method = make_model(dataset.modalities, values.network), make_method(values.method)
    with parallel.together(), parallel.folder_to_write(_WORKDIR.value) as folder:
        state = train(values, model, method, dataset, folder)
    if parallel.is_first():
        leaves = jax.tree.leaves(jax.device_get((state.params, state.statistics)))
        np.savez(f"{_WORKDIR.value}/final.npz", *leaves)


if __name__ == "__main__":
    command_line.start(work, "the same command goes on from what it has saved")
