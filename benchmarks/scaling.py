"""How a training step of MMVM grows with the batch, the modalities, the latent dimension, the data and the devices.

    python -m benchmarks.scaling --what=small_cnn --plot=scaling.png

One of them is varied at a time from 128 of 1,280 examples, 5 modalities, 64 dimensions and 1 device; every point is
measured in a process of its own. Beside the fastest of a few steps stands what the law says: the time of that middle
point, times the counted work over its counted work, over the devices. XLA counts the work, of the loss and its
gradient before any optimisation. On a CPU the devices share its cores, so that more of them only cost.
"""

import concurrent.futures
import multiprocessing
import os

import jax
import matplotlib.pyplot as plt
from absl import app, flags

from benchmarks.measure import seconds_of_steps
from benchmarks.workloads import random_batch, workload
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state

_WHAT = flags.DEFINE_enum("what", "small_cnn", ["small_cnn", "polymnist_resnet"], "Which networks.")
_STEPS = flags.DEFINE_integer("steps", 5, "Repetitions that are timed.")
_PLOT = flags.DEFINE_string("plot", "", "Where to draw the table; empty for nowhere.")
_AXES = {
    "batch": flags.DEFINE_list("batch", ["32", "64", "128", "256", "512"], "Numbers of examples in a batch."),
    "modalities": flags.DEFINE_list("modalities", ["2", "5", "10", "20"], "Numbers of modalities."),
    "latent_dim": flags.DEFINE_list("latent_dim", ["16", "64", "256", "1024"], "Latent dimensions."),
    "examples": flags.DEFINE_list("examples", ["1280", "10000", "60000"], "Numbers of training examples."),
    "devices": flags.DEFINE_list("devices", ["1", "2", "4"], "Numbers of devices."),
}
MIDDLE = {"batch": 128, "modalities": 5, "latent_dim": 64, "examples": 1280, "devices": 1}


def main(argv):
    del argv
    middle, rows = _in_new_process(**MIDDLE), {}
    print(f"jax {jax.__version__}, {_WHAT.value}; seconds")
    print(f"{'axis':10} {'value':>6} {'compile':>8} {'step':>8} {'law':>8}")
    for axis, values in _AXES.items():
        rows[axis] = []
        for value in map(int, values.value):
            at_middle = value == MIDDLE[axis]
            compile_seconds, seconds, work = middle if at_middle else _in_new_process(**MIDDLE | {axis: value})
            rows[axis].append((value, seconds, middle[1] * work / middle[2]))
            print(f"{axis:10} {value:6d} {compile_seconds:8.2f} {seconds:8.3f} {rows[axis][-1][2]:8.3f}", flush=True)
    if _PLOT.value:
        draw(rows, _PLOT.value)


def _in_new_process(devices: int, **point) -> tuple[float, float, float]:
    """``measure`` where so many devices are seen, which a process decides once."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, fresh, _show_devices, (devices,)) as pool:
        return pool.submit(measure, _WHAT.value, _STEPS.value, **point).result()


def _show_devices(number: int) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(number)))
    jax.config.update("jax_num_cpu_devices", number)


def measure(
    what: str, steps: int, batch: int, modalities: int, latent_dim: int, examples: int
) -> tuple[float, float, float]:
    """Seconds to compile, seconds of the fastest step, and the counted work of a device in operations."""
    config, offered = workload(what, modalities)
    config.network.latent_dim, config.train.batch_size = latent_dim, batch
    model, method = make_model(offered, config.network), make_method(config.method)
    compiling, times = seconds_of_steps(config, model, method, random_batch(offered, examples), steps)
    on_cpu = jax.default_backend() == "cpu"
    return compiling, min(times), count_work(config, model, method, batch) / (1 if on_cpu else jax.device_count())


def count_work(config, model, method, batch: int) -> float:
    """Operations of the loss and its gradient."""
    examples = random_batch(model.modalities, batch)
    variables = init_state(config, model, method, examples).variables
    hyper = hyper_parameters(config)

    def loss(variables):
        prepared = model.prepare(examples)
        return method.loss(jax.random.key(0), prepared, model.bind(variables), hyper).loss.mean()

    return jax.jit(jax.grad(loss)).lower(variables).cost_analysis()["flops"]


def draw(rows: dict, path: str) -> None:
    """Measured points and the law, one panel an axis."""
    figure, panels = plt.subplots(1, len(rows), figsize=(14, 3), layout="constrained", sharey=True)
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
