"""Sixteen runs as one program, as ``mmvm_jax.sweep`` trains them, against one run."""

import concurrent.futures
import statistics
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import measure
from benchmarks.measure import STEPS
from benchmarks.workloads import random_batch, workload
from configs import uci_multiple_features
from mmvm_jax.data.dataset import complete_split
from mmvm_jax.data.uci_multiple_features import MODALITIES
from mmvm_jax.models.model import make_model
from mmvm_jax.objectives.method import make_method
from mmvm_jax.runtime import devices
from mmvm_jax.training.feeding import Resident
from mmvm_jax.training.optimizer import hyper_parameters
from mmvm_jax.training.state import init_state
from mmvm_jax.training.step import make_step

RUNS = 16


def run(table, options) -> None:
    """Adds, for a small MLP and a small CNN, the time of a step of one run and of all, and the gain."""
    options.wait()
    settings = {"mlp": (uci_multiple_features.get_config(), MODALITIES), "small_cnn": workload("small_cnn", 0)}
    for what, (config, modalities) in settings.items():
        batch = random_batch(modalities, 4 if options.toy else config.train.batch_size)
        steps = {number: _steps(config, modalities, batch, number) for number in (1, RUNS)}
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(measure.first_call, steps.values()))  # which compiles
        seconds = {number: _seconds_of_a_step(steps[number], options.toy) for number in steps}
        milliseconds = {f"ms_{number}": 1e3 * value for number, value in seconds.items()}
        gain = RUNS * seconds[1] / seconds[RUNS]
        table.add("runs", f"{what}, {RUNS} as one program", gain=gain, **milliseconds)


def _seconds_of_a_step(steps: Callable, toy: bool) -> float:
    return statistics.median(measure.time_in_turn({"": steps}, 3 if toy else 30)[""]) / STEPS


def _steps(config, modalities, batch, number: int) -> Callable:
    """Steps of so many runs, without arguments, as ``train`` and ``train_replicas`` make them."""
    model, method = make_model(modalities, config.network), make_method(config.method)
    step, read, index = make_step(config, model, method, 1_000_000), Resident.read, batch.index
    state, hyper = init_state(config, model, method, batch), hyper_parameters(config)
    if number > 1:
        step, read = jax.vmap(step), jax.vmap(read, in_axes=(None, 1))
        repeat = lambda leaf: np.stack([np.asarray(leaf)] * number)
        state, hyper, index = jax.tree.map(repeat, state), jax.tree.map(repeat, hyper), np.stack([index] * number, 1)
        hyper["seed"] = np.arange(number, dtype=np.uint32)
    run_steps, table = (
        devices.data_parallel_steps(step, read),
        Resident.place(complete_split(batch.inputs, batch.labels)),
    )
    carry = [devices.replicate(state)]

    def run():
        carry[0], metrics, _ = run_steps(carry[0], [index] * STEPS, table, hyper, False)
        jax.block_until_ready(metrics)

    return run
