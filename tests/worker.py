"""One process of trainings with batch statistics and missing modalities, one after the other.

python worker.py --run=float64,STEPS,DIR [--run=float32,STEPS,DIR ...]
"""

import jax
import normalised
import numpy as np
from absl import flags

from mmvm_jax.models.model import make_model
from mmvm_jax.networks import NETWORKS
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import command_line, processes
from mmvm_jax.training.loop import train

_RUNS = flags.DEFINE_multi_string("run", None, "Precision, steps of the whole training, workdir.", required=True)
_join = command_line.process_flags()


def work() -> None:
    """Trains, and writes the final parameters and statistics."""
    _join()
    NETWORKS["normalised"] = normalised
    for run in _RUNS.value:
        precision, steps, workdir = run.split(",", 2)
        jax.config.update("jax_enable_x64", precision == "float64")
        state = _train(int(steps), workdir)
        if processes.is_first():
            leaves = jax.tree.leaves(jax.device_get((state.params, state.statistics)))
            np.savez(f"{workdir}/final.npz", *leaves)


def _train(steps: int, workdir: str):
    values, dataset = normalised.config(), normalised.data(sizes=(5, 5, 5))  # one bank: half as much to compile
    values.train.steps = steps
    model, method = make_model(dataset.modalities, values.network), make_method(values.method)
    with processes.detect_disconnection(), processes.folder_to_write(workdir) as folder:
        return train(values, model, method, dataset, folder)


if __name__ == "__main__":
    command_line.start(work, "run the same command again to resume")
