"""How a training step of MMVM grows with the batch, the number of modalities and the latent dimension.

    python -m benchmarks.scaling --what=small_cnn --plot=scaling.png

One of the three is varied at a time from 128 examples, 5 modalities and 64 dimensions. Beside the fastest of a few
steps stands what the law says: the time of that middle point, times the counted work over its counted work. XLA
counts the work, of the loss and its gradient before any optimisation.
"""

import jax
import matplotlib.pyplot as plt
from absl import app, flags

from benchmarks.measure import seconds_of_steps
from benchmarks.workloads import random_batch, workload
from mmvm_jax import train as training
from mmvm_jax.method import make_method
from mmvm_jax.model import make_model

_WHAT = flags.DEFINE_enum("what", "small_cnn", ["small_cnn", "polymnist_resnet"], "Which networks.")
_STEPS = flags.DEFINE_integer("steps", 5, "Repetitions that are timed.")
_PLOT = flags.DEFINE_string("plot", "", "Where to draw the table; empty for nowhere.")
_AXES = {
    "batch": flags.DEFINE_list("batch", ["32", "64", "128", "256", "512"], "Numbers of examples."),
    "modalities": flags.DEFINE_list("modalities", ["2", "5", "10", "20"], "Numbers of modalities."),
    "latent_dim": flags.DEFINE_list("latent_dim", ["16", "64", "256", "1024"], "Latent dimensions."),
}
MIDDLE = {"batch": 128, "modalities": 5, "latent_dim": 64}


def main(argv):
    del argv
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {_WHAT.value}; seconds")
    middle, rows = measure(**MIDDLE), {}
    print(f"{'axis':10} {'value':>6} {'compile':>8} {'step':>8} {'law':>8}")
    for axis, values in _AXES.items():
        rows[axis] = []
        for value in map(int, values.value):
            compile_seconds, seconds, work = middle if value == MIDDLE[axis] else measure(**MIDDLE | {axis: value})
            rows[axis].append((value, seconds, middle[1] * work / middle[2]))
            print(f"{axis:10} {value:6d} {compile_seconds:8.2f} {seconds:8.3f} {rows[axis][-1][2]:8.3f}", flush=True)
    if _PLOT.value:
        draw(rows, _PLOT.value)


def measure(batch: int, modalities: int, latent_dim: int) -> tuple[float, float, float]:
    """Seconds to compile, seconds of the fastest step, and its counted work in operations."""
    config, offered = workload(_WHAT.value, modalities)
    config.network.latent_dim = latent_dim
    model, method = make_model(offered, config.network), make_method(config.method)
    examples = random_batch(offered, batch)
    compiling, times = seconds_of_steps(config, model, method, examples, _STEPS.value)
    variables = training.init_state(config, model, method, examples).variables
    hyper = training.hyper_parameters(config)

    def loss(variables):
        prepared = model.prepare(examples)
        return method.loss(jax.random.key(0), prepared, model.bind(variables), hyper).loss.mean()

    work = jax.jit(jax.grad(loss)).lower(variables).cost_analysis()["flops"]
    return compiling, min(times), work


def draw(rows: dict, path: str) -> None:
    """Measured points and the law, one panel an axis."""
    figure, panels = plt.subplots(1, len(rows), figsize=(9, 3), layout="constrained")
    for panel, (axis, points) in zip(panels, rows.items()):
        values, seconds, law = zip(*points)
        panel.loglog(values, law, "-", color="0.6", label="by counted work")
        panel.loglog(values, seconds, "o", color="C0", label="measured")
        panel.set_xticks(values, values, minor=False)
        panel.minorticks_off()
        panel.set_xlabel(axis.replace("_", " "))
    panels[0].set_ylabel("seconds a step")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    app.run(main)
