"""Training, conditional generation and likelihoods against MultiVae (Senellart et al. 2025), on a CPU.

    python -m benchmarks.multivae --what=training --network=small_cnn --methods=mopoe,mmvae_plus --modalities=2,5,10

Both have the same networks, weights, data, batch and optimiser. ``--what=agreement`` compares the losses and the norms
of the gradients of the first batch, from the same noise. The other tasks are timed in turn, in one process, and print
a line per number: ours, MultiVae's, and their ratio, the median with the minimum and the maximum of the rounds; above
1, ours is faster. Wants an idle machine. Needs the extra ``bench``.
"""

import logging
import os
import tempfile

import flax
import jax
import torch
from absl import app, flags

from benchmarks.multivae_parts import agreement, generation, likelihood, loop, training
from benchmarks.multivae_parts.case import make
from benchmarks.peers.multivae import MODELS
from mmvm_jax.runtime import compilation_cache, devices

_WHAT = flags.DEFINE_list("what", ["agreement", "training", "loop", "generation", "likelihood"], "Tasks.")
_NETWORK = flags.DEFINE_enum("network", "small_cnn", ["small_cnn", "mlp"], "Which networks.")
_METHODS = flags.DEFINE_list("methods", list(MODELS), "Methods.")
_MODALITIES = flags.DEFINE_list("modalities", ["2", "5", "10"], "Numbers of modalities.")
_BATCH = flags.DEFINE_integer("batch", 64, "Examples in a batch; 64 is MultiVae's default.")
_STEPS = flags.DEFINE_integer("steps", 10, "Steps in a round of training, at most 10.")
_EXAMPLES = flags.DEFINE_integer("examples", 512, "Examples of generation.")
_SAMPLES = flags.DEFINE_integer("samples", 100, "Samples of the likelihood of each of 32 examples.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds that are timed.")

THREADS = 2  # of PyTorch; JAX takes all cores
LIKELIHOOD_EXAMPLES = 32


def main(argv):
    del argv
    jax.config.update("jax_platforms", "cpu")
    devices.keep_freed_memory()  # as mmvm_jax.main does; PyTorch in this process benefits, too
    torch.set_num_threads(THREADS)
    logging.disable(logging.WARNING)
    print(f"JAX {jax.__version__}, Flax {flax.__version__}, PyTorch {torch.__version__}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        compilation_cache.enable(folder)  # every round of our loop starts anew
        for name in _METHODS.value:
            for count in map(int, _MODALITIES.value):
                for what in _WHAT.value:
                    for line in lines(what, name, count):
                        print(f"{_NETWORK.value:9} {name:10} {count:2}  {line}", flush=True)


def lines(what: str, name: str, modalities: int):
    """The lines of one task."""
    case = lambda batch_size, examples: make(name, _NETWORK.value, modalities, batch_size, examples)
    batch_size, steps, rounds = _BATCH.value, _STEPS.value, _ROUNDS.value
    if what == "agreement":
        return agreement.run(case(batch_size, batch_size))
    if what == "training":
        return training.run(case(batch_size, batch_size), steps, rounds)
    if what == "loop":
        return loop.run(case(batch_size, steps * batch_size), steps, rounds)
    if what == "generation":
        return generation.run(case(batch_size, _EXAMPLES.value), rounds)
    return likelihood.run(case(LIKELIHOOD_EXAMPLES, LIKELIHOOD_EXAMPLES), _SAMPLES.value, rounds)


if __name__ == "__main__":
    app.run(main)
