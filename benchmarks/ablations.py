"""The ablations of MMVM on polydigits, each one change of the command line, as the table that RESULTS.md shows.

    python -m benchmarks.ablations --workdir=runs/ablations --seeds=0

Runs one after the other; what a workdir already holds is not run again.
"""

import json
import os
import subprocess
import sys

from absl import app, flags

MMVM = "--config.method.mmvm."
ABLATIONS = {
    "as configured: pairwise, alpha 1 to 0 linearly, uniform weights": (),
    "alpha 0 from the start": (f"{MMVM}anneal_alpha.shape=constant",),
    "alpha 1 to 0, cosine": (f"{MMVM}anneal_alpha.shape=cosine",),
    "alpha 1 to 0, exponential": (f"{MMVM}anneal_alpha.shape=exponential",),
    "one expert in the prior, drawn at random": (f"{MMVM}num_experts=1",),
    "two experts in the prior, drawn at random": (f"{MMVM}num_experts=2",),
    "soft gate, one for the data set": (f"{MMVM}gate=global",),
    "soft gate, per example": (f"{MMVM}gate=per_example",),
    "hard gate, per example": (f"{MMVM}gate=per_example", f"{MMVM}hard=True"),
    "variational estimator": (f"{MMVM}estimator=variational",),
    "variational estimator, temperature 100 to 1": (
        f"{MMVM}estimator=variational",
        f"{MMVM}anneal_temperature.shape=exponential",
        f"{MMVM}anneal_temperature.start=100.0",
        f"{MMVM}anneal_temperature.fraction=1.0",
    ),
    "Monte Carlo estimator": (f"{MMVM}estimator=monte_carlo",),
    "no gradient into the prior": (f"{MMVM}stop_prior_gradient=True",),
}
COLUMNS = {
    "cross coherence": "coherence/cross_mean",
    "probe": "probe/accuracy/mean",
    "Jensen-Shannon": "divergence/jensen_shannon",
    "reconstruction mse": "reconstruction/mse/m0",
}

_WORKDIR = flags.DEFINE_string("workdir", "runs/ablations", "Folder of all runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of every ablation.")
_EPOCHS = flags.DEFINE_float("epochs", 8.0, "Epochs of every run.")


def main(argv):
    del argv
    print(f"| ablation | seed | {' | '.join(COLUMNS)} |\n|---|---|{'---|' * len(COLUMNS)}", flush=True)
    for name, changes in ABLATIONS.items():
        for seed in _SEEDS.value:
            print(f"| {name} | {seed} | {' | '.join(_measure(name, seed, changes))} |", flush=True)


def _measure(name: str, seed: str, changes: tuple[str, ...]) -> list[str]:
    """The figures of one run; its log is kept beside its workdir."""
    workdir = os.path.join(_WORKDIR.value, name.replace(" ", "_").replace(",", "").replace(":", ""), seed)
    os.makedirs(workdir, exist_ok=True)
    command = [sys.executable, "-m", "mmvm_jax.main", "--config=configs/polydigits.py", f"--workdir={workdir}"]
    command += [f"--config.seed={seed}", f"--config.train.epochs={_EPOCHS.value}", *changes]
    with open(f"{workdir}.log", "a") as log:
        if subprocess.run(command, stdout=log, stderr=log).returncode:
            return [f"failed, see {workdir}.log"] + [""] * (len(COLUMNS) - 1)
    with open(os.path.join(workdir, "evaluation.json")) as file:
        values = json.load(file)
    return [f"{values[column]:.3f}" for column in COLUMNS.values()]


if __name__ == "__main__":
    app.run(main)
